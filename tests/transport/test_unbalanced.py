"Soft and bounded masses: what a bound without room, a far level and other people's solvers say"
import warnings
from itertools import product

import ot
import pytest
import torch

from otseg.transport.entropic import sinkhorn

pytestmark = pytest.mark.filterwarnings('error:.*transport problems')
FULL, CLOSE, ROOMY = (0.,), (1e-8, 1e-6, 1e-4, 1e-3, .01), (.1, .5)


def problem(seed, dtype=torch.float64, b=4):
    "Costs of b problems with their eps, and masses of total 1, some even, some uneven, some with zeros"
    g = torch.Generator().manual_seed(seed)
    def r(*shape): return torch.rand(*shape, generator=g, dtype=torch.float64)
    m, n, eps = int(10 * 40**float(r(1))), int(1 + 11 * r(1)), float(.02 * 25**r(1))
    cost = 2 * r(1) * r(b, m, n)
    masses = [(r(b, s) + .05) if seed % 2 else torch.ones(b, s, dtype=torch.float64) for s in (m, n)]
    if seed % 3 == 0 and n > 2: masses[0][:, 1] = masses[1][:, 2] = 0
    return cost.to(dtype), eps, *((w / w.sum(1, keepdim=True)).to(dtype) for w in masses)


def bounded(side, room, a, b): return (a, b * (1 - room)) if side == 'a' else (a * (1 - room), b)


def certified(out, cost, eps, a, b, side, digits):
    """The conditions of the optimum, which is unique: the form exp((f + g - cost) / eps), exact sums on the one side, sums below
    the bound on the other, whose potential is at its most, eps log(mass), wherever the bound is not reached"""
    f, g, cost, a, b, plan = (x.double() for x in (out.f, out.g, cost, a, b, out.plan))
    form = ((f[:, :, None] + g[:, None] - cost) / eps).exp()
    torch.testing.assert_close(form, plan, rtol=0, atol=digits * float(plan.max()))
    bound, exact, potential = (a, b, f) if side == 'a' else (b, a, g)
    sums, met = (plan.sum(2), plan.sum(1)) if side == 'a' else (plan.sum(1), plan.sum(2))
    assert ((met - exact).abs().sum(1) <= digits * exact.sum(1)).all()
    assert ((sums - bound).clamp_min(0).sum(1) <= digits * bound.sum(1)).all()
    there = bound > 0
    most = eps * torch.where(there, bound, 1).log()
    left = torch.where(there, most - potential, 0)
    assert (left >= -digits * (1 + potential.abs().where(there, 0).amax())).all()
    assert ((bound - sums).clamp_min(0) * left / eps).sum(1).max() <= 30 * digits  # complementary: left over only at the most


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize('side', ['a', 'b'])
@pytest.mark.parametrize('rooms', [FULL, CLOSE, ROOMY], ids=['full', 'close', 'roomy'])
def test_a_bound_whatever_its_room(side, rooms, dtype):
    "Without any room it is met exactly, by the balanced plan; with little, as with much, the plan is the optimum"
    most = 0
    for seed, room in product(range(24), rooms):
        cost, eps, a, b = problem(seed, dtype)
        a, b = bounded(side, room, a, b)
        out = sinkhorn(cost, eps, a, b, at_most=side)
        assert out.converged.all(), (seed, room, out.err)
        certified(out, cost, eps, a, b, side, 1e-7 if dtype == torch.float64 else 1e-4)
        if room == 0:
            balanced = sinkhorn(cost, eps, a, b).plan
            digits = (1e-7 if dtype == torch.float64 else 3e-5) * float(balanced.max())
            torch.testing.assert_close(out.plan, balanced, rtol=0, atol=digits)
        most = max(most, int(out.n_iter.max()))
    print(f'bound {side}, room {rooms}, {dtype}: at most {most} passes')


@pytest.mark.parametrize('side', ['a', 'b'])
@pytest.mark.parametrize('room', [0., .003, .3])
def test_a_bound_against_many_plain_iterations(side, room):
    "u = log a - max(s, 0), v = log b - t, over and over"
    cost, eps, a, b = problem(7)
    eps = max(eps, .2)
    a, b = bounded(side, room, a, b)
    k, log_a, log_b = -cost / eps, a.log(), b.log()
    v = torch.zeros_like(b)
    for _ in range(20000):
        s = (k + v[:, None]).logsumexp(2)
        u = log_a - (s.clamp_min(0) if side == 'a' else s)
        t = (k + u[:, :, None]).logsumexp(1)
        v = log_b - (t.clamp_min(0) if side == 'b' else t)
    plain = (k + u[:, :, None] + v[:, None]).exp()
    ours = sinkhorn(cost, eps, a, b, at_most=side, tol=1e-11).plan
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-8 * float(plain.max()))


@pytest.mark.parametrize('side', ['a', 'b'])
def test_gradients_of_a_bound_without_room(side):
    "Of the cost: those of the balanced plan, at equal totals and a rounding below; with little room, what differences say"
    cost, eps, a, b = problem(5)
    eps, weight = .2, torch.randn(cost.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    def gradient(**options):
        c = cost.clone().requires_grad_()
        (sinkhorn(c, eps, *options.pop('masses', (a, b)), tol=1e-12, **options).plan * weight).sum().backward()
        return c.grad
    balanced = gradient()
    for room in (0., 1e-15): torch.testing.assert_close(gradient(masses=bounded(side, room, a, b), at_most=side), balanced)
    little = bounded(side, .01, a, b)
    def near(c): return (sinkhorn(c, eps, *little, at_most=side, tol=1e-13).plan * weight).sum()
    along = torch.randn(cost.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    c = cost.clone().requires_grad_()
    slope, = torch.autograd.grad(near(c), c)
    differences = (near(cost + 1e-6 * along) - near(cost - 1e-6 * along)) / 2e-6
    torch.testing.assert_close((slope * along).sum(), differences, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize('prices', [dict(tau_a=300.), dict(tau_b=300.), dict(tau_a=300., tau_b=100.), dict(tau_a=1e4),
                                    dict(tau_b=1e4)], ids=str)
def test_high_prices_on_unequal_totals(prices, dtype):
    "The potentials are then thousands of times eps away; the plan is near the balanced one, times the mass that is carried"
    cost, eps, a, b = problem(4, dtype)
    out = sinkhorn(cost, eps, a, .3 * b, **prices)
    assert out.converged.all() and out.n_iter.max() <= 20
    tau_a, tau_b = (prices.get(name, float('inf')) for name in ('tau_a', 'tau_b'))
    total = {True: 1., False: .3}[tau_a == float('inf')] if float('inf') in (tau_a, tau_b) else .3**(tau_b / (tau_a + tau_b))
    torch.testing.assert_close(out.plan.sum((1, 2)).double(), torch.full((4,), total).double(), rtol=.02, atol=0)
    like = sinkhorn(cost, eps, a, b).plan * total
    assert (out.plan - like).abs().sum() < .02 * like.sum()


def by_pot(cost, eps, a, b, tau_a, tau_b):
    "Zero masses left out, which POT takes logarithms of"
    plan = torch.zeros_like(cost)
    for p, c, w, h in zip(plan, cost, a, b):
        i, j = (w > 0).nonzero()[:, 0], (h > 0).nonzero()[:, 0]
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            part = ot.unbalanced.sinkhorn_unbalanced(w[i], h[j], c[i][:, j], eps, (tau_a, tau_b), method='sinkhorn_stabilized',
                                                     reg_type='kl', numItermax=20000, stopThr=1e-13)
        p[i[:, None], j] = part
    return plan


@pytest.mark.parametrize('tau_a, tau_b', [(.1, .1), (.1, 1.), (1., .02), (float('inf'), .2), (.2, float('inf'))])
def test_pot_says_so(tau_a, tau_b):
    "Over eps, totals that differ, zero masses, and one side exact, which is an infinite price there"
    for seed, eps, total in product((0, 1), (.05, .5), (.6, 1.5)):
        cost, _, a, b = problem(seed)
        exact = {name: tau for name, tau in (('tau_a', tau_a), ('tau_b', tau_b)) if tau < float('inf')}
        ours = sinkhorn(cost, eps, a, total * b, tol=1e-12, **exact).plan
        torch.testing.assert_close(ours, by_pot(cost, eps, a, total * b, tau_a, tau_b), rtol=0, atol=1e-5 * float(ours.max()))


@pytest.mark.parametrize('tau', [.1, 1., None])
@pytest.mark.parametrize('eps', [.1, .5])
def test_geomloss_says_so(tau, eps):
    """Its `reg` is eps, its `unbalanced` is the price of both sides (in its `SamplesLoss`: cost |x - y|^p / p, eps = blur^p and
    rho = reach^p). It lowers eps over all its iterations, so its error falls like 1 / iterations: three runs give the limit"""
    geomloss = pytest.importorskip('geomloss.ot', reason='GeomLoss is not installed: pip install geomloss')
    for zero in (False, True):
        cost, _, a, b = problem(1)
        cost = cost[:, :16]
        a, b = a[:, :16].clone(), b * (1 if tau is None else .7)
        if zero: a[:, 3] = 0
        a = a / a.sum(1, keepdim=True)
        runs = [geomloss.solve_batch(cost, reg=eps, a=a, b=b, unbalanced=tau, max_iter=n).plan for n in (1000, 2000, 4000)]
        ours = sinkhorn(cost, eps, a, b, tau_a=tau, tau_b=tau, tol=1e-11).plan
        torch.testing.assert_close(ours, (runs[0] - 6 * runs[1] + 8 * runs[2]) / 3, rtol=0, atol=1e-5 * float(ours.max()))


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32], ids=str)
def test_limits_of_prices(dtype):
    "Towards the balanced plan, and towards the two softmaxes, as the price grows and falls"
    cost, eps, a, b = problem(1, dtype)
    balanced, digits = sinkhorn(cost, eps, a, b).plan, 1e-6 if dtype == torch.float64 else 1e-4
    over_b = a[:, :, None] * ((-cost / eps) + b.log()[:, None]).softmax(2)
    over_a = b[:, None] * ((-cost / eps) + a.log()[:, :, None]).softmax(1)
    for want, prices in ((balanced, dict(tau_a=1e7, tau_b=1e7)), (balanced, dict(tau_a=1e7)), (balanced, dict(tau_b=1e7)),
                         (over_b, dict(tau_b=1e-9)), (over_a, dict(tau_a=1e-9))):
        torch.testing.assert_close(sinkhorn(cost, eps, a, b, **prices).plan, want, rtol=0, atol=digits * float(want.max()))


def test_gradients_with_a_far_level():
    "Of cost, masses, eps and price, where the totals differ and the price is high"
    g = torch.Generator().manual_seed(0)
    C, a, b = (torch.rand(*s, generator=g, dtype=torch.float64).add(.1).requires_grad_() for s in ((2, 6, 3), (2, 6), (2, 3)))
    e, price = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in ([.3, .6], [40., 90.]))
    def f(C, a, b, e, price): return sinkhorn(C, e, a, 4 * b, tau_a=price, tau_b=2 * price, tol=1e-13, max_iter=500).plan
    assert torch.autograd.gradcheck(f, (C, a, b, e, price), atol=1e-6)
