"The one pass of training against the same steps one by one, against torchvision's floats, and against albumentations"
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from otseg.core import InputError
from otseg.data import transforms
from otseg.data.layouts import Item, MaskSource
from otseg.data.masks import byte_labels, byte_table, label_table, to_labels, value_counts
from otseg.data.reading import Items
from otseg.data.transforms import (PhotometricDistort, TrainTransform, distort_colours, keep_ratio_size, train_transform,
                                   turn_hue)
from otseg.train import trainer
from otseg.train.recipes import get_recipe


def photograph(h, w, seed):
    "Smooth shades with some noise, grey and saturated places, channels last as decoders give them; and a mask of patches"
    g = np.random.default_rng(seed)
    coarse = torch.from_numpy(g.integers(0, 256, (1, 3, 5, 6)).astype(np.float32))
    image = torch.nn.functional.interpolate(coarse, (h, w), mode='bilinear')[0] + torch.from_numpy(g.normal(0, 6, (3, h, w)))
    image[:, :h // 4] = image[:1, :h // 4]
    image = image.clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous().permute(2, 0, 1)
    labels = torch.from_numpy(g.choice(np.array([0, 1, 2, 7, 255], np.uint8), (1, 1, 4, 5)))
    mask = torch.nn.functional.interpolate(labels, (h, w), mode='nearest')[0, 0]
    return tv_tensors.Image(image), tv_tensors.Mask(mask)


class InFloats(PhotometricDistort):
    "Torchvision's own steps on floats: by hue, saturation and value, with a clamp after each step"
    def transform(self, inpt, params):
        if not isinstance(inpt, tv_tensors.Image): return inpt
        return v2.RandomPhotometricDistort.transform(self, F.to_dtype(inpt, torch.float32, scale=True), params)


def plain(transform: TrainTransform):
    "The published steps one after the other, on the whole picture"
    return v2.Compose([InFloats() if isinstance(s, PhotometricDistort) else s for s in transform.steps()])


def run(transform, seed, *pair):
    torch.manual_seed(seed)
    return *transform(*pair), torch.get_rng_state()


@settings(max_examples=120)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**31), st.sampled_from([None, (96, 64), (300, 40)]),
       st.sampled_from([(.5, 2.), (1., 1.), (.2, .6)]), st.sampled_from([16, (48, 33), 64]), st.sampled_from([.75, .4, 1.]))
@example(71, 141, 0, (143, 72), (1., 1.), 64, .75)   # enlarged by so little that the part has the size it is enlarged to
@example(1, 1, 0, None, (.5, 2.), 16, .75)
def test_one_pass_equals_the_steps(h, w, seed, resize, scale_range, crop, ratio):
    "Masks and the draws to the bit, colours to a hundredth of a level"
    transform = train_transform(crop, resize=resize, scale_range=scale_range, cat_max_ratio=ratio)
    pair = photograph(h, w, seed)
    image, mask, state = run(transform, seed, *pair)
    want, labels, after = run(plain(transform), seed, *pair)
    assert torch.equal(mask, labels) and mask.dtype == labels.dtype and torch.equal(state, after)
    assert image.shape == want.shape and image.dtype == torch.float32 and image.is_contiguous()
    assert ((image - want).abs() / transform.scale).max() < .01


@settings(max_examples=150)
@given(st.integers(1, 120), st.integers(1, 120), st.floats(.3, 3.), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**31))
def test_the_crop_of_a_picture_is_resized_alone(h, w, ratio, down, across, seed):
    image = photograph(h, w, seed)[0].as_subclass(Tensor)
    size = keep_ratio_size((h, w), ratio=ratio)
    assume(size != (1, 1))   # torch 2.14 fails on planes that become one pixel
    height, width = (min(40, n) for n in size)
    top, left = int(down * (size[0] - height)), int(across * (size[1] - width))
    for x in (image, image.contiguous()):
        part = transforms._resized_crop(x, size, top, left, height, width)
        whole = F.resize(x, list(size), antialias=True)[:, top:top + height, left:left + width]
        assert (part.int() - whole.int()).abs().max() <= 1   # torch rounds its weights


def test_what_lies_behind_the_crop_is_not_resized(monkeypatch):
    made, resize = [], torch.nn.functional.interpolate
    monkeypatch.setattr(torch.nn.functional, 'interpolate',
                        lambda x, *a, **k: made.append(out := resize(x, *a, **k)) or out)
    image = photograph(375, 500, 0)[0].as_subclass(Tensor)
    for top, left, most in ((0, 0, 1.05), (200, 300, 2.3)):
        made.clear()
        transforms._resized_crop(image, (1024, 1366), top, left, 512, 512)
        assert len(made) == 1 and made[0][0, 0].numel() <= most * 512**2   # of 5.3 times as many


@pytest.mark.parametrize('hue', [-1 / 6, -.1, -.031, 0., .0007, .1, 1 / 6])
def test_hue_without_hue_saturation_value(hue):
    "All colours on a grid that has ties, greys and extremes, against torchvision's way round"
    v = torch.tensor([0, 1, 2, 50, 100, 101, 127, 128, 200, 254, 255])
    x = torch.cartesian_prod(v, v, v).T.reshape(3, 11, 121).float().contiguous()
    want = F.adjust_hue(x / 255, hue) * 255
    turned = turn_hue(x.clone(), hue, block=100)
    torch.testing.assert_close(turned, want, atol=2e-3, rtol=0)
    assert torch.equal(turned.amax(0), x.amax(0)) and torch.equal(turned.amin(0), x.amin(0))


def test_hue_within_its_range():
    with pytest.raises(InputError, match='a sixth of the circle'): turn_hue(torch.zeros(3, 2, 2), .17)


FACTORS = dict(brightness_factor=(.875, 1.125), contrast_factor=(.5, 1.5), saturation_factor=(.5, 1.5), hue_factor=(-.1, .1))


@settings(max_examples=60)
@given(st.tuples(*(st.none() | st.floats(*r) for r in FACTORS.values())), st.booleans(), st.integers(0, 2**31))
def test_colours_one_by_one(factors, before, seed):
    params = dict(zip(FACTORS, factors)) | dict(contrast_before=before, channel_permutation=None)
    image = photograph(40, 30, seed)[0]
    x = F.to_dtype(image.as_subclass(Tensor), torch.float32, scale=True)
    if params['brightness_factor'] is not None: x = F.adjust_brightness(x, params['brightness_factor'])
    if before and params['contrast_factor'] is not None: x = F.adjust_contrast(x, params['contrast_factor'])
    if params['saturation_factor'] is not None: x = F.adjust_saturation(x, params['saturation_factor'])
    if params['hue_factor'] is not None: x = F.adjust_hue(x, params['hue_factor'])
    if not before and params['contrast_factor'] is not None: x = F.adjust_contrast(x, params['contrast_factor'])
    torch.testing.assert_close(distort_colours(image.as_subclass(Tensor).float().contiguous(), params), x * 255, atol=.01, rtol=0)
    alone = PhotometricDistort().transform(image, params)
    assert alone.dtype == torch.uint8 and (alone.float() - x * 255).abs().max() < .51   # rounded once


@pytest.mark.parametrize('kind', ['planes', 'floats', 'doubles', 'numbers'])
def test_other_pictures_and_masks(kind):
    image, mask = photograph(80, 90, 3)
    transform = train_transform(64, resize=(128, 80), scale_range=(1., 1.))
    other = dict(planes=(image.contiguous(), mask), floats=(F.to_dtype(image, torch.float32, scale=True), mask),
                 doubles=(F.to_dtype(image, torch.float64, scale=True), mask),
                 numbers=(image, tv_tensors.Mask(mask.long())))[kind]
    a, b, _ = run(transform, 5, image, mask)
    c, d, _ = run(transform, 5, *other)
    far = 2 if kind in ('floats', 'doubles') else 1e-3   # floats are not rounded when they are resized
    assert torch.equal(b.long(), d.long()) and ((a - c).abs() / transform.scale).max() < far
    assert torch.equal(run(transform, 5, image, mask)[0], a) and not torch.equal(run(transform, 6, image, mask)[0], a)


def test_pairs_that_do_not_fit():
    for image, mask in ((torch.zeros(3, 4, 4), torch.zeros(4, 5)), (torch.zeros(1, 4, 4), torch.zeros(4, 4)),
                        (torch.zeros(3, 4, 4), torch.zeros(1, 4, 4))):
        with pytest.raises(InputError, match='picture and mask'): train_transform(4)(image, mask)


def test_colours_are_near_those_of_eight_bits():
    "The published steps round after each; what is left is that rounding, and Pillow's hue of 256 steps"
    far, image = [], photograph(60, 60, 1)[0]
    torch.manual_seed(0)
    for _ in range(40):
        params = PhotometricDistort().make_params([image])
        x = v2.RandomPhotometricDistort.transform(PhotometricDistort(), image, params)   # torchvision on bytes
        far.append((x.float() - distort_colours(image.as_subclass(Tensor).float().contiguous(), params)).abs())
    assert torch.stack(far).mean() < 1 and torch.stack(far).max() < 8


# masks

@given(st.integers(0, 40), st.integers(1, 40), st.integers(0, 2**31), st.integers(1, 256))
def test_values_are_counted(h, w, seed, k):
    x = np.random.default_rng(seed).integers(0, k, (h, w)).astype(np.uint8)
    assert value_counts(x).tolist() == np.bincount(x.ravel(), minlength=256).tolist()
    assert value_counts(x.T).tolist() == value_counts(x).tolist()


@given(st.integers(1, 254), st.booleans(), st.dictionaries(st.integers(0, 400), st.sampled_from([-1, 0, 255])),
       st.integers(0, 2**31))
def test_labels_of_bytes(k, reduce, some, seed):
    "As `to_labels`, and nothing where that has a value without a meaning"
    table = label_table(k, reduce_zero_label=reduce, label_map=some)
    g = np.random.default_rng(seed)
    for values in (g.integers(0, 256, (9, 7)), g.choice(table[:256].ge(0).nonzero()[:, 0].numpy(), (9, 7))):
        values = torch.from_numpy(values.astype(np.uint8))
        want, got = to_labels(values, table), byte_labels(values, *byte_table(table))
        assert (got is None) == bool(want.amin() < 0)
        if got is not None: assert got.dtype == torch.uint8 and torch.equal(got.long(), want)


# items

def many(n):
    source = MaskSource(('annotations',), suffix='_labelTrainIds.png')
    for i in range(n):
        yield Item(Path(f'/data/coco/images/{i:012d}.jpg'), Path(f'/data/coco/annotations/{i:012d}.png'), f'{i:012d}', source)


@given(st.lists(st.tuples(st.text(st.characters(exclude_characters='\0/'), min_size=1), st.booleans()), min_size=1, max_size=9))
def test_items_come_back(names):
    sources = MaskSource(), MaskSource(suffix='.npy')
    items = [Item(Path(f'a/{n}'), Path(f'b/{n}') if b else None, n, sources[b]) for n, b in names]
    kept = Items(items)
    assert [*kept] == items and kept[::-1] == items[::-1] and kept[-1] == items[-1] and len(kept) == len(items)


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='asks Linux for the memory of a process')
def test_a_forked_process_shares_the_names():
    "A list of as many pictures as COCO has costs a worker 69 MB; in arrays, a page here and there"
    items = Items(many(118_287))
    assert len(items._text) < 16e6 and items[118_286].key == '000000118286'

    def own():
        lines = Path('/proc/self/smaps_rollup').read_text(encoding='utf-8').splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith('Private_')) / 1024
    ends, (a, b) = items._ends, os.pipe()
    pid = os.fork()
    if not pid:
        before = own()
        for i in range(len(items)): items._text[ends[i]:ends[i + 1]].decode()   # a path also goes into Python's table of strings
        os.write(b, f'{own() - before}'.encode())
        os._exit(0)
    os.waitpid(pid, 0)
    assert float(os.read(a, 99)) < 4


@pytest.mark.parametrize('device, pinned', [('cpu', False), ('cuda', True)])
def test_the_loader_of_a_run_pins_its_memory(monkeypatch, device, pinned):
    told = {}
    monkeypatch.setattr(trainer, 'DataLoader', lambda data, **k: told.update(k))
    monkeypatch.setattr(trainer, 'read_batches', lambda loader: loader)
    place = SimpleNamespace(device=torch.device(device), process_index=0, num_processes=1)
    run = SimpleNamespace(recipe=get_recipe('voc12-inductive'), accelerator=place, start=0, workers=2)
    trainer.Trainer._load(run, [0] * 20)
    assert (told['pin_memory'], told['persistent_workers'], told['num_workers']) == (pinned, True, 2)


# speed

@pytest.mark.data
@pytest.mark.timing
def test_as_fast_as_albumentations(shared, root, monkeypatch):
    "The experiment nbs/experiments/loader.ipynb in short: time of the processor, turn by turn"
    pytest.importorskip('albumentations')
    monkeypatch.setenv('OTSEG_SHARED', str(shared))
    cells = json.loads((root/'nbs/experiments/loader.ipynb').read_text(encoding='utf-8'))['cells']
    threads, place = torch.get_num_threads(), {}
    try:
        for c in cells:
            if c['cell_type'] == 'code' and 'times' not in place: exec(''.join(c['source']), place)
            if 'ROUNDS' in place: place['ROUNDS'] = 3
    finally: torch.set_num_threads(threads)
    ours, theirs = place['times']['whole item: read, transform']
    assert sum(theirs) / sum(ours) >= .95
