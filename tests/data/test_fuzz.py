"""Three hundred damages: each ends in a plain error or is survived as documented, and nothing of the user's is changed

A case is its number: `pytest tests/test_fuzz.py -k case137` repeats it, and `-s` says what it did."""
import ast
import contextlib
import csv
import io
import json
import os
import pickle
import random
import shutil
import signal
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load as read_tensors
from safetensors.torch import load_file, save_file
from scipy.io import loadmat

from given.authors import official
from given.layouts import context_mask, lines, sbd_mask
from given.shell import NAMES, TINY, inside, mask, picture, process, tree
from otseg.model.checkpoint import load_checkpoint, load_official, save_checkpoint
from otseg.commands.use import convert, predict
from otseg.core import InputError, read_json
from otseg.data import load_dataset, read_picture
from otseg.commands.evaluate import evaluate
from otseg.predict.segmenter import Segmenter
from otseg.commands.data import prepare
from otseg.train.recipes import get_recipe, override
from otseg.train.run import damage as damaged
from otseg.train.trainer import fit
from otseg.train.command import main as train
from otseg.model.vocab import load_vocab

pytestmark = [pytest.mark.filterwarnings('ignore'),
              pytest.mark.skipif(not hasattr(signal, 'setitimer'), reason='a limit of time needs signals')]
CASES, EVERY, LIMIT = 1500, 300, 120                     # damages, how many of them by default, seconds for one
VOC = 'voc/ImageSets/Segmentation'
STEP = 'run/checkpoints/step_000004'
RECIPE = override(get_recipe('folder'), clip=TINY, weights='clip.safetensors', image_size=32, steps=6, batch_size=2,
                  workers=0, save_every=2, eval_every=2, keep=3, vpt_tokens=2, skip_bad=2, strip=0)


# a world of files

def data_set(root, split, n):
    for i in range(n):
        size = (48, 40) if i % 2 else (40, 56)
        picture(root/'images'/split/f'{split}{i}.jpg', size, seed=i)
        mask(root/'masks'/split/f'{split}{i}.png', [*range(len(NAMES)), 255], size)
    lines(root/f'{split}.txt', [f'{split}{i}' for i in range(n)])


def published():
    "Data sets as they come"
    for i in range(4):
        picture(Path(f'voc/JPEGImages/{i}a.jpg'), seed=i)
        mask(Path(f'voc/SegmentationClass/{i}a.png'), [0, 255, 1 + i, 20])
        picture(Path(f'context/JPEGImages/{i}a.jpg'), (60, 40), seed=i)
        context_mask(Path(f'context/trainval/{i}a.mat'), [0, 1 + i, 5, 59])
        picture(Path(f'sbd/JPEGImages/{i}a.jpg'), (60, 40), seed=i)
        sbd_mask(Path(f'sbd/SBD/cls/{i}a.mat'), [0, 1 + i, 20])
    for split, names in dict(train=['0a', '1a'], val=['2a', '3a']).items():
        lines(Path(VOC, f'{split}.txt'), names)
        lines(Path(f'sbd/{VOC[4:]}/{split}.txt'), names)
        lines(Path(f'context/ImageSets/Main/{split}.txt'), names)
    lines(Path('context/labels.txt'), [f'{i}: {n}' for i, n in enumerate(load_vocab('context59').names, 1)])


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    "Data sets, a run that was stopped after 4 of 6 steps and has skipped a picture, checkpoints in both layouts, results"
    folder, cache = tmp_path_factory.mktemp('base'), tmp_path_factory.mktemp('cache')
    before, os.environ['OTSEG_CACHE'] = os.environ.get('OTSEG_CACHE'), str(cache)
    with inside(folder):
        published()
        for split, n in dict(train=4, val=2).items(): data_set(Path('data'), split, n)
        text = dict(names=NAMES, unseen=['dog'], ignore=[9], templates=['a {}', 'a small {}'])
        Path('data/dataset.json').write_text(json.dumps(text), encoding='utf-8')
        Path('table').mkdir()
        Path('table/dataset.json').write_text(json.dumps(dict(names=NAMES, seen=['cat', 0, 2])), encoding='utf-8')
        lines(Path('table/dataset.csv'), ['image,mask,split', *(
            f'../data/images/{s}/{s}{i}.jpg,../data/masks/{s}/{s}{i}.png,{s}' for s in ('train', 'val') for i in range(2))])
        Path('vocab.json').write_text(json.dumps(load_vocab('camvid11').to_dict()), encoding='utf-8')
        Path('tiny.json').write_text(json.dumps(TINY), encoding='utf-8')
        picture(Path('photo.jpg'), (40, 60)); picture(Path('shot.png'), (70, 36))
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            from otseg.model.clip import load_clip
            save_file(load_clip('tiny.json', 'random').state_dict(), 'clip.safetensors')
        whole = Path('data/images/train/train3.jpg').read_bytes()
        Path('data/images/train/train3.jpg').write_bytes(bytes(99) + whole[99:])  # no bytes less: it is this data
        fit(RECIPE, 'data', 'run', progress=False)
        Path('data/images/train/train3.jpg').write_bytes(whole)
        shutil.rmtree('run/checkpoints/step_000006')
        assert list(read_json('run/skipped.json')) == ['3'] and damaged(Path(STEP)) is None
        own = load_checkpoint(STEP)
        save_checkpoint(own.model, 'model', vocab=own.vocab, info=own.info)
        torch.save(dict(state_dict=official(own.model)), 'official.pth')
        evaluate('model', data='data', output='results/val.json')
        result = read_json('results/val.json')
        Path('results/val.json').write_text(json.dumps(result | dict(dataset='voc12')), encoding='utf-8')
    folder = folder.rename(folder.with_name('moved'))  # no file lies where a checkpoint has noted it, but beside it
    yield folder
    if before is None: del os.environ['OTSEG_CACHE']
    else: os.environ['OTSEG_CACHE'] = before


@pytest.fixture
def world(base, tmp_path, monkeypatch):
    "A copy to damage; the working directory"
    shutil.copytree(base, tmp_path/'world')
    monkeypatch.chdir(tmp_path/'world')
    return tmp_path/'world'


# what a user does

def load(name, root, split='train'):
    data = load_dataset(name, root, split)
    return data.vocab, [(item['key'], item['image'], item['labels']) for item in (data[i] for i in range(len(data)))]


def ran(recipe, output, **more):
    "Losses and weights of a training"
    result = fit(recipe, 'data', output, progress=False, **more)
    return result.losses, result.model.state_dict()


def started(**options):
    "Two steps of a new run"
    fixed = dict(steps=2, eval_every=None, skip_bad=0, clip='tiny.json')
    return ran(override(RECIPE, **fixed | options), 'new')


def options(name, value):
    train(['folder-inductive', '--clip', 'tiny.json', '--weights', 'clip.safetensors', '--image_size', '32', '--steps', '2',
           '--batch_size', '2', '--workers', '0', '--vpt_tokens', '2', '--data', 'data', '--output', 'new', f'--{name}', value])


def resumed(): return ran(override(RECIPE, clip='tiny.json'), 'run', resume=True)


def segmented(*photos, checkpoint):
    "Classes of each pixel"
    predict([*photos, '--checkpoint', checkpoint, '--output', 'new'])
    return [np.array(Image.open(p)) for p in sorted(Path('new').glob('*.mask.png'))]


def converted():
    convert('official.pth', 'new', recipe='folder-inductive', heads=2)
    return load_file('new/model.safetensors')


USES = dict(
    voc=lambda: load('voc12', 'voc'), voc_val=lambda: load('voc12', 'voc', 'val'), sbd=lambda: load('voc12', 'sbd'),
    context=lambda: load('context59', 'context'), folder=lambda: load('folder', 'data'), table=lambda: load('folder', 'table'),
    folder_val=lambda: load('folder', 'data', 'val'), vocabulary=lambda: load_vocab('vocab.json'),
    prepare_voc=lambda: prepare('voc12', 'voc', full=True, subset=True, jobs=1),
    prepare_sbd=lambda: prepare('voc12', 'sbd', full=True, subset=True, jobs=1),
    prepare_context=lambda: prepare('context59', 'context', full=True, subset=True, jobs=1),
    prepare_folder=lambda: prepare('folder', 'data', full=True, jobs=1, output='new.json'),
    prepare_table=lambda: prepare('folder', 'table', full=True, jobs=1), start=lambda: started(), resume=resumed,
    skip=lambda: started(skip_bad=1), transductive=lambda: started(setting='transductive', start='model'),
    from_pretrained=lambda: Segmenter.from_pretrained('model').predict('shot.png', ['sky', 'water']).labels,
    segment=lambda: segmented('photo.jpg', 'shot.png', checkpoint='model'),
    segment_run=lambda: segmented('photo.jpg', checkpoint='run'),
    best=lambda: load_checkpoint('run/checkpoints/best').model.state_dict(),
    score=lambda: evaluate('model', data='data', output='new.json'),
    score_run=lambda: evaluate('run', data='data'), official=lambda: load_official('official.pth', heads=2).state_dict(),
    convert=converted, table1=lambda: evaluate(table=1))


# what can happen to a file

def flip(p, g):
    content = bytearray(p.read_bytes())
    for _ in range(g.choice([1, 1, 4, 16])): content[g.randrange(len(content))] ^= g.randrange(1, 256)
    p.write_bytes(content)


def cut(p, g): os.truncate(p, g.randrange(1, p.stat().st_size))
def empty(p, g): p.write_bytes(b'')
def text(p, g): p.write_text('no such thing\n', encoding='utf-8')
def noise(p, g): p.write_bytes(g.randbytes(200))


def absent(p, g):
    if p.is_dir(): shutil.rmtree(p)
    else: p.unlink()


def folder(p, g): p.unlink(); p.mkdir()
def as_file(p, g): shutil.rmtree(p); p.write_text('a file', encoding='utf-8')
def size(p, g): picture(p, (33, 21)) if p.suffix == '.jpg' else mask(p, [0, 1], (33, 21))
def value(p, g): mask(p, [0, 99], Image.open(p).size)
def deep(p, g): Image.fromarray(np.full(Image.open(p).size[::-1], 1000, np.uint16)).save(p)
def colours(p, g): picture(p, Image.open(p).size)
def as_list(p, g): p.write_text('[1, 2]', encoding='utf-8')
def null(p, g): p.write_text('null', encoding='utf-8')


def places(value):
    "Every (container, key) of a JSON value"
    for key in (value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()):
        yield value, key
        yield from places(value[key])


def changed_json(p, g, change):
    content = json.loads(p.read_text(encoding='utf-8'))
    change(*g.choice(list(places(content))))
    p.write_text(json.dumps(content), encoding='utf-8')


OTHER = [None, True, -1, 0, 2.5, '', 'x', [], {}, [None], {'a': 1}, float('nan')]
def key(p, g): changed_json(p, g, lambda box, k: box.pop(k))
def kind(p, g): changed_json(p, g, lambda box, k: box.__setitem__(k, g.choice(OTHER)))


def top(p, g):
    "A value of the outermost level of another type"
    content = json.loads(p.read_text(encoding='utf-8'))
    content[g.choice(list(content))] = g.choice(OTHER)
    p.write_text(json.dumps(content), encoding='utf-8')


def row(p, g):
    "A line with another one's end, or something else in its place"
    rows = p.read_text(encoding='utf-8').split('\n')
    i = g.randrange(len(rows) - 1)
    rows[i] = g.choice([rows[i][:len(rows[i]) // 2], 'x', ',,,,', '\0', rows[i] + ',1,2', '"', '²' + rows[i][1:], rows[i] + 'x'])
    p.write_text('\n'.join(rows), encoding='utf-8')


def last_row(p, g):
    "The line that was being written"
    content = p.read_text(encoding='utf-8')
    p.write_text(content[:-g.randrange(2, 12)], encoding='utf-8')


class Evil:
    def __reduce__(self): return Path.touch, (Path('run_by_pickle'),)


def pickled(p, g): p.write_bytes(pickle.dumps(dict(a=Evil())))
def evil(p, g): torch.save(dict(state_dict=dict(a=Evil())), p)


def changed_tensors(p, g, change):
    state = load_file(p) if p.suffix == '.safetensors' else torch.load(p)['state_dict']
    state = {k: v.clone() for k, v in state.items()}
    name = g.choice(sorted(state))
    change(state, name)
    if p.suffix == '.safetensors': save_file(state, p)
    else: torch.save(dict(state_dict=state), p)


def shape(p, g): changed_tensors(p, g, lambda s, n: s.update({n: s[n].flatten()[:-1] if s[n].ndim else s[n][None]}))
def fewer(p, g): changed_tensors(p, g, lambda s, n: s.pop(n))
def nan(p, g): changed_tensors(p, g, lambda s, n: s[n].fill_(float('nan')))
def scalar(p, g): changed_tensors(p, g, lambda s, n: s.update({n: torch.tensor(1.)}))


def foreign(p, g):
    "A whole checkpoint of another model under this name"
    step, other = p.name, Path('other')
    fit(override(RECIPE, vpt_tokens=3, steps=int(step[5:]), eval_every=None), 'data', other, progress=False)
    shutil.rmtree(p)
    shutil.copytree(other/'checkpoints'/step, p)
    shutil.rmtree(other)


ANY = [flip, cut, empty, text, noise, absent, folder]
PICTURE, MASK = [*ANY, size], [*ANY, size, value, deep, colours]
LIST, CSV, JSON = [*ANY, row], [*ANY, row, row, last_row, row], [*ANY, as_list, null, key, kind, top, key, kind, top]
TENSORS, FOLDER = [*ANY, pickled, shape, fewer, nan, scalar], [absent, as_file]
ON_RUN, ON_MODEL = ['resume', 'resume', 'score_run', 'segment_run'], ['from_pretrained', 'segment', 'score', 'transductive']
FILES = {  # file: what can happen to it, what the user does then
    'voc/JPEGImages/0a.jpg': (PICTURE, ['voc', 'prepare_voc']), 'voc/SegmentationClass/1a.png': (MASK, ['voc', 'prepare_voc']),
    f'{VOC}/train.txt': (LIST, ['voc', 'prepare_voc']), f'{VOC}/val.txt': (LIST, ['voc_val', 'prepare_voc']),
    'sbd/SBD/cls/1a.mat': (ANY, ['sbd', 'prepare_sbd']), 'context/trainval/0a.mat': (ANY, ['context', 'prepare_context']),
    'context/labels.txt': (LIST, ['context', 'prepare_context']), 'vocab.json': (JSON, ['vocabulary']),
    'data/images/train/train1.jpg': (PICTURE, ['start', 'skip', 'resume', 'prepare_folder']),
    'data/masks/train/train2.png': (MASK, ['start', 'skip', 'resume', 'prepare_folder']),
    'data/masks/val/val1.png': (MASK, ['resume', 'score', 'prepare_folder']), 'data/val.txt': (LIST, ['score', 'prepare_folder']),
    'data/train.txt': (LIST, ['start', 'resume']),
    'data/dataset.json': (JSON, ['folder', 'start', 'resume', 'score', 'prepare_folder']),
    'table/dataset.csv': (LIST, ['table', 'prepare_table']), 'table/dataset.json': (JSON, ['table', 'prepare_table']),
    'photo.jpg': (PICTURE, ['segment']), 'shot.png': ([*PICTURE, deep], ['from_pretrained', 'segment']),
    f'{STEP}/config.json': (JSON, ON_RUN), f'{STEP}/model.safetensors': (TENSORS, ON_RUN),
    f'{STEP}/trainer.pt': ([*ANY, pickled, evil], ['resume']), f'{STEP}/manifest.json': (JSON, ON_RUN),
    'run/checkpoints/step_000002/trainer.pt': (ANY, ['resume']), 'run/checkpoints/best/config.json': (JSON, ['best']),
    'run/recipe.json': (JSON, ['resume']), 'run/log.csv': (CSV, ['resume']), 'run/scores.csv': (CSV, ['resume']),
    'run/skipped.json': (JSON, ['resume']), 'run/environment.json': (JSON, ['resume']), 'run/classes.csv': (CSV, ['resume']),
    'model/config.json': (JSON, ON_MODEL), 'model/model.safetensors': (TENSORS, ON_MODEL),
    'official.pth': ([*TENSORS, evil], ['official', 'convert']), 'tiny.json': (JSON, ['start', 'resume']),
    'clip.safetensors': (TENSORS, ['start', 'resume', 'score']), 'results/val.json': (JSON, ['table1']),
    'voc/JPEGImages': (FOLDER, ['voc', 'prepare_voc']), 'data/masks/train': (FOLDER, ['start', 'prepare_folder']),
    'run/checkpoints': (FOLDER, ['resume', 'score_run']), STEP: ([*FOLDER, foreign], ON_RUN), 'model': (FOLDER, ON_MODEL)}
VALUES = ['', ' ', 'x', 'None', 'True', '-1', '0', '0.5', '7', '1e400', 'nan', '-inf', '[]', '{}', '()', '(1, 2)', '(2, 1)',
          '(0, 0)', '("a", "b")', '[[1]]', "{'a': 1}", '1,2', 'é', '\0', '../..', '9' * 25, '(1e400, 1e400)', '(1, 2, 3)']
OPTIONS = [k for k in {**RECIPE.to_dict(), **RECIPE.to_dict()['model']} if k not in ('name', 'model')]
LONG = {'steps', 'workers', 'warmup_steps', 'batch_size', 'image_size', 'vpt_tokens', 'max_iter', 'decoder_layers', 'ffn_dim'}
TABLES = ('run/log.csv', 'run/scores.csv', 'run/classes.csv')
# files that may be away, or be no file of this kind, and what comes out then
ABSENCE = {
    **{(f, 'absent'): 'the same' for f in (*TABLES, 'run/skipped.json', f'{STEP}/manifest.json')},
    **{(f'data/{s}.txt', what): 'the same' for s in ('train', 'val') for what in ('absent', 'folder')},     # all pictures count
    **{(f, 'absent'): 'another result' for f in ('run/checkpoints', STEP)},                     # that of an earlier checkpoint
    (STEP, 'foreign'): 'another result',                                                        # a whole one, of another model
    **{('results/val.json', what): 'another result' for what in ('absent', 'folder', 'null', 'as_list')},  # a table without it
    ('shot.png', 'deep'): 'another result', ('shot.png', 'size'): 'another result', ('photo.jpg', 'size'): 'another result'}
PAIRS = [(name, what) for name, (kinds, _) in FILES.items() for what in dict.fromkeys(kinds)] + [('options', None)] * 24
random.Random(0).shuffle(PAIRS)


def case(number):
    "File, damage, what the user does, and the generator for the rest"
    g = random.Random(number)
    name, what = PAIRS[number % len(PAIRS)]
    if name != 'options': return name, what, g.choice(FILES[name][1]), g
    option = g.choice(OPTIONS)
    value = g.choice([v for v in VALUES if option not in LONG or len(v) < 20])
    return name, what, (option, value), g


class Ending(NamedTuple):
    "How it ended: 'error', 'reported', 'skipped', 'survived' (each of which says so) or 'silent', what was said, what came out"
    how: str
    words: str
    result: object = None


@contextlib.contextmanager
def limit(seconds):
    if not hasattr(signal, 'SIGALRM'):  # Windows: a case that hangs is not stopped
        yield
        return

    def late(*_): raise TimeoutError(f'{seconds} seconds have passed')
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try: yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def ending(use, noted=None):
    "Let any other exception through. `noted`: a list of skipped pictures, and how many there were"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as stack:
        told = stack.enter_context(warnings.catch_warnings(record=True))
        for context in (contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), limit(LIMIT)):
            stack.enter_context(context)
        warnings.simplefilter('always')
        try: result = use()
        except InputError as e: return Ending('error', str(e))
        except SystemExit as e:
            last = err.getvalue().split('\r')[-1].strip().split('\n')[-1]
            found = 'PROBLEM: ' in out.getvalue() or last.startswith('nothing found: ')
            if e.code == 1 and found: return Ending('reported', out.getvalue())
            if e.code == 1 and 'listed in new/skipped.json' in last: return Ending('reported', last)  # the others are done
            assert e.code == 2 and last.startswith('error: '), (e.code, err.getvalue())
            return Ending('error', last[7:])
    result = out.getvalue() if result is None else result
    if 'not there: ' in out.getvalue(): return Ending('reported', out.getvalue(), result)
    if noted and Path(noted[0]).is_file() and len(listed := read_json(noted[0])) > noted[1]:
        return Ending('skipped', ' '.join(map(str, listed.values())), result)
    said = ' '.join(str(w.message) for w in told if 'passing over' in str(w.message))
    return Ending('survived' if said else 'silent', said, result)


def whole_rows(content, base, start):
    "Rows of a table that are as they were written, before a step"
    return [r for r in content.decode(errors='replace').splitlines()
            if r in base and r.partition(',')[0].isdecimal() and int(r.partition(',')[0]) < start]


def nothing_lost(before, after, use, end, name, base):
    "No file of the user's is another one; a run that goes on writes its own"
    changed = {k for k in before if before[k] != after.get(k)}
    told = end.how == 'error' and {'new/nonfinite.json', 'new/damaged.json'} & {*after}  # a run that says why it ended
    added = set() if told else after.keys() - before.keys()
    if use != 'resume':
        assert not changed, changed
        assert not added if end.how == 'error' else all(k.split('/')[0].split('.')[0] == 'new' for k in added), added
        return
    own = {*TABLES, 'run/environment.json', 'run/skipped.json', 'run/nonfinite.json', 'run/damaged.json'}
    went_on = 'run/checkpoints/step_000006' in after or any(before.get(f) != after.get(f) for f in own)
    passed = [s for s in (2, 4) if f'step_00000{s} (' in end.words and end.how == 'survived']
    folders = ['run/checkpoints/step_000006',  *(f'run/checkpoints/step_00000{s}' for s in passed)]
    if went_on: folders.append('run/checkpoints/best')
    if name in ('run/checkpoints', STEP): folders.append(name)
    other = {k for k in changed | added if k not in own and not any(f'{k}/'.startswith(f'{f}/') for f in folders)}
    assert not other, other
    start = 0 if name == 'run/checkpoints' else 2 if passed or name == STEP else 4
    for table, more in zip(TABLES, (0, 1, 1)):
        if not before.get(table): continue
        kept = after[table].decode(errors='replace').splitlines()
        for r in whole_rows(before[table], base[table].decode().splitlines(), start + more): assert r in kept, (table, r)


# what a file says, by readers of its kind alone

UNREADABLE = 'unreadable'


def arrays(value):
    "The same in a form that compares"
    if isinstance(value, (torch.Tensor, np.ndarray)):
        value = value.numpy() if isinstance(value, torch.Tensor) else value
        return value.shape, str(value.dtype), value.tobytes()
    if isinstance(value, dict): return {k: arrays(v) for k, v in value.items()}
    if isinstance(value, bool): return str(value)  # which is no number
    return [arrays(v) for v in value] if isinstance(value, (list, tuple)) else value


def pixels(path):
    with Image.open(path) as image:
        image.load()
        return np.array(image.convert('RGB')) if path.suffix == '.jpg' or image.mode not in 'LP' else np.array(image)


READERS = {'.json': lambda p: json.loads(p.read_text(encoding='utf-8')),
           '.safetensors': lambda p: read_tensors(p.read_bytes()),  # not mapped: the file will change
           '.txt': lambda p: [line.strip() for line in p.read_text(encoding='utf-8').splitlines() if line.strip()],
           '.csv': lambda p: [row for row in csv.reader(p.read_text(encoding='utf-8').splitlines()) if row],
           '.png': pixels, '.jpg': pixels, '.mat': lambda p: {k: v for k, v in loadmat(p).items() if k[0] != '_'},
           '.pth': lambda p: torch.load(p, weights_only=True)['state_dict'], '.pt': lambda p: torch.load(p, weights_only=True)}


def meaning(path):
    "What a file holds; UNREADABLE where its kind's own reader fails"
    try: return READERS[path.suffix](path)
    except Exception: return UNREADABLE  # readers of damaged files raise almost anything


# which meanings may stand in the place of the first one without a word, because they are as good

def texts(value): return isinstance(value, list) and all(isinstance(v, str) and v.strip() for v in value)


def good_description(new):
    "dataset.json: names, which of them are unseen or seen, what is ignored, templates"
    def of(kind): return lambda v: isinstance(v, list) and all(type(i) in kind for i in v)
    def templates(v): return v in ('6', '8', '1') or texts(v) and all(t.count('{}') == 1 for t in v)
    known = dict(names=texts, unseen=of((str, int)), seen=of((str, int)), ignore=of((int,)), templates=templates)
    return isinstance(new, dict) and {'names'} <= new.keys() <= known.keys() and all(known[k](v) for k, v in new.items())


def good_vocabulary(new):
    kinds = dict(name=str, names=list, unseen=list, palette=list | None, templates=list | str | None, source=object,
                 text_prompts=list | None)
    return isinstance(new, dict) and 'names' in new and new.keys() <= kinds.keys() and all(
        isinstance(v, kinds[k]) for k, v in new.items()) and texts(new['names'])


def same_tensors(old, new):
    "The same names, shapes and types, and numbers"
    def looks(state): return {k: (v.shape, v.dtype) for k, v in state.items()}
    return looks(old) == looks(new) and all(v.isfinite().all() for v in new.values())


def good_settings(old, new):
    "The settings of a model; those that it does not name are the usual ones. Facts about its run are free"
    if not isinstance(new, dict) or not isinstance(new.get('model'), dict): return False
    kinds = {k: type(v) for k, v in old['model'].items()}
    ok = all(k in kinds and (isinstance(v, (kinds[k], int, float)) or v is None) for k, v in new['model'].items())
    return ok and new.get('format') == old['format'] and new.get('clip_fingerprint') == old['clip_fingerprint']


def good_names(name, new):
    "A list of pictures that are there"
    folder = 'voc/JPEGImages' if name.startswith('voc') else f'data/images/{Path(name).stem}'
    return new and all(Path(folder, f'{n}.jpg').is_file() for n in new)


def good_mask(name, old, new):
    "Of the same size, of the classes' values alone"
    known = {*range(len(NAMES)), 9, 255} if name.startswith('data') else {*range(21), 255}
    return new.ndim == 2 and new.shape == old.shape and {*np.unique(new).tolist()} <= known


def must_tell(name, use):
    "What a run or its score was made with: another split, list or description is refused, whatever it says"
    return use == 'resume' and name in ('data/train.txt', 'data/dataset.json') or (
        use.startswith('score') and name == 'data/dataset.json')


def as_good(name, old, new):
    "Whether a file that says this instead may be taken as it is"
    if name.endswith(('.jpg', 'shot.png')): return new.shape == old.shape or '/' not in name  # photographs may have any size
    if name.endswith('.png'): return good_mask(name, old, new)
    if name.endswith('labels.txt'): return False
    if name.endswith('.txt'): return good_names(name, new)
    if name.endswith('dataset.json'): return good_description(new)
    if name == 'vocab.json': return good_vocabulary(new)
    if name in ('model/model.safetensors', 'clip.safetensors', 'official.pth'): return same_tensors(old, new)
    if name == 'model/config.json': return good_settings(old, new)
    return name in ('run/skipped.json', 'results/val.json') and isinstance(new, dict)  # notes for people


def unneeded(name, use):
    "What changes no result, whatever the file holds; of tables `nothing_lost` counts the rows"
    if name in (*TABLES, 'run/environment.json'): return True
    return name.endswith('trainer.pt') and (use != 'resume' or name.startswith(STEP[:-1] + '2'))


def shows(name, end, new):
    "Whether what came out is what the file holds now, where that can be seen at once"
    if name in ('model/model.safetensors', 'official.pth') and isinstance(end.result, dict):
        return all(any(torch.equal(v, w) for w in end.result.values() if w.shape == v.shape)
                   for k, v in new.items() if 'self_attn' not in k and 'prompt_embeddings' not in k)
    if '/images/' in name or 'JPEGImages' in name: return torch.equal(read_picture(name), torch.from_numpy(new).permute(2, 0, 1))
    return True


def check_silence(name, what, use, end, old, new, usual):
    """Nothing was said. So nothing was to be said: the file says the same as before, or is not read, and the result is the usual
    one; or what it says now is as good, and the result follows it"""
    kind = what.__name__
    if use.startswith('prepare') and (name, kind) in ABSENCE:  # a report tells what has named the pictures
        usual = usual.replace(name, f'data/images/{Path(name).stem}')
    same = arrays(end.result) == arrays(usual)
    if (name, kind) in ABSENCE: assert ABSENCE[name, kind] in ('another result', 'the same' if same else ''), 'another result'
    elif unneeded(name, use) or arrays(old) == arrays(new): assert same, 'another result of the same content'
    else:
        assert new is not UNREADABLE, 'the file cannot be read, and nothing was said'
        assert not must_tell(name, use), f'nothing was said of what has changed: {new!r:.300}'
        assert same or as_good(name, old, new), f'nothing was said of what should be refused: {new!r:.300}'
        assert same or shows(name, end, new), 'the result is neither the usual one nor what the file says'


def check_words(name, what, use, end, old, new):
    "Something was said. So there was something to say: a file that says the same as before is none, unless every byte counts"
    counted = name.startswith((STEP, 'run/checkpoints/best')) or 'manifest' in name
    if new is not UNREADABLE and not counted and not unneeded(name, use): assert arrays(old) != arrays(new), end.words


TALLY = Counter()


@pytest.fixture(scope='module', autouse=True)
def tally(request):
    "Printed at the end: how the cases ended, by kind of damage"
    yield
    plugin, ways = request.config.pluginmanager.get_plugin, ('error', 'reported', 'skipped', 'survived', 'silent')
    lines = [f'\n{"damage":<10}' + ''.join(f'{w:>10}' for w in ways)]
    for kind in [*sorted({k for k, _ in TALLY}), 'all']:
        counts = [sum(n for (k, h), n in TALLY.items() if kind in (k, 'all') and h == w) for w in ways]
        lines.append(f'{kind:<10}' + ''.join(f'{n:>10}' for n in counts))
    with plugin('capturemanager').global_and_fixture_disabled(): plugin('terminalreporter').write_line('\n'.join(lines))


@pytest.fixture(scope='module')
def usual(base, tmp_path_factory):
    "The result of a use where nothing is damaged"
    found = {}

    def result(use):
        if use not in found:
            folder = tmp_path_factory.mktemp('usual')/'world'
            shutil.copytree(base, folder)
            with inside(folder): found[use] = ending(USES[use]).result
        return found[use]
    return result


def run_case(number, base, world, usual):
    name, what, use, g = case(number)
    path, about = world/name, f'case {number}: {what and what.__name__} {name}, {use}'
    old = meaning(path) if what and path.is_file() else None
    if what: what(path, g)
    new = meaning(path) if what and path.is_file() else None
    before = tree()
    noted = dict(skip=('new/skipped.json', 0), resume=('run/skipped.json', 1)) if what and name.startswith('data/') else {}
    try: end = ending(USES[use] if what else lambda: options(*use), noted.get(use) if what else None)
    except BaseException as e: raise AssertionError(f'{about}: {type(e).__name__}: {e}') from e
    print(f'{about}: {end.how}: {end.words[:300]}')
    TALLY[what.__name__ if what else 'option', end.how] += 1
    nothing_lost(before, tree(), use, end, name, tree(base))
    if end.how == 'error':
        assert '\n' not in end.words
        names = [path.name, path.parent.relative_to(world).as_posix()] if what else [*use, 'should be finite']
        names += {'model/config.json': ['the stored recipe'], 'tiny.json': ['the CLIP', 'model.clip.', 'this architecture'],
                  'data/dataset.json': ['this CLIP learned']}.get(name, [])
        if use == 'resume' and name.startswith('data/'): names.append('the data that it was trained on')
        if name == 'clip.safetensors': names.append('loss and gradient should be finite')  # weights, but which?
        assert any(n in end.words for n in names), end.words
    try:
        if not what:
            if end.how == 'silent': check_taken(*use)
        elif end.how == 'silent': check_silence(name, what, use, end, old, new, usual(use))
        elif old is not None and new is not None: check_words(name, what, use, end, old, new)
    except AssertionError as e: raise AssertionError(f'{about}: {e}') from None


def check_taken(option, value):
    "An option that was taken has the value that was given"
    stored = read_json('new/recipe.json')
    stored = (stored | stored['model'])[option]
    try: given = ast.literal_eval(value.strip())
    except (ValueError, SyntaxError): given = value
    if isinstance(given, tuple): given = list(given)
    if isinstance(stored, (int, float, str)): given = type(stored)(value.strip() if isinstance(stored, str) else given)
    assert stored == given, (stored, given)


@pytest.mark.parametrize('number', [pytest.param(i, id=f'case{i:03}', marks=[pytest.mark.slow] if i >= EVERY else [])
                                    for i in range(CASES)])
def test_damage(number, base, world, usual): run_case(number, base, world, usual)


# the same in processes of their own

TRAIN = ('folder-inductive --clip tiny.json --weights clip.safetensors --image_size 32 --steps 2 --batch_size 2 --workers 0 '
         '--vpt_tokens 2 --data data --output new')
SHELL = dict(
    prepare_voc='prepare voc12 voc --full --subset', prepare_table='prepare folder table', train=f'train {TRAIN}',
    segment='predict photo.jpg shot.png --checkpoint model --output new', score='eval model --data data --output new.json',
    segment_run='predict photo.jpg --checkpoint run --output new', table1='eval --table 1',
    convert='convert official.pth new --recipe folder-inductive --heads 2')
IN_PROCESSES = [
    ('voc/SegmentationClass/1a.png', text, 'prepare_voc'), (f'{VOC}/train.txt', noise, 'prepare_voc'),
    ('photo.jpg', cut, 'segment'), ('table/dataset.csv', noise, 'prepare_table'), ('model/config.json', as_list, 'segment'),
    (f'{STEP}/model.safetensors', flip, 'segment_run'), ('model/model.safetensors', pickled, 'score'),
    ('official.pth', evil, 'convert'), ('results/val.json', text, 'table1'), ('tiny.json', null, 'train'),
    ('data/masks/train/train1.png', value, 'train'), ('clip.safetensors', nan, 'train')]


@pytest.mark.parametrize('name, what, use', [
    pytest.param(*c, id=f'{c[2]}-{c[1].__name__}', marks=[pytest.mark.slow] if i % 6 else [])
    for i, c in enumerate(IN_PROCESSES)])
def test_in_a_process(name, what, use, world):
    "One plain line, and nothing changed; of a data set, the report"
    what(world/name, random.Random(1))
    before = tree()
    code, out, err = process(*f'otseg-{SHELL[use]}'.split())
    assert 'Traceback' not in err, err
    assert before == {k: v for k, v in tree().items() if (use, code) != ('segment', 1) or k.split('/')[0] != 'new'}
    if code == 1: assert Path(name).name in (out if use.startswith('prepare') else err)
    else:
        said = [line for line in err.replace('\r', '\n').split('\n') if line.strip()]
        assert code == 2 and said[-1].startswith('error: ') and not any('Warning' in line for line in said), err
