"Pictures share batches, and say what each says by itself; one that fails fails alone; memory is bounded"
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from given.counting import Largest
from PIL import Image

import otseg.evaluate.windows as windows
from otseg.evaluate.windows import SlidingOutput
from otseg.model.otseg import OTSegOutput
from otseg.predict.folder import predict_folder, together
from otseg.predict.segmentation import WholePicture
from otseg.predict.segmenter import Segmenter

pytestmark = [pytest.mark.filterwarnings('ignore:.*meaningless.*')]
SIZES = [(60, 90), (213, 320), (213, 320), (40, 130), (96, 96), (100, 200), (213, 320), (1, 1), (96, 96), (320, 213), (50, 90),
         (60, 90)]


@pytest.fixture(scope='module')
def seg(): return Segmenter.from_pretrained('toy', device='cpu')


@pytest.fixture
def photos(folder):
    "Twelve pictures of eight sizes"
    rng = np.random.default_rng(0)
    (folder/'in').mkdir()
    for i, size in enumerate(SIZES):
        small = Image.fromarray(rng.integers(0, 255, (5, 7, 3), dtype=np.uint8))
        small.resize(size[::-1], Image.BICUBIC).save(folder/'in'/f'{i:02}.png')
    return folder/'in'


def watched(monkeypatch, fails=lambda x: False):
    "Windows of each batch, and an error where a batch is as `fails` says"
    from otseg.model.otseg import OTSeg
    seen, forward = [], OTSeg.forward

    def slow(self, image, *args, **kwargs):
        seen.append(len(image))
        if fails(image): raise MemoryError('no 3 GB')
        return forward(self, image, *args, **kwargs)
    monkeypatch.setattr(OTSeg, 'forward', slow)
    return seen


def ask(**options): return predict_folder('in', 'out', 'boat,sky,star,sand', results='mask', progress=False, workers=0, **options)


def test_labels_are_those_of_each_picture_alone(photos, seg, monkeypatch):
    "Equal, but where two classes score the same within 1e-5"
    monkeypatch.setattr('otseg.predict.folder.most_together', lambda *args: 8)
    seen = watched(monkeypatch)
    assert ask().done == len(SIZES) and max(seen) == 8 and len(seen) < len(SIZES) + 3
    for path in sorted(photos.iterdir()):
        s = seg.predict(path, 'boat,sky,star,sand')
        got = torch.from_numpy(np.array(Image.open(f'out/{path.name}.mask.png'))).long()
        off = (s.probs.gather(0, got[None]) - s.probs.amax(0)).abs()
        assert got.shape == s.labels.shape and float(off.max()) < 1e-5, path


def test_scores_are_those_of_each_picture_alone(photos, seg):
    from otseg.predict.segmentation import load_photograph
    from otseg.predict.segmenter import Preparation
    prepare, question = Preparation(seg.preprocess, None, seg.patch), seg.question('boat,sky,star,sand', background=.4)
    xs = [prepare(load_photograph(p)) for p in sorted(photos.iterdir())]
    for x, out in zip(xs, seg.windows(xs, question, batch_size=5)):
        alone = seg.windows(x[None], question)
        assert out.size == alone.size and float((out.mask_probs() - alone.mask_probs()).abs().max()) < 1e-5


def test_a_batch_that_fails_is_asked_window_by_window(photos, monkeypatch):
    "As one that does not fit into memory; what fails alone is one picture's"
    monkeypatch.setattr('otseg.predict.folder.most_together', lambda *args: 8)
    seen = watched(monkeypatch, fails=lambda x: len(x) > 1 or x.shape[-1] < 64)
    result = ask(skip_bad=1)
    assert [*result.skipped] == ['07.png'] and 'enough memory' in result.skipped['07.png']
    assert result.done == len(SIZES) - 1 and max(seen) == 8


def test_pictures_that_wait_are_few():
    "Batches are full where they can be, what waits is bounded in number and pixels, and nothing is lost or given twice"
    def item(i, h, w): return dict(index=i, x=torch.empty(3, h, w, device='meta'))
    def count(size): return -(-size[0] // 96) * -(-size[1] // 96)
    rng = np.random.default_rng(1)
    sizes = [tuple(int(v) for v in rng.choice([50, 96, 200, 320, 2500], 2)) for _ in range(300)]
    taken = []
    def items():
        for i, s in enumerate(sizes):
            waiting = [sizes[j] for j in range(i) if j not in done]
            assert len(waiting) < 8 and sum(h * w for h, w in waiting) <= 2**23
            yield dict(index=i, trouble='bad') if i % 50 == 3 else item(i, *s)
    done = set()
    for group in together(items(), 96, count, 8, 8):
        taken.append(group)
        done |= {g['index'] for g in group}
        assert len({tuple(min(s, 96) for s in g['x'].shape[1:]) for g in group if 'x' in g}) <= 1
    assert sorted(g['index'] for group in taken for g in group) == [*range(300)]
    same = [*together((item(i, 320, 213) for i in range(16)), 96, count, 8, 8)]
    assert [sum(count(g['x'].shape[1:]) for g in group) for group in same] == [24, 24] * 4


# memory

def answer(k, size=(96, 128), tokens=4):
    "Of a picture in two windows"
    g = torch.Generator().manual_seed(0)
    maps = [torch.randn(2, k, tokens, tokens, generator=g) for _ in range(2)]
    return SlidingOutput([OTSegOutput(*maps, (), None, (96, 96))], [(0, 0, 0), (0, 0, size[1] - 96)], size)


@pytest.mark.parametrize('size', [(240, 320), (96, 128), (20, 600)])
@pytest.mark.parametrize('budget', [2**18, 2**20])
def test_no_array_of_labels_is_larger_than_the_budget(monkeypatch, size, budget):
    "171 classes at picture size would take 53 MB; labels are those of all at once, the scores of the two equal to 1e-6"
    monkeypatch.setattr(windows, 'PIXEL_BYTES', budget)
    out = answer(171)
    with Largest(floats=True) as largest: labels = out.labels(size, seen=range(30), dtype=torch.int16)
    assert labels.dtype == torch.int16 and largest.bytes <= budget, largest.bytes
    scores = torch.nn.functional.interpolate(out.mask_probs(seen=range(30)), size=size, mode='bilinear')
    assert float((scores.gather(1, labels.long()[:, None])[:, 0] - scores.amax(1)).abs().max()) < 1e-6
    assert len(labels.unique()) > 40


def test_the_budget_of_a_gpu_is_what_is_free(monkeypatch):
    "171 classes at 512 x 683 in one piece on 80 GB, not in 15; in more, where little is free; never less than a CPU's"
    out = answer(171, (512, 683), 32)
    cpu = out._piece((512, 683))
    pieces = {}
    for free, chunk in ((80e9, 767), (3e9, 134), (1e6, 11)):
        monkeypatch.setattr(windows, 'memory_budget', lambda device, fixed, share, free=free: int(share * free))
        pieces[free] = out._piece((512, 683))
        assert windows._chunk(512 * 683, 'cuda') == chunk
    assert pieces[80e9][0] == 512 and min(pieces[80e9][1], pieces[3e9][1]) >= 171
    assert cpu[0] < pieces[3e9][0] < 512 and pieces[1e6] == cpu


PEAK = '''
import sys
sys.path.insert(0, '..')
import torch
from test_batches import answer
torch.set_num_threads(1)
def peak(): return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmHWM')) / 2**10
out = answer(171, (512, 683), 32)
out.outputs[0].size = (512, 512)
out.corners[1] = (0, 0, 171)
answer(171).labels((96, 128))
before = peak()
labels = out.labels((3000, 4000), seen=range(156), dtype=torch.int16)
print(peak() - before, len(labels.unique()))
'''


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='reads /proc')
def test_12_megapixels_of_171_classes(root):
    "All scores at once would take 8.2 GB"
    got = subprocess.run([sys.executable, '-c', PEAK], capture_output=True, text=True, encoding='utf-8', timeout=900,
                         cwd=root/'tests'/'predict')
    assert got.returncode == 0, got.stderr[-2000:]
    print(f'{float(got.stdout.split()[0]):.0f} MB')
    assert float(got.stdout.split()[0]) < 1500 and int(got.stdout.split()[1]) > 50


def test_tokens_stay_on_the_cpu():
    "What the image encoder made is copied away and given back for the next question; the encoder is asked once"
    class There(torch.Tensor):
        "A tensor of a device of its own"
        def cpu(self): return self.as_subclass(torch.Tensor).clone()
        def to(self, *args): return self.cpu().as_subclass(There)
    asked = []
    def encoder(image):
        asked.append(image)
        return torch.ones(1, 4, 2, 2).as_subclass(There), torch.ones(1, 4).as_subclass(There)
    def head(visual, cls, text, class_chunk): return SimpleNamespace(score_prompt_maps=torch.ones(1, len(text), 3, 2, 2),
                                                                    decoder_prompt_maps=())
    model = SimpleNamespace(encode_image=encoder, head=head, class_chunk=lambda *args: 1)
    whole = WholePicture(model, torch.zeros(1, 3, 8, 8), torch.ones(5, 3, 4), 16)
    assert len(whole.maps_of(2)) == 1 and len(whole.maps_of(3)) == 1 and len(whole.maps[0]) == 5 and len(asked) == 1
    kept = [t for value in vars(whole).values() for t in (value if isinstance(value, (tuple, list)) else [value])]
    assert sum(isinstance(t, torch.Tensor) for t in kept) >= 4 and not any(isinstance(t, There) for t in kept)
