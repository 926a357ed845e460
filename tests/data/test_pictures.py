"What a picture file shows is one thing: to training, to prediction, and to the facts that are told of it"
import io
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from given.layouts import VOC, lines, mask, picture
from otseg.core import InputError
from otseg.data.check import check_dataset
from otseg.data.layouts import Item, MaskSource, PictureRules
from otseg.data.masks import fitting_side, mask_facts
from otseg.data.pictures import picture_facts, picture_pixels, read_picture
from otseg.data.reading import SegmentationDataset, load_dataset
from otseg.model.vocab import vocab_of
from otseg.predict.segmentation import load_photograph

H, W = 7, 9
NAMES = ['a', 'b', 'c', 'd']
UPRIGHT = {1: lambda x: x, 2: lambda x: x[:, ::-1], 3: lambda x: x[::-1, ::-1], 4: lambda x: x[::-1],  # by the EXIF standard
           5: lambda x: x.swapaxes(0, 1), 6: lambda x: x[::-1].swapaxes(0, 1), 7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
           8: lambda x: x.swapaxes(0, 1)[::-1]}


def marked(orientation):
    exif = Image.Exif()
    if orientation != 1: exif[0x112] = orientation
    return exif


def save(path, image, orientation=1, **options):
    "In any format, with the mark where the format keeps it"
    kind = {'.jpg': 'JPEG', '.tif': 'TIFF', '.png': 'PNG', '.webp': 'WEBP', '.gif': 'GIF'}[path.suffix]
    if kind == 'TIFF': options |= dict(tiffinfo={274: orientation})
    elif orientation != 1: options |= dict(exif=marked(orientation))
    if kind == 'WEBP': options |= dict(lossless=True, exact=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, kind, **options)


def over_white(rgb, alpha):
    "Straight alpha over white, to a grey level"
    a = alpha[..., None] / 255.
    return rgb * a + 255 * (1 - a)


def written(mode, rng):
    "A picture in a mode, the formats that keep it, what should be seen of it, and what the facts should say (bits, alpha)"
    grey, rgb = rng.integers(0, 256, (H, W), dtype=np.uint8), rng.integers(0, 256, (H, W, 3), dtype=np.uint8)
    alpha = rng.choice(np.array([0, 255, 255, 128, 17], np.uint8), (H, W))
    three = np.repeat(grey[..., None], 3, -1)
    if mode == 'L': return Image.fromarray(grey), ('.png', '.tif'), three, 8, False
    if mode == 'RGB': return Image.fromarray(rgb), ('.png', '.tif', '.webp'), rgb, 8, False
    if mode == '1': return Image.fromarray(grey > 127), ('.png', '.tif'), np.where(three > 127, 255, 0), 1, False
    if mode == 'LA': return Image.fromarray(np.dstack([grey, alpha])), ('.png', '.tif'), over_white(three, alpha), 8, True
    if mode == 'RGBA': return Image.fromarray(np.dstack([rgb, alpha])), ('.png', '.tif', '.webp'), over_white(rgb, alpha), 8, True
    if mode == 'I;16':
        deep = rng.integers(0, 2**16, (H, W), dtype=np.uint16)
        deep[0, 0] = 65535
        return Image.fromarray(deep), ('.png', '.tif'), np.repeat((deep >> 8)[..., None], 3, -1), 16, False
    if mode == 'F':
        unit = rng.random((H, W), np.float32)
        return Image.fromarray(unit), ('.tif',), np.repeat((unit * 255)[..., None], 3, -1), 32, False
    if mode == 'CMYK':
        ink = np.dstack([255 - rgb, np.zeros((H, W), np.uint8)])
        return Image.fromarray(ink, 'CMYK'), ('.tif',), rgb, 8, False
    index = rng.integers(0, 4, (H, W), dtype=np.uint8)
    colors = rng.integers(0, 256, (4, 3), dtype=np.uint8)
    image = Image.fromarray(index)
    image.putpalette(colors.ravel().tolist())
    seen = colors[index].astype(float)
    if mode == 'P': return image, ('.png', '.tif'), seen, 8, False
    image.info['transparency'] = 2                                # P with a transparent colour
    seen[index == 2] = 255
    return image, ('.png',), seen, 8, True


MODES = ('L', 'RGB', '1', 'LA', 'RGBA', 'I;16', 'F', 'CMYK', 'P', 'P with a hole')


@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.sampled_from(MODES), st.integers(1, 8), st.sampled_from(['exif', 'stored']), st.integers(0, 2), st.integers(0, 2**20))
def test_one_pair_of_eyes(mode, orientation, side, which, seed):
    "Orientation x alpha x depth x mode x format: training, prediction and the facts agree, and with what was written"
    rng = np.random.default_rng(seed)
    image, suffixes, stored, bits, alpha = written(mode, rng)
    labels = rng.integers(0, 4, (H, W), dtype=np.uint8)           # in the stored frame
    folder = Path(tempfile.mkdtemp())
    try:
        path = folder/f'a{suffixes[which % len(suffixes)]}'
        save(path, image, orientation)
        Image.fromarray(np.ascontiguousarray(UPRIGHT[orientation](labels) if side == 'exif' else labels)).save(folder/'m.png')
        upright = UPRIGHT[orientation](stored)
        predicted = load_photograph(path)
        assert predicted.shape == upright.shape and np.abs(predicted - upright).max() <= 1
        facts = picture_facts(path)
        assert (facts.size, facts.orientation) == ((H, W), orientation)
        assert facts.bits == bits or mode[0] == 'P'               # Pillow packs four colours into two bits
        assert facts.upright_size == predicted.shape[:2] and bool(facts.alpha) == alpha
        item = Item(path, folder/'m.png', 'a', MaskSource(), PictureRules(orientation=side))
        sample = SegmentationDataset([item], vocab_of(NAMES))[0]
        seen, drawn = sample['image'].permute(1, 2, 0).numpy(), sample['labels'].numpy()
        if side == 'exif':
            assert np.array_equal(seen, predicted) and np.array_equal(drawn, UPRIGHT[orientation](labels))
        else:
            assert np.array_equal(UPRIGHT[orientation](seen), predicted) and np.array_equal(drawn, labels)
        assert fitting_side(facts, mask_facts(folder/'m.png').file, side) == side
    finally: shutil.rmtree(folder)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 8), st.sampled_from([1, 1, 1, 3, 6]), st.sampled_from([(7, 9), (8, 8)]), st.booleans())
def test_no_side_is_guessed(orientation, of_mask, size, as_seen):
    "Without a word in dataset.json a pair is read only where it can be known how; then picture and mask agree"
    from otseg.data.pictures import PictureFacts
    turned = lambda s, o: s[::-1] if o >= 5 else s
    mask_size = turned(turned(size, orientation), of_mask) if as_seen else size  # drawn on the upright picture, or on its pixels
    facts = PictureFacts('JPEG', 'RGB', size, orientation), PictureFacts('PNG', 'L', mask_size, of_mask)
    fits = {'exif': turned(size, orientation) == turned(mask_size, of_mask), 'stored': size == mask_size}
    try: side = fitting_side(*facts)
    except InputError as e:
        assert orientation != 1 or of_mask != 1
        assert 'EXIF orientation' in str(e) and (not any(fits.values()) or '"orientation"' in str(e))
    else:
        assert fits[side]
        if orientation != of_mask: assert not fits['stored'], 'both sides fit, and one was taken'


# every situation by itself

@pytest.fixture
def folder(tmp_path):
    "A data set that describes itself, to be filled"
    def described(**rules):
        (tmp_path/'dataset.json').write_text(json.dumps(dict(names=NAMES, **rules)), encoding='utf-8')
        return tmp_path
    described()
    return described


def pair(root, image, labels, orientation=1, suffix='.jpg', name='a', **options):
    save(root/f'images/train/{name}{suffix}', image, orientation, **options)
    (root/'masks/train').mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(root/f'masks/train/{name}.png')


def photograph(h=40, w=60):
    "Smooth, so that JPEG changes little, and of no symmetry"
    y, x = np.mgrid[:h, :w]
    return np.stack([4 * x + y, 5 * y + x, 255 - 4 * x], -1).clip(0, 255).astype(np.uint8)


def quarters(h, w):
    y, x = np.mgrid[:h, :w]
    return (2 * (y >= h / 2) + (x >= w / 2)).astype(np.uint8)


@pytest.mark.parametrize('orientation, size', [(3, (40, 60)), (6, (40, 40)), *((o, (40, 60)) for o in (2, 4)),
                                               *((o, (40, 40)) for o in (2, 3, 4, 5, 7, 8))])
def test_a_turn_that_sizes_do_not_tell(folder, orientation, size):
    "Upright masks beside a photograph marked as turned, both of one size: asked for, and then picture and mask agree"
    root = folder()
    upright = photograph(*size)
    stored = next(s for s in (UPRIGHT[o](upright) for o in range(1, 9)) if np.array_equal(UPRIGHT[orientation](s), upright))
    pair(root, Image.fromarray(np.ascontiguousarray(stored)), quarters(*size), orientation, quality=95)
    with pytest.raises(InputError, match=rf'EXIF orientation {orientation}.*"orientation": "exif"') as e:
        load_dataset('folder', root)[0]
    assert 'a.jpg' in str(e.value) and '"stored"' in str(e.value)
    report = check_dataset('folder', root, ['train'])
    assert report.problems and f'EXIF orientation {orientation}' in str(report.to_dict())
    sample = load_dataset('folder', folder(orientation='exif'))[0]
    seen = sample['image'].permute(1, 2, 0).numpy()
    assert np.array_equal(seen, load_photograph(root/'images/train/a.jpg')) and np.abs(seen.astype(int) - upright).mean() < 4
    assert np.array_equal(sample['labels'], quarters(*size)) and sample['size'] == size
    assert not check_dataset('folder', root, ['train']).problems
    sample = load_dataset('folder', folder(orientation='stored'))[0]
    assert np.array_equal(UPRIGHT[orientation](sample['image'].permute(1, 2, 0).numpy()), seen)


@pytest.mark.parametrize('orientation', [5, 6, 7, 8])
def test_a_turn_that_sizes_tell(folder, orientation):
    root, upright = folder(), photograph(60, 40)
    stored = next(s for s in (UPRIGHT[o](upright) for o in range(1, 9)) if np.array_equal(UPRIGHT[orientation](s), upright))
    pair(root, Image.fromarray(np.ascontiguousarray(stored)), quarters(60, 40), orientation, quality=95)
    sample = load_dataset('folder', root)[0]                       # as labelling tools export: the mask is upright
    assert np.array_equal(sample['image'].permute(1, 2, 0), load_photograph(root/'images/train/a.jpg'))
    assert sample['size'] == (60, 40) and np.array_equal(sample['labels'], quarters(60, 40))
    assert not check_dataset('folder', root, ['train']).problems
    Image.fromarray(quarters(40, 60)).save(root/'masks/train/a.png')  # drawn on the pixels as they are stored
    with pytest.raises(InputError, match=rf'EXIF orientation {orientation}.*as they are stored: say "orientation": "stored"'):
        load_dataset('folder', root)[0]
    assert 'EXIF' in str(check_dataset('folder', root, ['train']).to_dict())
    assert load_dataset('folder', folder(orientation='stored'))[0]['size'] == (40, 60)
    with pytest.raises(InputError, match='The mask fits with "orientation": "stored"'):
        load_dataset('folder', folder(orientation='exif'))[0]
    Image.fromarray(quarters(40, 59)).save(root/'masks/train/a.png')
    with pytest.raises(InputError, match='got 59 x 40. Export the mask again.*does not explain it'):
        load_dataset('folder', folder())[0]


def test_published_masks_fit_the_stored_pixels(tmp_path):
    "VOC was drawn and scored so, and its entry says it"
    picture(tmp_path/'JPEGImages/a.jpg', exif=marked(6))
    mask(tmp_path/'SegmentationClass/a.png', [0, 1, 20])
    lines(tmp_path/VOC/'val.txt', ['a'])
    assert load_dataset('voc12', tmp_path, 'val')[0]['image'].shape == (3, 40, 60)
    assert load_photograph(tmp_path/'JPEGImages/a.jpg').shape == (60, 40, 3)
    assert not check_dataset('voc12', tmp_path, ['val'], subset=True).problems


def test_a_mask_with_a_mark_of_its_own(folder):
    "Taken at its word together with its picture; alone it is asked about"
    root, labels = folder(), quarters(40, 60)
    pair(root, Image.fromarray(photograph()), labels, 3)
    Image.fromarray(labels).save(root/'masks/train/a.png', exif=marked(3))
    sample = load_dataset('folder', root)[0]
    assert np.array_equal(sample['labels'], labels[::-1, ::-1])
    save(root/'images/train/a.jpg', Image.fromarray(photograph()))
    with pytest.raises(InputError, match=r'a\.png is marked as turned \(EXIF orientation 3\)'): load_dataset('folder', root)[0]


@pytest.mark.parametrize('mode, suffix', [('RGBA', '.png'), ('LA', '.png'), ('RGBA', '.webp'), ('RGBA', '.tif'),
                                          ('P', '.png'), ('P', '.gif')])
def test_what_is_behind_transparency(folder, mode, suffix):
    "White, for training as for prediction"
    root, rgb = folder(), photograph()
    alpha = np.where(quarters(40, 60) == 3, 0, 255).astype(np.uint8)
    image, options = Image.fromarray(np.dstack([rgb, alpha])), {}
    if mode == 'LA': image = image.convert('LA')
    if mode == 'P':
        image, options = Image.fromarray(quarters(40, 60)), dict(transparency=3)
        image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 0, 0, 0])
    pair(root, image, quarters(40, 60), suffix=suffix, **options)
    seen = load_dataset('folder', root)[0]['image'].permute(1, 2, 0).numpy()
    assert (seen[30, 50] == 255).all() and (seen[5, 5] < 255).all()
    assert np.array_equal(seen, load_photograph(root/f'images/train/a{suffix}'))


def test_pairs_from_a_data_set_of_one_s_own():
    "Pictures of Pillow are seen in the same way; one that is marked as turned is asked about"
    from otseg.train.batches import PairDataset
    cover = np.zeros((40, 60), np.uint8)
    cover[20:] = 255
    labels, half = Image.fromarray(quarters(40, 60)), Image.fromarray(np.dstack([photograph(), cover]))
    assert (PairDataset([(half, labels)], NAMES)[0]['image'][:, :20] == 255).all()
    empty = Image.fromarray(np.dstack([photograph(), cover * 0]))
    with pytest.raises(InputError, match='picture 0 should have something to see'): PairDataset([(empty, labels)], NAMES)[0]
    turned = Image.fromarray(photograph())
    turned.getexif()[0x112] = 3
    with pytest.raises(InputError, match='picture 0 should be upright, got EXIF orientation 3'):
        PairDataset([(turned, labels)], NAMES)[0]
    with pytest.raises(InputError, match='nearly black'):
        PairDataset([(Image.fromarray(np.full((40, 60), 4000, np.uint16)), labels)], NAMES)[0]


def test_premultiplied_colours(tmp_path):
    straight = Image.fromarray(np.dstack([photograph(), np.full((40, 60), 128, np.uint8)]))
    assert np.abs(picture_pixels(straight.convert('RGBa')).astype(int) - picture_pixels(straight)).max() <= 2
    Image.fromarray(photograph()).save(tmp_path/'a.tif')
    assert picture_facts(tmp_path/'a.tif').alpha == ''


@pytest.mark.parametrize('bits', [10, 12, 14])
@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_fewer_bits_in_files_of_sixteen(folder, bits, suffix):
    "Nearly black is no picture: asked for"
    root = folder()
    deep = (photograph()[..., 0].astype(np.uint16) << (bits - 8)) | 1
    pair(root, Image.fromarray(deep), quarters(40, 60), suffix=suffix)
    path = root/f'images/train/a{suffix}'
    for look in (lambda: load_dataset('folder', root)[0], lambda: load_photograph(path), lambda: load_photograph(deep)):
        with pytest.raises(InputError, match=f'8 bits a channel.*nearly black.*"depth": {bits} in dataset.json'): look()
    assert 'nearly black' in str(check_dataset('folder', root, ['train'], full=True).to_dict())
    seen = load_dataset('folder', folder(depth=bits))[0]['image']
    assert np.array_equal(seen[0], photograph()[..., 0]) and np.array_equal(load_photograph(path, depth=bits)[..., 1], seen[1])


def png16(rgb):
    "A PNG of three bands of 16 bits, which Pillow does not write"
    import struct
    import zlib
    chunk = lambda kind, data: struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    h, w, _ = rgb.shape
    rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in rgb)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, 16, 2, 0, 0, 0))
            + chunk(b'IDAT', zlib.compress(rows)) + chunk(b'IEND', b''))


def test_colours_of_sixteen_bits(tmp_path):
    "Pillow keeps the upper eight in silence: right for all of 16, nearly black for 12"
    for bits in (16, 12):
        (tmp_path/'a.png').write_bytes(png16(photograph().astype(np.uint16) << (bits - 8)))
        assert picture_facts(tmp_path/'a.png').bits == 16
        for look in (load_photograph, lambda p: read_picture(p).permute(1, 2, 0).numpy()):
            if bits == 16: assert np.array_equal(look(tmp_path/'a.png'), photograph())
            else:
                with pytest.raises(InputError, match='nearly black.*Convert it to 8 bits'): look(tmp_path/'a.png')


def textured(h=64, w=64):
    rng = np.random.default_rng(0)
    blocks = rng.integers(40, 200, (8, 8, 3)).repeat(h // 8, 0).repeat(w // 8, 1)
    return (blocks + rng.integers(-9, 9, (h, w, 1))).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize('suffix', ['.png', '.tif', '.webp'])
@pytest.mark.parametrize('band', [lambda x: 255 - x[..., 0], lambda x: (.7 * x[..., 1] + 30).astype(np.uint8),
                                  lambda x: x[::-1, ::-1, 1].copy()], ids=['inverse', 'green', 'unrelated'])
def test_near_infrared_is_no_transparency(folder, suffix, band):
    root, rgb = folder(), textured()
    pair(root, Image.fromarray(np.dstack([rgb, band(rgb)])), quarters(64, 64), suffix=suffix)
    path = root/f'images/train/a{suffix}'
    for look in (lambda: load_dataset('folder', root)[0], lambda: load_photograph(path)):
        with pytest.raises(InputError, match='near infrared.*"alpha": "over".*"alpha": "drop"'): look()
    assert 'near infrared' in str(check_dataset('folder', root, ['train'], full=True).to_dict())
    seen = load_dataset('folder', folder(alpha='drop'))[0]['image'].permute(1, 2, 0).numpy()
    assert np.array_equal(seen, rgb) and np.array_equal(load_photograph(path, alpha='drop'), rgb)
    assert not np.array_equal(load_photograph(path, alpha='over'), rgb)


@pytest.mark.parametrize('top', [0, 3, 8])
def test_a_band_that_lets_nothing_through(folder, top):
    "Left empty by a program, or the numbers of classes: the picture would be white"
    root, rgb = folder(), textured()
    band = np.minimum(quarters(64, 64), top)
    pair(root, Image.fromarray(np.dstack([rgb, band])), quarters(64, 64), suffix='.png')
    for look in (lambda: load_dataset('folder', root)[0], lambda: load_photograph(root/'images/train/a.png')):
        with pytest.raises(InputError, match='got a last band that lets nothing through.*"alpha": "drop"'): look()
    assert 'lets nothing through' in str(check_dataset('folder', root, ['train']).to_dict())
    assert np.array_equal(load_photograph(root/'images/train/a.png', alpha='drop'), rgb)
    assert load_photograph(root/'images/train/a.png', alpha='over').min() >= 250


@pytest.mark.parametrize('cover', ['fade', 'ring', 'veil', 'cut out'])
def test_coverage_is_no_band(folder, cover):
    "What fades smoothly, or is full and empty with soft edges, is transparency"
    y, x = np.mgrid[:64, :64]
    far = np.hypot(x - 32, y - 32)
    band = {'fade': 4. * x, 'ring': 255 - 5.5 * far, 'veil': 90 + 0 * far, 'cut out': 255 * (24 - far)}[cover]
    band = band.clip(0, 255).astype(np.uint8)
    root = folder()
    pair(root, Image.fromarray(np.dstack([textured(), band])), quarters(64, 64), suffix='.png')
    seen = load_photograph(root/'images/train/a.png')
    assert np.abs(seen - over_white(textured(), band)).max() <= 1
    assert np.array_equal(load_dataset('folder', root)[0]['image'].permute(1, 2, 0), seen)


def test_a_fourth_band_of_a_tiff(tmp_path):
    "By ExtraSamples: none said, it is asked about; unspecified, it is no transparency; 1 and 2 are"
    Image.fromarray(np.dstack([textured(), np.full((64, 64), 99, np.uint8)])).save(buffer := io.BytesIO(), 'TIFF')
    whole, entry = buffer.getvalue(), b'\x52\x01\x03\x00\x01\x00\x00\x00\x02'
    assert whole.count(entry) == 1
    other = dict(missing=whole.replace(entry, b'\x51\x01' + entry[2:]), unspecified=whole.replace(entry, entry[:-1] + b'\0'))
    for name, content in other.items(): (tmp_path/f'{name}.tif').write_bytes(content)
    with pytest.raises(InputError, match='4 bands without ExtraSamples'): load_photograph(tmp_path/'missing.tif')
    with pytest.raises(InputError, match='4 bands without ExtraSamples'): read_picture(tmp_path/'missing.tif')
    assert np.array_equal(load_photograph(tmp_path/'missing.tif', alpha='drop'), textured())
    assert np.array_equal(load_photograph(tmp_path/'unspecified.tif'), textured())
    assert picture_facts(tmp_path/'unspecified.tif').bands == 4
    (tmp_path/'alpha.tif').write_bytes(whole)
    assert np.abs(load_photograph(tmp_path/'alpha.tif') - over_white(textured(), np.full((64, 64), 99))).max() <= 1


@pytest.mark.parametrize('top', [1.5, 255, 65535, -1, np.nan])
def test_floats_of_another_range(tmp_path, top):
    "0..1 is black to white; others were guessed once"
    x = np.linspace(0, 1, H * W, dtype=np.float32).reshape(H, W) * np.float32(top)
    Image.fromarray(x).save(tmp_path/'a.tif')
    for look in (load_photograph, read_picture):
        with pytest.raises(InputError, match=r'a\.tif with float values should lie in 0\.\.1'): look(tmp_path/'a.tif')
    with pytest.raises(InputError, match='should lie in 0..1'): load_photograph(x)


def test_a_negative_of_sixteen_bits(tmp_path):
    "A TIFF in which 0 is white: of 8 bits Pillow turns it round, of 16 it does not"
    grey = np.arange(63, dtype=np.uint8).reshape(7, 9)
    for deep, values in ((False, 255 - grey), (True, 65535 - grey.astype(np.uint16) * 257)):
        Image.fromarray(values).save(buffer := io.BytesIO(), 'TIFF')
        whole, entry = buffer.getvalue(), b'\x06\x01\x03\x00\x01\x00\x00\x00'
        assert whole.count(entry + b'\1') == 1
        (tmp_path/'a.tif').write_bytes(whole.replace(entry + b'\1', entry + b'\0'))
        if not deep: assert np.array_equal(load_photograph(tmp_path/'a.tif')[..., 0], grey)
        for look in (load_photograph, read_picture) if deep else ():
            with pytest.raises(InputError, match='a TIFF of 16 bits in which 0 is white'): look(tmp_path/'a.tif')


def test_whole_numbers_of_32_bits(tmp_path):
    Image.fromarray(np.arange(63, dtype=np.int32).reshape(7, 9) * 1000).save(tmp_path/'a.tif')
    for look in (load_photograph, read_picture):
        with pytest.raises(InputError, match='8 bits a channel, got 32 bits'): look(tmp_path/'a.tif')


@pytest.mark.filterwarnings('ignore:Corrupt EXIF data')
@pytest.mark.parametrize('content', [b'Exif\0\0XX', b'no EXIF at all', b'Exif\0\0MM\0*\0\0\0\x08\0', b''])
def test_foreign_exif(tmp_path, content):
    "A block that is none says nothing about a turn, and is no reason to refuse a whole picture"
    for suffix in ('.png', '.jpg', '.webp'):
        path = tmp_path/f'a{suffix}'
        Image.fromarray(photograph()).save(path, exif=content)
        assert load_photograph(path).shape == (40, 60, 3) == tuple(read_picture(path).shape[i] for i in (1, 2, 0))
        assert picture_facts(path).orientation == 1


@pytest.mark.parametrize('value', [0, 9, 255])
def test_orientations_that_are_none(tmp_path, value):
    save(tmp_path/'a.jpg', Image.fromarray(photograph()), value)
    assert picture_facts(tmp_path/'a.jpg').orientation == 1 and load_photograph(tmp_path/'a.jpg').shape == (40, 60, 3)


def test_what_the_system_says_is_told(tmp_path):
    with pytest.raises(InputError, match='does not let it be read'): read_picture(tmp_path)
    with pytest.raises(InputError, match='no such file'): load_photograph(tmp_path/'none.png')


def test_more_pixels_than_pillow_opens(tmp_path, monkeypatch):
    picture(tmp_path/'a.png', size=(200, 100))
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    for look in (load_photograph, read_picture, picture_facts):
        with pytest.raises(InputError, match='should have at most 2,000 pixels.*MAX_IMAGE_PIXELS'): look(tmp_path/'a.png')
