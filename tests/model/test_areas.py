"The area head on whatever a model may hand it, and what its biases do to a map"
import pytest
import torch
from torch.utils.data import DataLoader

from otseg.core import InputError, l2_normalize
from otseg.data.reading import collate, load_dataset
from otseg.data.toy import toy_scene
from otseg.evaluate.windows import count_pixels
from otseg.model.areas import FLOOR, area_bias, enlarged, fit_areas, size_statistics, true_areas, winners
from otseg.model.checkpoint import save_checkpoint
from otseg.model.otseg import with_areas
from otseg.predict.segmenter import Segmenter
from otseg.train.areas import learn_areas
from otseg.train.recipes import describe_options, get_recipe, override


def picture(b=2, k=5, n=3, d=16, h=6, w=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    def unit(*shape): return l2_normalize(torch.randn(*shape, generator=g))
    return unit(b, h, w, d).permute(0, 3, 1, 2), unit(b, d), unit(k, n, d), 3 * torch.randn(b, k, h, w, generator=g)


@pytest.fixture(scope='module')
def head():
    v, c, t, l = picture(40)
    return fit_areas([(v, c, l, l.softmax(1).mean((2, 3)))], t, steps=30)


@pytest.mark.parametrize('h, w', [(1, 1), (1, 7), (13, 2)])
@pytest.mark.parametrize('k', [2, 30])
def test_any_grid_and_vocabulary(head, h, w, k):
    v, c, t, l = picture(k=k, h=h, w=w)
    said = head(v, c, t, l)
    for x in said: assert x.shape == (2, k) and x.isfinite().all() and (x >= 0).all()
    assert (said.presence <= 1).all() and torch.allclose(said.own.sum(1), torch.ones(2))
    assert (head(v[:1], c[:1], t, l[:1]).areas - said.areas[:1]).abs().max() < 1e-5  # a picture is alone in its batch


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_other_precision(head, dtype):
    v, c, t, l = picture()
    said, plain = head(v.to(dtype), c.to(dtype), t.to(dtype), l.to(dtype)), head(v, c, t, l)
    assert said.areas.dtype == torch.float32 and (said.presence - plain.presence).abs().max() < .05


@pytest.mark.parametrize('times', [1e-3, 1, 1e2])
def test_scores_of_any_size_give_areas(head, times):
    v, c, t, l = picture()
    said = head(v, c, t, times * l)
    bias = area_bias(times * l, said.areas)
    met = (enlarged(times * l) + bias[..., None]).softmax(1).mean(2)
    assert (met - said.areas / said.areas.sum(1, keepdim=True)).abs().max() < 1e-3


@pytest.mark.parametrize('times', [1e-3, 1, 10, 1e2])
@pytest.mark.parametrize('h, w, k', [(1, 1, 2), (6, 4, 5), (13, 2, 30)])
def test_a_guess_saves_passes_and_changes_nothing(head, times, h, w, k):
    v, c, t, l = picture(6, h=h, w=w, k=k)
    areas = head(v, c, t, times * l).areas
    slow, fast = area_bias(times * l, areas), head.bias(v, c, t, times * l)
    assert torch.equal(slow == -torch.inf, fast == -torch.inf)
    a, b = ((enlarged(times * l) + x[..., None]).softmax(1) for x in (slow, fast))
    assert (a.mean(2) - b.mean(2)).abs().max() < 1e-3 and (a.argmax(1) == b.argmax(1)).float().mean() > .99


def test_statistics_by_their_definitions():
    g = torch.Generator().manual_seed(3)
    z = 3 * torch.randn(2, 4, 6 * 5, generator=g)
    found, own = size_statistics(z, (6, 5))
    share, labels = z.softmax(1), z.argmax(1).view(2, 6, 5)
    for b in range(2):
        for k in range(4):
            mine, p = labels[b] == k, share[b, k]
            edge = ((mine[1:] != mine[:-1]).sum() + (mine[:, 1:] != mine[:, :-1]).sum()) / 30
            rim = torch.cat([mine[0], mine[-1], mine[:, 0], mine[:, -1]]).float().mean()
            blur, sure = (p - p**2).mean(), p[mine.flatten()].mean() if mine.any() else torch.tensor(0.)
            sharp, flat = ((s * z[b]).softmax(0)[k].mean() for s in (2, .5))
            by_hand = torch.stack([mine.float().mean(), p.mean(), sharp, flat, edge, blur]).clamp(min=FLOOR).log()
            a, soft, _, _, e, f = by_hand
            wanted = [*by_hand[:5], rim, sure, f, soft - a, e - a, f - a, p.max(), z[b, k].max() / 10]
            assert torch.allclose(found[b, k], torch.stack(wanted), atol=1e-5) and own[b, k] == mine.float().mean()
    tied = torch.zeros(1, 3, 4)
    assert torch.equal(winners(tied)[0, 0], torch.ones(4)) and winners(tied).sum() == 4  # the first of equals


def test_a_class_without_an_area_is_nowhere():
    _, _, _, l = picture()
    areas = torch.tensor([[.5, .5, 0, 0, 0], [0, 0, 0, 0, 1.]])
    bias = area_bias(l, areas)
    assert ((bias == -torch.inf) == (areas == 0)).all()
    labels = (enlarged(l) + bias[..., None]).argmax(1)
    assert set(labels[0].tolist()) == {0, 1} and set(labels[1].tolist()) == {4}


def test_the_order_of_pictures_is_none_of_the_areas():
    labels = torch.randint(0, 6, (3, 8, 8), generator=torch.Generator().manual_seed(0))
    a = true_areas(labels, [4, 1])
    assert torch.equal(true_areas(labels.flip(0), [4, 1]), a.flip(0))
    assert torch.allclose(true_areas(labels, list(range(6))).sum(1), torch.ones(3))
    assert true_areas(torch.full((1, 4, 4), 255), [0, 1]).sum() == 0  # what has no label is the rest


@pytest.fixture(scope='module')
def shipped():
    "The shipped model without areas"
    seg = Segmenter.from_pretrained('toy', device='cpu')
    seg.model = with_areas(seg.model, None)
    return seg


@pytest.fixture(scope='module')
def aware(shipped):
    "The shipped model with a head that a few training scenes have taught"
    data = load_dataset('toy', split='train', n=60, transform=get_recipe('toy').eval_transform())
    return with_areas(shipped.model, learn_areas(shipped.model, data, shipped.text(shipped.vocab), shipped.vocab, steps=150))


def test_a_checkpoint_keeps_it(shipped, aware, tmp_path):
    folder = save_checkpoint(aware, tmp_path/'new', vocab=shipped.vocab, info=shipped.info)
    new = Segmenter.from_pretrained(str(folder), device='cpu')
    assert new.model.config.areas and not shipped.model.config.areas
    for (n, a), (m, b) in zip(aware.state_dict().items(), new.model.state_dict().items()): assert n == m and torch.equal(a, b)
    for side in (96, 200):  # one window, and several, each with areas of its own
        scene = toy_scene(11, side).image
        plain, ours = (s.predict(scene, seen_penalty=0.).labels for s in (shipped, new))
        assert plain.shape == ours.shape == (side, side) and 0 < (plain != ours).mean() < .3
    half = Segmenter.from_pretrained(str(folder), device='cpu', precision='bf16').predict(scene, seen_penalty=0.).labels
    assert (half == ours).mean() > .98


def test_it_is_evaluated_as_it_predicts(shipped, aware):
    data = load_dataset('toy', split='val', n=4, transform=get_recipe('toy').eval_transform())
    text, k = shipped.text(shipped.vocab), len(shipped.vocab)
    with torch.no_grad():
        labels = torch.stack([aware(data[i]['image'][None], text).mask_logits(.5)[0].argmax(0) for i in range(4)])
    truth = torch.stack([data[i]['labels'] for i in range(4)])
    loader = DataLoader(data, batch_size=2, collate_fn=collate)
    counts = count_pixels(aware, loader, text, shipped.vocab, [(.5, 0.)])[.5, 0.].counts
    assert torch.equal(counts, torch.bincount((truth * k + labels).flatten(), minlength=k * k).view(k, k))


def test_one_name_has_nothing_to_share_with(shipped, aware):
    x, text = torch.randn(1, 3, 96, 96), shipped.text(shipped.vocab)[:1]
    with torch.no_grad(): assert torch.equal(aware(x, text).score_map, shipped.model(x, text).score_map)


def test_a_training_begins_without():
    with pytest.raises(InputError, match='should begin without predicted areas'): override(get_recipe('toy'), areas=True)
    assert 'areas' not in describe_options(get_recipe('toy'))['model']
