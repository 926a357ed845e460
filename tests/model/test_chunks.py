"Large vocabularies: classes in chunks give what all classes at once give, in bounded memory"
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

import otseg.evaluate.windows
from given.models import TINY, at_once, make, pictures, prompts
from otseg.evaluate.windows import evaluate, predict_labels, predict_probs, predict_windows
from otseg.model.otseg import OTSeg
from otseg.predict.segmenter import Segmenter
from otseg.model.vocab import Vocab

pytestmark = [pytest.mark.filterwarnings('ignore:.*meaningless.*'),
              pytest.mark.filterwarnings('ignore:.*transport problems')]


def maps_of(out): return dict(decoder=out.decoder_map, score=out.score_map, prompts=out.score_prompt_maps,
                              **{f'layer {i}': m for i, m in enumerate(out.decoder_prompt_maps)})


# head

@pytest.mark.parametrize('config', [dict(), dict(attention='softmax'), dict(decoder_layers=1), dict(mix='product'),
                                    dict(layer_product=False)], ids=str)
def test_a_chunked_head_is_the_head(config):
    """float64: what is left of a difference is rounding. A fixed number of iterations, since rounding decides for single
    problems whether they stop one earlier (within `tol`)"""
    model = make(**dict(dict(tol=None, max_iter=100), **config)).double().eval()
    image, text = pictures(2).double(), prompts(23).double()
    with torch.no_grad():
        whole = maps_of(model(image, text))
        for chunk in (1, 5, 22, 23, 100):
            some = maps_of(model(image, text, class_chunk=chunk))
            assert some.keys() == whole.keys()
            assert all(some[k].shape == whole[k].shape for k in whole)
            assert all(float((some[k] - whole[k]).abs().max()) <= 1e-9 for k in whole)


def test_a_chunked_head_is_the_head_in_float32():
    model, image, text = make().eval(), pictures(2), prompts(23)
    with torch.no_grad():
        whole, some = maps_of(model(image, text)), maps_of(model(image, text, class_chunk=5))
        bare = model(image, text, maps=False)
    assert max(float((some[k] - whole[k]).abs().max()) for k in whole) <= 1e-5      # logits lie in -6..6
    assert torch.equal(bare.decoder_map, whole['decoder']) and torch.equal(bare.score_map, whole['score'])
    assert bare.score_prompt_maps is None and bare.decoder_prompt_maps == ()


def test_training_in_chunks_reaches_every_parameter():
    model = make().train()
    out = model(pictures(2), prompts(5), class_chunk=2)
    (out.decoder_logits.square().sum() + out.score_logits.square().sum()).backward()
    assert not [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]


@pytest.mark.parametrize('free, chunk', [(80e9, 39_062), (1e9, 488), (1e3, 1)])
def test_a_gpu_takes_as_many_classes_as_its_memory_holds(monkeypatch, free, chunk):
    "What the driver has left and what the allocator holds unused; on the CPU the budget is fixed"
    model, text = make().eval(), prompts(4, 8)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'mem_get_info', lambda device: (free - 300, 0))
    monkeypatch.setattr(torch.cuda, 'memory_reserved', lambda device: 500)
    monkeypatch.setattr(torch.cuda, 'memory_allocated', lambda device: 200)
    there = SimpleNamespace(device=torch.device('cuda', 0), shape=text.shape)
    assert model.class_chunk(pictures(20, (160, 160)), there) == chunk
    assert model.class_chunk(pictures(20, (160, 160)), text) == 2**26 // (4 * 20 * 8 * 400) == 262


# pictures

def same(a, b, scores, tol):
    "Equal labels, but for one pixel in a thousand where the two classes score the same within `tol`"
    apart = (scores.gather(1, a[:, None]) - scores.gather(1, b[:, None])).abs()
    return float(apart.max()) <= tol and float((a != b).float().mean()) < 1e-3


CASES = [dict(size=(70, 90)), dict(size=(111, 64)), dict(size=(70, 90), window=200),
         dict(size=(99, 35), blend=1., seen=range(20)), dict(size=(70, 90), blend=0., seen=[3], penalty=.5)]


@pytest.mark.parametrize('case', CASES, ids=str)
@pytest.mark.parametrize('budget', [1, 2**20, 2**40], ids=['one', 'some', 'all'])
def test_labels_are_those_of_all_classes_at_once(monkeypatch, case, budget):
    """Every pixel of 40 classes, whatever fits the budget at a time, in batches of windows from several pictures. Where the
    labels differ, the scores of the two classes differ by rounding: of the head by 1e-5, of what follows it by 1e-6"""
    monkeypatch.setattr(otseg.evaluate.windows, 'PIXEL_BYTES', budget)
    monkeypatch.setattr(OTSeg.class_chunk, '__defaults__', (budget,))
    case = dict(dict(window=48, stride=30, blend=.5, seen=None, penalty=.1), **case)
    model, image, text = make(image_size=None).eval(), pictures(3, (70, 90)), prompts(40, spread=.3)
    want, scores = at_once(model, image, text, **case)
    out = predict_windows(model, image, text, window=case['window'], stride=case['stride'], batch_size=5)
    how = dict(blend=case['blend'], seen=case['seen'], seen_penalty=case['penalty'])
    got = out.labels(case['size'], **how)
    assert same(got, want, scores, 1e-5) and len(want.unique()) > 5
    probs = out.mask_probs(**how)
    scores = F.interpolate(probs, size=case['size'], mode='bilinear', align_corners=False)
    assert same(got, scores.argmax(1), scores, 1e-6) and same(predict_labels(probs, case['size']), got, scores, 1e-6)
    options = dict(window=case['window'], stride=case['stride'], batch_size=5, **how)
    assert torch.equal(predict_probs(model, image, text, **options), probs)


def test_equal_scores_go_to_the_first_class(monkeypatch):
    "Twelve classes with equal maps, and twelve scores of which the second, sixth and tenth are the largest"
    model, image = make().eval(), pictures(1, (48, 100))
    out = predict_windows(model, image, prompts(12), window=48, stride=30)
    flat = [replace(o, decoder_map=torch.zeros_like(o.decoder_map), score_map=torch.zeros_like(o.score_map))
            for o in out.outputs]
    for budget in (1, 4 * 48 * 100 * 3, 4 * 48 * 100 * 7, 2**30):
        monkeypatch.setattr(otseg.evaluate.windows, 'PIXEL_BYTES', budget)
        assert (replace(out, outputs=flat).labels((50, 90)) == 0).all()
    scores = torch.tensor([.1, .4, .2, .3]).repeat(3)[None, :, None, None].expand(1, 12, 5, 7)
    for chunk in (1, 2, 3, 5, 12): assert (predict_labels(scores, chunk=chunk) == 1).all()


def test_a_window_is_encoded_once(monkeypatch):
    "Chunks of classes share what the image encoder made, and no prompt maps are kept"
    monkeypatch.setattr(otseg.evaluate.windows, 'PIXEL_BYTES', 1)
    monkeypatch.setattr(OTSeg.class_chunk, '__defaults__', (1,))
    model, seen = make().eval(), []
    model.image_encoder.register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    out = predict_windows(model, pictures(2, (48, 100)), prompts(7), window=48, stride=30, batch_size=4)
    assert out.labels().shape == (2, 48, 100) and seen == [4, 2]
    assert all(o.score_prompt_maps is None and o.decoder_prompt_maps == () for o in out.outputs)


def test_evaluate_scores_the_labels_of_all_classes_at_once(monkeypatch):
    monkeypatch.setattr(otseg.evaluate.windows, 'PIXEL_BYTES', 2**18)
    model, text = make().eval(), prompts(30, spread=.3)
    vocab = Vocab('thirty', tuple(f'c{i}' for i in range(30)), (28, 29))
    batches = [dict(image=pictures(2, (50, 80), seed=s), labels=torch.randint(0, 30, (2, 60, 70))) for s in range(2)]
    got = evaluate(model, batches, text, vocab, window=48, stride=30)
    labels = [at_once(model, b['image'], text, (60, 70), 48, 30, .5, range(28), .1)[0] for b in batches]
    right = torch.stack([(p == b['labels']).float().mean() for p, b in zip(labels, batches)]).mean()
    assert got.pixel_accuracy == pytest.approx(float(right), abs=1e-4)    # a pixel or two of 16800 may round otherwise


def test_a_segmentation_of_many_classes_makes_maps_on_demand():
    "Nothing of k x picture size is stored; one class, all classes and a small vocabulary say the same"
    words = [*TINY['words'], *(f'thing{i}' for i in range(400))]
    clip = dict(TINY, words=words)
    clip['model_cfg'] = dict(TINY['model_cfg'], text_cfg=dict(TINY['model_cfg']['text_cfg'], vocab_size=len(words) + 3))
    seg = Segmenter(make(clip=clip), device='cpu')
    picture = pictures(1, (60, 50))[0].sigmoid().permute(1, 2, 0).numpy()
    names = [f'thing{i}' for i in range(400)]
    many, few = seg.predict(picture, names), seg.predict(picture, names[:3])
    stored = [t for o in many.output.outputs for t in (o.decoder_map, o.score_map)]
    assert 'maps' not in vars(many) | vars(many.whole) and sum(t.numel() for t in stored) <= 2 * 400 * 64 * len(stored)
    one = many.class_maps('thing2')
    assert one.probs.shape == (60, 50) and one.prompt_maps.shape == few.prompt_maps.shape[1:]
    for maps in (many, few):
        assert float((one.probs - maps.probs[2]).abs().max()) < 1e-5
        assert float((one.prompt_maps - maps.prompt_maps[2]).abs().max()) < 1e-4
        for a, b in zip(one.decoder_prompt_maps, maps.decoder_prompt_maps): assert float((a - b[2]).abs().max()) < 1e-4
    assert (many.labels == many.probs.argmax(0).numpy()).all()


# memory

MEMORY = '''
import json, resource, sys, warnings
import torch, torch.nn.functional as F
from otseg.evaluate.windows import predict_windows
from otseg.predict.segmenter import Segmenter
from given.models import at_once
warnings.filterwarnings('ignore')
torch.set_num_threads(1); torch.manual_seed(0)
model = Segmenter.from_pretrained('toy', device='cpu').model
image = torch.randn(1, 3, 256, 256)
text = F.normalize(torch.randn(1000, 1, 128) + .5 * torch.randn(1000, 8, 128), dim=-1)
def peak():  # ru_maxrss would start at that of the process that started this one
    if sys.platform == 'darwin': return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines = open('/proc/self/status', encoding='utf-8').read().splitlines()
    return int(next(line for line in lines if line.startswith('VmHWM')).split()[1]) / 2**10
def chunked(k): return predict_windows(model, image, text[:k], window=96, stride=80).labels((300, 300))
def whole(k): return at_once(model, image, text[:k], (300, 300), 96, 80, .5, None, 0.)[0]
run = dict(chunked=chunked, whole=whole)[sys.argv[1]]
run(20); before = peak(); labels = run(1000)
print('PEAK', json.dumps([peak() - before, len(labels.unique())]))
'''


def test_memory_of_1000_classes(root):
    """8 prompts each, 9 windows of 96 pixels: what 1,000 classes take beyond the peak of 20. At once is one window at a time"""
    if not Path('/proc/self/status').exists(): pytest.importorskip('resource', reason='reads the peak of a process: POSIX')

    def run(how):
        got = subprocess.run([sys.executable, '-c', MEMORY, how], cwd=root/'tests', capture_output=True, text=True, timeout=200,
                             encoding='utf-8')
        assert got.returncode == 0, got.stderr
        return json.loads(got.stdout.split('PEAK')[1])
    (chunked, n), (whole, m) = run('chunked'), run('whole')
    print(f'{chunked:.0f} MB in chunks, {whole:.0f} MB at once')
    assert chunked < 500 < 800 < whole, (chunked, whole)
    assert n == m > 1
