"From scores to labels in bounded memory: the published numbers, each rule by hand, no array of all words"
import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from given.counting import Largest
from safetensors.torch import load_file

import otseg.evaluate.labels
import otseg.evaluate.windows
from otseg.core import InputError
from otseg.evaluate.labels import LabelRules, Refiner, class_labels, row_scores
from otseg.evaluate.windows import SlidingOutput
from otseg.model.otseg import OTSegOutput
from otseg.evaluate.refine import class_scores, drop_small, pixel_labels, refine_mask


def sliding(maps, size=None, logits=False):
    "The answer of one window, cosines by default"
    size = tuple(size or maps.shape[-2:])
    return SlidingOutput([OTSegOutput(maps, maps, (), None, size, logits=logits)], [(i, 0, 0) for i in range(len(maps))], size)


def few(out, n):
    "The same, decided n rows at a time"
    out = replace(out)
    out.step = lambda size: n
    return out


@pytest.fixture(scope='module')
def published(shared):
    folder = shared/'golden/dense_a'
    if not folder.is_dir(): pytest.skip('no golden numbers of training-free CLIPs')
    return json.loads((folder/'meta.json').read_text(encoding='utf-8')), load_file(folder/'dense.safetensors')


@pytest.mark.parametrize('n', [1, 3, 100])
def test_labels_as_published(published, n):
    meta, numbers = published
    tokens = F.normalize(numbers['sclip'], dim=-1)
    side = meta['image_size'] // meta['patch']
    cosines = (tokens @ numbers['post.queries'].T).mT.unflatten(-1, (side, side))
    out = few(sliding(cosines, numbers['image'].shape[-2:]), n)
    of = tuple(numbers['post.query_class'].tolist())
    rules, k = LabelRules(of, meta['logit_scale'], .3, rest=0), max(of) + 1
    want = numbers['post.labels_thd_0.3']
    scores = rules.class_scores(torch.cat([*row_scores(out, rules, out.size)], 1), k)
    assert torch.allclose(scores, numbers['post.class_scores'], atol=1e-6) and 0 < (want == 0).float().mean() < 1
    assert torch.equal(class_labels(out, rules, k), want)


def test_refinement_as_published(published):
    meta, numbers = published
    pamr = meta['pamr']
    image, mask = numbers['pamr.image'], numbers['pamr.mask_in']
    mask = F.interpolate(mask, size=image.shape[-2:], mode='bilinear', align_corners=True)
    for budget in (None, 1):
        refined = Refiner(image, pamr['steps'], tuple(pamr['dilations']), budget)(mask)
        assert float((refined - numbers['pamr.mask_out']).abs().max() / numbers['pamr.mask_out'].abs().max()) < 1e-4


CASES = [dict(), dict(background=.5), dict(area=.2), dict(background=.5, area=.2), dict(area=.6, background=.05), dict(refine=2),
         dict(refine=2, background=.45, area=.25)]


@pytest.mark.parametrize('given', CASES, ids=str)
@pytest.mark.parametrize('n', [1, 2, 5])
def test_rules_a_few_rows_at_a_time(given, n):
    "Against the same rules on the whole array, in the published order"
    torch.manual_seed(0)
    of, image = (0, 0, 1, 2, 2), torch.rand(2, 3, 40, 44)
    cosines = .2 + .06 * F.interpolate(torch.randn(2, 5, 5, 6), size=(20, 22), mode='bilinear')
    rows = F.interpolate(cosines, size=(40, 44), mode='bilinear')
    if given.get('refine'): rows = refine_mask(image, rows, 2)
    scores = class_scores(rows, of)
    if 'area' in given: scores = drop_small(scores, given['area'])
    want = pixel_labels(scores, given.get('background'))
    rules = LabelRules(of, 40, rest=0, **given)
    got = class_labels(few(sliding(cosines), n), rules, 3, (40, 44), image)
    assert (got == want).float().mean() > .9995 and len(want.unique()) > 1


def test_the_order_of_the_rules():
    "Areas are counted before the level, and a dropped class leaves its pixels to the best of the others, by hand"
    p = torch.tensor([[.1, .1, .1, .1, .1], [.5, .5, .5, .3, .2], [.4, .4, .4, .6, .3], [0., 0., 0., 0., .4]])
    out = sliding((p.clamp(min=1e-6).log() / 40)[None, :, None])
    def labels(**given): return class_labels(out, LabelRules(None, 40, rest=0, **given), 4)[0, 0].tolist()
    assert labels() == [1, 1, 1, 2, 3]
    assert labels(area=.2) == [1, 1, 1, 1, 1]                # 2 and 3 have one pixel of five each, no more than a fifth
    assert labels(area=.19) == [1, 1, 1, 2, 3]
    assert labels(background=.45) == [1, 1, 1, 2, 0]         # .4 is below
    assert labels(area=.2, background=.25) == [1, 1, 1, 1, 0]
    assert labels(area=.2, background=.45) == [1, 1, 1, 0, 0]
    assert labels(area=.7) == [0] * 5                        # none is large enough: class 0, which has a word
    def others(**given): return class_labels(out, LabelRules(None, 40, **given), 4)[0, 0].tolist()
    assert others(area=.7) == [1] * 5                        # without a background the largest stays


@pytest.mark.parametrize('refine', [0, 1])
def test_memory_is_bounded(monkeypatch, refine):
    "80 words on a picture of 300 x 400: the largest array is that of a few of them, or of the weights of a strip"
    monkeypatch.setattr(otseg.evaluate.windows, 'PIXEL_BYTES', 4 * 2**20)
    monkeypatch.setattr(otseg.evaluate.labels, 'GUIDE_BYTES', 4 * 2**17)
    cosines = torch.rand(1, 80, 8, 10)
    with Largest() as seen:
        out = sliding(cosines, (120, 160))
        labels = class_labels(out, LabelRules(None, 40, .014, rest=0, refine=refine, dilations=(1,)), 80, (300, 400),
                              torch.rand(1, 3, 120, 160))
    assert labels.shape == (1, 300, 400) and len(labels.unique()) > 20
    assert seen.numbers <= 2**20 < 80 * 300 * 400 / 9              # not a ninth of all


def test_a_photograph_is_refined_near_the_size_at_which_it_was_seen():
    cosines, image = torch.rand(1, 3, 4, 5), torch.rand(1, 3, 64, 80)
    rules = LabelRules(None, 40, refine=2, most=2.)
    big = torch.cat([*row_scores(sliding(cosines, (64, 80)), rules, (640, 800), image)], 1)
    middle = torch.cat([*row_scores(sliding(cosines, (64, 80)), replace(rules, most=None), (128, 160), image)], 1)
    assert torch.allclose(big, F.interpolate(middle, size=(640, 800), mode='bilinear'), atol=1e-6)
    each = (replace(rules, most=m) for m in (2., None))
    small = [torch.cat([*row_scores(sliding(cosines, (64, 80)), r, (100, 120), image)], 1) for r in each]
    assert torch.equal(*small)
    with pytest.raises(InputError, match='`image` should be given to refine'): [*row_scores(sliding(cosines), rules, (9, 9))]
