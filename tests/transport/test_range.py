"The whole range of problems that `sinkhorn` is for: all of it converges; what does not, or cannot, says so"
import warnings
from itertools import product
from unittest.mock import patch

import pytest
import torch

from otseg.core import InputError
from otseg.transport.entropic import sinkhorn
from otseg.transport.mpsa import MPSA, mps
from otseg.transport.solvers import spread_scores


@pytest.mark.filterwarnings('error:.*transport problems')
@pytest.mark.parametrize('eps', [1e-3, 1e-2, .05, 1., 10.])
def test_up_to_16384_tokens(eps):
    worst, most = 0., 0
    for m, n, spread, dtype in product((1, 2, 100, 16384), (1, 2, 8, 12, 64), (.01, .25, 1.), (torch.float32, torch.bfloat16)):
        cost = (1 - spread_scores(1 if m * n > 2**17 else 3, m, n, spread, seed=n)).to(dtype).requires_grad_()
        out = sinkhorn(cost, eps, tol=1e-5)
        assert all(x.isfinite().all() for x in out[:4]), (m, n, spread, dtype)
        assert out.converged.all() and (out.err <= 1e-5).all(), (m, n, spread, dtype, out.err)
        assert ((out.plan.sum(2) - 1 / m).abs().sum(1) - out.err).abs().max() < 1e-6   # the error is the plan's own
        assert (out.plan.sum(1) - 1 / n).abs().max() < 2e-6
        out.plan.square().sum().backward()
        assert cost.grad.isfinite().all(), (m, n, spread, dtype)
        worst, most = max(worst, float(out.err.max())), max(most, int(out.n_iter.max()))
    print(f'eps {eps}: largest error {worst:.1e}, at most {most} passes')


@pytest.mark.parametrize('method', ['auto', 'newton', 'scaling', 'log'])
def test_what_did_not_converge_says_so(method):
    "Easy and hard problems in one batch, stopped early: `converged` is what the row sums of the plan say"
    spreads, tol = (.001, .01, .1, .5, 1.), 1e-5
    cost = torch.cat([1 - spread_scores(1, 64, 8, s, seed=3) for s in spreads]).double()
    with pytest.warns(UserWarning, match='stopped after 2 iterations'):
        out = sinkhorn(cost, .05, tol=tol, max_iter=2, method=method)
    error = (out.plan.sum(2) - 1 / 64).abs().sum(1)
    assert torch.allclose(out.err, error, atol=1e-12) and torch.equal(out.converged, error <= tol)
    assert out.converged[0] and not out.converged[-1] and (out.n_iter <= 2).all()
    done = sinkhorn(cost, .05, tol=tol, max_iter=5000, method=method)
    assert done.converged.all() and (done.err <= tol).all() and (done.n_iter[-1] > 2)


@pytest.mark.parametrize('method', ['auto', 'newton', 'scaling', 'log'])
@pytest.mark.parametrize('n', [1, 2, 3, 60])
def test_a_number_of_iterations_says_how_far_it_came(method, n):
    "`converged` is what the row sums say; the implicit gradient is that of a plan whose sums are held where they are"
    cost, weight = (1 - spread_scores(3, 40, 5, .1)).double(), spread_scores(3, 40, 5, seed=1).double()
    def gradient(*masses, **options):
        c = cost.clone().requires_grad_()
        out = sinkhorn(c, .1, *masses, method=method, grad='implicit', **options)
        (out.plan * weight).sum().backward()
        return c.grad, out
    grad, out = gradient(tol=None, max_iter=n)
    error = (out.plan.sum(2) - 1 / 40).abs().sum(1)
    assert torch.allclose(out.err, error, atol=1e-12) and torch.equal(out.converged, error <= 1e-9) and (out.n_iter == n).all()
    assert bool(out.converged.all()) == (n == 60)
    held, like = gradient(out.plan.detach().sum(2), out.plan.detach().sum(1), tol=1e-12, max_iter=2000)
    torch.testing.assert_close(like.plan, out.plan, rtol=0, atol=1e-9)
    torch.testing.assert_close(grad, held, rtol=0, atol=1e-7 * float(held.abs().max()))


@pytest.mark.parametrize('options', [dict(tau_b=.1), dict(tau_a=.3, tau_b=1.), dict(at_most='a', b=[.1] * 5)], ids=str)
def test_soft_plans_stopped_early_say_so(options):
    "By the tolerance that auto means, whether the number of iterations is fixed or runs out"
    cost = (1 - spread_scores(3, 40, 5, .5)).double()
    for n in (1, 2):
        out = sinkhorn(cost, .05, tol=None, max_iter=n, **options)
        assert not out.converged.any() and (out.err > 1e-9).all() and (out.n_iter == n).all()
    with pytest.warns(UserWarning, match='stopped after 2 iterations'): out = sinkhorn(cost, .05, max_iter=2, **options)
    assert not out.converged.any()
    done, long = (sinkhorn(cost, .05, max_iter=60, tol=tol, **options) for tol in (1e-12, None))
    assert long.converged.all()
    torch.testing.assert_close(long.plan, done.plan, rtol=0, atol=1e-10)


SPOILT = {'NaN': torch.nan, '-inf': -torch.inf}


@pytest.mark.parametrize('options', [dict(), dict(bound=2.), dict(method='newton'), dict(method='scaling'), dict(method='log'),
                                     dict(tol=None), dict(grad='unrolled'), dict(eps=1e-3)], ids=str)
@pytest.mark.parametrize('kind', SPOILT)
@pytest.mark.parametrize('place', [(0, 0, 0), (2, 9, 3)], ids=['first', 'last'])
def test_costs_that_are_no_numbers(kind, place, options):
    "An error with the kind and the problem, never the advice to be patient; asked for, NaN stays in its problem without a word"
    cost = 1 - spread_scores(3, 10, 4)
    cost[place] = SPOILT[kind]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        told = f'got {kind} in 1 of 3 problems, the first of them {place[0]}'
        with pytest.raises(InputError, match=told): sinkhorn(cost, **options)
        if kind == 'NaN':
            out = sinkhorn(cost, nan='nan', **options)
            others = [i for i in range(3) if i != place[0]]
            assert out.plan[place[0]].isnan().any() and out.plan[others].isfinite().all()
            clean = sinkhorn(cost[others], **options).plan
            assert torch.allclose(out.plan[others], clean, atol=1e-6)


@pytest.mark.parametrize('options', [dict(), dict(tol=None), dict(grad='unrolled'), dict(method='log')], ids=str)
@pytest.mark.parametrize('axis', [1, 2])
def test_mass_that_may_go_nowhere(axis, options):
    "+inf forbids a pair; a whole row or column of it needs mass 0"
    cost = 1 - spread_scores(2, 6, 3)
    cost[1, 0, 1] = torch.inf
    out = sinkhorn(cost, **options)
    assert out.plan[1, 0, 1] == 0 and out.plan.isfinite().all()
    cost[1].select(axis - 1, 2)[:] = torch.inf
    with pytest.raises(InputError, match='every token and prompt with mass should have a pair'): sinkhorn(cost, **options)
    name, size = ('a', 6) if axis == 1 else ('b', 3)
    mass = torch.ones(size).index_fill(0, torch.tensor([2]), 0)
    plan = sinkhorn(cost, **{name: mass / mass.sum()}, **options).plan
    assert plan.isfinite().all() and plan.select(axis, 2).sum() == 0


def test_a_promise_that_is_not_kept():
    cost = 40 * torch.rand(2, 30, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match='costs should lie in 0..2, as `bound` promises, got .* Scores should be cosines'):
        sinkhorn(cost, .05, bound=2.)
    assert sinkhorn(cost, .05).converged.all()


def test_what_converges_is_asked_once():
    "One question to the device, whatever the check of the costs would cost: none of it runs"
    asked, cost = [], 1 - spread_scores(3, 50, 4)
    with patch('otseg.transport.entropic._check_solvable', lambda *a: asked.append(a)):
        assert sinkhorn(cost).converged.all() and sinkhorn(cost, bound=2.).converged.all() and not asked
        with pytest.warns(UserWarning, match='transport problems'): sinkhorn(cost, max_iter=1, tol=1e-9)
    assert len(asked) == 1


def test_a_layer_hands_nan_on():
    "As every layer of torch: the trainer says which pictures it is from"
    layer, query, memory = MPSA(8).eval(), torch.randn(2, 3, 4, 8), torch.randn(2, 9, 8)
    memory[1, 0, 0] = torch.nan
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter('error')
        out = layer(query, memory)
        assert out.prompt_maps[1].isnan().any() and out.prompt_maps[0].isfinite().all() and out.tokens[0].isfinite().all()
        with pytest.raises(InputError, match='got NaN in 3 of 6 problems, the first of them 3'): mps(layer.scores(query, memory))
