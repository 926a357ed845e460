"The whole range of problems that `sinkhorn` is for: no NaN, and converged or said to be not"
from itertools import product

import pytest
import torch

from otseg.transport.entropic import sinkhorn
from otseg.transport.solvers import spread_scores


@pytest.mark.filterwarnings('ignore:.*transport problems')
@pytest.mark.parametrize('eps', [1e-3, 1e-2, .05, 1., 10.])
def test_up_to_16384_tokens(eps):
    worst, most, open_ = 0., 0, 0
    for m, n, spread, dtype in product((1, 2, 100, 16384), (1, 2, 8, 12, 64), (.01, .25, 1.), (torch.float32, torch.bfloat16)):
        cost = (1 - spread_scores(1 if m * n > 2**17 else 3, m, n, spread, seed=n)).to(dtype).requires_grad_()
        out = sinkhorn(cost, eps, tol=1e-5)
        assert all(x.isfinite().all() for x in out[:4]), (m, n, spread, dtype)
        assert (out.converged | (out.err > 1e-5)).all() and (out.err[out.converged] <= 1e-4).all()
        assert ((out.plan.sum(2) - 1 / m).abs().sum(1) - out.err).abs().max() < 1e-6   # the error is the plan's own
        assert (out.plan.sum(1) - 1 / n).abs().max() < 2e-6
        out.plan.square().sum().backward()
        assert cost.grad.isfinite().all(), (m, n, spread, dtype)
        worst, most = max(worst, float(out.err.max())), max(most, int(out.n_iter.max()))
        open_ += int((~out.converged).sum())
    print(f'eps {eps}: largest error {worst:.1e}, at most {most} passes, {open_} not converged')
