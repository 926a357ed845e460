"The definitions of the transport wing, each against a second way to the same value"
import math

import pytest
import torch
import torch.nn.functional as F

from otseg.core import InputError
from otseg.transport.entropic import sinkhorn
from otseg.transport.mpsa import MPSA, CrossAttention, DotAttention, prompt_scores
from otseg.transport.solvers import row_error, spread_scores, textbook_sinkhorn


def random(*shape, seed=0): return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_textbook_stops_by_the_mean_change():
    "By the published rule: the first iteration whose mean change of f, over all problems and tokens, is below the tolerance"
    cost, eps, tol = 1 - spread_scores(3, 12, 4).double(), .05, 1e-3
    f, g, changes = torch.zeros(3, 12).double(), torch.zeros(3, 4).double(), []
    for _ in range(100):
        before = f
        f = -eps * (((g[:, None] - cost) / eps).logsumexp(2) - math.log(1 / 12 + 1e-8))
        g = -eps * (((f[:, :, None] - cost) / eps).logsumexp(1) - math.log(1 / 4 + 1e-8))
        changes.append((f - before).abs())
    by_mean, by_largest = (1 + next(i for i, c in enumerate(changes) if kind(c) < tol) for kind in (torch.mean, torch.amax))
    assert by_mean < by_largest  # else nothing is told apart here
    assert textbook_sinkhorn(cost, eps, tol=tol)[1] == by_mean


@pytest.mark.parametrize('method', ['newton', 'scaling', 'log'])
@pytest.mark.parametrize('mass', [1000., .001])
def test_errors_are_shares_of_the_mass(method, mass):
    "The same problem in other units of mass: as many iterations, the same error, and a plan in these units"
    cost = 1 - spread_scores(2, 20, 5).double()
    a, b = torch.arange(1, 21).double() / 210, torch.arange(1, 6).double() / 15  # in float32, a factor would round them anew
    one, other = (sinkhorn(cost, .1, s * a, s * b, method=method, tol=1e-4) for s in (1, mass))
    assert torch.equal(one.n_iter, other.n_iter) and one.n_iter.min() > 2
    torch.testing.assert_close(other.plan, mass * one.plan, rtol=1e-6, atol=0)
    torch.testing.assert_close(other.err, one.err, rtol=1e-3, atol=1e-12)


def test_row_error_by_hand():
    "Rows of 3 and 1 where 2 and 2 should be: an error of 2 on a mass of 4"
    assert row_error(torch.tensor([[[3., 1.]]]), torch.tensor([[2., 2.]])).tolist() == [.5]


@pytest.mark.parametrize('method', ['newton', 'log'])
def test_gradients_of_the_masses(method):
    """A plan is of degree 1 in its masses: the derivatives along them sum to the loss. What is gained by more mass on both sides
    counts on the side of `b`, so along `a` alone, which no plan could follow, they sum to 0"""
    cost, w = 1 - spread_scores(2, 9, 4).double(), random(2, 9, 4).double()
    a, b = (torch.rand(2, n, generator=torch.Generator().manual_seed(n)).double() + .1 for n in (9, 4))
    b = (b * (a.sum(1) / b.sum(1))[:, None])
    a, b = (x.requires_grad_() for x in (a, b))
    loss = (sinkhorn(cost, .1, a, b, method=method).plan * w).sum((1, 2))
    loss.sum().backward()
    torch.testing.assert_close((a * a.grad).sum(1), torch.zeros(2).double(), rtol=0, atol=1e-8)
    torch.testing.assert_close((b * b.grad).sum(1), loss.detach(), rtol=1e-6, atol=1e-8)
    # and along one token and one prompt at once, against differences
    def at(t):
        more_a, more_b = a.detach().clone(), b.detach().clone()
        more_a[:, 2] += t; more_b[:, 1] += t
        return (sinkhorn(cost, .1, more_a, more_b, tol=1e-12).plan * w).sum((1, 2))
    torch.testing.assert_close(a.grad[:, 2] + b.grad[:, 1], (at(1e-5) - at(-1e-5)) / 2e-5, rtol=1e-4, atol=1e-6)


def test_unequal_masses_are_refused_in_any_problem():
    "Also where another problem of the batch has equal ones"
    a, b = torch.ones(2, 3) / 3, torch.ones(2, 2) / 2
    with pytest.raises(InputError, match='same total mass'): sinkhorn(torch.rand(2, 3, 2), a=a, b=b * torch.tensor([[1.], [2.]]))
    sinkhorn(torch.rand(2, 3, 2), a=a, b=b)


def test_equal_shares_have_the_scale_of_the_published_map():
    "Without a plan, scores of 1/2 under 4 prompts become maps of 1/2 each, 2 together: the mean score times n"
    scores = torch.full((1, 2, 3, 4), .5)
    assert prompt_scores(scores, None).sum(-1).tolist() == [[[2.] * 3] * 2]
    assert torch.equal(prompt_scores(scores, None), prompt_scores(scores, torch.full_like(scores, 1 / 12)))
    assert prompt_scores(scores, None, logit_scale=10.).sum(-1).unique().tolist() == [5.]
    text = random(1, 2, 4, 8)
    memory, maps = random(1, 5, 8, seed=1), CrossAttention.score_maps(text, random(1, 5, 8, seed=1)).prompt_maps
    torch.testing.assert_close(maps, F.cosine_similarity(memory[:, None, :, None], text[:, :, None], dim=-1))


def test_dot_products_are_over_sqrt_d():
    "Eq 11 as written is PyTorch's attention, but that each of n prompts takes 1/n"
    attention, query, memory = DotAttention(16, dropout=0.), random(2, 3, 4, 16), random(2, 7, 16, seed=1)
    with torch.no_grad():
        q, k, v = attention.q(query).flatten(1, 2), attention.k(memory), attention.v(memory)
        want = attention.proj(F.scaled_dot_product_attention(q, k, v) / 4).unflatten(1, (3, 4))
        torch.testing.assert_close(attention(query, memory).tokens, want)


@pytest.mark.parametrize('kind', [MPSA, CrossAttention])
def test_attention_weights_are_dropped_out(kind):
    "Where the values are the unit vectors, the tokens are the weights: some 0, the others doubled, as a rate of 1/2 has it"
    torch.manual_seed(0)
    attention, query, memory = kind(6, dropout=.5), random(1, 2, 4, 6), torch.eye(6)[None]
    for linear in (attention.v, attention.proj): torch.nn.init.eye_(linear.weight); torch.nn.init.zeros_(linear.bias)
    with torch.no_grad(): plain, dropped = attention.eval()(query, memory).tokens, attention.train()(query, memory).tokens
    kept = dropped != 0
    assert .2 < kept.float().mean() < .8
    torch.testing.assert_close(dropped[kept], 2 * plain[kept])
    assert plain.min() > 0
