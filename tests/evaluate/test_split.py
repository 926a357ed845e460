"The split is the claim: a checkpoint is scored by what it was trained with, on masks that mean what they meant"
import json
import shutil
from pathlib import Path

import pytest

from given.shell import NAMES, mask, picture, refused, shell, start
from otseg.commands.score import meaning_changes
from otseg.core import read_json, write_json
from otseg.model.checkpoint import file_digest

pytestmark = [pytest.mark.filterwarnings('ignore:.*meaningless.*')]
SCORE = ('otseg-eval', 'run', '--data', 'data')


@pytest.fixture
def world(base, folder):
    shutil.copytree(base, folder, dirs_exist_ok=True)
    return folder


def describe(**more):
    Path('data/dataset.json').write_text(json.dumps(dict(names=NAMES, unseen=['dog']) | more), encoding='utf-8')


def forget():
    "The run as an earlier version left it: nothing says what its data was"
    Path('run/data.json').unlink(missing_ok=True)
    for config in Path('run/checkpoints').glob('*/config.json'):
        record = read_json(config)
        record['info'].pop('data', None)
        write_json(config, record)
        manifest = read_json(config.parent/'manifest.json')
        write_json(config.parent/'manifest.json', manifest | {'config.json': file_digest(config)})


SPLITS = {'unseen edited': (['sky'], '`unseen` was dog, now sky'), 'one more': (['dog', 'sky'], '`unseen` was dog, now dog, sky'),
          'none': ([], '`unseen` was dog, now nothing')}
MASKS = {'ignore': (dict(ignore=[9]), '`ignore` was nothing, now 9'),
         'map': (dict(map={'0': 0, '1': 1, '2': 2, '3': 3, '9': 1}), '`map` was nothing, now 9 -> 1'),
         'zero': (dict(reduce_zero_label=True), '`reduce_zero_label` was false, now true')}


@pytest.mark.parametrize('age', ['now', 'earlier'])
@pytest.mark.parametrize('change', SPLITS)
def test_another_split_is_refused(world, change, age):
    "Whether the run noted its data or not: its own vocabulary knows the split"
    unseen, says = SPLITS[change]
    if age == 'earlier': forget()
    describe(unseen=unseen)
    refused(*SCORE, '--output', 'x.json', says=['should be used with the classes, the split and the masks of its', says])
    assert not Path('x.json').exists()


@pytest.mark.parametrize('change', MASKS)
def test_masks_that_mean_something_else_are_refused(world, change):
    more, says = MASKS[change]
    describe(**more)
    refused(*SCORE, says=['the masks of its training', says, 'Undo this change; otseg-eval --cross'])


def test_the_split_of_the_checkpoint_is_what_is_scored(world):
    "In its order of classes, from a run that notes its data as from one that does not; --cross takes it from what training saw"
    told = []
    for age in ('now', 'earlier'):
        if age == 'earlier': forget()
        assert shell(*SCORE, '--output', f'{age}.json')[0] == 0
        told.append(read_json(f'{age}.json')['classes'])
    assert told[0] == told[1] and [c['unseen'] for c in told[0]] == [n == 'dog' for n in NAMES]
    describe(unseen=['sky'])
    code, out, err = shell(*SCORE, '--cross', '--output', 'crossed.json')
    assert code == 0 and [c['unseen'] for c in read_json('crossed.json')['classes']] == [n == 'dog' for n in NAMES], err


def grow(): picture(Path('data/images/val/9.jpg'), (48, 40)); mask(Path('data/masks/val/9.png'), [0, 1, 2, 3], (48, 40))


def other(): picture(Path('data/images/val/0.jpg'), (40, 56), seed=77)


@pytest.mark.parametrize('change, says', [(grow, '`pictures` were 2, now 3'), (other, 'other names or other sizes in bytes')])
def test_other_pictures_than_the_run_was_scored_on(world, change, says):
    "Refused where the run has scored them, and where they are meant, they are told apart by a word"
    code, out, err = shell(*start('--eval_every', '1'))
    assert code == 0 and read_json('new/data.json')['eval']['split'] == 'val', err
    again = ('otseg-eval', 'new', '--data', 'data')
    assert shell(*again)[0] == 0
    change()
    refused(*again, says=['should be used on the pictures of its run (val)', says, 'Pass --other-pictures'])
    code, out, err = shell(*again, '--other-pictures', '--output', 'x.json')
    assert code == 0 and Path('x.json').exists(), err
    assert shell(*SCORE)[0] == 0  # a run that never scored this split asks for no pictures of it


def test_means_say_what_they_cover(world):
    "Classes without a pixel, in the lines and in the record"
    code, out, err = shell(*SCORE, '--output', 'all.json')
    assert code == 0 and 'means cover' not in out and read_json('all.json')['covered'] == dict(seen=[3, 3], unseen=[1, 1])
    for path in Path('data/masks/val').iterdir(): mask(path, [0, 1, 255], (48, 40) if path.stem == '1' else (40, 56))
    code, out, err = shell(*SCORE, '--output', 'some.json')
    line = next(line for line in out.splitlines() if line.startswith('means cover'))
    covered = read_json('some.json')['covered']
    told = [f'mIoU({g[0].upper()}) {covered[g][0]} of {k} {g} classes' for g, k in (('seen', 3), ('unseen', 1))]
    assert code == 0 and ', '.join(told) in line
    assert line.endswith('without a labelled pixel: ' + ', '.join(NAMES[2:]))


def test_results_are_written_before_a_word_is_printed(world, monkeypatch):
    "Output that cannot be written to loses none"
    class Closed:
        encoding = 'ascii'
        def write(self, text): raise BrokenPipeError(32, 'Broken pipe')
        def flush(self): raise BrokenPipeError(32, 'Broken pipe')
        def isatty(self): return False
    from otseg.commands.evaluate import evaluate
    monkeypatch.setattr('sys.stdout', Closed())
    try: evaluate('run', data='data', output=str(world/'x.json'))
    except (BrokenPipeError, SystemExit): pass
    monkeypatch.undo()
    assert read_json(world/'x.json')['kind'] == 'otseg-eval' and (world/'x.csv').exists()


RULES = dict(names=['a', 'b'], unseen=['b'], ignore=[], map={}, reduce_zero_label=False)


@pytest.mark.parametrize('before, now, says', [
    ({}, {}, []), (dict(dataset='x', split='train', digest='1'), dict(dataset='x', split='val', digest='2'), []),
    (dict(ignore=[[], [3]]), dict(ignore=[3]), []), (dict(reduce_zero_label=[False, True]), {}, []),
    (dict(ignore=[3]), dict(ignore=[]), ['`ignore` was 3, now nothing']),
    (dict(ignore=[3, 4]), dict(ignore=[3]), ['`ignore` was 3, 4, now 3']),
    (dict(unseen=['a', 'b']), {}, ['`unseen` was a, b, now b']),
    (dict(names=['b', 'a']), {}, ['`names`: class 0 was b, now a (and 1 more)'])])
def test_a_split_is_read_from_some_of_the_masks_that_it_was_trained_on(before, now, says):
    assert meaning_changes(RULES | before, RULES | now) == says
