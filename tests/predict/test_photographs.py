"Photographs of every kind that people have, made from real ones"
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from otseg.core import InputError
from otseg.predict.segmentation import load_photograph
from otseg.predict.segmenter import Segmenter

pytestmark = pytest.mark.data
CLASSES = 'sky,grass,star,boat'


@pytest.fixture(scope='module')
def pictures(shared):
    found = sorted(Path(shared, 'data/voc2012_mini').rglob('JPEGImages/*.jpg'))[:12]
    assert len(found) == 12
    return [Image.open(p).convert('RGB') for p in found]


def kinds(pictures, folder):
    "Name -> file or array, and the size that the segmentation should have"
    p, made = pictures, {}

    def file(name, image, **options):
        image.save(folder/name, **options)
        made[name] = folder/name, image.size[::-1]

    exif = Image.Exif()
    exif[0x0112] = 6  # the camera stood on its side
    file('rgb.jpg', p[0])
    file('grey.png', p[1].convert('L'))
    rgba = p[2].convert('RGBA')
    rgba.putalpha(Image.linear_gradient('L').resize(rgba.size))  # a fade, as transparency is; a photograph there is asked about
    file('alpha.png', rgba)
    file('palette.gif', p[4].quantize(32))
    file('cmyk.jpg', p[5].convert('CMYK'))
    file('animated.gif', p[6], save_all=True, append_images=[p[7].resize(p[6].size), p[8].resize(p[6].size)])
    p[9].save(folder/'turned.jpg', exif=exif)
    made['turned.jpg'] = folder/'turned.jpg', p[9].size
    Image.fromarray(np.asarray(p[10].convert('L')).astype(np.uint16) * 257).save(folder/'sixteen.png')
    made['sixteen.png'] = folder/'sixteen.png', p[10].size[::-1]
    file('pixel.png', p[11].resize((1, 1)))
    file('strip.png', p[11].resize((900, 7)))
    file('large.jpg', p[0].resize((4000, 3000)))
    made['array'] = np.asarray(p[1], dtype=np.float32) / 255, p[1].size[::-1]
    return made


def test_twelve_kinds(pictures, tmp_path):
    resource = pytest.importorskip('resource', reason='reads the peak of this process: POSIX')
    segmenter = Segmenter.from_pretrained('toy', device='cpu')
    segmenter.predict(np.zeros((96, 96, 3), np.uint8), CLASSES)
    found = kinds(pictures, tmp_path)
    assert len(found) == 12
    for name, (source, size) in found.items():
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.perf_counter()
        s = segmenter.predict(source, CLASSES)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
        print(f'{name:<13} {size[1]:>4} x {size[0]:<4} {time.perf_counter() - began:5.1f} s  peak +{grown:.0f} MB  {s}')
        assert s.labels.shape == size and s.probs.shape == (4, *size) and sum(s.areas().values()) == pytest.approx(1, abs=1e-4)
    turned = load_photograph(found['turned.jpg'][0])
    assert np.abs(np.rot90(np.asarray(pictures[9]), -1).astype(int) - turned).mean() < 12  # JPEG


def test_what_is_no_photograph(pictures, tmp_path):
    "A clear error that names the file"
    whole = tmp_path/'whole.jpg'
    pictures[0].save(whole)
    content = whole.read_bytes()
    bad = {'half.jpg': content[:len(content) // 2], 'empty.png': b'', 'text.jpg': b'not a picture', 'movie.mp4': b'\0' * 999}
    for name, value in bad.items():
        (tmp_path/name).write_bytes(value)
        with pytest.raises(InputError, match=name), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            load_photograph(tmp_path/name)
    with pytest.raises(InputError, match='no such file'): load_photograph(tmp_path/'absent.jpg')
