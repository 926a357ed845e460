"A model with fixed classes, written as one graph, says what it said before"
import numpy as np
import pytest
import torch

from otseg.core import read_json
from otseg.predict.export import export_model, replace_files
from otseg.predict.segmenter import Segmenter
from otseg.data.toy import toy_scene

CLASSES = ['sky', 'wood', 'donut', 'bee']


@pytest.fixture(scope='module')
def segmenter(): return Segmenter.from_pretrained('toy', device='cpu')


def picture(size):
    scene = torch.from_numpy(toy_scene(5).image).permute(2, 0, 1)[None].float()
    return torch.nn.functional.interpolate(scene, size=size, mode='bilinear').round().byte()


def eager(segmenter, x, classes, blend, penalty):
    v, c = segmenter.class_vocab(classes), segmenter.model.config
    mean, std = (torch.tensor(t)[:, None, None] for t in (c.image_mean, c.image_std))
    with torch.no_grad(): out = segmenter.model((x.float() / 255 - mean) / std, segmenter.text(v))
    return out.mask_probs(blend, v.seen if v.unseen else None, penalty)


def test_oblong_pictures_and_options(segmenter, tmp_path):
    path = export_model(segmenter, tmp_path/'a.pt2', CLASSES, (64, 80), blend=1., seen_penalty=.3)
    x = picture((64, 80))
    scores, labels = torch.export.load(path).module()(x)
    wanted = eager(segmenter, x, CLASSES, 1., .3)
    assert (scores - wanted).abs().max() < 1e-4 and (labels == wanted.argmax(1)).float().mean() > .999
    facts = read_json(tmp_path/'a.json')
    assert facts['classes'] == CLASSES and facts['size'] == [64, 80] and facts['blend'] == 1.
    assert [*facts['unseen']] == ['donut', 'bee']


@pytest.mark.slow
def test_onnx(segmenter, tmp_path):
    "The same graph, by another runtime"
    onnxruntime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    session = onnxruntime.InferenceSession(export_model(segmenter, tmp_path/'a.onnx', CLASSES))
    x = picture((96, 96))
    scores, labels = session.run(['scores', 'labels'], {'image': x.numpy()})
    wanted = eager(segmenter, x, CLASSES, .5, segmenter.seen_penalty).numpy()
    print(f'apart by {np.abs(scores - wanted).max():.1e}')
    assert np.abs(scores - wanted).max() < 1e-4 and labels.shape == (1, 96, 96)


def test_weights_beside_the_model_are_replaced_with_it(tmp_path):
    "name.onnx.data belongs to name.onnx: a new one comes with its weights, and one without leaves none behind"
    def made(folder, **files):
        (tmp_path/folder).mkdir()
        for name, text in files.items(): (tmp_path/folder/f'a.onnx{name}').write_text(text, encoding='utf-8')
        replace_files(tmp_path/folder, tmp_path/'a.onnx')
        return {p.name: p.read_text(encoding='utf-8') for p in tmp_path.iterdir() if p.is_file()}
    assert made('one', **{'': 'graph 1', '.data': 'weights 1'}) == {'a.onnx': 'graph 1', 'a.onnx.data': 'weights 1'}
    assert made('two', **{'': 'graph 2', '.data': 'weights 2'}) == {'a.onnx': 'graph 2', 'a.onnx.data': 'weights 2'}
    assert made('three', **{'': 'graph 3'}) == {'a.onnx': 'graph 3'}


@pytest.mark.slow
def test_onnx_with_weights_beside_it(segmenter, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    path = export_model(segmenter, tmp_path/'a.onnx', CLASSES, (150, 200), apart=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.json', 'a.onnx', 'a.onnx.data']
    x = picture((150, 200))
    labels = onnxruntime.InferenceSession(path).run(['labels'], {'image': x.numpy()})[0]
    wanted = segmenter.predict(x[0].permute(1, 2, 0).numpy(), CLASSES).labels
    assert (labels[0] != wanted).mean() < .001
