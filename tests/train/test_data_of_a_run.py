"A run is on the data that it began with: its split, what its masks mean, its pictures; and it says what it is on"
import json
import shutil
from pathlib import Path

import pytest

from given.shell import NAMES, refused, shell, start, tree, weights
from given.training import Squares, recipe, steps_left
from otseg.core import read_json, write_json
from otseg.model.checkpoint import file_digest
from otseg.train.trainer import fit

pytestmark = [pytest.mark.filterwarnings('ignore:.*meaningless.*')]
RESUME = start('--resume', output='run')


@pytest.fixture
def world(base, folder):
    "A copy of a data set and a run of two of its four steps"
    shutil.copytree(base, folder, dirs_exist_ok=True)
    return folder


def describe(**more):
    Path('data/dataset.json').write_text(json.dumps(dict(names=NAMES, unseen=['dog']) | more), encoding='utf-8')


def grow(name='9', size=(48, 40)):
    from given.shell import mask, picture
    picture(Path(f'data/images/train/{name}.jpg'), size)
    mask(Path(f'data/masks/train/{name}.png'), [0, 1, 2, 3], size)


def replace_picture():
    from given.shell import picture
    picture(Path('data/images/train/0.jpg'), (48, 40), seed=77)


def shrink():
    for path in ('data/images/train/3.jpg', 'data/masks/train/3.png'): Path(path).unlink()


CHANGES = {  # what somebody did between a run and its resumption: what is said
    'unseen edited': (lambda: describe(unseen=['sky']), '`unseen` was dog, now sky'),
    'one more unseen': (lambda: describe(unseen=['dog', 'sky']), '`unseen` was dog, now dog, sky'),
    'none unseen': (lambda: describe(unseen=[]), '`unseen` was dog, now nothing'),
    'ignore': (lambda: describe(ignore=[9]), '`ignore` was nothing, now 9'),
    'zero': (lambda: describe(reduce_zero_label=True), '`reduce_zero_label` was false, now true'),
    'a picture more': (grow, '`pictures` were 4, now 5'),
    'a picture fewer': (shrink, '`pictures` were 4, now 3'),
    'another picture': (replace_picture, 'the pictures have other names or other sizes in bytes than before')}


@pytest.mark.parametrize('change', CHANGES)
def test_a_run_goes_on_with_the_same_data_alone(world, change):
    do, says = CHANGES[change]
    do()
    refused(*RESUME, says=['run should go on with the data that it was trained on', says, 'Undo this change, or begin a new run'])


def test_undone_it_goes_on(world):
    describe(unseen=['sky'])
    refused(*RESUME, says='`unseen` was dog')
    describe()
    shutil.rmtree('run/checkpoints/step_000002')
    before = weights('run', 1)
    code, out, err = shell(*RESUME)
    assert code == 0 and 'going on from run/checkpoints/step_000001' in err, err
    assert read_json('run/data.json')['train']['unseen'] == ['dog'] and before.keys() == weights().keys()


def test_the_list_of_pictures_counts_and_not_the_files_beside(world):
    "A note, a hidden file, another split, another root: the same data"
    Path('data/notes.txt').write_text('mine', encoding='utf-8')
    Path('data/images/train/.DS_Store').touch()
    shutil.copytree('data', 'moved')
    code, out, err = shell(*start('--resume', output='run', data='moved'))
    assert code == 0 and 'already complete' in out, err


def test_the_scored_split_counts_too(world):
    more = ('--eval_every', '1', '--strip', '0')
    assert shell(*start(*more))[0] == 0
    for path in ('data/images/val/1.jpg', 'data/masks/val/1.png'): Path(path).unlink()
    refused(*start('--resume', *more), says=['that it was scored on', '`pictures` were 2, now 1'])


def test_each_checkpoint_knows_its_data(world):
    for step in (1, 2):
        told = read_json(f'run/checkpoints/step_00000{step}/config.json')['info']['data']
        assert told == read_json('run/data.json')['train'] and told['unseen'] == ['dog'] and told['pictures'] == 4
    Path('run/data.json').unlink()
    describe(unseen=['sky'])
    refused(*RESUME, says='`unseen` was dog, now sky')


def test_who_may_read_new_files_may_read_a_run(world):
    "Weights too, which safetensors leaves to their owner alone"
    Path('new').touch()
    modes = {p: p.stat().st_mode for p in Path('run').rglob('*') if p.is_file()}
    assert Path('run/checkpoints/step_000001/model.safetensors') in modes
    assert not (other := {str(p): oct(m) for p, m in modes.items() if m != Path('new').stat().st_mode}), other


def as_an_earlier_version(run):
    "A run whose folder does not tell its data"
    (run/'data.json').unlink()
    for checkpoint in run.glob('checkpoints/*'):
        record = read_json(checkpoint/'config.json')
        del record['info']['data']
        write_json(checkpoint/'config.json', record)
        listed = read_json(checkpoint/'manifest.json') | {'config.json': file_digest(checkpoint/'config.json')}
        write_json(checkpoint/'manifest.json', listed)


def test_a_run_of_an_earlier_version_goes_on_with_a_word(world):
    as_an_earlier_version(Path('run'))
    before = weights()
    shutil.rmtree('run/checkpoints/step_000002')
    with pytest.warns(UserWarning, match='run does not say what data it was trained on: an earlier version began it'):
        assert shell(*RESUME)[0] == 0
    assert all((v == weights()[k]).all() for k, v in before.items())
    assert read_json('run/data.json')['train']['pictures'] == 4  # from now on it says so


def test_a_run_without_a_checkpoint_begins_with_what_there_is(world):
    "Nothing was trained, so nothing is mixed"
    shutil.rmtree('run/checkpoints')
    describe(unseen=['sky'])
    code, out, err = shell(*RESUME)
    assert code == 0 and read_json('run/data.json')['train']['unseen'] == ['sky'], err


@pytest.mark.parametrize('content, says', [
    ('[]', 'data.json should be a JSON object'), ('{"train": 3}', None), ('{"trai', 'not valid JSON')])
def test_a_damaged_note(world, content, says):
    "It is not taken for another data set"
    Path('run/data.json').write_text(content, encoding='utf-8')
    if says: refused(*RESUME, says=says)
    else: assert shell(*RESUME)[0] == 0


def test_the_first_lines(world):
    code, out, err = shell(*start('--eval_every', '2', '--strip', '0'))
    assert code == 0
    first = err.splitlines()[:2]
    assert first[0].startswith('train: 4 pictures') and first[0].endswith('3 seen and 1 unseen classes')
    assert first[1].startswith('eval: 2 pictures')


# what teaches nothing

def relabel(split, value):
    from given.shell import mask
    from PIL import Image
    for path in Path(f'data/masks/{split}').glob('*.png'): mask(path, [value], Image.open(path).size)


@pytest.mark.parametrize('value', [255, 1])
def test_nothing_to_learn_from(world, value):
    "Every pixel ignored, or of unseen classes"
    relabel('train', value)
    refused(*start(), says='none of the 4 masks has a pixel of a class that is trained on: all is ignored')


def test_unseen_pixels_alone_teach_a_supervised_run(world):
    relabel('train', 1)
    assert shell(*start(recipe='folder-supervised'))[0] == 0


def test_a_class_that_is_nowhere(world):
    "It is told of in the first lines"
    describe(names=[*NAMES, 'water'])
    with pytest.warns(UserWarning, match='without a pixel in training: water'): assert shell(*start())[0] == 0


def test_all_classes_unseen(world):
    describe(unseen=NAMES)
    refused(*start(), says=['at least one class of data should be seen', 'got 4 of 4 unseen', 'or train supervised'])


def test_nothing_to_score(world):
    relabel('val', 255)
    code, out, err = shell(*start('--eval_every', '2'))
    assert code == 2 and 'masks of the evaluation split should hold pixels of a class of data, got ignored pixels alone' in err
    assert steps_left('new') == [1, 2]


@pytest.mark.parametrize('value, by, group', [(0, 'miou_seen', 'unseen'), (1, 'miou_unseen', 'seen')])
def test_a_group_that_is_not_in_the_scored_split(world, value, by, group):
    "hIoU would be NaN or 0 for ever, and no best kept"
    relabel('val', value)
    with pytest.warns(UserWarning, match=f'no {group} class occurs in val: the best weights are chosen by {by}'):
        code, out, err = shell(*start('--eval_every', '1', '--strip', '0'))
    assert code == 0 and Path('new/checkpoints/best').is_dir(), err
    rows = [r.split(',') for r in Path('new/scores.csv').read_text(encoding='utf-8').splitlines()]
    scores = [float(r[rows[0].index(by)]) for r in rows[1:]]
    assert [float(r[-1]) for r in rows[1:]] == pytest.approx([max(scores[:i + 1]) for i in range(2)])


def test_pairs(tmp_path):
    "A list of pictures and masks, in a run that is scored and goes on"
    data = [(Squares()[i]['image'].clamp(0, 1), Squares()[i]['labels']) for i in range(6)]
    r = recipe(steps=4, save_every=2, eval_every=2)
    given = dict(dataset=data, eval_dataset=data[:3], vocab=Squares.vocab, progress=False)
    whole = fit(r, output=tmp_path/'run', **given)
    shutil.rmtree(tmp_path/'run/checkpoints/step_000004')
    assert fit(r, output=tmp_path/'run', resume=True, **given).losses == whole.losses[2:]
    before = tree(tmp_path)
    with pytest.raises(ValueError, match='`pictures` were 6, now 5'):
        fit(r, output=tmp_path/'run', resume=True, **given | dict(dataset=data[:5]))
    assert tree(tmp_path) == before


def cut(name):
    path = Path(f'data/images/train/{name}.jpg')
    content = path.read_bytes()
    path.write_bytes(content[:900])
    return lambda: path.write_bytes(content)


@pytest.mark.parametrize('more', [(), ('--skip_bad', '1')])
def test_a_picture_that_was_mended_is_no_other_picture(world, more):
    "What stopped the run, or was skipped, is restored; a second picture that changed is another data set all the same"
    from given.shell import LAST
    mend = cut(LAST)
    code, out, err = shell(*start(*more))
    assert code == (0 if more else 2) and f'{LAST}' in read_json('new/damaged.json'), err
    if more: shutil.rmtree('new/checkpoints/step_000002')
    mend()
    other = Path('data/images/train')/f'{(int(LAST) + 1) % 4}.jpg'
    content = other.read_bytes()
    other.write_bytes(content + b'\0')
    refused(*start('--resume', *more), says='the pictures have other names or other sizes in bytes than before')
    other.write_bytes(content)
    code, out, err = shell(*start('--resume', *more))
    assert code == 0, err
