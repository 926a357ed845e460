"otseg-prepare as a user runs it: everything that is wrong with a data set is found and counted, and nothing is changed"
import contextlib
import io
import json
import math
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from otseg.core import InputError
from otseg.data.layouts import LAYOUTS, Layout, MaskSource
from otseg.data.check import WRONG, check_dataset
from otseg.data.reading import load_dataset
from otseg.commands.data import prepare
from otseg.model.vocab import load_vocab, vocab_of
from otseg.train.recipes import get_recipe, override
from otseg.train.command import main as train

VOC = 'ImageSets/Segmentation'
NAMES = ['road', 'sky', 'car', 'cow']


def picture(path, size=(30, 20)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.indices(size[::-1]).sum(0).astype(np.uint8)).convert('RGB').save(path)


def mask(path, values, size=(30, 20)):
    "Vertical stripes of the values"
    path.parent.mkdir(parents=True, exist_ok=True)
    stripes = np.asarray(values, np.uint8)[np.arange(size[0]) * len(values) // size[0]]
    Image.fromarray(np.broadcast_to(stripes, size[::-1]).copy()).save(path)


def lines(path, names):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(f'{n}\n' for n in names), encoding='utf-8')


def shell(*argv) -> tuple[int, str, str]:
    "Exit code, stdout and stderr of the console script, run in this process"
    out, err, code, before = io.StringIO(), io.StringIO(), 0, sys.argv
    with tempfile.TemporaryDirectory() as d:
        script = Path(d)/'otseg-prepare'
        script.write_text('import sys\nfrom otseg.commands.data import prepare\n'
                          'if __name__ == "__main__": sys.exit(prepare())\n', encoding='utf-8')
        sys.argv = [str(script), *map(str, argv)]
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                runpy.run_path(str(script), run_name='__main__')
        except SystemExit as e: code = e.code or 0
        finally: sys.argv = before
    return code, out.getvalue(), err.getvalue()


def tree(folder):
    return {p.relative_to(folder).as_posix(): (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else None)
            for p in sorted(Path(folder).rglob('*'))}


@pytest.fixture
def world(tmp_path):
    "Six sound pictures to train on and three to score, of four classes; no cow in training, where car is unseen"
    root = tmp_path/'data'
    for split, n in dict(train=6, val=3).items():
        for i in range(n):
            picture(root/'images'/split/f'{i}.jpg')
            mask(root/'masks'/split/f'{i}.png', [0, 1, 255] if split == 'train' and i else [0, 2, 1])
    (root/'dataset.json').write_text(json.dumps(dict(names=NAMES, unseen=['car', 'cow'])), encoding='utf-8')
    return root


def problems(report) -> dict:
    return {s.split: {kind: len(files) for kind, files in s.problems.items()} for s in report.splits}


def test_every_published_data_set_has_its_numbers():
    for name, layout in LAYOUTS.items():
        assert {'train', 'val'} <= {*layout.published} <= {'train', 'val', 'test'}, name
        assert all(n > 0 for numbers in layout.published.values() for n in numbers)
    assert LAYOUTS['camvid'].published == dict(train=(367,), val=(101,), test=(233,))


def test_a_data_set_is_one_entry(world, monkeypatch, capsys):
    "Registered at run time, it is read, checked, compared with its numbers, and known where recipes are asked for"
    source = MaskSource(('masks/{split}',))
    layout = Layout(vocab_of(NAMES, unseen=['car', 'cow'], name='farm'), ('images/{split}',), (source,),
                    published=dict(train=(6,), val=(4,), test=(2,)))
    with pytest.raises(InputError, match="unknown data set 'farm'"): load_dataset('farm', world)
    with pytest.raises(InputError, match="unknown recipe 'farm-inductive'"): get_recipe('farm-inductive')
    monkeypatch.setitem(LAYOUTS, 'farm', layout)
    data = load_dataset('farm', world, 'val')
    assert len(data) == 3 and data.vocab.unseen_names == ('car', 'cow')
    code, out, err = shell('farm', world)
    assert code == 1 and '3 in ' in out and 'published 4' in out and 'not there: test' in out, (out, err)
    report = check_dataset('farm', world)
    assert problems(report) == dict(train={}, val=dict(count=1)) and report.absent == ['test']
    with pytest.raises(SystemExit): train(['farm-supervised', '--data', str(world), '--output', str(world/'run')])
    err = capsys.readouterr().err
    assert 'farm-supervised should be one of the recipes' in err and 'voc12-supervised --dataset farm' in err
    with pytest.raises(InputError, match='voc12-inductive --dataset farm'): get_recipe('farm')
    assert override(get_recipe('voc12-inductive'), dataset='farm').dataset == 'farm'


def test_a_sound_folder(world, tmp_path):
    before = tree(world)
    code, out, err = shell('folder', world, '--full', '--output', tmp_path/'report.json')
    assert code == 0 and out.endswith('nothing wrong: folder, 6 pictures in train, 3 pictures in val\n'), (out, err)
    assert 'PROBLEM' not in out and '100%' in err and tree(world) == before
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line[:4].strip() in NAMES}
    assert rows['road'] == ['road', '46.15', '%', '6', '33.33', '%', '3']       # 1200 of 2600 labelled pixels, 200 of 600
    assert rows['cow'] == ['cow', '*', '0.00', '%', '0', '0.00', '%', '0']
    assert 'pictures with unseen classes: car 1 - in inductive training their pixels have no class' in out
    assert 'classes without a pixel: cow *' in out
    record = json.loads((tmp_path/'report.json').read_text(encoding='utf-8'))
    train = record['splits']['train']
    assert train['pixels'] == {'road': 1200, 'sky': 1200, 'car': 200, 'cow': 0, 'no class': 1000}
    assert train['pictures_with'] == {'road': 6, 'sky': 6, 'car': 1, 'cow': 0, 'no class': 5}
    assert train['unseen_with_pixels'] == ['car'] and train['missing'] == ['cow'] and train['problems'] == {}
    assert abs(train['void'] - 1000 / 3600) < 1e-6 and record['splits']['val']['masks'] == {'masks/val': 3}


def test_everything_wrong_is_counted_at_once(world):
    lines(world/'train.txt', ['0', '1', '2', '3', '4', '5', '5', *'abcdefg'])
    for name in 'abc': picture(world/f'images/train/{name}.jpg')             # a, b, c: no mask; d..g: nothing at all
    mask(world/'masks/train/1.png', [0, 9, 255, 12])
    mask(world/'masks/train/2.png', [0, 1], size=(20, 30))
    (world/'masks/train/3.png').write_bytes((world/'masks/train/3.png').read_bytes()[:60])
    (world/'images/train/4.jpg').write_text('not a picture', encoding='utf-8')
    lines(world/'val.csv', ['image,mask', 'images/val/0.jpg,masks/val/0.png', 'images/train/0.jpg,masks/train/0.png'])
    before, report = tree(world), check_dataset('folder', world)
    assert problems(report) == dict(
        train=dict(twice=1, no_image=4, no_mask=7, image=1, mask=1, size=1, value=1), val=dict(shared=1))
    found = report.splits[0].problems
    assert found['twice'] == ['5'] and found['no_mask'][0].endswith('masks/train/a.png')
    assert found['size'] == [f'{world}/masks/train/2.png: 20 x 30 pixels, its picture 30 x 20']
    assert found['value'][0].endswith('masks/train/1.png: 9 (140 pixels), 12 (140 pixels)')
    assert report.splits[0].tally.values == {9: 140, 12: 140}
    code, out, err = shell('folder', world)
    assert code == 1 and tree(world) == before
    assert 'PROBLEM: missing masks, 7 of them.' in out and '... and 4 more' in out and 'Traceback' not in err
    assert '9 in 140 pixels, 12 in 140 pixels' in out
    assert out.splitlines()[-1].startswith('8 problems (train: twice, train: no_image,')


def test_pictures_are_decoded_on_demand(world):
    whole = (world/'images/train/0.jpg').read_bytes()
    (world/'images/train/0.jpg').write_bytes(whole[:-20])
    assert problems(check_dataset('folder', world)) == dict(train={}, val={})
    assert problems(check_dataset('folder', world, full=True)) == dict(train=dict(image=1), val={})


@pytest.mark.parametrize('jobs', [1, 3])
def test_threads_agree(world, jobs):
    for i in range(100):
        os.link(world/'images/train/0.jpg', world/f'images/val/link{i}.jpg')
        os.link(world/f'masks/train/{i % 6}.png', world/f'masks/val/link{i}.png')
    tally = check_dataset('folder', world, jobs=jobs).splits[1].tally
    assert tally.pixels.tolist() == [200 * 103, 200 * 103, 200 * 20, 0, 200 * 83] and not tally.wrong


def test_voc_with_sbd(tmp_path, monkeypatch):
    "Masks of two kinds in one split, and the numbers of pictures that papers report"
    base, sbd = tmp_path/'VOCdevkit/VOC2012', tmp_path/'benchmark_RELEASE/dataset'
    for i in range(4): picture(base/f'JPEGImages/{i}.jpg')
    for i in (0, 1): mask(base/f'SegmentationClass/{i}.png', [0, 255, 16 + i])
    for i in (2, 3): (sbd/'cls').mkdir(parents=True, exist_ok=True); savemat(
        sbd/f'cls/{i}.mat', dict(GTcls=dict(Segmentation=np.full((20, 30), 5 * i, np.uint8))))
    lines(base/VOC/'train.txt', ['0']); lines(base/VOC/'val.txt', ['1']); lines(sbd/'train.txt', ['2', '0'])
    lines(sbd/'val.txt', ['1', '3'])
    assert problems(check_dataset('voc12', tmp_path, subset=True)) == dict(train={}, val={})
    report = check_dataset('voc12', tmp_path)
    assert problems(report) == dict(train=dict(count=1), val=dict(count=1)) and report.absent == []
    train = report.splits[0]
    assert train.masks == {'VOCdevkit/VOC2012/SegmentationClass': 1, 'benchmark_RELEASE/dataset/cls': 2}
    assert [int(train.tally.pixels[c]) for c in (15, 9, 14, 20)] == [200, 600, 600, 400]
    assert train.names == 3 and 'published 10,582 or 1,464' in train.problems['count'][0]
    numbers = dict(train=(10, 3), val=(1,), test=(5,))
    monkeypatch.setitem(LAYOUTS, 'voc12', replace(LAYOUTS['voc12'], published=numbers))
    report = check_dataset('voc12', tmp_path)                                  # as many as published, and yet not VOC
    assert problems(report) == dict(train=dict(classes=13), val={}) and report.absent == ['test']
    assert report.splits[0].remedy('classes') == 'Complete the data set, or pass --subset if a part is meant.'
    lines(base/VOC/'train_aug.txt', ['0', '1'])                               # a list that took in a picture of val
    assert problems(check_dataset('voc12', tmp_path, subset=True)) == dict(train={}, val=dict(shared=1))


def test_what_cannot_be_looked_through(world, tmp_path):
    for argv, says in [
            (['voc13', world], "unknown data set 'voc13'. Did you mean 'voc21' or 'voc12'"), (['toy', world], 'unknown data set'),
            (['folder', tmp_path/'none'], 'should be the folder of a data set, got no such folder'),
            (['voc12', tmp_path/'none'], 'no such folder'),
            (['folder', world, '--split', 'train,night'], 'images/night'),
            (['folder', world, '--output', world/'dataset.json'], 'dataset.json should not exist yet'),
            (['folder', world, '--output', world], 'should be a file, got a folder'),
            (['folder', world, '--jobs', '-1'], '`jobs` should be at least 1')]:
        before = tree(world)
        code, out, err = shell(*argv)
        assert code == 2 and 'Traceback' not in err and tree(world) == before, err
        assert err.splitlines()[-1].startswith('error: ') and says in err, err
    shutil.rmtree(world/'masks/val')                                           # half a split is not an absent one
    code, out, err = shell('folder', world)
    assert code == 2 and 'should hold masks in masks/val' in err


# verdicts: exit code 1, and the line that mends it

def described(root, **more):
    (root/'dataset.json').write_text(json.dumps(dict(names=NAMES, unseen=['car', 'cow']) | more), encoding='utf-8')


def verdict(root, *says, kinds=(), options=()):
    "The output of a command that finds these kinds of problems and says these words"
    before = tree(root)
    code, out, err = shell('folder', root, *options)
    assert code == (1 if kinds else 0) and 'Traceback' not in err and tree(root) == before, (out, err)
    last = out.splitlines()[-1]
    assert all(k in last for k in kinds) and last.count(': ') >= len(kinds), last
    for text in says: assert text in out, out
    return out


def test_seen_classes_without_a_pixel(world):
    described(world, unseen=['cow'])
    mask(world/'masks/train/0.png', [0, 1])
    says = 'seen classes without a pixel, 1 of them', 'name them in "unseen"', '    car\n'
    out = verdict(world, *says, kinds=['train: classes'])
    assert out.splitlines()[-1].startswith('1 problem (train: classes)')
    verdict(world, options=['--subset'])                                       # a part on purpose
    verdict(world, options=['--split', 'val'])                                 # to score needs no pixel of every class
    described(world, unseen=['cow', 'car'])                                    # what the remedy says
    verdict(world, 'classes without a pixel: car *, cow *')


@pytest.mark.parametrize('text', [dict(ignore=[0, 1, 2]), dict(map={'0': None, '1': None, '2': None}),
                                  dict(reduce_zero_label=True, ignore=[1, 2])])
def test_all_classes_without_a_pixel(world, text):
    described(world, **text)
    says = 'no pixel of any class. Every label is ignored', '4 of 4 classes in 6 masks'
    verdict(world, *says, kinds=['train: void', 'val: void'])


@pytest.mark.parametrize('k', [2, 3])
def test_masks_of_0_and_255(world, k):
    for split, n in dict(train=6, val=3).items():
        for i in range(n): mask(world/f'masks/{split}/{i}.png', [0, 255])
    described(world, names=NAMES[:k], unseen=NAMES[2:k])
    verdict(world, '"map": {"0": 0, "255": 1}', '"ignore": 255', kinds=['train: binary', 'val: binary', 'train: classes'])
    with pytest.raises(InputError, match='0 and 255'): load_dataset('folder', world)
    described(world, names=NAMES[:k], unseen=NAMES[2:k], map={'0': 0, '255': 1})  # the line that it says
    verdict(world)
    assert load_dataset('folder', world)[0]['labels'].unique().tolist() == [0, 1]
    described(world, names=NAMES[:k], unseen=NAMES[2:k], ignore=255)           # and the other one: half of each picture is void
    verdict(world, 'seen classes without a pixel', kinds=['train: classes'])


@pytest.mark.parametrize('word', ['valid', 'Validation', 'dev'])
def test_a_split_under_another_name(world, word):
    for kind in ('images', 'masks'): (world/kind/'val').rename(world/kind/word)
    verdict(world, f'Rename images/{word}, and what belongs to it, to val', f'--split {word}', kinds=[f'images/{word}: split'])
    verdict(world, f'3 pictures in {word}', options=['--split', f'train,{word}'])
    for kind in ('images', 'masks'): (world/kind/word).rename(world/kind/'val')
    verdict(world, '3 pictures in val')


def test_a_list_under_another_name(world):
    lines(world/'train.txt', range(6))
    lines(world/'valid.txt', range(3))
    for kind in ('images', 'masks'): shutil.rmtree(world/kind/'val')
    verdict(world, 'Rename valid.txt', kinds=['valid.txt: split'])
    (world/'valid.txt').rename(world/'notes.txt')
    verdict(world)


@pytest.mark.parametrize('make, says', [
    (lambda r: shutil.rmtree(r/'images'), 'should hold pictures in images/train, got no such folder'),
    (lambda r: [(r/'images'/s).rename(r/'images'/t) for s, t in (('train', 'Train'), ('val', 'valid'))], 'Rename images/Train'),
    (lambda r: [(r/'images'/s).rename(r/'images'/s[::-1]) for s in ('train', 'val')], 'There is images/lav, images/niart'),
    (lambda r: [shutil.move(p, r/'images') for p in (r/'images/train').iterdir()] + [shutil.rmtree(r/'images/train'),
                shutil.rmtree(r/'images/val')], 'should hold pictures in images/train')])
def test_nothing_found_at_all(world, make, says):
    make(world)
    code, out, err = shell('folder', world)
    assert code == 1 and out == '' and err.startswith('nothing found: ') and says in err, (out, err)


def test_another_data_set_is_nothing_found(world):
    for name, says in dict(voc12='JPEGImages', ade150='images/training', camvid='pictures in train').items():
        code, out, err = shell(name, world)
        assert code == 1 and says in err and 'Traceback' not in err, err


def test_folders_without_a_picture(world):
    for p in (world/'images/train').iterdir(): p.rename(p.with_suffix('.heic'))
    verdict(world, 'no picture at all', 'left out: 6 in a format that is not read (train/0.heic, train/1.heic, ...)',
            'Convert them', kinds=['train: empty', 'train: format'])
    with pytest.raises(InputError, match='at least one picture, got none .left out: 6 in a format'): load_dataset('folder', world)
    shutil.rmtree(world/'images/train')
    (world/'images/train').mkdir()
    verdict(world, 'no picture at all', kinds=['train: empty'])


def test_what_was_left_out_is_said(world):
    for name in ('._0.jpg', '.ipynb_checkpoints/0-checkpoint.jpg'): picture(world/'images/train'/name)
    (world/'images/train/readme.txt').write_text('x', encoding='utf-8')
    mask(world/'masks/train/99.png', [0])
    verdict(world, 'left out: 2 hidden (train/._0.jpg, train/.ipynb_checkpoints/)',
            '1 without the ending of a picture (train/readme.txt); 1 masks without a picture (train/99.png)')


def test_pictures_that_leave_something_open(world):
    "Orientation, alpha and depth are told, with the side that the mask fits"
    exif = Image.Exif()
    exif[0x112] = 6
    photo = Image.open(world/'images/train/0.jpg')
    photo.save(world/'images/train/0.jpg', exif=exif)
    mask(world/'masks/train/0.png', [0, 1, 2], size=(20, 30))
    photo.convert('RGBA').save(world/'images/train/1.png')
    (world/'images/train/1.jpg').unlink()
    Image.fromarray((np.indices((20, 30)).sum(0) * 1300).astype(np.uint16)).save(world/'images/train/2.png')
    (world/'images/train/2.jpg').unlink()
    verdict(world, '1 marked as turned (EXIF orientation 6)', '1 of these, read upright to fit the mask', '1 with an alpha band',
            '1 of 16 bits a channel')
    mask(world/'masks/train/0.png', [0, 1, 2])                                 # drawn on the pixels as they lie
    verdict(world, '"orientation": "stored"', 'EXIF orientation 6', kinds=['train: size'])
    described(world, orientation='stored')
    verdict(world, '1 of these, read as stored to fit the mask')
    Image.fromarray((np.indices((20, 30)).sum(0) * 80).astype(np.uint16)).save(world/'images/train/2.png')
    verdict(world, 'nearly black', '"depth": 12', kinds=['train: image'])
    described(world, orientation='stored', depth=12)
    verdict(world)


def test_signs_of_accidents(world):
    "Masks whose numbers mean something else: a palette of each file, JPEG, numbers of objects, steps along edges"
    for i, colors in enumerate([[0, 0, 0, 255, 0, 0], [255, 0, 0, 0, 0, 0]]):
        image = Image.fromarray(np.tile(np.repeat(np.uint8([0, 1]), 15), (20, 1)))
        image.putpalette(colors)
        image.save(world/f'masks/train/{i}.png')
    says = 'palettes that contradict each other', 'A tool has made a palette for each file'
    out = verdict(world, *says, kinds=['train: palette'])
    assert '1 PNG P of' in out or '2 PNG P of' in out
    Image.open(world/'masks/train/1.png').convert('RGB').save(world/'masks/train/1.png', format='JPEG')
    verdict(world, 'JPEG content', kinds=['train: mask'])
    Image.fromarray(np.full((20, 30), 26001, np.uint16)).save(world/'masks/train/1.png')
    verdict(world, 'count objects (an instance mask)', kinds=['train: value'])
    mask(world/'masks/train/1.png', [0, 4])
    verdict(world, '"ignore": 4', kinds=['train: value'])


def test_every_problem_has_words():
    assert all(what and do.endswith('.') for what, do in WRONG.values())
    assert prepare.__doc__.endswith('Changes nothing')


@pytest.mark.data
def test_real_pictures(shared):
    report = check_dataset('camvid', shared/'data/camvid', full=True)
    assert report.problems == 0 and [s.names for s in report.splits] == [367, 101] and report.absent == ['test']
    assert not any(s.missing() for s in report.splits)
    for s in report.splits: assert int(s.tally.pixels.sum()) == s.names * 480 * 360
    report = check_dataset('voc12', shared/'data/voc2012_mini', full=True)
    assert problems(report) == dict(train=dict(count=1), val=dict(count=1))
    assert 15 in report.splits[0].missing() and 15 in report.splits[1].missing()                    # no pottedplant


COUNT = """
import json, sys, time
from pathlib import Path
import torch
from otseg.data.masks import read_mask, to_labels
from otseg.data.reading import load_dataset
from otseg.evaluate.metrics import ConfusionMatrix, segmentation_scores
from otseg.data.check import check_dataset
torch.set_num_threads(1)
def mib():  # ru_maxrss would start at that of the process that started this one
    lines = open('/proc/self/status', encoding='utf-8').read().splitlines()
    return int(next(line for line in lines if line.startswith('VmHWM')).split()[1]) / 1024
imported = mib()
began = time.perf_counter()
report = check_dataset('voc12', Path(sys.argv[1]), ['val'])
checked = time.perf_counter() - began
data = load_dataset('voc12', sys.argv[1], 'val')
confusion = ConfusionMatrix(20)
for item in data.items:
    labels = to_labels(read_mask(item.mask), data.tables[item.source])
    prediction = labels.clamp(max=19)
    prediction[:, :250] = (prediction[:, :250] + 1) % 20      # the left half is taken for the next class
    confusion.update(prediction, labels)
scores = segmentation_scores(confusion.counts, data.vocab.seen, data.vocab.unseen)
print(json.dumps(dict(
    checked=checked, seconds=time.perf_counter() - began, problems=report.splits[0].to_dict(report.vocab)['problems'],
    imported_mib=imported, peak_mib=mib(), pixels=report.splits[0].tally.pixels.tolist(),
    counts=confusion.counts.tolist(), hiou=scores.hiou)))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='reads the peak of a process in /proc: Linux')
@pytest.mark.parametrize('limit', [math.inf, pytest.param(60, marks=pytest.mark.timing)])
def test_a_set_of_the_size_of_voc_val(tmp_path, limit):
    "1,449 masks of 500 x 375: histogram and scores are right, take little memory, and on a quiet machine under a minute"
    base, rng, drawn = tmp_path/'VOC2012', np.random.default_rng(0), []
    picture(base/'JPEGImages/0.jpg', size=(500, 375))
    (base/'SegmentationClass').mkdir(parents=True)
    y, x = np.indices((375, 500))
    for i in range(23):                                    # cells around random points, void between them
        at = rng.uniform(0, 1, (12, 2)) * (375, 500)
        far = np.stack([(y - a)**2 + (x - b)**2 for a, b in at])
        first, second = np.sort(far, 0)[:2]
        values = rng.integers(0, 21, 12).astype(np.uint8)[far.argmin(0)]
        values[np.sqrt(second) - np.sqrt(first) < 4] = 255
        image = Image.fromarray(values)
        image.putpalette([(7 * j) % 256 for j in range(768)])
        image.save(base/f'SegmentationClass/{i}.png')
        drawn.append(values)
    for i in range(1449):
        if i: os.link(base/'JPEGImages/0.jpg', base/f'JPEGImages/{i}.jpg')
        if i >= 23: os.link(base/f'SegmentationClass/{i % 23}.png', base/f'SegmentationClass/{i}.png')
    lines(base/VOC/'val.txt', range(1449))
    got = subprocess.run([sys.executable, '-c', COUNT, base], capture_output=True, text=True, timeout=600, encoding='utf-8')
    assert got.returncode == 0, got.stderr
    found, times = json.loads(got.stdout), np.bincount(np.arange(1449) % 23)
    print({k: round(found[k], 1) for k in ('checked', 'seconds', 'imported_mib', 'peak_mib')})
    assert found['problems'] == {} and found['checked'] < limit, found
    assert found['peak_mib'] - found['imported_mib'] < 256
    counts = np.zeros((20, 20), np.int64)
    void = 0
    for values, n in zip(drawn, times):
        for half, step in ((values[:, :250], 1), (values[:, 250:], 0)):
            area = np.bincount(half[(half > 0) & (half < 255)] - 1, minlength=20) * n
            np.add.at(counts, (np.arange(20), (np.arange(20) + step) % 20), area)
            void += n * ((half == 0) | (half == 255)).sum()
    assert found['pixels'] == [*counts.sum(1).tolist(), int(void)] and found['counts'] == counts.tolist()
    c = torch.tensor(counts, dtype=torch.float64)
    iou = c.diag() / (c.sum(0) + c.sum(1) - c.diag())
    s, u = (float(iou[list(g)].mean()) for g in (load_vocab('voc12').seen, load_vocab('voc12').unseen))
    assert abs(found['hiou'] - 2 * s * u / (s + u)) < 1e-6
