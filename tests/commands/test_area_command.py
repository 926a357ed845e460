"Areas learned for a run by the command, as a user asks for them"
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from given.shell import picture, refused, shell, tree
from otseg.predict.segmenter import Segmenter

pytestmark = [pytest.mark.filterwarnings('ignore:.*meaningless.*')]
AREAS = ['otseg-areas', 'run', '--data', 'data', '--steps', 30]


def learned(folder): return {k: v for k, v in load_file(f'{folder}/model.safetensors').items() if k.startswith('areas.')}


def same(a, b): return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def run(*more, output='new'):
    code, out, err = shell(*AREAS, '--output', output, *more)
    assert code == 0 and f'saved in {output}' in out, err
    return out


def repaint(pixels, split='train'):
    "Every mask of a split with some of its values changed"
    for p in Path(f'data/masks/{split}').iterdir():
        values = np.array(Image.open(p))
        Image.fromarray(pixels(values)).save(p)


def test_the_way_through(world):
    before = tree('run')
    assert 'areas of 3 seen classes from 4 pictures' in run()
    assert tree('run') == before and sorted(tree('new')) == ['config.json', 'model.safetensors']
    old, new = (json.loads(Path(p, 'config.json').read_text(encoding='utf-8')) for p in ('run/checkpoints/step_000002', 'new'))
    assert new['model']['areas'] and not old['model']['areas']
    assert new['vocab'] == old['vocab'] and new['info']['data'] == old['info']['data']
    told = new['info']['areas']
    assert told['classes'] == ['cat', 'sky', 'road'] and (told['pictures'], told['seed'], told['steps']) == (4, 0, 30)
    assert new['info']['recipe'] == old['info']['recipe'] | dict(seen_penalty=0.)
    kept = {k: v for k, v in load_file('new/model.safetensors').items() if not k.startswith('areas.')}
    assert same(kept, load_file('run/checkpoints/step_000002/model.safetensors')) and len(learned('new')) == 16
    assert shell('otseg-eval', 'new', '--data', 'data')[0] == 0
    code, _, err = shell('otseg-predict', 'portrait.jpg', '--checkpoint', 'new', '--classes', 'cat,sky', '--output', 'out')
    assert code == 0, err
    seg = Segmenter.from_pretrained('new')
    assert seg.seen_penalty == 0 and seg.model.areas is not None


def test_the_same_seed_gives_the_same_head(world):
    run(output='a'); run(output='b'); run('--seed', 1, output='c'); run('--seen-penalty', .2, output='d')
    assert same(learned('a'), learned('b')) and not same(learned('a'), learned('c')) and same(learned('a'), learned('d'))
    assert Segmenter.from_pretrained('d').seen_penalty == .2


def test_no_label_of_an_unseen_class_enters(world):
    "dog (1) is unseen: where it stands another name for nothing may stand as well"
    run(output='clean')
    repaint(lambda x: np.where(x == 1, 255, x).astype(np.uint8))
    run('--other-pictures', output='poisoned')
    assert same(learned('clean'), learned('poisoned'))
    repaint(lambda x: np.where(x == 0, 255, x).astype(np.uint8))           # of cat, which is seen, it does
    with pytest.warns(UserWarning, match='4 pictures show no pixel of cat'): run('--other-pictures', output='less')
    assert not same(learned('clean'), learned('less'))


def test_a_transductive_run_learns_from_seen_classes_too(world):
    config = Path('run/checkpoints/step_000002/config.json')
    record = json.loads(config.read_text(encoding='utf-8'))
    record['info']['recipe']['setting'] = 'transductive'
    config.write_text(json.dumps(record), encoding='utf-8')
    shutil.rmtree('run/checkpoints/step_000001'); (config.parent/'manifest.json').unlink()
    assert 'areas of 3 seen classes' in run(output='new')
    run_of = json.loads(Path('new/config.json').read_text(encoding='utf-8'))['info']
    assert run_of['recipe']['setting'] == 'transductive' and run_of['areas']['classes'] == ['cat', 'sky', 'road']


def test_refused(world):
    out = '--output', 'new'
    refused('otseg-areas', 'run', *out, says=['the folder of folder should be given', 'Add --data'])
    refused('otseg-areas', 'run', *out, '--data', 'other', says='should be trained on the classes of other')
    refused(*AREAS, '--output', 'run', says='run should be empty or absent')
    toy = 'otseg-areas', 'toy', *out, '--data', 'data', '--dataset', 'folder'
    refused(*toy, says='toy should be without areas')
    refused(*toy, '--again', says='should be trained on the classes of')
    split = Path('data/dataset.json')
    stored = json.loads(split.read_text(encoding='utf-8'))
    split.write_text(json.dumps(stored | dict(unseen=['cat'])), encoding='utf-8')
    refused(*AREAS, *out, says='should be used with the classes, the split and the masks of its training')
    split.write_text(json.dumps(stored), encoding='utf-8')
    picture(Path('data/images/train/0.jpg'), seed=9)
    Image.fromarray(np.zeros((40, 48), np.uint8)).save('data/masks/train/0.png')
    refused(*AREAS, *out, says=['should be used on the pictures of its run (train)', '--other-pictures'])
    repaint(lambda x: np.full_like(x, 1))
    refused(*AREAS, *out, '--other-pictures', says=['masks of 4 pictures should show a seen class, got none'], within='progress')


def test_areas_are_not_learned_twice_unasked(world):
    run()
    refused('otseg-areas', 'new', '--data', 'data', '--output', 'x', says=['new should be without areas', '--again'])
    code, out, err = shell('otseg-areas', 'new', '--data', 'data', '--output', 'x', '--again', '--steps', 30)
    assert code == 0 and same(learned('new'), learned('x')), err
