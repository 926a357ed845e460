"The commands as a user runs them: the whole way from pictures to segmented photographs, and every mistake on that way"
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from given.shell import (
    COMMANDS, EVAL, FILES, FIRST, LAST, NAMES, TRAIN, ask, mask, misused,
    picture, process, refused, rows, shell, start, tree, weights,
)
import otseg.predict.segmenter as segmenter

os.environ.setdefault('MPLBACKEND', 'Agg')
pytestmark = [pytest.mark.filterwarnings('ignore:.*meaningless.*'),
              pytest.mark.filterwarnings('ignore:.*torch.jit.*')]


# the way through

def test_train_leaves_a_whole_run(world):
    assert sorted(tree('run')) == sorted(['recipe.json', 'environment.json', 'data.json', 'log.csv', 'checkpoints'] + [
        f'checkpoints/step_{i:06d}{f}' for i in (1, 2) for f in FILES])
    assert len(rows('run/log.csv')) == 3 and rows('run/log.csv')[0].startswith('step,loss,')
    config = json.loads(Path('run/checkpoints/step_000002/config.json').read_text(encoding='utf-8'))
    assert config['vocab']['names'] == NAMES and config['vocab']['unseen'] == [1]
    assert config['info']['step'] == 2 and config['info']['recipe']['image_size'] == 32
    assert not any('.clip.' in k for k in weights())   # the frozen CLIP is not in it


def test_resume_of_a_complete_run(world):
    before = tree('run')
    code, out, _ = shell(*start('--resume', output='run'))
    assert code == 0 and 'already complete' in out and 'step_000002' in out
    assert tree('run') == before


def test_resume_of_a_killed_run(world):
    "The last checkpoint and the log's end are lost: the run ends in the same bits"
    whole, log = weights(), rows('run/log.csv')
    shutil.rmtree('run/checkpoints/step_000002')
    Path('run/log.csv').write_text('\n'.join(log[:2]) + '\n1,0.', encoding='utf-8')  # a line that was being written
    code, out, _ = shell(*start('--resume', output='run'))
    assert code == 0 and 'saved in run/checkpoints/step_000002' in out
    again = weights()
    assert again.keys() == whole.keys() and all(torch.equal(again[k], whole[k]) for k in whole)
    seconds = -1
    assert [r.split(',')[:seconds] for r in rows('run/log.csv')] == [r.split(',')[:seconds] for r in log]


def test_resume_without_a_run_starts_one(world):
    code, out, _ = shell(*start('--resume'))
    assert code == 0 and all(torch.equal(v, weights()[k]) for k, v in weights('new').items())


def test_transductive_run_from_a_checkpoint(world):
    code, out, err = shell(*start('--start', 'run', recipe='folder-transductive'))
    assert code == 0 and out.startswith('folder-transductive: loss '), err
    code, out, err = shell(*start(recipe='folder-supervised', output='all'))
    assert code == 0 and out.startswith('folder-supervised: loss '), err


def test_eval(world):
    code, out, err = shell(*EVAL, '--output', 'scores/val.json')
    assert code == 0, err
    for word in (*NAMES, 'mIoU(S)', 'mIoU(U)', 'hIoU'): assert word in out
    scores = json.loads(Path('scores/val.json').read_text(encoding='utf-8'))
    assert scores['pictures'] == 2 and 'step_000002' in scores['checkpoint'] and 'val' in scores['data']
    assert sorted(tree('scores')) == ['val.csv', 'val.json']
    assert [row.split(',')[0] for row in rows('scores/val.csv')] == ['class', *NAMES]
    same = shell('otseg-eval', 'run/checkpoints/step_000002', '--data', 'data', '--split', 'val')[1]
    assert same.splitlines()[:4] == out.splitlines()[:4]             # a run folder means its newest checkpoint
    refused(*EVAL, '--output', 'scores/val.json', says=['scores/val.json', '--overwrite'])
    code, out, _ = shell(*EVAL, '--split', 'train', '--output', 'scores/val.json', '--overwrite')
    assert code == 0 and json.loads(Path('scores/val.json').read_text(encoding='utf-8'))['pictures'] == 4


def test_eval_uses_the_templates_of_training(world, monkeypatch):
    used, encode = [], segmenter.encode_vocab
    monkeypatch.setattr(segmenter, 'encode_vocab', lambda c, vocab, **k: used.append(vocab.templates) or encode(c, vocab, **k))
    assert shell(*EVAL)[0] == 0
    path = Path('data/dataset.json')
    stored = json.loads(path.read_text(encoding='utf-8'))
    path.write_text(json.dumps(stored | dict(templates=['a {}', 'a small {}'])), encoding='utf-8')
    assert shell(*EVAL)[0] == 0
    assert used[0] == used[1] and len(used[0]) == 6


def test_eval_of_other_classes(world):
    refused('otseg-eval', 'run', '--data', 'other', says=['run should be trained on the classes of other', '--cross'])
    code, out, err = shell('otseg-eval', 'run', '--data', 'other', '--cross')
    assert code == 0, err
    table = {line.split()[0]: line for line in out.splitlines() if line.split()}
    for name in ('water', 'sky', 'tree'): assert name in out
    assert 'cat' not in table
    named = shell('otseg-eval', 'run', '--data', 'other', '--cross', 'folder', '--output', 'new.json')
    assert named[:2] == (0, out + 'scores: new.json\nclasses: new.csv\n'), named[2]
    told = json.loads(Path('new.json').read_text(encoding='utf-8'))
    assert told['cross'] and told['seen_penalty'] == 0 and told['miou'] is not None
    refused('otseg-eval', 'run', '--data', 'other', '--cross', 'ade', says="unknown data set 'ade'")


def test_predict(world):
    photos = ['portrait.jpg', 'landscape.png']
    code, out, err = shell(*ask(*photos, classes='sky, dog,water', output='out'))
    assert code == 0, err
    assert sorted(tree('out')) == sorted(['predict.json', *(
        f'{p}{t}' for p in photos for t in ('.mask.png', '.overlay.png', '.prompts.png', '.json'))])
    for photo in photos:
        size = Image.open(photo).size
        drawn, overlay = Image.open(f'out/{photo}.mask.png'), Image.open(f'out/{photo}.overlay.png')
        assert drawn.mode == 'P' and drawn.size == overlay.size == size and np.array(drawn).max() < 3
        assert min(Image.open(f'out/{photo}.prompts.png').size) > 100
        told = json.loads(Path(f'out/{photo}.json').read_text(encoding='utf-8'))  # dog and water had no labels
        assert told['classes'] == ['sky', 'dog', 'water'] and told['unseen'] == ['dog', 'water']
        assert told['size'] == [size[1], size[0]] and abs(sum(told['areas'].values()) - 1) < 1e-4
        share = {n: float((np.array(drawn) == i).mean()) for i, n in enumerate(told['classes'])}
        assert all(abs(told['areas'][n] - share[n]) < 1e-5 for n in share)
        assert photo in out
    assert shell(*ask(*photos, classes='sky, dog,water', output='out'))[1].startswith('2 pictures: 0 done now, 2 done earlier')
    refused(*ask(*photos, classes='sky', output='out'), says=['out should be gone on with', '--overwrite'])
    code, out, err = shell(*ask(*photos, show='dog', output='out'), '--overwrite')
    assert code == 0 and json.loads(Path('out/portrait.jpg.json').read_text(encoding='utf-8'))['classes'] == NAMES, err


def test_predict_synonyms_background_and_templates(world):
    code, out, err = shell(*ask('portrait.jpg', classes='sky|water,dog', background='tree', templates='a {}|small {}',
                                output='out'))
    assert code == 0 and 'portrait.jpg: ' in out, err
    told = json.loads(Path('out/portrait.jpg.json').read_text(encoding='utf-8'))
    drawn = np.array(Image.open('out/portrait.jpg.mask.png'))
    assert told['classes'] == ['sky', 'dog', 'background'] and told['background'] and told['unseen'] == ['dog']
    assert told['words'] == dict(sky=['sky', 'water']) and drawn.max() <= 2
    assert abs(told['areas']['background'] - (drawn == 2).mean()) < 1e-5
    code, out, err = shell(*ask('portrait.jpg', classes='sky,dog', background='0.999', output='none'))
    assert code == 0 and 'background 100.0%' in out and Path('none/portrait.jpg.prompts.png').exists(), err


@pytest.mark.parametrize('command', COMMANDS)
def test_help(world, command):
    before = tree()
    code, out, err = shell(command, '--help')
    assert code == 0 and 'usage: ' in out and '--' in out and not err and tree() == before


@pytest.mark.parametrize('command, options', [
    ('otseg-train', 'tyo --output new'), ('otseg-eval', 'absent --data data --output new.json'),
    ('otseg-predict', 'absent.jpg --output new'), ('otseg-demo', '--scenes 3 --output new'),
    ('otseg-convert', 'absent.pth new')])
def test_in_a_process_of_its_own(world, command, options):
    "The scripts that are installed end in one line and exit code 2 as well"
    refused(command, *options.split(), says='', run=process)


def test_precision(world):
    "Half precision trains as well, and the run remembers it"
    code, out, err = shell(*start('--precision', 'bf16'))
    assert code == 0 and json.loads(Path('new/recipe.json').read_text(encoding='utf-8'))['precision'] == 'bf16', err
    assert all(v.dtype == torch.float32 for v in weights('new').values())
    loss = lambda run: float(rows(f'{run}/log.csv')[1].split(',')[1])
    assert 0 < abs(loss('new') / loss('run') - 1) < .02


def test_demo(world):
    "Scores and a figure of the toy world by the checkpoint that ships"
    from otseg.core import asset_path
    if not (asset_path('.')/'otseg_toy').is_dir(): pytest.skip('no toy checkpoint in this copy')
    code, out, err = shell('otseg-demo', '--scenes', '40', '--output', 'new')
    assert code == 0 and 'hIoU' in out and sorted(tree('new')) == ['demo.png', 'scores.json'], err


def test_train_in_a_process_of_its_own(world):
    "Nothing depends on what this process has imported: the same bits"
    code, out, err = process(*start())
    assert code == 0 and 'saved in new/checkpoints/step_000002' in out, err
    assert all(torch.equal(v, weights()[k]) for k, v in weights('new').items())


# mistakes: options

@pytest.mark.parametrize('more, says', [
    ('--stepz 5', "unknown option 'stepz'. Did you mean 'steps'"),
    ('--steps', '--steps should be followed by a value'),
    ('--steps many', "`steps` should be int, got 'many'"),
    ('--steps 2.5', '`steps` should be int'),
    ('--steps 0', '`steps` should be positive'),
    ('--flip yes', '`flip` should be float'),
    ('--photometric 1', '`photometric` should be bool'),
    ('--lr nan', '`lr` should be float'),
    ('--lr -1', '`lr` should be positive'),
    ('--eps 0', '`eps` should be positive'),
    ('--attention mpsb', "unknown attention 'mpsb'"),
    ('--setting zero-shot', "unknown setting 'zero-shot'"),
    ('--precision fp8', "unknown precision 'fp8'"),
    ('--templates 7', "unknown template list '7'"),
    ('--dataset voc13', "unknown data set 'voc13'"),
    ('--stride 64', '`stride` should be at most the window'),
    ('--batch_size 3 --accumulate 2', 'should be a multiple of'),
    ('--vpt_depth 9', '`vpt_depth` should lie in 1..2'),
    ('--decoder_layers 0', '`decoder_layers` should be positive'),
    ('--clip absent.json', 'absent.json should be a JSON file'),
    ('--clip ViT-B-17', "unknown CLIP architecture 'ViT-B-17'"),
    ('--weights absent.pt', 'weights should be a file: absent.pt'),
    ('--weights text.jpg', 'text.jpg should be CLIP weights, in a file that torch.save wrote, got a file of another kind'),
    ('--start absent', "got 'absent'"),
    ('--train_split trian', 'images/trian'),
    ('extra', 'one recipe should be named'),
    ('--init alined', "unknown init 'alined'")])
def test_train_options(world, more, says): refused(*start(*more.split()), says=says)


def test_train_unknown_recipe(world):
    refused('otseg-train', 'voc12-inductve', '--data', 'data', '--output', 'new', says="Did you mean 'voc12-inductive'")
    refused(*TRAIN, '--data', 'data', says='Add --output FOLDER.')
    refused(*TRAIN, '--output', 'new', says='Add --data FOLDER.')


def test_options_of_the_other_commands(world):
    for command in (EVAL, ask('portrait.jpg'), ['otseg-demo']):
        misused(*command, '--colour', 'red', says='--colour')
    misused(*EVAL, '--blend', 'half', says='half')
    misused('otseg-predict', 'portrait.jpg', '--checkpoint', 'run', '--size', '1.5', says='1.5')
    refused('otseg-eval', says='a checkpoint should be named')
    misused('otseg-predict', says='pictures')
    refused('otseg-eval', 'run', says='Add --data FOLDER.')
    refused(*EVAL, '--split', 'tset', says='images/tset')
    refused(*EVAL, '--dataset', 'foldr', says="unknown data set 'foldr'")
    refused(*EVAL, '--n', '3', says='for the toy world only')
    scored = [*EVAL, '--output', 'new.json']
    refused(*scored, '--blend', '2', says='`blend` should lie in 0..1', within='progress')
    refused(*scored, '--stride', '99', says='`stride` should lie in 1..', within='progress')
    refused('otseg-demo', '--checkpoint', 'run', says='run should be trained on the toy world')


BEYOND = [['--max_iter', '0'], ['--scale_range', '(2, 1)'], ['--scale_range', '1'], ['--vpt_tokens', '-1']]
UNCHECKED = [['--workers', '-1'], ['--dropout', '2'], ['--flip', '3'], ['--weights', 'random:x'],
             ['--resize', '(1, 2, 3)'], ['--resize', '(0, 0)'], ['--image_mean', '(0., 0.)'], ['--image_std', '(0., 0., 0.)']]


@pytest.mark.parametrize('more', BEYOND + UNCHECKED, ids=' '.join)
def test_train_values_out_of_range(world, more): refused(*start(*more), says=more[0][2:], within='progress')


# mistakes: files

def test_missing_folders(world):
    refused(*start(data='absent'), says=['absent', 'such f'])
    refused('otseg-eval', 'run', '--data', 'absent', says=['absent', 'such f'])
    shutil.rmtree('data/masks')
    refused(*start(), says=['data should hold masks in masks/train', 'no such folder'])
    shutil.rmtree('data/images')
    refused(*start(), says=['data should hold pictures in images/train', 'no such folder'])


def test_split_file_naming_an_absent_picture(world):
    Path('data/train.txt').write_text('0\n1\nabsent\n', encoding='utf-8')
    refused(*start(), says=["data/train.txt names 'absent'", 'absent.jpg', '1 of 3 are missing'])
    Path('data/train.txt').write_text('\n', encoding='utf-8')
    refused(*start(), says='data/train.txt should name at least one picture')
    Path('data/train.txt').write_text('0\n1\n', encoding='utf-8')
    Path('data/masks/train/1.png').unlink()
    refused(*start(), says='masks/train/1.png should exist')


def test_description(world):
    told = Path('data/dataset.json')
    for text, says in [
            ('{"names": ["cat"', 'not valid JSON'),
            ('["cat"]', 'should be a JSON object'),
            ('{}', '"names"'),
            ('{"names": []}', 'a list of at least one class'),
            ('{"names": ["cat", "dog", "cat"]}', 'class names should differ'),
            ('{"names": ["cat", ""]}', 'class 1 should have a name'),
            ('{"names": ["cat", "dog"], "unseen": ["cow"]}', "unknown unseen class 'cow'"),
            ('{"names": ["cat", "zebra", "sky", "road"]}', "got 'zebra'")]:
        told.write_text(text, encoding='utf-8')
        refused(*start(), says=says)
    told.unlink()
    refused(*start(), says='data should hold dataset.json')
    refused(*EVAL, says='data should hold dataset.json')


def spoil(what, key, split='train'):
    "Damage one picture or mask of the data set; returns what the error says"
    image, drawn = Path(f'data/images/{split}/{key}.jpg'), Path(f'data/masks/{split}/{key}.png')
    if what == 'mask size':
        mask(drawn, [0, 1], (41, 57))
        return [str(drawn), 'should have the size of its picture', '41 x 57']
    if what == 'label': mask(drawn, [0, 77], Image.open(image).size); return [str(drawn), 'got [77]']
    if what == 'colour mask': picture(drawn, Image.open(image).size); return [str(drawn), 'mode RGB']
    image.write_bytes(image.read_bytes()[:900])
    return [str(image), 'does not decode']


SPOILT = ('mask size', 'label', 'colour mask', 'truncated')


@pytest.mark.parametrize('what', SPOILT)
def test_bad_picture_in_the_first_batch(world, what): refused(*start(), says=spoil(what, FIRST), within='progress')


@pytest.mark.parametrize('what', SPOILT)
def test_bad_picture_later(world, what):
    "What was done before is whole, and the run goes on once the picture is restored"
    good = tree('data')
    says = spoil(what, LAST)
    code, out, err = shell(*start())
    assert code == 2 and 'Traceback' not in err
    assert all(word in err.splitlines()[-1] for word in says), err
    assert sorted(tree('new/checkpoints')) == [f'step_000001{f}' for f in FILES]
    assert len(rows('new/log.csv')) == 2
    for name, content in good.items():
        if content is not None: Path('data', name).write_bytes(content)
    code, out, err = shell(*start('--resume'))
    assert code == 0 and all(torch.equal(v, weights()[k]) for k, v in weights('new').items())
    assert len(rows('new/log.csv')) == 3


def test_bad_picture_before_the_first_checkpoint(world):
    "Nothing is worth keeping then, and nothing is kept"
    refused(*start('--save_every', '2'), says=spoil('truncated', LAST), within='progress')


@pytest.mark.parametrize('what', SPOILT)
def test_error_line_stands_alone(world, what):
    "The line is a line of its own, not the end of a progress bar"
    says = spoil(what, LAST)
    last = shell(*start())[2].split('\n')[-2]
    assert last.startswith('error: ') and all(word in last for word in says), last


@pytest.mark.parametrize('key', [FIRST, LAST])
def test_bad_picture_read_by_a_worker(world, key):
    says = spoil('truncated', key)
    code, out, err = shell(*start('--workers', '1'))
    assert code == 2 and 'Traceback' not in err, err
    last = err.splitlines()[-1]
    assert last.startswith('error: data/') and all(word in last for word in says), err


@pytest.mark.parametrize('what', SPOILT)
def test_bad_picture_in_evaluation(world, what):
    refused(*EVAL, '--output', 'new/scores.json', says=spoil(what, '1', 'val'), within='progress')


# mistakes: runs

def test_output_in_use(world):
    refused(*start(output='run'), says=['run should be empty or absent', '--resume'])
    Path('notes').mkdir(); Path('notes/mine.txt').write_text('mine', encoding='utf-8')
    refused(*start(output='notes'), says='notes should be empty or absent')
    refused(*start('--resume', output='notes'), says='notes should hold a run to resume')
    refused(*start(output='text.jpg'), says='text.jpg should be a folder')


def test_resume_with_another_recipe(world):
    says = ['should be resumed with its own recipe', 'lr: 0.0002 -> 0.1']
    refused(*start('--resume', '--lr', '0.1', output='run'), says=says)
    refused(*start('--resume', '--eps', '0.1', output='run'), says='model.eps: 0.05 -> 0.1')
    refused(*start('--resume', recipe='folder-supervised', output='run'), says='setting: inductive -> supervised')
    Path('run/recipe.json').write_text('{"name": "folder', encoding='utf-8')
    refused(*start('--resume', output='run'), says='recipe.json is not valid JSON')
    Path('run/recipe.json').write_text('{"name": "folder-inductive"}', encoding='utf-8')
    refused(*start('--resume', output='run'), says='the stored recipe should fit')


def test_resume_on_other_classes(world):
    refused(*start('--resume', data='other', output='run'), says=['run', 'other'])


def test_start_from_other_classes(world):
    refused(*start('--start', 'run', recipe='folder-transductive', data='other'), says='run should know the classes of other')
    other = start('--vpt_tokens', '3', '--start', 'run')
    refused(*other, says=['run should be a model of the same shape', 'vpt_tokens: 2 there, 3 here'])


NEWEST = Path('run/checkpoints/step_000002')
USES = dict(eval=[*EVAL, '--output', 'new.json'], predict=ask('portrait.jpg'), start=start('--start', 'run'))


def truncate(path): path.write_bytes(path.read_bytes()[:-100])


def damage(how):
    "Damage the newest checkpoint, of which no manifest tells what it was; returns what the error says"
    (NEWEST/'manifest.json').unlink()
    config, tensors = NEWEST/'config.json', NEWEST/'model.safetensors'
    text, record = config.read_text(encoding='utf-8'), json.loads(config.read_text(encoding='utf-8'))
    if how == 'truncated': truncate(tensors); return [str(tensors), 'cannot be read']
    if how == 'no tensors': tensors.unlink(); return str(tensors)
    said = {'cut config': (text[:-20], 'not valid JSON'),
            'other format': ('{"format": 99}', 'format 1, got 99'),
            'other tensors': (json.dumps(record | dict(model=record['model'] | dict(vpt_tokens=3))), 'mismatch'),
            'other CLIP': (json.dumps(record | dict(clip_fingerprint='0' * 16)), 'should sit on the CLIP weights'),
            'a list': ('[]', str(config)), 'short': ('{"format": 1}', str(config))}
    config.write_text(said[how][0], encoding='utf-8')
    return [str(NEWEST), said[how][1]]


@pytest.mark.parametrize('use', USES)
@pytest.mark.parametrize('how', ['truncated', 'no tensors', 'other tensors', 'other CLIP', 'other format', 'cut config'])
def test_damaged_checkpoint(world, how, use): refused(*USES[use], says=damage(how))


@pytest.mark.parametrize('how', ['a list', 'short'])
def test_checkpoint_with_a_strange_config(world, how): refused(*USES['eval'], says=damage(how))


@pytest.mark.parametrize('how', ['model.safetensors', 'trainer.pt', 'config.json', 'manifest.json'])
def test_resume_from_a_damaged_checkpoint(world, how):
    "The one before it is used, and the run ends in the same bits; without any whole one, the error names them"
    whole = {k: v.clone() for k, v in weights().items()}  # the file is mapped into memory
    for use in ('--resume', '--resume=auto'):
        truncate(NEWEST/how)
        with pytest.warns(UserWarning, match=f'step_000002 .{how} .*; going on from run/checkpoints/step_000001'):
            code, out, _ = shell(*start(use, output='run'))
        assert code == 0 and out.startswith('folder-inductive: loss ')
        assert all(torch.equal(v, weights()[k]) for k, v in whole.items())
    for step in (1, 2): truncate(Path(f'run/checkpoints/step_00000{step}')/how)
    says = ['run should hold a whole checkpoint', f'step_000002 ({how}', f'step_000001 ({how}']
    refused(*start('--resume', output='run'), says=says)


def test_absent_checkpoint(world):
    for name in ('absent', './absent', 'data', 'text.jpg', '/no/such', 'no/such'):
        refused('otseg-eval', name, '--data', 'data', says='checkpoint')
        refused('otseg-predict', 'portrait.jpg', '--checkpoint', name, says='checkpoint')
    shutil.rmtree('run/checkpoints')
    refused(*EVAL, says='run should hold a checkpoint')


# mistakes: photographs

def test_photographs(world):
    refused(*ask('absent.jpg'), says='absent.jpg should be a picture or a folder of pictures, got no such file')
    refused(*ask('portrait.jpg', 'data'), says='got the folder data beside others')
    for name in ('text.jpg', 'cut.jpg'):
        code, out, err = shell(*ask(name))
        assert code == 1 and err.splitlines()[-1].startswith('error: ') and 'Traceback' not in err, err
        assert name in err.splitlines()[-1] and 'does not decode' in err.splitlines()[-1] and 'others' not in err
        assert sorted(tree('new')) == ['predict.json', 'skipped.json']
    assert shell(*ask('portrait.jpg', classes='sky'))[0] == 0          # nothing had come of the other question
    shutil.copy('portrait.jpg', 'data/portrait.jpg')
    refused(*ask('portrait.jpg', 'data/portrait.jpg'), says='pictures should have different names')


def test_one_bad_photograph_among_good_ones(world):
    "The good one is done, the bad one is named"
    code, out, err = shell(*ask('portrait.jpg', 'cut.jpg', 'landscape.png'))
    assert code == 1 and 'cut.jpg should be a whole picture' in err.splitlines()[-1] and 'All others are done.' in err, err
    assert '3 pictures: 2 done now, 0 done earlier, 1 skipped' in out and 'portrait.jpg: ' in out
    assert {Path(n).name for n in tree('new')} >= {'portrait.jpg.mask.png', 'landscape.png.mask.png', 'skipped.json'}
    code, out, err = shell(*ask('portrait.jpg', 'cut.jpg', 'landscape.png', skip_bad=1))
    assert code == 0 and '0 done now, 2 done earlier, 1 skipped' in out, err


@pytest.mark.parametrize('classes, says', [
    ('', 'class 0 should have a name'),
    (',', 'class 0 should have a name'),
    ('sky,,dog', 'class 1 should have a name'),
    ('sky,dog,sky', 'class names should differ'),
    ('sky,Sky', 'class names should differ'),
    ('zebra', "got 'zebra'")])
def test_classes(world, classes, says): refused(*ask('portrait.jpg', classes=classes), says=says)


def test_predict_options(world):
    refused(*ask('portrait.jpg', show='water'), says="should be asked for, got 'water'. Choose from cat, dog, sky, road")
    refused(*ask('portrait.jpg', show='background', background='.5'), says='Choose from cat, dog, sky, road')
    refused(*ask('portrait.jpg', blend='2'), says='`blend` should lie in 0..1')
    refused(*ask('portrait.jpg', background='2'), says='`background` as a level should lie between 0 and 1, got 2.0')
    refused(*ask('portrait.jpg', background='dog'), says="classes should have different words, got 'dog' in two of them")
    refused(*ask('portrait.jpg', templates='9'), says="unknown template list '9'")


@pytest.mark.parametrize('size', ['0', '-3', '5', '100000'])
def test_predict_size(world, size): refused(*ask('portrait.jpg', size=size), says='size')


def test_output_that_is_a_file(world):
    refused('otseg-predict', 'portrait.jpg', '--checkpoint', 'run', '--output', 'text.jpg', says='text.jpg')


def test_output_below_a_file(world):
    refused(*start(output='text.jpg/run'), says='text.jpg')


def test_scores_in_place_of_a_folder(world):
    refused(*EVAL, '--output', 'data', says='data')
    refused(*EVAL, '--output', 'data', '--overwrite', says='data')


def test_scores_below_a_file(world):
    refused(*EVAL, '--output', 'text.jpg/scores.json', says='text.jpg')


def test_convert(world):
    refused('otseg-convert', 'absent.pth', 'new', says='absent.pth should be a checkpoint file')
    refused('otseg-convert', 'text.jpg', 'new', says='text.jpg should be a checkpoint, in a file that torch.save wrote')
    refused('otseg-convert', 'text.jpg', 'new', '--recipe', 'voc13', says="unknown recipe 'voc13'")
    refused('otseg-convert', 'text.jpg', 'run', says='run should be empty or absent')


def test_convert_into_a_file(world): refused('otseg-convert', 'text.jpg', 'tiny.json', says='tiny.json')
