"What a picture looks like to a model: red first, fine lines, how far colours are turned; and the colours of classes"
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors

from given.shell import mask
from otseg.data import load_dataset, read_picture
from otseg.data.masks import VOC_COLORS
from otseg.data.transforms import KeepRatioResize, PhotometricDistort, eval_transform, train_transform
from otseg.model.vocab import default_palette, list_vocabs, load_vocab, natural_colour, oklab
from otseg.predict.segmentation import load_photograph

RED, ORANGE = (255, 0, 0), (200, 100, 20)


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.bmp', '.webp'])
@pytest.mark.parametrize('colour', [RED, ORANGE])
def test_red_is_the_first_channel(tmp_path, suffix, colour):
    "In training as in prediction: mean and standard deviation are in the order of red, green, blue"
    file = tmp_path/'images/train'/f'a{suffix}'
    file.parent.mkdir(parents=True)
    Image.new('RGB', (16, 12), colour).save(file)
    mask(tmp_path/'masks/train/a.png', [0, 1], (16, 12))
    (tmp_path/'dataset.json').write_text(json.dumps(dict(names=['cat', 'sky'], unseen=[])), encoding='utf-8')
    want = torch.tensor(colour).float()
    for got in (read_picture(file), load_dataset('folder', tmp_path)[0]['image'],
                torch.from_numpy(load_photograph(file)).permute(2, 0, 1)):
        assert got.shape == (3, 12, 16)
        assert (got.float().mean((1, 2)) - want).abs().max() < 3  # a JPEG rounds


@pytest.mark.parametrize('transform', [KeepRatioResize((32, 32)), eval_transform(resize=(32, 32), mean=(0,) * 3, std=(1,) * 3),
                                       train_transform(32, resize=(32, 32), scale_range=(1., 1.), cat_max_ratio=1.,
                                                       photometric=False, mean=(0,) * 3, std=(1,) * 3)])
def test_fine_lines_become_their_mean(transform):
    "Every fourth column is white: shrunk to a quarter the picture is a quarter white everywhere, not black"
    image = torch.zeros(3, 128, 128, dtype=torch.uint8)
    image[:, :, ::4] = 255
    out, labels = transform(tv_tensors.Image(image), tv_tensors.Mask(torch.zeros(128, 128, dtype=torch.uint8)))
    assert out.shape == (3, 32, 32)
    out = out.float() / (255 if out.dtype == torch.uint8 else 1)
    assert (out[:, 2:-2, 2:-2] - .25).abs().max() < .03


def test_colours_are_distorted_as_published():
    "Hue by up to 18 of 180 degrees, saturation and contrast by half, brightness by 32 of 256, each every other time"
    torch.manual_seed(0)
    distort = PhotometricDistort()
    drawn = [distort.make_params([tv_tensors.Image(torch.zeros(3, 2, 2))]) for _ in range(800)]
    for name, low, high in (('hue_factor', -.1, .1), ('saturation_factor', .5, 1.5), ('contrast_factor', .5, 1.5),
                            ('brightness_factor', .875, 1.125)):
        values = [float(d[name]) for d in drawn if d[name] is not None]
        span = high - low
        assert low <= min(values) < low + span / 20 and high - span / 20 < max(values) <= high, name
        assert .4 < len(values) / len(drawn) < .6
    red = tv_tensors.Image(torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, 2, 2))
    alone = dict.fromkeys(('saturation_factor', 'contrast_factor', 'brightness_factor')) | dict(hue_factor=.1)
    turned = distort.transform(red, drawn[0] | alone)
    assert turned[:, 0, 0].tolist() == pytest.approx([255, 153, 0], abs=4)  # red turned by 36 of 360 degrees


@pytest.mark.parametrize('name', list_vocabs())
def test_classes_have_colours_that_a_person_would_choose(name):
    "Sky and water blue, plants green, road grey; no two alike, none that of a pixel without a class"
    vocab = load_vocab(name)
    assert len({*vocab.palette, (225, 225, 225)}) == len(vocab) + 1
    for word, colour in zip(vocab.names, vocab.palette):
        if word in ('sky', 'sky-other', 'water', 'water-other', 'sea', 'river'): assert np.argmax(colour) == 2, word
        if word in ('grass', 'tree', 'plant', 'vegetation', 'pottedplant', 'bush'): assert np.argmax(colour) == 1, word
        if word in ('road', 'street'): assert np.ptp(colour) < 30, word
    if name != 'toy': assert vocab.palette == default_palette(vocab.names)


@pytest.mark.parametrize('names', [['sky', 'a blue sky'], ['sea', 'ocean', 'water', 'lake'], ['gnome', 'gizmo'],
                                   [f'{i}' for i in range(40)]])
def test_classes_stay_apart(names):
    "Also those that nature made alike, and those that it did not make"
    x = oklab(default_palette(names))
    assert (np.linalg.norm(x[:, None] - x, axis=-1) + np.eye(len(x))).min() > .2 / len(x)**(1/3)


def test_a_trained_model_keeps_the_colours_that_it_has():
    made = default_palette(['tree', 'sky', 'gnome'], dict(sky=[9, 9, 9], gone=[1, 2, 3]))
    assert made[:2] == (natural_colour('tree')[1], (9, 9, 9))


def test_masks_are_read_by_the_colours_of_their_data_set():
    "Those of VOC are for its files: as a palette PNG has them, in order, black first"
    first = [c for c, v in sorted(VOC_COLORS.items(), key=lambda item: item[1])][:4]
    assert first == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0)]
    assert load_vocab('voc12').palette[0] != (128, 0, 0)
