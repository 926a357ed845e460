"What Pillow finds wrong with a file is told, by whichever way it is read; Pillow tells of it once, and then hands out the half"
import random

import numpy as np
import pytest
from PIL import Image

from otseg.core import InputError
from otseg.data import read_picture
from otseg.data.masks import read_mask
from otseg.data.pictures import picture_pixels

NOISE = np.random.default_rng(0)


def whole(path, mode):
    "A picture, or a mask of three classes"
    if mode == 'RGB': return Image.fromarray(NOISE.integers(0, 255, (36, 70, 3), dtype=np.uint8)).save(path)
    image = Image.fromarray(NOISE.integers(0, 3, (36, 70), dtype=np.uint8))
    if mode == 'P': image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(path)


def decodes(path):
    try:
        with Image.open(path) as image: image.load()
    except Exception: return False  # damaged files raise almost anything
    return True


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('suffix, mode', [('.png', 'RGB'), ('.png', 'L'), ('.png', 'P'), ('.jpg', 'RGB'), ('.bmp', 'RGB'),
                                          ('.tif', 'L')])
def test_damage_is_told(tmp_path, suffix, mode):
    path, g, told = tmp_path/f'a{suffix}', random.Random(1), 0
    whole(path, mode)
    good = path.read_bytes()
    ways = [read_picture, picture_pixels] if mode == 'RGB' else [read_mask]
    for i in range(60):
        content = bytearray(good if i % 3 else good[:g.randrange(len(good))])
        for _ in range(g.choice([0, 1, 4, 16])):
            if content: content[g.randrange(len(content))] ^= g.randrange(1, 256)
        path.write_bytes(content)
        if decodes(path): continue
        told += 1
        for read in ways:
            with pytest.raises(InputError) as error: read(path)
            assert path.name in str(error.value)
    assert told > 10
