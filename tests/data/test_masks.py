"Masks are read as the numbers that were drawn, or a message says which accident has happened and the line that mends it"
import io
import json
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from given.layouts import VOC, context_mask, lines, picture
from otseg.core import InputError
from otseg.data.check import check_dataset
from otseg.data.layouts import MaskSource
from otseg.data.masks import edge_steps, explain_values, mask_facts, mask_signs, open_mask, read_mask, voc_color
from otseg.data.reading import load_dataset
from otseg.data.toy import ToyScenes

FOUR = ['road', 'sky', 'car', 'cow']
COLORS = [(128, 64, 128), (70, 130, 180), (0, 0, 142), (250, 170, 30), (0, 0, 0)]  # of four classes, and of none


def png(values, bits, palette=None):
    "A PNG of one band by the specification, without Pillow"
    chunk = lambda kind, data: struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    h, w = values.shape
    if bits == 16: rows = [row.astype('>u2').tobytes() for row in values]
    else:
        per = 8 // bits
        wide = np.zeros((h, -(-w // per) * per), np.int64)
        wide[:, :w] = values
        rows = [row.tobytes() for row in sum(wide[:, i::per] << (8 - bits * (i + 1)) for i in range(per)).astype(np.uint8)]
    head = struct.pack('>IIBBBBB', w, h, bits, 3 if palette else 0, 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + (chunk(b'PLTE', bytes(sum(palette, ()))) if palette else b'')
            + chunk(b'IDAT', zlib.compress(b''.join(b'\0' + row for row in rows))) + chunk(b'IEND', b''))


def paletted(values, colors):
    image = Image.fromarray(np.asarray(values, np.uint8))
    image.putpalette([c for color in colors for c in color])
    return image


def blocks(numbers, size=(24, 32), seed=0):
    "A mask of a few regions"
    rng = np.random.default_rng(seed)
    coarse = rng.choice(np.asarray(numbers), (size[0] // 8, size[1] // 8))
    coarse.flat[:len(numbers)] = numbers[:coarse.size]
    return coarse.repeat(8, 0).repeat(8, 1)


@pytest.fixture
def folder(tmp_path):
    "A data set that describes itself; masks come as arrays, images or bytes"
    def made(masks=(), names=FOUR, suffix='.png', **rules):
        for i, m in enumerate(masks):
            path = tmp_path/f'masks/train/{i}{suffix}'
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(m, bytes): path.write_bytes(m)
            else: (m if isinstance(m, Image.Image) else Image.fromarray(m)).save(path)
            with Image.open(path) as opened: picture(tmp_path/f'images/train/{i}.jpg', size=opened.size)
        (tmp_path/'dataset.json').write_text(json.dumps(dict(names=list(names), **rules)), encoding='utf-8')
        return tmp_path
    return made


def loaded(root): return [s['labels'].numpy() for s in load_dataset('folder', root)]


def report(root, kind=''):
    "Problems of train: all kinds, or the files of one"
    problems = check_dataset('folder', root, ['train']).splits[0].problems
    return problems.get(kind, []) if kind else {*problems} - {'classes'}  # small sets need not show every class


# the whole kind

@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.sampled_from(['grey', 'palette', 'npy', 'tif', 'mat']), st.sampled_from([1, 2, 4, 8, 16]), st.integers(0, 2**20),
       st.sampled_from(['u1', 'u2', 'i4', 'i8', '?']))
def test_numbers_come_back(container, bits, seed, dtype):
    "Depth x palette x dtype x container: what was drawn is what training reads and what the facts tell"
    from scipy.io import savemat
    rng = np.random.default_rng(seed)
    k = 2 if dtype == '?' and container == 'npy' else min(2**bits, 200)
    if container == 'palette': bits = min(bits, 8)
    drawn = rng.integers(0, k, (5, 7))
    drawn[0, :2] = 0, k - 1
    source = MaskSource(variable='a.b' if container == 'mat' else '')
    with tempfile.TemporaryDirectory() as d:
        path = Path(d, dict(npy='m.npy', tif='m.tif', mat='m.mat').get(container, 'm.png'))
        if container == 'grey': path.write_bytes(png(drawn, bits))
        if container == 'palette': path.write_bytes(png(drawn, bits, [tuple(rng.integers(0, 256, 3).tolist()) for _ in range(k)]))
        if container == 'npy': np.save(path, drawn.astype(dtype))
        if container == 'tif': Image.fromarray(drawn.astype(np.uint16 if bits == 16 else np.uint8)).save(path)
        if container == 'mat': savemat(path, dict(a=dict(b=drawn.astype(np.uint8))))
        mask, facts = open_mask(path, source), mask_facts(path, source)
    assert np.array_equal(mask.values, drawn) and mask.values.dtype in (np.uint8, np.int32)
    values, counts = np.unique(drawn, return_counts=True)
    assert facts.values == dict(zip(values.tolist(), counts.tolist())) and facts.size == (5, 7)
    if container in ('grey', 'palette'): assert facts.file.bits == bits or container == 'palette'
    assert set(facts.colors) == (set(values.tolist()) if container == 'palette' else set())
    assert not mask_signs([facts], 200)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.permutations(range(5)), st.integers(0, 2**20), st.booleans())
def test_however_a_palette_is_renumbered(order, seed, as_colors):
    "With the colours told, any order of a palette, and colours without one, give the labels; without, two orders are an error"
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, (6, 8))
    labels.flat[:5] = range(5)
    moved = paletted(np.argsort(order)[labels], [COLORS[i] for i in order])
    told = MaskSource(palette=tuple(COLORS[:4]), ignore_colors=(COLORS[4],), label_map={})
    with tempfile.TemporaryDirectory() as d:
        path = Path(d, 'm.png')
        (moved.convert('RGB') if as_colors else moved).save(path)
        mask = open_mask(path, told)
        assert mask.by_color and np.array_equal(mask.values, np.where(labels == 4, 255, labels))
        if as_colors: return
        plain = paletted(labels, COLORS)
        plain.save(Path(d, 'plain.png'))
        kinds = {s.kind for s in mask_signs([mask_facts(Path(d, 'plain.png')), mask_facts(path)], 5)}
        assert kinds == (set() if list(order) == [0, 1, 2, 3, 4] else {'palette'})


# every situation by itself

@pytest.mark.parametrize('bits, names', [(4, 200), (4, 16), (2, 4), (1, 2)])
def test_grey_files_of_few_bits(folder, bits, names):
    "4 bits were multiplied by 17, 2 bits made class 3 the ignored 255, 1 bit did not decode"
    drawn = blocks(range(min(2**bits, names)), (32, 32))
    root = folder([png(drawn, bits)], names=[f'c{i}' for i in range(names)])
    assert np.array_equal(loaded(root)[0], drawn) and not report(root)
    tally = check_dataset('folder', root).splits[0].tally
    assert tally.pixels[:-1].tolist() == np.bincount(drawn.ravel(), minlength=names).tolist() and tally.pixels[-1] == 0


def compacted(labels, colors):
    "What an optimiser makes: only used colours, the most frequent first"
    used = sorted(np.unique(labels).tolist(), key=lambda v: -(labels == v).sum())
    lut = np.zeros(256, np.uint8)
    lut[used] = range(len(used))
    return paletted(lut[labels], [colors[v] for v in used])


@pytest.mark.parametrize('how', ['compacted', 'quantised'])
def test_palettes_made_anew_for_each_file(folder, how):
    drawn = [blocks(n, seed=i) for i, n in enumerate(([0, 1, 2], [3, 1, 0], [2, 3], [3, 3, 3, 0]))]
    if how == 'compacted': files = [compacted(m, COLORS) for m in drawn]
    else: files = [paletted(m, COLORS).convert('RGB').quantize(8) for m in drawn]   # as GIMP, or convert('P', ADAPTIVE)
    root = folder(files)
    with pytest.raises(InputError, match=r'other colours in other files.*"palette": \[\[r, g, b\]'): loaded(root)
    assert 'palette' in report(root) and 'masks/train' in report(root, 'palette')[0].replace('\\', '/')
    root = folder(palette=COLORS[:4])
    assert all(np.array_equal(a, b) for a, b in zip(loaded(root), drawn, strict=True)) and not report(root)


def test_a_palette_that_contradicts_the_one_before_it(folder):
    "Also where a first look at a few files has not met it"
    files = [paletted(blocks([0, 1]), COLORS) for _ in range(40)]
    files[7] = paletted(blocks([0, 1]), COLORS[::-1])
    data = load_dataset('folder', folder(files))
    assert len(data) == 40 and data[0]['labels'].max() == 1
    bad = next(i for i, item in enumerate(data.items) if item.mask.name == '7.png')
    with pytest.raises(InputError, match=r'7\.png should have the colours of the masks before it'): data[bad]
    assert len(report(folder(), 'palette')) == 1


def test_a_palette_for_looking_at_only(folder):
    "Colours that are not those of dataset.json at all leave the numbers alone; some of them are an error"
    drawn = blocks([0, 1, 2, 3])
    other = [(1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12)]
    assert np.array_equal(loaded(folder([paletted(drawn, other)], palette=COLORS[:4]))[0], drawn)
    with pytest.raises(InputError, match=r'drawn in the colours of "palette".*2 others.*\[7, 8, 9\]'):
        loaded(folder([paletted(drawn, [*COLORS[:2], *other[2:]])], palette=COLORS[:4]))


@pytest.mark.parametrize('names', [4, 255])
def test_the_palette_of_convert(folder, names):
    "The web palette is never one of classes"
    root = folder([paletted(blocks([0, 1, 2, 3]), COLORS).convert('RGB').convert('P')], names=[f'c{i}' for i in range(names)])
    with pytest.raises(InputError, match=r'the palette that convert\("P"\) makes'): loaded(root)
    assert report(root) & {'mask'}


@pytest.fixture
def voc(tmp_path):
    def made(masks):
        for i, m in enumerate(masks):
            picture(tmp_path/f'JPEGImages/{i}.jpg', size=m.size)
            (tmp_path/'SegmentationClass').mkdir(parents=True, exist_ok=True)
            m.save(tmp_path/f'SegmentationClass/{i}.png')
        lines(tmp_path/VOC/'val.txt', range(len(masks)))
        return tmp_path
    return made


VOC_PALETTE = [voc_color(v) for v in range(256)]


def test_voc_in_its_own_colours(voc):
    drawn = blocks([0, 5, 9, 255])
    root = voc([paletted(drawn, VOC_PALETTE)])
    assert load_dataset('voc12', root, 'val')[0]['labels'].unique().tolist() == [4, 8, 255]
    assert not check_dataset('voc12', root, ['val'], subset=True).problems


@pytest.mark.parametrize('numbers', [[0, 5, 9, 255], [5, 9], [0, 20], [0, 1, 3]])
def test_voc_renumbered(voc, numbers):
    "One file is enough: the colours of the development kit are known"
    root = voc([compacted(blocks(numbers), VOC_PALETTE)])
    data = load_dataset('voc12', root, 'val')
    with pytest.raises(InputError, match='colours of VOC at their numbers.*restore the original masks'): data[0]
    assert 'mask' in check_dataset('voc12', root, ['val'], subset=True).splits[0].problems


def test_palettes_renumbered_all_alike(folder):
    "The files agree, and the numbers are wrong: of the colours of VOC the order is known; of others nothing is, but by `palette`"
    names, drawn = [f'c{i}' for i in range(21)], [blocks([0, 15, 7], seed=i) for i in range(3)]
    lut = np.zeros(256, np.uint8)
    lut[[0, 15, 7]] = 0, 1, 2
    files = [paletted(lut[m], [VOC_PALETTE[v] for v in (0, 15, 7)]) for m in drawn]
    with pytest.warns(UserWarning, match='colours of VOC at other numbers.*1 has the colour of 15, 2 has the colour of 7'):
        loaded(folder(files, names=names))
    assert len(report(folder(names=names), 'moved')) == 3
    root = folder(names=names, palette=VOC_PALETTE[:21])
    assert all(np.array_equal(a, b) for a, b in zip(loaded(root), drawn, strict=True)) and not report(root)


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('numbers, colours, rules', [
    ([0, 1, 2], [0, 1, 2], {}), ([0, 1, 2], [0, 15, 7], {}), ([0, 2, 255], None, {}),
    ([0, 1, 2], [0, 2, 1], dict(map={'0': 0, '1': 1, '2': 2})), ([0, 1, 2], [0, 1, 99], {})],
    ids=['their own', 'beyond the names', 'with void', 'a map', 'others'])
def test_palettes_without_a_sign_of_moving(folder, numbers, colours, rules):
    "Four names: VOC's colours in order, or of classes that are not the first four, or with a map"
    palette = [VOC_PALETTE[v] for v in colours] if colours else VOC_PALETTE
    root = folder([paletted(blocks(numbers, seed=i), palette) for i in range(2)], **rules)
    assert len(loaded(root)) == 2 and not report(root) & {'moved'}


@pytest.mark.parametrize('as_palette', [False, True])
def test_two_names_and_masks_for_the_eye(folder, as_palette):
    "0 and 255 alone: 255 would be ignored, and one class scored 100 %"
    drawn = [blocks([0, 255], seed=i) for i in range(3)]
    root = folder([paletted(m, [(v, v, v) for v in range(256)]) if as_palette else m.astype(np.uint8) for m in drawn], FOUR[:2])
    with pytest.raises(InputError, match='"map": {"0": 0, "255": 1} in dataset.json. If it means no class: "ignore": 255'):
        loaded(root)
    assert 'binary' in report(root)
    assert np.array_equal(loaded(folder(names=FOUR[:2], map={'0': 0, '255': 1}))[0], drawn[0] > 0)
    assert not report(root)
    assert np.array_equal(loaded(folder(names=FOUR[:2], ignore=255))[0], drawn[0])    # said by itself: nobody asks again


def test_one_name_and_masks_for_the_eye(folder):
    "0 would be the class, and the object nothing"
    root = folder([blocks([0, 255]).astype(np.uint8)], ['building'])
    with pytest.raises(InputError, match='"map": {"255": 0, "0": null}'): loaded(root)
    assert np.array_equal(loaded(folder(names=['building'], map={'255': 0, '0': None}))[0], 255 - blocks([0, 255]))


@pytest.mark.parametrize('names', [200, 52])
def test_numbers_of_four_bits_that_were_stretched(folder, names):
    "Multiples of 17 alone, each of them a class of many names"
    root = folder([blocks([0, 17, 34, 51]).astype(np.uint8)] * 2, [f'c{i}' for i in range(names)])
    with pytest.warns(UserWarning, match='nothing but multiples of 17'): loaded(root)
    assert 'stretched' in report(root)
    lead = {str(17 * i): i for i in range(4)}
    assert np.array_equal(loaded(folder(names=[f'c{i}' for i in range(names)], map=lead))[0], blocks([0, 1, 2, 3]))
    assert not report(root)


def test_0_and_255_in_some_masks(folder):
    "As long as one mask shows the other class, 255 may be what it always is"
    files = [blocks([0, 255]).astype(np.uint8)] * 30
    files[17] = blocks([0, 1, 255]).astype(np.uint8)
    root = folder(files, FOUR[:2])
    assert len(loaded(root)) == 30 and 'binary' not in report(root)


@pytest.mark.parametrize('names', [3, 26])
def test_0_and_255_of_more_names(folder, names):
    with pytest.raises(InputError, match='nothing but 0 and 255'):
        loaded(folder([blocks([0, 255]).astype(np.uint8)], names=[f'c{i}' for i in range(names)]))


@pytest.mark.parametrize('kind', ['JPEG', 'WEBP', 'GIF', 'BMP'])
def test_formats_that_carry_no_numbers(folder, kind, tmp_path):
    "By content, whatever the name says"
    (buffer := io.BytesIO()), Image.fromarray(blocks([0, 1, 2]).astype(np.uint8)).save(buffer, kind)
    root = folder([buffer.getvalue()])
    with pytest.raises(InputError, match=f'0.png should be a mask.*got {kind} content.*PNG'): loaded(root)
    assert 'mask' in report(root)


def test_masks_named_jpg(folder):
    root = folder([Image.fromarray(blocks([0, 1, 2]).astype(np.uint8))], suffix='.jpg')
    with pytest.raises(InputError, match='JPEG content, in which values along edges are changed'): loaded(root)


def scenes(n=4): return [s.labels for s in ToyScenes('train', n)]


@pytest.mark.parametrize('how', ['jpeg 95', 'jpeg 75', 'bilinear', 'lanczos'])
def test_edges_that_were_smeared(folder, how):
    "A PNG that was a JPEG once, or was resized with smoothing"
    def smeared(v):
        if how.startswith('jpeg'):
            (buffer := io.BytesIO()), Image.fromarray(v).save(buffer, 'JPEG', quality=int(how[5:]))
            return np.asarray(Image.open(buffer))
        return np.asarray(Image.fromarray(v).resize((150, 150), getattr(Image.Resampling, how.upper())))
    root = folder([smeared(v) for v in scenes()], names=[f'c{i}' for i in range(40)])
    with pytest.warns(UserWarning, match='values between those of two classes along their edges.*nearest neighbour'): loaded(root)
    assert 'smeared' in report(root)


@pytest.mark.filterwarnings('error')
def test_edges_that_are_whole(folder):
    nearest = [np.asarray(Image.fromarray(v).resize((150, 150), Image.Resampling.NEAREST)) for v in scenes()]
    noise = [np.random.default_rng(i).integers(0, 26, (40, 40), dtype=np.uint8) for i in range(2)]
    root = folder([*scenes(), *nearest, *noise], names=[f'c{i}' for i in range(26)])
    assert len(loaded(root)) == 10 and not report(root)


def test_steps_by_hand():
    assert edge_steps(np.array([[0, 1, 2], [0, 0, 0], [0, 0, 0]])) == (1, 1 / 3)  # of rows 012, columns 100 and 200
    assert edge_steps(np.zeros((4, 4), int)) == (0, 0)


@pytest.mark.parametrize('numbers, names, says', [
    ([0, 1, 4], 4, ['"ignore": 4', '"reduce_zero_label": true']),                # void after the classes, as CamVid
    ([1, 2, 4], 4, ['"reduce_zero_label": true']),                               # counted from one
    ([0, 127, 255], 3, ['spread over 0..255', '"map": {"0": 0, "127": 1, "255": 2}']),
    ([0, 85, 170, 255], 4, ['"map": {"0": 0, "85": 1, "170": 2, "255": 3}']),
    ([0, 257, 514], 4, ['"257": 1, "514": 2']),
    ([0, 7, 26], 4, ['"ignore": [7, 26]', '"map": {"7": 0, ...}']),
    (range(40), 4, ['more values (40) than names (4)'])])
def test_values_without_a_meaning(folder, numbers, names, says):
    drawn = blocks(list(numbers), (64, 64))
    root = folder([drawn.astype(np.uint8 if drawn.max() < 256 else np.uint16)], names=[f'c{i}' for i in range(names)])
    with pytest.raises(InputError) as e: loaded(root)
    for words in ('0.png should hold', *says): assert words in str(e.value), str(e.value)
    assert 'value' in report(root)


@pytest.mark.parametrize('numbers, says', [
    ([0, 26001, 26002], 'count objects'), ([0, 1, 65535], '"ignore": 65535'), ([0, 1000], 'one number per class')])
def test_sixteen_bits(folder, numbers, says):
    "Instance masks, and a value of 16 bits for none"
    root = folder([png(blocks(numbers), 16)])
    with pytest.raises(InputError) as e: loaded(root)
    assert says in str(e.value) and str(numbers[-1]) in str(e.value)
    assert str(numbers[-1]) in ' '.join(report(root, 'value'))
    assert np.array_equal(loaded(folder([png(blocks([0, 1, 3]), 16)]))[0], blocks([0, 1, 3]))
    drawn = loaded(folder([png(blocks([0, 1, 65535]), 16)], ignore=65535))[0]
    assert set(np.unique(drawn)) == {0, 1, 255}


def test_arrays_in_a_table(folder, tmp_path):
    "An .npy of whole numbers is a mask; what is none says so"
    root = folder([blocks([0, 1]).astype(np.uint8)])
    lines(root/'train.csv', ['image,mask', 'images/train/0.jpg,a.npy'])
    np.save(root/'a.npy', blocks([2, 3]))
    assert np.array_equal(loaded(root)[0], blocks([2, 3]))
    soft = r'whole numbers \(H, W\), got float64 \(24, 32, 4\)'
    for wrong, says in ((np.zeros((24, 32, 4)), soft), (-blocks([0, 1]), 'values -1..0')):
        np.save(root/'a.npy', wrong)
        with pytest.raises(InputError, match=says): loaded(root)
    (root/'a.npy').write_bytes(b'no array')
    with pytest.raises(InputError, match='does not load'): loaded(root)


def test_masks_of_colours(folder):
    drawn = blocks([0, 1, 2, 3, 4])
    rgb = np.array(COLORS, np.uint8)[drawn]
    root = folder([rgb])
    with pytest.raises(InputError, match=r'mode RGB. A mask of colours.*"palette": \[\[r, g, b\], ...\].*"ignore"'): loaded(root)
    with pytest.raises(InputError, match=r'pixels of others \(\[0, 0, 0\]\)'): loaded(folder(palette=COLORS[:4]))
    assert np.array_equal(loaded(folder(palette=COLORS[:4], ignore=[[0, 0, 0]]))[0], np.where(drawn == 4, 255, drawn))
    assert not report(root)
    with pytest.raises(InputError, match='Its three bands are equal'):
        loaded(folder([np.repeat(drawn[..., None], 3, -1).astype(np.uint8)]))
    clear = np.dstack([rgb, np.full(drawn.shape, 255, np.uint8)])
    assert np.array_equal(loaded(folder([clear], palette=COLORS[:4], ignore=[[0, 0, 0]]))[0], np.where(drawn == 4, 255, drawn))
    clear[0, 0, 3] = 0
    with pytest.raises(InputError, match='transparent pixels'): loaded(folder([clear], palette=COLORS[:4], ignore=[[0, 0, 0]]))


def test_grey_files_of_several_depths(folder):
    "An optimiser may have written 255 as the 1 of a shallow file"
    root = folder([blocks([0, 2, 255]).astype(np.uint8), png(blocks([0, 1]), 1)])
    with pytest.warns(UserWarning, match='grey files of fewer bits beside 255'): loaded(root)
    assert 'depth' in report(root)


def test_several_pages_and_a_needless_alpha_band(tmp_path):
    pages = [Image.fromarray(blocks([0, v]).astype(np.uint8)) for v in (1, 2)]
    pages[0].save(tmp_path/'m.tif', save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match='got 2 pages'): open_mask(tmp_path/'m.tif')
    pages[0].convert('LA').save(tmp_path/'m.png')
    assert np.array_equal(open_mask(tmp_path/'m.png').values, blocks([0, 1]))
    Image.merge('LA', [pages[0], pages[1]]).save(tmp_path/'m.png')
    with pytest.raises(InputError, match='mode LA'): open_mask(tmp_path/'m.png')


def test_opened_masks(tmp_path):
    "As from anybody's own data set: the same numbers, the same refusals"
    (tmp_path/'m.png').write_bytes(png(blocks([0, 1, 15]), 4))
    assert np.array_equal(open_mask(Image.open(tmp_path/'m.png')).values, blocks([0, 1, 15]))
    assert np.array_equal(open_mask(Image.fromarray(blocks([0, 7]).astype(np.uint8))).values, blocks([0, 7]))
    with pytest.raises(InputError, match='the mask should be a mask of class indices.*mode RGB'):
        open_mask(Image.new('RGB', (2, 2)))


def test_a_turned_tiff_and_its_mask(tmp_path):
    "Pillow turns a TIFF by itself; numbers come as they are stored"
    for o in range(1, 9):
        for dtype in (np.uint8, np.uint16):
            Image.fromarray(np.arange(63).reshape(7, 9).astype(dtype)).save(tmp_path/'m.tif', tiffinfo={274: o})
            mask = open_mask(tmp_path/'m.tif')
            assert np.array_equal(mask.values, np.arange(63).reshape(7, 9)) and mask.facts.orientation == o


def test_matlab_masks_are_no_pictures(tmp_path):
    context_mask(tmp_path/'a.mat', [0, 1, 459])
    assert read_mask(tmp_path/'a.mat', 'LabelMap').unique().tolist() == [0, 1, 459]
    assert mask_facts(tmp_path/'a.mat', MaskSource(variable='LabelMap')).file.format == 'MATLAB'


def test_explanations_name_what_is_there():
    assert '"ignore": 11' in explain_values([0, 11], [11], 11, MaskSource())
    assert 'reduce' not in explain_values([0, 11], [11], 11, MaskSource(label_map={v: -1 for v in range(20)}))


@pytest.mark.data
def test_real_masks_show_no_signs(shared):
    sets = [('camvid', 'data/camvid'), ('voc12', 'data/voc2012_mini'), ('folder', 'data/msrc21')]
    for name, path in sets:
        for s in check_dataset(name, shared/path, subset=True).splits:
            assert not {*s.problems} & {'palette', 'binary', 'smeared', 'depth', 'mask', 'size', 'value'}, (name, s.problems)
