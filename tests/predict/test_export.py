"A model with fixed classes, written as one graph, says what it said before"
import numpy as np
import pytest
import torch

from otseg.core import InputError, read_json
from otseg.data.reading import load_dataset
from otseg.model.otseg import with_areas
from otseg.predict.export import export_model, replace_files
from otseg.predict.segmenter import Segmenter
from otseg.data.toy import toy_scene
from otseg.train.areas import learn_areas
from otseg.train.recipes import get_recipe

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


@pytest.fixture(scope='module')
def aware(segmenter):
    "The same model with predicted areas"
    data = load_dataset('toy', split='train', n=60, transform=get_recipe('toy').eval_transform())
    head = learn_areas(segmenter.model, data, segmenter.text(segmenter.vocab), segmenter.vocab, steps=150)
    return Segmenter(with_areas(segmenter.model, head), vocab=segmenter.vocab, preprocess=segmenter.preprocess, seen_penalty=0.,
                     device='cpu')


@pytest.mark.parametrize('size', [(96, 96), (100, 150)])
def test_predicted_areas_too(aware, tmp_path, size):
    "In one window, and in two that have areas of their own"
    path, x = export_model(aware, tmp_path/'a.pt2', CLASSES, size), picture(size)
    scores, labels = torch.export.load(path).module()(x)
    without = Segmenter(with_areas(aware.model, None), vocab=aware.vocab, preprocess=aware.preprocess, device='cpu')
    plain, wanted = (s.predict(x[0].permute(1, 2, 0).numpy(), CLASSES, seen_penalty=0.) for s in (without, aware))
    off = (scores[0] - wanted.probs).abs().max()
    print(f'apart by {off:.1e}')
    assert off < 1e-3 and (labels[0].numpy() == wanted.labels).mean() > .998
    assert (plain.probs - wanted.probs).abs().max() > .02  # they do something
    if size == (96, 96):
        few = dict(iterations=2)
        with pytest.raises(InputError, match='Pass more `iterations`'): export_model(aware, tmp_path/'b.pt2', CLASSES, **few)


@pytest.mark.slow
def test_onnx_of_predicted_areas(aware, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    session, x = onnxruntime.InferenceSession(export_model(aware, tmp_path/'a.onnx', CLASSES)), picture((96, 96))
    scores = session.run(['scores'], {'image': x.numpy()})[0]
    assert np.abs(scores[0] - aware.predict(x[0].permute(1, 2, 0).numpy(), CLASSES).probs.numpy()).max() < 1e-3


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
