"A profile says which colours the numbers of a picture are: training, prediction and the report see the same ones"
import io
import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from given.profiles import PROFILES, SRGB, grey_profile, in_srgb, rgb_profile
from otseg.data import check_dataset, load_dataset
from otseg.data.check import split_text
from otseg.data.layouts import LAYOUTS
from otseg.data.pictures import picture_facts, picture_pixels
from otseg.predict.segmentation import load_photograph

H, W = 24, 32


def colours(h=H, w=W):
    "Smooth ones, so that JPEG changes little"
    y, x = np.mgrid[:h, :w] / [[[h - 1]], [[w - 1]]]
    return np.dstack([60 + 150 * x, 40 + 160 * y, 200 - 150 * x * y]).round().astype(np.uint8)


@pytest.fixture
def tree(tmp_path):
    def make(**more):
        root = tmp_path/f'data{len(list(tmp_path.iterdir()))}'
        for part in ('images', 'masks'): (root/part/'train').mkdir(parents=True)
        (root/'dataset.json').write_text(json.dumps(dict(names=['road', 'sky'], **more)), encoding='utf-8')
        labels = np.zeros((H, W), np.uint8)
        labels[:, W // 2:] = 1
        Image.fromarray(labels).save(root/'masks/train/a.png')
        return root
    return make


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.tif', '.webp'])
@pytest.mark.parametrize('name', PROFILES)
def test_the_same_colours_for_all(tree, name, suffix):
    how = dict(quality=100, subsampling=0) if suffix == '.jpg' else dict(lossless=True) if suffix == '.webp' else {}
    ends = {}
    for rule in ('', 'srgb', 'ignore'):
        root = tree(**dict(profile=rule) if rule else {})
        path = root/f'images/train/a{suffix}'
        Image.fromarray(colours()).save(path, icc_profile=rgb_profile(*PROFILES[name], name='Of a camera'), **how)
        item = load_dataset('folder', root)[0]['image'].permute(1, 2, 0).numpy()
        ends[rule] = item, load_photograph(path), check_dataset('folder', root, ['train'], full=True)
    stored = ends['ignore'][0].astype(int)                                            # what the decoder gives
    assert np.abs(stored - colours()).max() <= (4 if suffix == '.jpg' else 0)
    assert np.abs(ends[''][0] - in_srgb(stored, *PROFILES[name])).max() <= 2          # by hand
    assert np.abs(ends[''][0] - stored).max() > 10                                    # it matters
    assert np.array_equal(ends[''][0], ends['srgb'][0]) and np.array_equal(ends[''][0], ends[''][1])
    told = split_text(ends[''][2].splits[0], ends[''][2].vocab)
    assert 'pictures: 1 with the colour profile Of a camera, brought to sRGB' in told
    assert 'Of a camera, not applied' in str(ends['ignore'][2].to_dict())


def test_published_pictures_keep_their_numbers():
    assert {layout.rules.profile for layout in LAYOUTS.values()} == {'ignore'}


@pytest.mark.parametrize('profile', [ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes(), rgb_profile(SRGB, 2.2)])
def test_srgb_changes_nothing(tmp_path, profile):
    "Of profiles of many makers; a power of 2.2 is sRGB to the eye, but for the darkest colours"
    Image.fromarray(colours()).save(tmp_path/'a.png', icc_profile=profile)
    seen = picture_pixels(tmp_path/'a.png').astype(int)
    assert np.abs(seen - colours()).max() <= 6
    if profile != rgb_profile(SRGB, 2.2): assert np.array_equal(seen, colours()) and picture_facts(tmp_path/'a.png').profile == ''


def test_other_kinds_of_pictures(tmp_path):
    "Grey by a grey profile, transparency over white, a palette; a profile of other colours than the picture's says nothing"
    rgb, grey = colours(), colours()[..., 0]
    bright, cover = rgb_profile(SRGB, 1.), np.full((H, W), 255, np.uint8)
    cover[:8] = 0
    Image.fromarray(grey).save(tmp_path/'grey.png', icc_profile=grey_profile(1.))
    want = in_srgb(np.repeat(grey[..., None], 3, -1), SRGB, 1.)
    assert np.abs(load_photograph(tmp_path/'grey.png') - want).max() <= 2
    Image.fromarray(np.dstack([rgb, cover])).save(tmp_path/'over.png', icc_profile=bright)
    seen = load_photograph(tmp_path/'over.png')
    assert (seen[:8] >= 254).all() and np.abs(seen[8:] - in_srgb(rgb, SRGB, 1.)[8:]).max() <= 2
    index = Image.fromarray((grey % 4).astype(np.uint8))
    index.putpalette([10, 20, 30, 90, 80, 70, 120, 130, 140, 250, 200, 150])
    index.save(tmp_path/'index.png', icc_profile=bright)
    table = np.reshape(index.getpalette()[:12], (4, 3))
    assert np.abs(load_photograph(tmp_path/'index.png') - in_srgb(table[grey % 4], SRGB, 1.)).max() <= 2
    for image, profile in ((Image.fromarray(rgb), grey_profile(1.)), (Image.fromarray(grey), bright)):
        image.save(tmp_path/'other.png', icc_profile=profile)
        assert np.array_equal(load_photograph(tmp_path/'other.png'), np.asarray(image.convert('RGB')))
    ink = Image.frombytes('CMYK', (W, H), np.dstack([255 - rgb, cover * 0]).tobytes())
    ink.save(tmp_path/'ink.tif', icc_profile=bright)
    assert np.array_equal(load_photograph(tmp_path/'ink.tif'), rgb)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 600), st.lists(st.tuples(st.integers(0, 600), st.integers(1, 255)), max_size=4))
def test_a_broken_profile_is_no_fault_of_the_picture(cut, flips):
    content = bytearray(rgb_profile(*PROFILES['swapped']))
    for at, by in flips: content[at % len(content)] ^= by
    content = bytes(content[:cut]) if cut < len(content) and cut % 3 else bytes(content)
    Image.fromarray(colours()).save(file := io.BytesIO(), 'PNG', icc_profile=content or None)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        seen = picture_pixels(Image.open(file))
    assert seen.shape == (H, W, 3) and seen.dtype == np.uint8
    if cut < 128 and cut % 3: assert np.array_equal(seen, colours())
