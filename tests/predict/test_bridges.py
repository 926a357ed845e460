"""The cells of `nbs/tutorials/7_other_tools.ipynb`, each where its library is there; `make test-bridges` installs four of six."""
import ast
import json
import re
import tempfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT

from otseg.core import InputError
from otseg.model import Vocab

LIBRARIES = {'COCO': 'pycocotools', 'supervision': 'supervision', 'Label Studio': 'label_studio_sdk', 'FiftyOne': 'fiftyone',
             'GeoTIFF': 'rasterio', 'Video': 'av'}


def page_cells():
    "Heading -> its code cells; those before the first under ''"
    sections, heading = {'': []}, ''
    for cell in json.loads((ROOT/'nbs/tutorials/7_other_tools.ipynb').read_text(encoding='utf-8'))['cells']:
        source = ''.join(cell['source'])
        if cell['cell_type'] == 'code': sections[heading].append(source)
        else:
            for heading in re.findall('^## (.*)', source, re.M): sections[heading] = []
    return sections


CELLS = page_cells()


def run(sources, names):
    for source in sources: exec(compile(source, '7_other_tools', 'exec'), names)
    return names


@pytest.fixture(scope='module')
def begun(tmp_path_factory):
    "The names of the page before its first heading, in a folder that it makes"
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp('page')
        patch.chdir(folder)
        patch.setattr(tempfile, 'tempdir', str(folder))
        yield run(CELLS[''], dict(__name__='page'))


@pytest.fixture
def bridge(begun):
    "The functions of a section, which is skipped without its library"
    def names(heading):
        pytest.importorskip(LIBRARIES[heading])
        functions = [c for c in CELLS[heading] if c.startswith('def ') and 'if has(' not in c]
        return SimpleNamespace(**run(functions, dict(begun)))
    return names


def test_every_section_is_tested():
    assert [*CELLS][1:] == [*LIBRARIES]


@pytest.mark.parametrize('heading', LIBRARIES)
def test_the_page_holds(begun, heading):
    "What the page asserts, in its own cells"
    pytest.importorskip(LIBRARIES[heading])
    assert any('assert ' in cell for cell in CELLS[heading])
    run(CELLS[heading], dict(begun))


def test_without_libraries_the_page_says_so(begun, capsys, monkeypatch):
    monkeypatch.setitem(begun, 'find_spec', lambda name: None)
    for heading, library in LIBRARIES.items():
        run(CELLS[heading], dict(begun))
        assert {*capsys.readouterr().out.splitlines()} == {f'{library} is not installed: this cell does nothing'}


def test_a_bridge_is_short():
    for source in (c for cells in CELLS.values() for c in cells):
        for part in ast.walk(ast.parse(source)):
            if isinstance(part, ast.FunctionDef): assert part.end_lineno - part.lineno < 40, part.name


THERE_AND_BACK = {
    'COCO': lambda b, s: (b.to_coco(s, 'a.json'), b.from_coco('a.json'))[1],
    'supervision': lambda b, s: b.from_detections(b.to_detections(s)),
    'Label Studio': lambda b, s: b.from_label_studio(json.loads(json.dumps(b.to_label_studio(s, 'a.png')[1]))
                                                     ['predictions'][0]['result'], s.classes),
    'FiftyOne': lambda b, s: b.from_sample(b.to_sample(s, 'scene.png', 'a.png')),
}


@pytest.mark.parametrize('heading', THERE_AND_BACK)
@pytest.mark.parametrize('labels', [
    np.random.default_rng(0).integers(0, 5, (37, 53)), np.full((8, 5), 2), np.array([[0, 4, 4]]), np.eye(17, dtype=int) * 3,
], ids=['noise', 'one class', 'one row', 'diagonal'])
def test_hard_labels_come_back(begun, bridge, heading, labels):
    assert (THERE_AND_BACK[heading](bridge(heading), replace(begun['s'], labels=labels)) == labels).all()


def test_a_background_is_no_category_of_coco(begun, bridge):
    b, s = bridge('COCO'), begun['segmenter'].predict('scene.png', 'heart,tree,ladybug', background='sky,sand')
    labels = THERE_AND_BACK['COCO'](b, s)
    assert (s.labels == 3).any() and (labels == np.where(s.labels == 3, 255, s.labels)).all()


def test_where_masks_overlap(bridge):
    "Of supervision the surer wins, wherever it stands; of Label Studio the later"
    b, sv = bridge('supervision'), pytest.importorskip('supervision')
    masks = np.array([[[1, 1, 0, 0]], [[0, 1, 1, 0]]], bool)
    for confidence, there in (([.9, .2], [7, 7, 3, 255]), ([.2, .9], [7, 3, 3, 255])):
        d = sv.Detections(xyxy=np.zeros((2, 4)), mask=masks, class_id=np.array([7, 3]), confidence=np.array(confidence))
        assert b.from_detections(d).tolist() == [there]
    with pytest.raises(InputError, match='should have masks'): b.from_detections(sv.Detections.empty())


def test_a_later_region_lies_above(begun, bridge):
    b = bridge('Label Studio')
    def regions(*labels):
        _, task = b.to_label_studio(replace(begun['s'], labels=np.array([labels])), '')
        return task['predictions'][0]['result']
    heart, both = regions(0, 0, 0, 0), regions(1, 1, 0, 0)
    tree = [r for r in both if r['value']['brushlabels'] == ['tree']]
    assert b.from_label_studio(heart + tree, ['heart', 'tree']).tolist() == [[1, 1, 0, 0]]
    assert b.from_label_studio(tree, ['heart', 'tree']).tolist() == [[1, 1, 255, 255]]
    with pytest.raises(InputError, match='one or more'): b.from_label_studio([], ['heart'])


CLASSES = [*'abcde']


class Reader:
    "A segmenter whose answer stands in the picture: red is the class, green its score; `sizes` are those that it saw"
    def __init__(self): self.sizes = []

    def question(self, classes, background=None): return SimpleNamespace(vocab=Vocab('five', classes))

    def predict(self, picture, classes, size=None):
        self.sizes.append((*picture.shape[:2], size))
        red, green = (torch.from_numpy(picture[..., i].copy()) for i in (0, 1))
        probs = (torch.arange(5)[:, None, None] == red) * green / 255
        return SimpleNamespace(labels=picture[..., 0].astype(int), probs=probs)


@pytest.mark.parametrize('shape, side, margin', [
    ((130, 70), 64, 16), ((64, 64), 64, 16), ((50, 200), 48, 0), ((33, 90), 1024, 128)])
def test_windows_of_a_geotiff_meet(bridge, folder, shape, side, margin):
    "Every pixel is written once, at its place, and no window is larger than was asked for"
    b, rasterio, reader = bridge('GeoTIFF'), pytest.importorskip('rasterio'), Reader()
    random = np.random.default_rng(0)
    picture, valid = random.integers(0, 5, (*shape, 3), np.uint8), random.random(shape) > .1
    form = dict(driver='GTiff', width=shape[1], height=shape[0], crs='EPSG:4326',
                transform=rasterio.Affine(.1, .01, 9, .02, -.1, 48))
    with rasterio.open('a.tif', 'w', count=3, dtype='uint8', **form) as out:
        out.write(picture.transpose(2, 0, 1))
        out.write_mask(valid)
    b.segment_geotiff(reader, 'a.tif', 'b.tif', CLASSES, side=side, margin=margin)
    labels, crs, transform, classes = b.read_geotiff('b.tif')
    assert (labels == np.where(valid, picture[..., 0], 255)).all()
    assert (crs, transform, classes) == (form['crs'], form['transform'], CLASSES)
    assert max(s for *hw, _ in reader.sizes for s in hw) <= side + 2 * margin
    assert all(size == min(high, wide) for high, wide, size in reader.sizes)
    with rasterio.open('b.tif') as mask:
        assert mask.nodata == 255 and mask.colormap(1)[1][:3] == Vocab('five', CLASSES).palette[1]


def test_a_geotiff_of_other_bands_is_told(bridge, folder):
    b, rasterio = bridge('GeoTIFF'), pytest.importorskip('rasterio')
    for count, dtype in ((3, 'uint16'), (1, 'uint8')):
        with rasterio.open('a.tif', 'w', driver='GTiff', width=9, height=9, count=count, dtype=dtype) as out:
            out.write(np.zeros((count, 9, 9), dtype))
        with pytest.raises(InputError, match='three bands of 8 bits'): b.segment_geotiff(Reader(), 'a.tif', 'b.tif', CLASSES)


@pytest.mark.parametrize('hold', [0, .6])
def test_a_video_is_held_as_its_equation_says(bridge, folder, hold):
    b, av, random = bridge('Video'), pytest.importorskip('av'), np.random.default_rng(0)
    red, green = random.integers(0, 5, (9, 20, 30), np.uint8), random.integers(1, 256, (9, 20, 30), np.uint8)
    with av.open('a.mkv', 'w') as out:
        stream = out.add_stream('ffv1', rate=25)
        stream.width, stream.height, stream.pix_fmt = 30, 20, 'bgr0'
        for t, frame in enumerate(np.stack([red, green, 0 * red], -1)):
            frame = av.VideoFrame.from_ndarray(frame, format='rgb24')
            frame.pts = t + 3 * (t > 4)   # a pause
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    b.segment_video(Reader(), 'a.mkv', 'b.mkv', CLASSES, hold=hold)
    labels, times = b.read_video('b.mkv')
    score = (np.arange(5)[:, None, None] == red[:, None]) * (green[:, None] / 255)   # (t, k, H, W)
    weights = [[(1 - hold if j else 1) * hold**(t - j) if j <= t else 0 for j in range(9)] for t in range(9)]
    held = np.einsum('tj,jkhw->tkhw', weights, score)
    assert (np.take_along_axis(held, labels[:, None].astype(int), 1)[:, 0] >= held.max(1) - 1e-6).all()   # float32
    assert np.allclose(times, [(t + 3 * (t > 4)) / 25 for t in range(9)], atol=1e-3)


def test_what_a_video_cannot_be_held_by_is_told(bridge):
    b = bridge('Video')
    with pytest.raises(InputError, match='`hold` should lie in'): b.segment_video(Reader(), 'a', 'b', CLASSES, hold=1)
