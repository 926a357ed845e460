"What weights of the prompts could change: by counting, by trying weights, over a data set, and as the command tells it"
import json

import pytest
import torch

from otseg.commands.evaluate import evaluate
from otseg.core import InputError
from otseg.data.reading import load_dataset
from otseg.evaluate import diversity
from otseg.evaluate.diversity import (WAYS, PromptRange, ceiling_report, class_winners, flip_ceiling, measure_ceiling,
                                      prompt_range, spread_and_margin)
from otseg.model.otseg import OTSeg
from otseg.model.vocab import Vocab
from otseg.train.recipes import get_recipe
from otseg.transport.mpsa import mps


def scores_of(seed, shape=(2, 6, 80, 4), spread=.2):
    "Cosines of which some classes overlap and some do not"
    g = torch.Generator().manual_seed(seed)
    level = .7 * torch.rand(*shape[:3], 1, generator=g, dtype=torch.float64)
    return level + spread * torch.rand(shape, generator=g, dtype=torch.float64)


def by_search(scores, picks):
    "Tokens whose class changes under some choice of one prompt per class, all choices tried"
    b, k, m, n = scores.shape
    winner = scores.mean(-1).argmax(1)
    changed = torch.zeros(b, m, dtype=torch.bool)
    for choice in picks:
        chosen = torch.stack([scores[:, c, :, p] for c, p in enumerate(choice)], 1)
        changed |= chosen.argmax(1) != winner
    return changed


def test_ceiling_of_scores_counted_by_hand():
    "Ten tokens, two prompts: 3 overlap, 1 touches, 6 lie apart"
    first = torch.tensor([.5, .3]).expand(10, 2)
    second = torch.tensor([[.2, .4]] * 3 + [[.1, .3]] + [[.0, .2]] * 6)
    found = flip_ceiling(prompt_range(torch.stack([first, second])[None]))
    assert found.tolist() == [[True] * 3 + [False] * 7]


def test_ceiling_is_what_a_search_over_all_choices_finds():
    "The extremes of a set of weights are its corners, so corners are enough"
    scores = scores_of(0, (2, 3, 60, 3))
    picks = torch.cartesian_prod(*[torch.arange(3)] * 3).tolist()
    found = flip_ceiling(prompt_range(scores))
    assert torch.equal(found, by_search(scores, picks)) and 0 < found.double().mean() < 1


@pytest.mark.parametrize('eps', [.005, .05, .5])
@pytest.mark.parametrize('seed', range(3))
def test_transport_and_random_weights_stay_under_the_ceiling(seed, eps):
    scores = scores_of(seed)
    cosines = prompt_range(scores, eps, tol=1e-9, max_iter=10_000)
    ceiling, winner = flip_ceiling(cosines), cosines.mean.argmax(1)
    assert not ((cosines.moved.argmax(1) != winner) & ~ceiling).any()
    assert (cosines.moved >= cosines.low - 1e-6).all() and (cosines.moved <= cosines.high + 1e-6).all()
    g = torch.Generator().manual_seed(seed)
    for _ in range(20):
        weights = torch.rand(scores.shape, generator=g, dtype=torch.float64).pow(8)
        moved = (scores * weights / weights.sum(-1, keepdim=True)).sum(-1)
        assert not ((moved.argmax(1) != winner) & ~ceiling).any()
    assert ceiling.double().mean() < .9


def test_weights_that_do_not_sum_to_one_break_the_ceiling():
    "The fault that the property has to see: a class is scaled as a whole"
    cosines = prompt_range(scores_of(0))
    scaled = cosines.moved * torch.linspace(.5, 1.5, 6, dtype=torch.float64)[None, :, None]
    assert ((scaled.argmax(1) != cosines.mean.argmax(1)) & ~flip_ceiling(cosines)).any()


def test_range_spread_and_margin():
    scores = scores_of(1)
    cosines = prompt_range(scores, .1)
    assert torch.equal(cosines.moved, mps(scores, .1, logit_scale=1.))
    spread, margin = spread_and_margin(cosines)
    for b, m in [(0, 0), (1, 33)]:
        mean = scores[b, :, m].mean(-1)
        own = scores[b, mean.argmax(), m]
        assert spread[b, m] == own.max() - own.min()
        assert margin[b, m] == mean.sort(descending=True).values[0] - mean.sort(descending=True).values[1]


def test_true_areas_are_met_by_transport_and_only_weigh_without():
    "30 tokens that all look like class 0, of which 10 are class 1 and none is class 2"
    g = torch.Generator().manual_seed(0)
    mean = torch.stack([torch.full((30,), .5), .3 + .01 * torch.rand(30, generator=g), torch.full((30,), .45)])[None]
    areas = torch.tensor([[2 / 3, 1 / 3, 0.]])
    won = class_winners(PromptRange(*[mean] * 4), areas, 400.)
    assert [*won] == [*WAYS] and all(w.shape == (1, 30) for w in won.values())
    assert 8 <= (won['class transport'] == 1).sum() <= 12 and not (won['class transport'] == 2).any()
    likely = set(mean[0, 1].topk(8).indices.tolist())
    assert likely <= set((won['class transport'][0] == 1).nonzero()[:, 0].tolist())
    for way in ('log-prior', 'presence', 'mean', 'transport'): assert (won[way] == 0).all()
    masked = class_winners(PromptRange(*[mean[:, [2, 1, 0]]] * 4), areas, 40.)
    assert (masked['mean'] == 2).all() and (masked['presence'] == 0).all()


@pytest.fixture(scope='module')
def measured():
    "A small model on four scenes"
    recipe = get_recipe('toy')
    torch.manual_seed(0)
    model, data = OTSeg(recipe.model_config()), load_dataset('toy', split='val', n=4, transform=recipe.eval_transform())
    g = torch.Generator().manual_seed(0)
    centre, around = (torch.randn(26, n, model.image_encoder.dim, generator=g) for n in (1, 3))
    return model.eval(), data, torch.nn.functional.normalize(centre + .1 * around, dim=-1)


def test_chunks_of_classes_change_nothing(measured, monkeypatch):
    model, data, text = measured
    whole = measure_ceiling(model, data, text, data.vocab)
    monkeypatch.setattr(diversity, 'memory_budget', lambda *a: 4 * 3 * 144 * 5)
    assert measure_ceiling(model, data, text, data.vocab) == whole


def test_one_picture_by_hand_and_a_planted_fault(measured, monkeypatch):
    "Shares of a picture are those of its own cosines; a ceiling that forgets the winner's lowest prompt is seen"
    model, data, text = measured
    with torch.no_grad():
        visual, cls = model.encode_image(data[0]['image'][None])
        refined = model.head.descriptor(cls, text)
        scores = torch.einsum('bknd,bmd->bkmn', torch.nn.functional.normalize(refined, dim=-1), visual.flatten(2).mT)
    mean, high, low = scores.mean(-1)[0], scores.amax(-1)[0], scores.amin(-1)[0]
    count = sum(any(high[c, t] > low[w, t] for c in range(26) if c != w) for t, w in enumerate(mean.argmax(0).tolist()))
    first = torch.utils.data.Subset(data, [0])
    found = measure_ceiling(model, first, text, data.vocab, 1)
    assert found['all']['tokens'] == 144 and 10 < count < 134 and found['all']['ceiling'] == pytest.approx(count / 144, abs=1e-5)
    assert found['all']['changed']['transport'] <= found['all']['ceiling']
    truth = data[0]['labels'][4::8, 4::8].flatten()
    assert found['all']['right']['mean'] == pytest.approx((mean.argmax(0) == truth).double().mean().item(), abs=1e-5)
    monkeypatch.setattr(diversity, 'flip_ceiling', lambda r: flip_ceiling(r._replace(low=r.mean)))
    assert measure_ceiling(model, first, text, data.vocab, 1)['all']['ceiling'] < found['all']['ceiling']


def test_unlabelled_pixels_do_not_count(measured):
    model, data, text = measured

    class Blank(torch.utils.data.Dataset):
        "Labels of the right half are unknown, or of everything"
        def __init__(self, everything): self.everything = everything
        def __len__(self): return 1
        def __getitem__(self, i):
            one = dict(data[0])
            one['labels'] = one['labels'].clone()
            one['labels'][:, 0 if self.everything else 48:] = 255
            return one
    assert measure_ceiling(model, Blank(False), text, data.vocab)['all']['tokens'] == 72
    nothing = measure_ceiling(model, Blank(True), text, data.vocab)
    assert nothing == {} and ceiling_report(nothing) == 'tokens of the score map: none has a label'


def test_one_class_has_no_margin(measured):
    model, data, text = measured
    with pytest.raises(InputError, match='`vocab` should have two classes at least, got 1'):
        measure_ceiling(model, data, text[:1], Vocab('one', ('cat',)))


def test_the_command_prints_and_stores_it(tmp_path, capsys):
    evaluate('toy', n=2, ceiling=2, diversity=2, output=str(tmp_path/'x.json'))
    out, told = capsys.readouterr().out, json.loads((tmp_path/'x.json').read_text(encoding='utf-8'))
    assert ceiling_report(told['ceiling']) in out
    assert told['ceiling']['all']['pictures'] == 2 and told['ceiling']['all']['tokens'] == 288
    assert told['diversity']['spread_to_margin'] == {g: d['ratio'] for g, d in told['ceiling'].items()}
    assert "spread of the winner's prompts / margin of the winner: seen" in out
    evaluate('toy', n=2, ceiling=2, training_free='naclip', overwrite=True, output=str(tmp_path/'x.json'))
    free = json.loads((tmp_path/'x.json').read_text(encoding='utf-8'))
    assert free['ceiling'] != told['ceiling'] and 'diversity' not in free
