"The ten data sets of the open-vocabulary benchmarks in the folders of their archives: checked, read, derived value by value"
import hashlib

import numpy as np
import pytest
import torch
from given.layouts import (BENCHMARKS, WRONG, ade_full_mask, ade_full_tree, cityscapes_tree, coco_tree, context_tree, lines,
                           mask, picture, stripes, voc_tree)
from given.shell import shell
from PIL import Image

from otseg.core import InputError, ignore_label
from otseg.data.check import check_dataset
from otseg.data.layouts import LAYOUTS, MaskSource
from otseg.data.listing import list_split
from otseg.data.masks import source_table
from otseg.data.reading import load_dataset
from otseg.evaluate.metrics import ConfusionMatrix
from otseg.evaluate.protocol import benchmarks, protocol_vocab
from otseg.model.vocab import inductive_labels, load_vocab


def files(root): return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(root.rglob('*')) if p.is_file()}


def fails(words, call):
    with pytest.raises(InputError) as error: call()
    for word in [words] if isinstance(words, str) else words: assert word in str(error.value), str(error.value)


def problems(name, root, **more): return check_dataset(name, root, ['val'], **more).splits[0].problems


def test_all_of_them_are_here():
    assert {*BENCHMARKS} == {*benchmarks(), *benchmarks(large=True)}


@pytest.mark.parametrize('name', BENCHMARKS)
def test_a_tree_as_published(name, tmp_path):
    make, expected = BENCHMARKS[name]
    make(tmp_path)
    before, k = files(tmp_path), len(load_vocab(LAYOUTS[name].vocab))
    assert problems(name, tmp_path, subset=True) == {}
    (published,) = LAYOUTS[name].published['val'][:1]
    assert list(problems(name, tmp_path)) == ['count'] and f'{published:,}' in problems(name, tmp_path)['count'][0]
    data = load_dataset(name, tmp_path, 'val')
    assert len(data) == 2 and data.vocab.names == protocol_vocab(name).names
    for sample in data:
        assert sample['labels'].unique().tolist() == expected
        assert tuple(sample['image'].shape[1:]) == tuple(sample['labels'].shape) == (40, 60)
        assert expected[-1] < k or expected[-1] == ignore_label(k)
    assert data.identity() == load_dataset(name, tmp_path, 'val').identity()
    assert files(tmp_path) == before                                           # what is derived is not written


@pytest.mark.parametrize('name', BENCHMARKS)
def test_otseg_prepare(name, tmp_path, monkeypatch):
    make, _ = BENCHMARKS[name]
    make(tmp_path/'data')
    monkeypatch.chdir(tmp_path)
    code, out, err = shell('otseg-prepare', name, 'data', '--subset')
    assert code == 0 and 'val: 2 pictures' in out, (out, err)
    image = sorted(p for p in (tmp_path/'data').rglob('*') if p.suffix in ('.jpg', '.png') and 'Images' in str(p.parent)
                   or p.name.endswith(('_leftImg8bit.png', '.jpg')))[0]
    image.write_bytes(image.read_bytes()[:40])
    code, out, err = shell('otseg-prepare', name, 'data', '--subset')
    assert code == 1 and image.name in out, (out, err)


@pytest.mark.parametrize('name', BENCHMARKS)
def test_a_wrong_tree_is_named(name, tmp_path):
    BENCHMARKS[name][0](tmp_path)
    change, file = WRONG[name]
    change(tmp_path)
    fails(file, lambda: [*load_dataset(name, tmp_path, 'val')])
    try: found = problems(name, tmp_path, subset=True)
    except InputError as e: found = dict(error=[str(e)])
    assert file in str(found), found


@pytest.mark.parametrize('name', BENCHMARKS)
def test_another_folder(name, tmp_path):
    (tmp_path/'somewhere').mkdir()
    for call in (lambda: load_dataset(name, tmp_path, 'val'), lambda: check_dataset(name, tmp_path)):
        fails([str(tmp_path), 'should hold', *LAYOUTS[name].images[0].split('{')[:1]], call)


# Cityscapes

# labels 0..33 of Cityscapes, and what each is in the benchmark
IDS = ['unlabeled', 'ego vehicle', 'rectification border', 'out of roi', 'static', 'dynamic', 'ground', 'road', 'sidewalk',
       'parking', 'rail track', 'building', 'wall', 'fence', 'guard rail', 'bridge', 'tunnel', 'pole', 'polegroup',
       'traffic light', 'traffic sign', 'vegetation', 'terrain', 'sky', 'person', 'rider', 'car', 'truck', 'bus', 'caravan',
       'trailer', 'train', 'motorcycle', 'bicycle']
TRAIN_IDS = [255, 255, 255, 255, 255, 255, 255, 0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, 6, 7, 8, 9, 10, 11, 12, 13, 14,
             15, 255, 255, 16, 17, 18]


def test_every_value_of_cityscapes(tmp_path):
    size = (34 * 8, 40)
    cityscapes_tree(tmp_path, range(34), size=size)
    (sample, _) = load_dataset('cityscapes', tmp_path, 'val')
    assert sample['labels'][0, ::8].tolist() == TRAIN_IDS and torch.equal(sample['labels'][0], sample['labels'][-1])
    assert sample['key'] == 'frankfurt/frankfurt_000000_000294'
    names = load_vocab('cityscapes19').names
    assert [names[i] for i in TRAIN_IDS if i < 255] == [n for n, i in zip(IDS, TRAIN_IDS) if i < 255] and len(names) == 19
    assert problems('cityscapes', tmp_path, subset=True) == {}


def test_train_ids_of_cityscapes(tmp_path):
    "Where there are only these they are taken; beside the others they are not, and under their name they are an error"
    cityscapes_tree(tmp_path/'ready', [0, 18, 255], 'labelTrainIds')
    assert load_dataset('cityscapes', tmp_path/'ready', 'val')[0]['labels'].unique().tolist() == [0, 18, 255]
    cityscapes_tree(tmp_path/'ready', [7, 0])
    assert load_dataset('cityscapes', tmp_path/'ready', 'val')[0]['labels'].unique().tolist() == [0, 255]
    cityscapes_tree(tmp_path/'wrong', [0, 18, 255])
    fails(['frankfurt_000000_000294_gtFine_labelIds.png should hold 0..33', 'got [255]'],
          lambda: load_dataset('cityscapes', tmp_path/'wrong', 'val')[0])
    cityscapes_tree(tmp_path/'19', [0, 19], 'labelTrainIds')
    fails(['labelTrainIds.png should hold 0..18, 255', 'got [19]'], lambda: load_dataset('cityscapes', tmp_path/'19', 'val')[0])


def test_cityscapes_below_its_archives(tmp_path):
    cityscapes_tree(tmp_path/'x')
    (tmp_path/'cityscapes/gtFine_trainvaltest').mkdir(parents=True)
    (tmp_path/'x/gtFine').rename(tmp_path/'cityscapes/gtFine_trainvaltest/gtFine')
    (tmp_path/'x').rename(tmp_path/'cityscapes/leftImg8bit_trainvaltest')
    assert len(load_dataset('cityscapes', tmp_path, 'val')) == 2
    assert list_split(tmp_path, LAYOUTS['cityscapes'], 'val').names == ['frankfurt/frankfurt_000000_000294',
                                                                       'lindau/lindau_000001_000019']


# COCO-Object

# values of COCO-Stuff that are things -> class of the first; things that were never drawn
RUNS = [((0, 10), 1), ((12, 24), 12), ((26, 27), 25), ((30, 43), 27), ((45, 64), 41), ((66, 66), 61), ((69, 69), 62),
        ((71, 81), 63), ((83, 89), 74)]
GAPS = [11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90]


def test_every_value_of_coco_object(tmp_path):
    "Things are 1..80, stuff and what nobody drew are background, gaps are an error"
    expected = {v: first + v - a for (a, b), first in RUNS for v in range(a, b + 1)} | dict.fromkeys((*range(91, 182), 255), 0)
    assert sorted({*expected.values()}) == [*range(81)] and sorted({*range(182), 255} - {*expected}) == GAPS
    values = sorted(expected)
    size = (len(values) * 4, 20)
    picture(tmp_path/'images/val2017/1.jpg', size)
    mask(tmp_path/'stuffthingmaps/val2017/1.png', values, size, palette=False)
    (sample,) = load_dataset('coco_object', tmp_path, 'val')
    assert sample['labels'][0, ::4].tolist() == [expected[v] for v in values]
    names, coco = load_vocab('coco_object').names, load_vocab('cocostuff171').names
    assert [names[expected[v]] for v in (0, 12, 15, 89)] == ['person', 'stop sign', 'bird', 'toothbrush']
    assert names[1:] == coco[:80]
    for gap in GAPS:
        mask(tmp_path/'stuffthingmaps/val2017/1.png', [0, gap], size, palette=False)
        says = ['stuffthingmaps/val2017/1.png should hold', f'got [{gap}]']
        fails(says, lambda: load_dataset('coco_object', tmp_path, 'val')[0])


def test_coco_object_of_converted_masks(tmp_path):
    "From the train ids of COCO-Stuff, or as GroupViT's script writes it: the same"
    size = (172 * 4, 20)
    for tree in ('stuff', 'both'): picture(tmp_path/tree/'images/val2017/1.jpg', size)
    mask(tmp_path/'stuff/annotations/val2017/1_labelTrainIds.png', [*range(171), 255], size, palette=False)
    (sample,) = load_dataset('coco_object', tmp_path/'stuff', 'val')
    assert sample['labels'][0, ::4].tolist() == [*range(1, 81), *[0] * 92]
    mask(tmp_path/'both/annotations/val2017/1_instanceTrainIds.png', [0, 1, 80], size, palette=False)
    mask(tmp_path/'both/annotations/val2017/1.png', [5], size, palette=False)
    assert load_dataset('coco_object', tmp_path/'both', 'val')[0]['labels'].unique().tolist() == [0, 1, 80]
    mask(tmp_path/'both/annotations/val2017/1_instanceTrainIds.png', [0, 81], size, palette=False)
    fails('1_instanceTrainIds.png should hold 0..80, 255', lambda: load_dataset('coco_object', tmp_path/'both', 'val')[0])


def test_coco_stuff_is_read_as_before(tmp_path):
    "One tree, two data sets"
    coco_tree(tmp_path)
    stuff, things = (load_dataset(n, tmp_path, 'val')[0]['labels'][0, ::10].tolist() for n in ('cocostuff171', 'coco_object'))
    assert stuff == [0, 11, 79, 80, 170, 255] and things == [1, 12, 80, 0, 0, 0]


# backgrounds

def test_voc_with_and_without_background(tmp_path):
    voc_tree(tmp_path)
    with_it, without = (load_dataset(n, tmp_path, 'val')[0]['labels'][0, ::15].tolist() for n in ('voc21', 'voc20'))
    assert with_it == [0, 1, 15, 255] and without == [255, 0, 14, 255]
    assert load_dataset('voc12', tmp_path, 'val')[0]['labels'][0, ::15].tolist() == without


def test_context_with_all_its_vocabularies(tmp_path):
    context_tree(tmp_path)
    labels = {n: load_dataset(n, tmp_path, 'val')[0]['labels'][0, ::12].tolist() for n in ('context59', 'context60', 'pc459')}
    assert labels == dict(context59=[255, 0, 255, 58, 255], context60=[0, 1, 0, 59, 0], pc459=[0, 1, 255, 457, 458])
    assert [load_vocab('pc459').names[i] for i in (0, 1, 457, 458)] == ['accordion', 'aeroplane', 'wood', 'wool']
    base = tmp_path/'VOCdevkit/VOC2010'
    for i in range(2): mask(base/f'SegmentationClassContext/2008_00000{i}.png', [0, 1, 59])
    assert load_dataset('context60', tmp_path, 'val')[0]['labels'].unique().tolist() == [0, 1, 59]
    assert load_dataset('context59', tmp_path, 'val')[0]['labels'].unique().tolist() == [0, 58, 255]


# the large vocabularies

def tif(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(stripes(values, dtype=np.uint16)).save(path)


def test_large_vocabularies_as_detectron2_has_them(tmp_path):
    base = tmp_path/'ADE20K_2021_17_01'
    picture(base/'images_detectron2/validation/ADE_val_00000001.jpg')
    tif(base/'annotations_detectron2/validation/ADE_val_00000001.tif', [0, 255, 846, 65535])
    assert load_dataset('ade847', tmp_path, 'val')[0]['labels'][0, ::15].tolist() == [0, 255, 846, 65535]
    voc = tmp_path/'VOCdevkit/VOC2010'
    picture(voc/'JPEGImages/1.jpg')
    tif(voc/'annotations_detectron2/pc459_val/1.tif', [0, 255, 458, 65535])
    lines(voc/'pascalcontext_val.txt', ['1'])
    assert load_dataset('pc459', tmp_path, 'val')[0]['labels'][0, ::15].tolist() == [0, 255, 458, 65535]
    for name in ('ade847', 'pc459'): assert problems(name, tmp_path, subset=True) == {}
    tally = check_dataset('ade847', tmp_path, ['val'], subset=True).splits[0].tally
    assert [int(tally.pixels[i]) for i in (0, 255, 846, 847)] == [600, 600, 600, 600]         # 255 is a class, 65535 none
    tif(base/'annotations_detectron2/validation/ADE_val_00000001.tif', [0, 847])
    fails(['ADE_val_00000001.tif should hold 0..846, 65535', 'got [847]'], lambda: load_dataset('ade847', tmp_path, 'val')[0])


def test_numbers_of_ade20k(tmp_path):
    "Wall, building, adding machine by their numbers in the index; others mean nothing, and numbers beyond the index are an error"
    ade_full_tree(tmp_path)
    data = load_dataset('ade847', tmp_path, 'val')
    assert [i.key for i in data.items] == ['home_or_hotel/bedroom/ADE_val_00000001', 'urban/street/ADE_val_00000002']
    assert data[0]['labels'][0, ::12].tolist() == [65535, 0, 1, 846, 65535]
    ade_full_mask(data.items[0].mask, [2978, 3689])
    fails([str(data.items[0].mask), 'got [3689]'], lambda: data[0])
    picture(data.items[0].mask, mode='L')
    fails([str(data.items[0].mask), 'coded colours, got mode L'], lambda: data[0])


def test_a_class_called_255_is_counted():
    "Of 847 classes the label 255 is one, and 65535 is none; of 20 it is none"
    truth = torch.tensor([[255, 255, 65535, 3]])
    c = ConfusionMatrix(847).update(torch.tensor([[255, 0, 0, 3]]), truth)
    assert int(c.counts.sum()) == 3 and int(c.counts[255, 255]) == 1 and int(c.counts[255, 0]) == 1
    assert int(ConfusionMatrix(20).update(torch.tensor([[1, 1]]), torch.tensor([[255, 1]])).counts.sum()) == 1
    fails('65535', lambda: ConfusionMatrix(20).update(torch.tensor([[1]]), torch.tensor([[65535]])))
    fails('at most 255 classes to be trained on, got 847', lambda: inductive_labels(torch.tensor([[3]]), load_vocab('ade847')))


def test_masks_of_one_byte_do_not_hold_them():
    fails('at most 255 classes, got 459', lambda: source_table(MaskSource(), 459))
