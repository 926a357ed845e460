"Data sets in the folders people have, every way they can be wrong, and pictures that stay with their masks"
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile
from scipy.io import savemat
from torchvision import tv_tensors
from torchvision.transforms import v2

from given.layouts import VOC, context_mask, lines, mask, picture, sbd_mask
from otseg.core import InputError, ignore_label
from otseg.data.masks import label_table, read_mask, source_table
from otseg.data.pictures import read_picture
from otseg.data.reading import SegmentationDataset, collate, load_dataset
from otseg.data.layouts import LAYOUTS, Item
from otseg.data.transforms import (CLIP_MEAN, CLIP_STD, CategoryRatioCrop, KeepRatioResize, PadTo, PhotometricDistort,
                              eval_transform, keep_ratio_size, train_transform)
from otseg.model.vocab import load_vocab


@pytest.fixture
def voc(tmp_path):
    "VOC 2012 with its own masks: a void border between background and class, one picture with an Aug mask"
    base = tmp_path/'VOCdevkit'/'VOC2012'
    for i in range(3):
        picture(base/'JPEGImages'/f'2007_{i:06}.jpg')
        mask(base/'SegmentationClass'/f'2007_{i:06}.png', [0, 255, 1 + i, 255, 20])
    mask(base/'SegmentationClassAug'/'2007_000001.png', [0, 7], palette=False)
    lines(base/VOC/'train.txt', ['2007_000000', '2007_000001'])
    lines(base/VOC/'val.txt', ['2007_000002'])
    return base


def values(sample): return sample['labels'].unique().tolist()


def fails(words, call, *args, **kwargs):
    with pytest.raises(InputError) as error: call(*args, **kwargs)
    for word in [words] if isinstance(words, str) else words: assert word in str(error.value), str(error.value)


# layouts

def test_voc(voc):
    for root in (voc, voc.parent, voc.parent.parent): assert len(load_dataset('voc12', root)) == 2
    data = load_dataset('voc12', voc)
    assert values(data[0]) == [0, 19, 255] and values(data[1]) == [6, 255]
    assert values(load_dataset('voc12', voc, 'val')[0]) == [2, 19, 255]
    assert data.vocab.names[19] == 'tvmonitor' and data[0]['key'] == '2007_000000' and data[0]['size'] == (40, 60)
    for name in ('trainaug', 'train_aug'):             # the augmented list goes before the short one
        lines(voc/VOC/f'{name}.txt', ['2007_000000', '2007_000001', '2007_000002'])
        longer = load_dataset('voc12', voc)
        assert len(longer) == 3 and f'{name}.txt' in longer.source


def test_voc_takes_masks_of_aug_to_train_and_its_own_to_score(voc):
    mask(voc/'SegmentationClassAug'/'2007_000002.png', [0, 7])
    assert values(load_dataset('voc12', voc)[1]) == [6, 255]
    assert values(load_dataset('voc12', voc, 'val')[0]) == [2, 19, 255]


@pytest.mark.parametrize('place', ['benchmark_RELEASE/dataset', 'sbd', 'SBD/dataset', 'VOCdevkit/VOCaug/dataset',
                                   'VOCdevkit/VOC2012/SBD', 'sbd/benchmark_RELEASE/dataset'])
def test_voc_with_sbd(voc, tmp_path, place):
    "VOC train + SBD train + SBD val - VOC val, each once; a picture that VOC has drawn keeps that mask"
    sbd = tmp_path/place
    for i, name in enumerate(['2007_000000', '2007_000002', '2008_000003', '2008_000004']):
        sbd_mask(sbd/'cls'/f'{name}.mat', [0, 11 + i])
        picture(voc/'JPEGImages'/f'{name}.jpg')
    lines(sbd/'train.txt', ['2008_000004', '2007_000000'])
    lines(sbd/'val.txt', ['2007_000002', '2008_000003'])
    data = load_dataset('voc12', tmp_path)
    assert [i.key for i in data.items] == ['2007_000000', '2007_000001', '2008_000004', '2008_000003']
    assert [values(s) for s in data] == [[0, 19, 255], [6, 255], [13, 255], [12, 255]]
    assert [i.key for i in load_dataset('voc12', tmp_path, 'val').items] == ['2007_000002']
    lines(voc/VOC/'trainaug.txt', ['2008_000003'])     # a list of one's own goes before that
    assert [values(s) for s in load_dataset('voc12', tmp_path)] == [[12, 255]]
    (sbd/'cls/2008_000003.mat').unlink()
    fails(['2008_000003.png should exist', '1 of 1'], load_dataset, 'voc12', tmp_path)


def test_list_of_paths(voc):
    "The lists of DeepLab name picture and mask"
    names = ['2007_000001', '2007_000000']
    lines(voc/VOC/'train_aug.txt', [f'/JPEGImages/{n}.jpg /SegmentationClassAug/{n}.png' for n in names])
    words = ["train_aug.txt names '2007_000000'", 'SegmentationClassAug/2007_000000.png', 'leave the masks out']
    fails(words, load_dataset, 'voc12', voc)
    mask(voc/'SegmentationClassAug/2007_000000.png', [0, 9], palette=False)
    data = load_dataset('voc12', voc)
    assert [i.key for i in data.items] == names and [values(s) for s in data] == [[6, 255], [8, 255]]
    lines(voc/VOC/'val.txt', [f'/JPEGImages/{n}.jpg /SegmentationClass/{n}.png' for n in names])
    assert [values(s) for s in load_dataset('voc12', voc, 'val')] == [[1, 19, 255], [0, 19, 255]]


def test_context(tmp_path):
    base = tmp_path/'VOC2010'
    picture(base/'JPEGImages'/'2008_1.jpg')
    mask(base/'SegmentationClassContext'/'2008_1.png', [0, 1, 59])
    lines(base/'ImageSets/SegmentationContext/val.txt', ['2008_1'])
    assert values(load_dataset('context59', tmp_path, 'val')[0]) == [0, 58, 255]


# what the labels.txt of PASCAL Context calls the 59 classes, by number
NUMBERS = (2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98, 104, 105, 113, 115, 144, 158,
           159, 162, 187, 189, 207, 220, 232, 258, 259, 260, 284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366,
           368, 397, 415, 416, 420, 424, 427, 440, 445, 454, 458)


@pytest.fixture
def context(tmp_path):
    "VOC 2010 with the 459 labels unpacked inside"
    base = tmp_path/'VOCdevkit'/'VOC2010'
    picture(base/'JPEGImages'/'2008_000002.jpg')
    context_mask(base/'trainval'/'2008_000002.mat', [0, 1, 2, 9, 255, 427, 458, 459])
    lines(base/'ImageSets/Main/val.txt', ['2008_000002'])
    names = dict(zip(NUMBERS, load_vocab('context59').names)) | {427: 'tvmonitor'}
    lines(base/'labels.txt', [f'{i}: {names.get(i, f"other {i}")}' for i in range(1, 460)])
    return base


@pytest.mark.parametrize('folder', ['trainval', 'SegmentationContext459', '../../trainval'])
def test_context_of_459_labels(context, folder):
    (context/folder).parent.mkdir(exist_ok=True)
    (context/'trainval').rename(context/folder)
    data = load_dataset('context59', context.parent.parent, 'val')
    assert values(data[0]) == [0, 1, 54, 58, 255] and data.vocab.names[54] == 'tv monitor'
    assert (data[0]['labels'] == 255).sum() == 40 * 30  # 0, accordion, label 255 and 459 mean nothing here
    assert [i.source.label_map[n] for i in data.items for n in NUMBERS] == [*range(59)]


def test_context_of_459_labels_that_are_wrong(context):
    load = lambda: load_dataset('context59', context, 'val')
    context_mask(context/'trainval'/'2008_000002.mat', [2, 460, 65535])
    fails(['2008_000002.mat should hold 0..459 (context59)', '[460, 65535]'], load().__getitem__, 0)
    text = (context/'labels.txt').read_text(encoding='utf-8')
    (context/'labels.txt').write_text(text.replace(': wood', ': timber'), encoding='utf-8')
    fails(['labels.txt', 'none called wood'], load)
    (context/'labels.txt').unlink()
    fails(['trainval should come with labels.txt', 'Put it at'], load)
    lines(context/'ImageSets/SegmentationContext/val.txt', ['2008_000009'])
    fails(['2008_000009.jpg'], load)


def test_cocostuff(tmp_path):
    for split in ('train2017', 'val2017'):
        picture(tmp_path/'images'/split/'000000000139.jpg')
        mask(tmp_path/'annotations'/split/'000000000139_labelTrainIds.png', [0, 170, 255], palette=False)
        mask(tmp_path/'annotations'/split/'000000000139.png', [181], palette=False)      # raw ids lie beside them
    for split in ('train', 'val'): assert values(load_dataset('cocostuff171', tmp_path, split)[0]) == [0, 170, 255]


@pytest.mark.parametrize('pictures', ['images/{}', '{}'])
@pytest.mark.parametrize('masks', ['annotations/{}', 'stuffthingmaps/{}', 'stuffthingmaps_trainval2017/{}'])
def test_cocostuff_as_it_is_published(tmp_path, pictures, masks):
    for split in ('train2017', 'val2017'):
        picture(tmp_path/'coco'/pictures.format(split)/'000000000139.jpg')
        mask(tmp_path/'coco'/masks.format(split)/'000000000139.png', [0, 10, 12, 89, 91, 181, 255], palette=False)
    for split in ('train', 'val'):
        assert values(load_dataset('cocostuff171', tmp_path, split)[0]) == [0, 10, 11, 79, 80, 170, 255]


def test_cocostuff_numbers():
    "A pixel holds COCO's number less 1; these are the numbers in use"
    runs = [(1, 11), (13, 25), (27, 28), (31, 44), (46, 65), (67, 67), (70, 70), (72, 82), (84, 90), (92, 182)]
    used = [n for a, b in runs for n in range(a, b + 1)]
    raw = LAYOUTS['cocostuff171'].masks[-1]
    table = source_table(raw, 171)
    assert table[[n - 1 for n in used]].tolist() == [*range(171)] and table[255] == 255
    assert (table >= 0).sum() == 172


def test_cocostuff_gap(tmp_path):
    "Train ids under the raw name fall into the gaps: an error, not other classes"
    picture(tmp_path/'images/val2017/1.jpg')
    mask(tmp_path/'stuffthingmaps/val2017/1.png', [10, 11, 12], palette=False)
    words = ['1.png should hold 0..10, 12..24, 26..27,', '91..181, 255 (cocostuff171)', 'got [11] in 800 pixels']
    fails(words, load_dataset('cocostuff171', tmp_path, 'val').__getitem__, 0)


def test_ade(tmp_path):
    base = tmp_path/'ADEChallengeData2016'
    picture(base/'images/validation/ADE_val_1.jpg')
    mask(base/'annotations/validation/ADE_val_1.png', [0, 1, 150], palette=False)
    assert values(load_dataset('ade150', tmp_path, 'val')[0]) == [0, 149, 255]


def test_camvid(tmp_path):
    picture(tmp_path/'train/a.png')
    mask(tmp_path/'trainannot/a.png', [0, 10, 11], palette=False)
    lines(tmp_path/'train.txt', ['a'])
    assert values(load_dataset('camvid', tmp_path)[0]) == [0, 10, 255]
    picture(tmp_path/'test/b.png')
    mask(tmp_path/'testannot/b.png', [3, 12], palette=False)
    lines(tmp_path/'test.txt', ['/SegNet/CamVid/test/b.png /SegNet/CamVid/testannot/b.png'])  # as SegNet published it
    fails(['testannot/b.png should hold 0..11, 255 (camvid11)', '[12]'], load_dataset('camvid', tmp_path, 'test').read, 0)


@pytest.mark.parametrize('name, tree, words', [
    ('voc12', ['JPEGImages', f'{VOC}/train.txt'], 'SegmentationClassAug or SegmentationClass'),
    ('context59', ['JPEGImages', 'ImageSets/Main/train.txt'], 'SegmentationClassContext or trainval'),
    ('context59', ['JPEGImages', 'trainval'], 'ImageSets/SegmentationContext/train.txt or ImageSets/Main/train.txt'),
    ('cocostuff171', ['annotations/train2017'], 'pictures in images/train2017 or train2017'),
    ('cocostuff171', ['train2017', 'annotations/val2017'], 'masks in annotations/train2017'),
    ('ade150', ['images/training'], 'masks in annotations/training'),
    ('camvid', ['train', 'train.txt'], 'masks in trainannot'),
    ('camvid', ['train', 'trainannot'], 'list of names train.txt')])
def test_half_a_tree(tmp_path, name, tree, words):
    for path in tree:
        if path.endswith('.txt'): lines(tmp_path/path, ['a'])
        else: (tmp_path/path).mkdir(parents=True)
    fails([str(tmp_path), words, 'no such'], load_dataset, name, tmp_path)


def test_folder(tmp_path):
    for key in ('day/a', 'night/a'):
        picture(tmp_path/'images/train'/f'{key}.png'); mask(tmp_path/'masks/train'/f'{key}.png', [0, 1, 2, 9, 255])
    text = dict(names=['road', 'sky', 'car'], unseen=['car'], ignore=[9], templates=['a {}'])
    (tmp_path/'dataset.json').write_text(json.dumps(text), encoding='utf-8')
    data = load_dataset('folder', tmp_path)
    assert [i.key for i in data.items] == ['day/a', 'night/a'] and values(data[0]) == [0, 1, 2, 255]
    assert data.vocab.unseen == (2,) and data.vocab.templates == ('a {}',) and data.vocab.name == tmp_path.name
    (tmp_path/'dataset.json').write_text(json.dumps(text | dict(reduce_zero_label=True, ignore=9, unseen=[0])), encoding='utf-8')
    data = load_dataset('folder', tmp_path)
    assert values(data[0]) == [0, 1, 255] and data.vocab.unseen_names == ('road',)
    lines(tmp_path/'train.txt', ['night/a'])
    assert len(load_dataset('folder', tmp_path)) == 1


def test_folder_of_seen_classes_and_tables(tmp_path):
    (tmp_path/'dataset.json').write_text('{"names": ["road", "sky", "car"], "seen": ["road", 1]}', encoding='utf-8')
    picture(tmp_path/'2024/a.tif'); mask(tmp_path/'drawn/1.png', [0, 2])
    picture(tmp_path/'2025/b c.jpg'); mask(tmp_path/'drawn/2.png', [1])
    rows = ['image,mask,split', '2024/a.tif,drawn/1.png,train', '"2025/b c.jpg",drawn/2.png,val']
    lines(tmp_path/'dataset.csv', rows)
    data = load_dataset('folder', tmp_path)
    assert data.vocab.unseen_names == ('car',) and [i.key for i in data.items] == ['2024/a'] and values(data[0]) == [0, 2]
    assert [i.key for i in load_dataset('folder', tmp_path, 'val').items] == ['2025/b c']
    lines(tmp_path/'val.csv', ['image, mask', '2024/a.tif, drawn/1.png', '2025/b c.jpg, drawn/3.png'])  # goes first
    fails(["val.csv names '2025/b c'", 'drawn/3.png should exist', '1 of 2'], load_dataset, 'folder', tmp_path, 'val')
    (tmp_path/'val.csv').write_bytes(b'image,mask\n\xff\xfe,a')
    fails('val.csv should be a CSV file', load_dataset, 'folder', tmp_path, 'val')


def test_toy_needs_no_folder():
    data = load_dataset('toy', split='val', n=3)
    assert len(data) == 3 and data[0]['image'].dtype == torch.uint8 and data[0]['labels'].max() < len(data.vocab)
    assert [len(load_dataset('toy', split=s)) for s in ('train', 'val', 'test')] == [2000, 200, 500]
    fails('no root', load_dataset, 'toy', 'somewhere')
    fails('toy world only', load_dataset, 'camvid', 'somewhere', n=3)


def test_every_layout_has_its_vocabulary():
    for layout in LAYOUTS.values():
        k = len(load_vocab(layout.vocab))
        for source in layout.masks:
            none = () if layout.vocab == 'coco_object' and source.label_map else (ignore_label(k),)   # 255 is background there
            assert {*range(k), *none} <= set(source_table(source, k).tolist())


# wrong input

def test_unknown_and_missing(voc, tmp_path):
    fails("unknown data set 'voc13'", load_dataset, 'voc13', voc)
    fails(['nowhere', 'no such folder'], load_dataset, 'voc12', tmp_path/'nowhere')
    fails('`root` should be the folder of voc12', load_dataset, 'voc12')
    fails('ImageSets/Segmentation/test.txt', load_dataset, 'voc12', voc, 'test')
    fails('images/training', load_dataset, 'ade150', voc)
    fails('dataset.json', load_dataset, 'folder', voc)
    fails('`vocab` should name the 20 classes', load_dataset, 'voc12', voc, vocab=load_vocab('camvid11'))


def test_every_name_is_looked_up_before_anything_starts(voc):
    lines(voc/VOC/'val.txt', ['2007_000002', '2007_000008', '2007_000009'])
    fails(['val.txt', '2007_000008.jpg', '2 of 3'], load_dataset, 'voc12', voc, 'val')
    picture(voc/'JPEGImages/2007_000008.jpg'); picture(voc/'JPEGImages/2007_000009.jpg')
    fails(['2007_000008', 'SegmentationClass', '2 of 3'], load_dataset, 'voc12', voc, 'val')
    lines(voc/VOC/'val.txt', [])
    fails('at least one picture', load_dataset, 'voc12', voc, 'val')
    (voc/VOC/'val.txt').write_bytes(b'\xff\xfe\x00\xd8')
    fails('one name per line', load_dataset, 'voc12', voc, 'val')


def test_two_files_of_one_name(tmp_path):
    for name in ('a.png', 'a.jpg'): picture(tmp_path/'images/train'/name)
    mask(tmp_path/'masks/train/a.png', [0])
    (tmp_path/'dataset.json').write_text('{"names": ["road", "sky"]}', encoding='utf-8')
    fails(['a.png', 'a.jpg', 'Remove one'], load_dataset, 'folder', tmp_path)


def test_mask_of_another_size(voc):
    mask(voc/'SegmentationClass/2007_000000.png', [1], size=(40, 60))
    fails(['2007_000000.png', '60 x 40 pixels, got 40 x 60'], load_dataset('voc12', voc).__getitem__, 0)


def test_label_outside_the_vocabulary(voc):
    mask(voc/'SegmentationClass/2007_000000.png', [0, 21, 255])
    words = ['2007_000000.png', '0..20, 255 (voc12)', 'got [21] in 800 pixels']
    fails(words, load_dataset('voc12', voc).__getitem__, 0)


@pytest.mark.filterwarnings('ignore')
def test_matlab_files_that_are_damaged(tmp_path):
    sbd_mask(tmp_path/'whole.mat', [0, 7, 20])
    content, expected = (tmp_path/'whole.mat').read_bytes(), read_mask(tmp_path/'whole.mat', 'GTcls.Segmentation')
    assert expected.shape == (40, 60) and expected.unique().tolist() == [0, 7, 20]
    rng, errors = np.random.default_rng(0), 0
    for i in range(120):
        damaged = bytearray(content[:rng.integers(len(content)) if i % 2 else None])
        for at in rng.integers(0, max(1, len(damaged)), 4): damaged[at:at + 1] = bytes([rng.integers(256)])
        (tmp_path/'x.mat').write_bytes(damaged)
        try: read_mask(tmp_path/'x.mat', 'GTcls.Segmentation')
        except InputError as error:
            errors += 1
            assert 'x.mat' in str(error)
    assert errors > 60
    fails('LabelMap, got KeyError', read_mask, tmp_path/'whole.mat', 'LabelMap')
    savemat(tmp_path/'real.mat', dict(LabelMap=np.ones((3, 4))))
    fails(['real.mat', 'matrix of label values, got float64 (3, 4)'], read_mask, tmp_path/'real.mat', 'LabelMap')
    savemat(tmp_path/'below.mat', dict(LabelMap=np.full((3, 4), -1, np.int16)))
    fails('matrix of label values', read_mask, tmp_path/'below.mat', 'LabelMap')


def test_mask_of_colours(voc):
    picture(voc/'SegmentationClass/2007_000000.png')
    fails(['2007_000000.png', 'mode RGB'], load_dataset('voc12', voc).__getitem__, 0)


@pytest.mark.parametrize('kind', ['jpg', 'png'])
def test_every_truncation_is_an_error_or_the_whole_picture(tmp_path, kind):
    whole = tmp_path/f'whole.{kind}'
    picture(whole)
    content, expected = whole.read_bytes(), read_picture(whole)
    for keep in [*range(0, len(content), 17), len(content) - 3]:
        cut = tmp_path/f'cut.{kind}'
        cut.write_bytes(content[:keep])
        try: assert torch.equal(read_picture(cut), expected), keep   # only marks after the last pixel may be gone
        except InputError as error: assert str(cut) in str(error)
    cut.write_bytes(content[:len(content) // 2])
    fails(str(cut), read_picture, cut)


@pytest.mark.filterwarnings('ignore')
def test_bytes_at_random_raise_nothing_else(tmp_path):
    rng = np.random.default_rng(0)
    pixels = Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8))
    for kind in ('jpeg', 'png', 'bmp', 'tiff', 'webp'):
        stream = io.BytesIO()
        pixels.save(stream, kind)
        for _ in range(60):
            content = bytearray(stream.getvalue())
            for at in rng.integers(0, len(content), 4): content[at] = rng.integers(256)
            (tmp_path/f'x.{kind}').write_bytes(content)
            try: read_picture(tmp_path/f'x.{kind}')
            except InputError: pass


def test_damage_may_not_be_hidden(tmp_path, monkeypatch):
    picture(tmp_path/'a.jpg')
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', True)
    fails('LOAD_TRUNCATED_IMAGES should be False', read_picture, tmp_path/'a.jpg')


@pytest.mark.parametrize('mode, kind', [
    ('L', 'jpg'), ('CMYK', 'jpg'), ('P', 'png'), ('RGBA', 'png'), ('LA', 'png'), ('1', 'png')])
def test_pictures_of_any_mode(tmp_path, mode, kind):
    picture(tmp_path/f'a.{kind}', mode=mode)
    assert read_picture(tmp_path/f'a.{kind}').shape == (3, 40, 60)


def test_sixteen_bits_are_not_cut_down(tmp_path):
    Image.fromarray(np.full((40, 60), 4000, np.uint16)).save(tmp_path/'a.png')
    fails('8 bits', read_picture, tmp_path/'a.png')
    assert read_mask(tmp_path/'a.png').unique().tolist() == [4000]


def test_orientation_mark_is_applied_where_it_is_asked_for(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    picture(tmp_path/'a.jpg', exif=exif)
    assert read_picture(tmp_path/'a.jpg').shape == (3, 40, 60)
    assert read_picture(tmp_path/'a.jpg', orientation='exif').shape == (3, 60, 40)


def test_label_map():
    table = label_table(3, reduce_zero_label=True, label_map={9: 255, 100: 1})
    assert table[[0, 1, 3, 4, 9, 100, 255]].tolist() == [255, 0, 2, -1, 255, 1, 255]
    fails('`label_map`', label_table, 3, label_map={0: 3})
    fails('at most 255', label_table, 256)


# transforms

def coded(h, w, k=8):
    "A picture whose red channel is 30 x its label; blocks of labels, void in a corner"
    labels = (torch.arange(h)[:, None] * 2 // h * 4 + torch.arange(w)[None] * 4 // w).to(torch.uint8)
    image = (labels * 30).expand(3, h, w).clone()
    labels[:h // 8, :w // 8] = 255
    return tv_tensors.Image(image), tv_tensors.Mask(labels)


def inner(labels):
    "Pixels whose 11 x 11 neighbourhood lies inside and has one label: no other class is blended into them"
    m = torch.nn.functional.pad(labels.as_subclass(torch.Tensor)[None, None].float(), (5,) * 4, value=254.)
    high, low = (torch.nn.functional.max_pool2d(sign * m, 11, 1)[0, 0] * sign for sign in (1, -1))
    return (high == low) & (labels != 255)


@pytest.mark.parametrize('h, w', [(120, 160), (160, 120), (40, 300), (97, 31)])
@pytest.mark.parametrize('step', [
    KeepRatioResize((200, 100), scale_range=(.5, 2.)), KeepRatioResize(scale_range=(.6, 1.7)), CategoryRatioCrop(64),
    v2.RandomHorizontalFlip(1.), PadTo(320)])
def test_each_step_keeps_picture_and_mask_together(step, h, w):
    torch.manual_seed(0)
    for _ in range(4):
        image, labels = step(*coded(h, w))
        assert image.shape[1:] == labels.shape and labels.dtype == torch.uint8
        assert set(labels.unique().tolist()) <= {*range(8), 255}
        assert torch.equal(image[0][inner(labels)], labels[inner(labels)] * 30)


@pytest.mark.parametrize('h, w', [(120, 160), (160, 120), (40, 300), (20, 20)])
def test_train_transform(h, w):
    transform = train_transform(64, resize=(256, 64), photometric=False, mean=(0,) * 3, std=(1,) * 3)
    torch.manual_seed(0)
    checked = 0
    for _ in range(8):
        image, labels = transform(*coded(h, w))
        checked += int(inner(labels).sum())
        assert image.shape == (3, 64, 64) and image.dtype == torch.float32 and labels.shape == (64, 64)
        torch.testing.assert_close(image[0][inner(labels)] * 255, labels[inner(labels)] * 30., atol=.01, rtol=0)
    assert checked > 500


def test_ratios_fill_their_range():
    "Scales are drawn from .5 to 2, for picture and mask alike"
    step = KeepRatioResize((160, 120), scale_range=(.5, 2.))
    torch.manual_seed(0)
    sizes = []
    for _ in range(200):
        image, labels = step(*coded(60, 80))
        assert image.shape[1:] == labels.shape
        sizes.append(labels.shape[0] / 120)
    assert .5 <= min(sizes) < .55 and 1.9 < max(sizes) <= 2. and abs(np.mean(sizes) - 1.25) < .1


def test_flip_turns_half_of_the_pairs():
    transform = train_transform((40, 80), resize=None, scale_range=(1., 1.), photometric=False, mean=(0,)*3, std=(1,)*3)
    torch.manual_seed(0)
    turned = [bool(transform(*coded(40, 80))[1][39, 0] == 7) for _ in range(200)]   # label 4 stands on the left, 7 right
    assert 70 < sum(turned) < 130
    for _ in range(10):
        image, labels = transform(*coded(40, 80))
        torch.testing.assert_close(image[0][20:] * 255, labels[20:] * 30., atol=.01, rtol=0)  # every pixel, to the border


def test_colours_leave_the_mask_alone():
    "Each label keeps one colour of its own, the mask keeps every label"
    image, labels = coded(60, 80)
    labels[:8, :10] = 0
    torch.manual_seed(0)
    changed = 0
    for _ in range(30):
        other, same = PhotometricDistort()(image, labels)
        assert torch.equal(same, labels)
        for c in range(8): assert (other[:, labels == c] == other[:, labels == c][:, :1]).all()
        changed += not torch.equal(other, image)
    assert changed > 20


def test_all_of_training_keeps_picture_and_mask_together():
    "Through the whole transform as published: within a label one colour, brighter with the label"
    transform = train_transform(64, resize=(256, 64), mean=(0,)*3, std=(1,)*3)
    torch.manual_seed(0)
    compared = 0
    for _ in range(30):
        image, labels = transform(*coded(120, 160))
        there = [c for c in range(8) if (inner(labels) & (labels == c)).sum() > 20]
        parts = [image[:, inner(labels) & (labels == c)] for c in there]
        for p in parts: assert (p.max(1).values - p.min(1).values).max() < .02
        means = [float(p.mean()) for p in parts]
        assert all(a <= b + .01 for a, b in zip(means, means[1:])), (there, means)
        compared += len(there)
    assert compared > 60


def test_padding_is_mean_colour_and_void():
    torch.manual_seed(0)
    image, labels = train_transform((50, 70), resize=None, scale_range=(1., 1.))(*coded(30, 40))
    assert image.shape == (3, 50, 70)
    assert (image[:, 30:] == 0).all() and (image[:, :, 40:] == 0).all()
    assert (labels[30:] == 255).all() and (labels[:, 40:] == 255).all() and (labels[:30, :40] != 255).any()


def test_crop_keeps_the_category_ratio():
    labels = tv_tensors.Mask(torch.zeros(200, 200, dtype=torch.uint8))
    labels[:, 150:] = 1
    image = tv_tensors.Image(torch.zeros(3, 200, 200, dtype=torch.uint8))
    def dominated(ratio, tries):
        torch.manual_seed(0)
        crops = (CategoryRatioCrop(60, max_ratio=ratio, tries=tries)(image, labels)[1] for _ in range(200))
        return np.mean([float((c == 0).float().mean()) >= .75 for c in crops])
    free, ten, many = dominated(1., 10), dominated(.75, 10), dominated(.75, 200)
    assert free > .6 and ten < free / 4 and many == 0


def test_one_class_and_void_pictures_still_crop():
    for value in (3, 255):
        labels = tv_tensors.Mask(torch.full((50, 50), value, dtype=torch.uint8))
        assert CategoryRatioCrop(20)(tv_tensors.Image(torch.zeros(3, 50, 50)), labels)[1].shape == (20, 20)


def test_colours_change_and_channels_stay_in_order():
    image = tv_tensors.Image(torch.tensor([200, 120, 40], dtype=torch.uint8)[:, None, None].expand(3, 32, 32).clone())
    labels = tv_tensors.Mask(torch.arange(2, dtype=torch.uint8).repeat(32, 16))
    transform = train_transform(32, resize=None, scale_range=(1., 1.), mean=(0,) * 3, std=(1,) * 3)
    torch.manual_seed(0)
    seen = [transform(image, labels)[0].mean((1, 2)) for _ in range(60)]
    assert all(c[0] >= c[2] for c in seen) and len({tuple(c.tolist()) for c in seen}) > 30


def test_normalisation():
    image, labels = tv_tensors.Image(torch.full((3, 8, 8), 128, dtype=torch.uint8)), tv_tensors.Mask(torch.zeros(8, 8))
    result = eval_transform(resize=None)(image, labels)[0]
    expected = (128 / 255 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
    torch.testing.assert_close(result.mean((1, 2)).as_subclass(torch.Tensor), expected)


@pytest.mark.parametrize('size, resize, min_side, expected', [
    ((375, 500), (2048, 512), None, (512, 683)), ((500, 375), (2048, 512), 512, (683, 512)),
    ((300, 2000), (2048, 512), None, (307, 2048)), ((300, 2000), (2048, 512), 512, (512, 3413)),
    ((375, 500), (520, 520), None, (390, 520)), ((375, 500), (520, 520), 512, (520, 693)),
    ((40, 30), (2048, 512), None, (683, 512)), ((40, 30), None, None, (40, 30)),
    ((1, 5000), (2048, 512), None, (1, 2048))])
def test_evaluation_resizes_the_picture_only(size, resize, min_side, expected):
    assert keep_ratio_size(size, resize, min_side=min_side) == expected
    if max(expected) > 1000: return
    image, labels = eval_transform(resize=resize, min_side=min_side)(*coded(*size))
    assert image.shape[1:] == expected and labels.shape == size


# items and batches

def test_item_is_a_function_of_index_and_seed(voc):
    data = load_dataset('voc12', voc, transform=train_transform(32, resize=(80, 40)))
    torch.manual_seed(5)
    first, state = data[1, 11], torch.get_rng_state()
    torch.manual_seed(6)
    data[0]; again, other = data[1, 11], data[1, 12]
    assert torch.equal(first['image'], again['image']) and torch.equal(first['labels'], again['labels'])
    assert not torch.equal(first['image'], other['image'])
    torch.manual_seed(5)
    assert torch.equal(state, torch.get_rng_state())   # the generator outside did not move


def test_workers_see_the_same_items(voc):
    data = load_dataset('voc12', voc, transform=train_transform(32, resize=(80, 40)))
    pairs = [(0, 3), (1, 4), (1, 5), (0, 6)]
    batches = [torch.utils.data.DataLoader(data, 2, sampler=pairs, collate_fn=collate, num_workers=n) for n in (0, 1)]
    for here, there in zip(*batches):
        assert torch.equal(here['image'], there['image']) and torch.equal(here['labels'], there['labels'])
        assert here['key'] == there['key'] and here['image'].shape == (2, 3, 32, 32)
        assert here['labels'].dtype == torch.int64


def test_collate_of_two_sizes(voc):
    picture(voc/'JPEGImages/2007_000001.jpg', size=(50, 50))
    mask(voc/'SegmentationClassAug/2007_000001.png', [0, 7], size=(50, 50))
    data = load_dataset('voc12', voc)
    fails('batch of 1', collate, [data[0], data[1]])
    assert collate([data[1]])['image'].shape == (1, 3, 50, 50)


def test_no_items(): fails('at least one picture', SegmentationDataset, [], load_vocab('toy'))


def test_file_that_disappears_later(tmp_path):
    data = SegmentationDataset([Item(tmp_path/'a.jpg', tmp_path/'a.png', 'a')], load_vocab('toy'))
    fails(['a.jpg', 'no such file'], data.__getitem__, 0)


# real pictures

@pytest.mark.data
@pytest.mark.parametrize('name, folder, split, n', [
    ('voc12', 'voc2012_mini', 'train', 35), ('voc12', 'voc2012_mini', 'val', 20),
    ('camvid', 'camvid', 'train', 367), ('camvid', 'camvid', 'val', 101)])
def test_real_pictures_are_read_completely(shared, name, folder, split, n):
    data = load_dataset(name, shared/'data'/folder, split)
    assert len(data) == n
    for i in range(n):
        sample = data[i]
        assert sample['image'].shape[1:] == sample['labels'].shape == sample['size']
        assert (sample['labels'] != 255).any()


@pytest.mark.data
def test_real_pictures_by_a_table(shared, tmp_path):
    "Three pictures of ADE20K in folders of no known layout"
    ade = shared/'data/ade_sceneparsing3/sampleData'
    keys = sorted(p.stem for p in (ade/'images').iterdir())
    lines(tmp_path/'val.csv', ['image,mask', *(f'{ade}/images/{k}.jpg,{ade}/annotations/{k}.png' for k in keys)])
    names = load_vocab('ade150').names
    described = dict(names=names, reduce_zero_label=True, seen=['sky', 'building'])
    (tmp_path/'dataset.json').write_text(json.dumps(described), encoding='utf-8')
    data = load_dataset('folder', tmp_path, 'val')
    assert len(data) == 3 and len(data.vocab.unseen) == 148
    for sample in data:
        assert {names[c] for c in values(sample) if c < 255} >= {'sky', 'building', 'wall', 'tree'}
        rows = sample['labels'].eq(names.index('sky')).nonzero()[:, 0].float().mean()
        assert rows < sample['labels'].shape[0] / 2                       # the sky is above


@pytest.mark.data
def test_real_pictures_train(shared):
    data = load_dataset('voc12', shared/'data/voc2012_mini', transform=train_transform(96, resize=(256, 128)))
    loader = torch.utils.data.DataLoader(data, 5, sampler=[(i, i) for i in range(35)], collate_fn=collate)
    for batch in loader:
        assert batch['image'].shape == (5, 3, 96, 96) and batch['image'].isfinite().all()
        assert set(batch['labels'].unique().tolist()) <= {*range(20), 255}


def test_no_photographs_in_the_notebook(root):
    "The figure of real pictures is drawn where they are, and never stored"
    cells = json.loads((root/'nbs/03_data/07_reading.ipynb').read_text(encoding='utf-8'))['cells']
    data = [c for c in cells if c['source'] and c['source'][0].startswith('#| data')]
    assert data and not any(c['outputs'] for c in data)
