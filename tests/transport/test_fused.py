"""The fused kernels: the same checks in Triton's interpreter, in a process of its own, and on a GPU; and compiled."""
import importlib.util
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from conftest import ROOT
import otseg.transport.entropic as room
from given.models import make, pictures, prompts
from otseg.core import InputError
from otseg.transport.fused import MAX_TILE, compiled_kernel, fused_available, fused_backward, fused_solve
from otseg.transport.entropic import sinkhorn
from otseg.transport.solvers import spread_scores

INTERPRET = os.environ.get('TRITON_INTERPRET') == '1'
DEVICE = 'cpu' if INTERPRET else 'cuda'
needs_triton = pytest.mark.skipif(importlib.util.find_spec('triton') is None, reason='triton is not installed')
here_only = pytest.mark.skipif(INTERPRET, reason='starts processes of its own')


def on_device(test): return test if INTERPRET else pytest.mark.gpu(test)


def log_domain(cost, eps, a, b, max_iter=3000):
    "Plan (b, n, m) of the plain iteration in float64, differentiable"
    k, log_a, log_b = -cost.double().mT / eps, a.double().log(), b.double().log()
    v = torch.zeros_like(log_b)
    for _ in range(max_iter):
        u = (log_a - (k + v[:, :, None]).logsumexp(1)).nan_to_num(neginf=-1e9, posinf=0)
        v = (log_b - (k + u[:, None]).logsumexp(2)).nan_to_num(neginf=-1e9, posinf=0)
    return (k + u[:, None] + v[:, :, None]).exp()


def masses(size, m, even, seed):
    "Even masses, or uneven ones with a zero; all on the device"
    w = torch.rand(size, m, generator=torch.Generator().manual_seed(seed)) + .1
    if even or m < 3: w = torch.ones(1, m)
    else: w[:, seed % m] = 0
    return (w / w.sum(1, keepdim=True)).to(DEVICE)


def costs(b, m, n, spread, seed=0):
    "1 - score, with scores whose prompt-specific part has standard deviation spread / 2"
    return (1 - spread_scores(b, m, n, spread, seed)).to(DEVICE)


@pytest.fixture
def calls(monkeypatch):
    "Names of the kernels that `sinkhorn` and its gradient have called"
    seen = []
    for name in ('fused_solve', 'fused_backward'):
        plain = getattr(room, name)
        monkeypatch.setattr(room, name, lambda *args, name=name, plain=plain: seen.append(name) or plain(*args))
    return seen


def row_error(plan, a): return (plan.double().sum(1) - a).abs().sum(1) / a.sum(1)


@on_device
@pytest.mark.parametrize('even', [True, False])
@pytest.mark.parametrize('m, n, eps, tol', [(150, 6, .05, 1e-6), (64, 8, .01, 1e-5), (33, 5, .5, 1e-6),
                                            (10, 40, .1, 1e-6), (1, 5, .1, 1e-6), (9, 1, .1, 1e-6)])
def test_solve(m, n, eps, tol, even):
    cost, a, b = costs(2, m, n, .25), masses(2, m, even, 4), masses(2, n, even, 2)
    plan, u, v, err, n_iter = fused_solve(cost, eps, a, b, 400, tol)
    assert plan.shape == (2, n, m) and plan.is_contiguous() and n_iter.dtype == torch.long
    assert (err <= tol).all() and (n_iter >= 1).all() and (n_iter < 100).all()
    assert (row_error(plan, a) - err).abs().max() < 5e-7
    assert (plan.sum(2) - b).abs().max() < 5e-7
    want = log_domain(cost, eps, a, b)
    assert (plan - want).abs().max() < 20 * tol * want.max()
    assert ((u[:, None] + v[:, :, None] - cost.mT / eps).exp() - plan).abs().max() < 3e-5 * plan.max()
    assert (plan.movedim(1, 2)[a.expand(2, m) == 0] == 0).all() and (plan[b.expand(2, n) == 0] == 0).all()


@on_device
def test_forbidden_pairs():
    cost, a, b = torch.rand(2, 40, 6).to(DEVICE), masses(1, 40, True, 0), masses(1, 6, True, 0)
    cost[:, ::3, 1] = cost[:, 1::3, 4] = torch.inf
    plan, _, _, err, _ = fused_solve(cost, .1, a, b, 200, 1e-6)
    assert (plan[cost.mT == torch.inf] == 0).all() and (err <= 1e-6).all()
    assert (plan - log_domain(cost, .1, a, b)).abs().max() < 1e-6
    cost[:, :, 3] = torch.inf  # a prompt that no token may reach: its mass is missing, and the error says so
    plan, _, _, err, _ = fused_solve(cost, .1, a, b, 20, 1e-6)
    assert plan.isfinite().all() and (err > .15).all()


@on_device
@pytest.mark.parametrize('eps', [1e-3, 1e-2, .1, 10.])
@pytest.mark.parametrize('m, n', [(1, 1), (3, 64), (100, 7)])
def test_finite_and_honest(m, n, eps):
    cost, a, b = costs(2, m, n, 1.), masses(2, m, False, 1), masses(2, n, False, 1)
    plan, u, v, err, _ = fused_solve(cost, eps, a, b, 30, 1e-6)
    assert plan.isfinite().all() and not u.isnan().any() and not v.isnan().any()
    assert (row_error(plan, a) - err).abs().max() < 5e-7 and (plan.sum(2) - b).abs().max() < 5e-7


@on_device
def test_fixed_iterations():
    cost, a, b = costs(2, 50, 6, .25), masses(1, 50, True, 0), masses(1, 6, True, 0)
    for n in (1, 3, 50): assert (fused_solve(cost, .05, a, b, n, None)[4] == n).all()
    assert fused_solve(cost, .05, a, b, 50, None)[3].max() < 1e-6


@on_device
def test_a_problem_is_alone_in_its_batch():
    cost, a, b = costs(4, 60, 6, .25), masses(4, 60, False, 3), masses(1, 6, True, 0)
    cost[2] *= 4
    together = fused_solve(cost, .05, a, b, 200, 1e-6)
    for i in range(4):
        for x, y in zip(fused_solve(cost[i:i+1], .05, a[i:i+1], b, 200, 1e-6), together): assert torch.equal(x[0], y[i])
    broken = cost.clone()
    broken[1, 5, 2] = torch.nan  # is reported, and stays in its problem
    out = fused_solve(broken, .05, a, b, 200, 1e-6)
    assert out[3][1].isnan() and torch.equal(out[0][2:], together[0][2:])
    g = torch.randn(4, 6, 60).to(DEVICE)
    grads = fused_backward(together[0], g)
    for i in range(4): assert torch.equal(fused_backward(together[0][i:i+1], g[i:i+1])[0], grads[i])


@on_device
def test_strides():
    cost, a, b = costs(2, 45, 6, .25), masses(1, 45, True, 0), masses(1, 6, True, 0)
    want = fused_solve(cost, .05, a, b, 200, 1e-6)[0]
    wide = torch.zeros(2, 45, 6, 3).to(DEVICE)
    wide[..., 1] = cost
    for c in (cost.mT.contiguous().mT, wide[..., 1], cost.transpose(0, 1).contiguous().transpose(0, 1)):
        assert (fused_solve(c, .05, a, b, 200, 1e-6)[0] - want).abs().max() < 1e-7


@on_device
@pytest.mark.parametrize('even', [True, False])
@pytest.mark.parametrize('m, n, eps', [(60, 6, .1), (17, 16, .2), (9, 33, .3), (7, 1, .1), (1, 4, .1)])
def test_gradient(m, n, eps, even):
    cost, a, b = torch.rand(2, m, n).to(DEVICE), masses(2, m, even, 4), masses(2, n, even, 2)
    g = torch.randn(2, n, m).to(DEVICE)
    rows, columns = (a.expand(2, m) > 0)[0], (b.expand(2, n) > 0)[0]
    plan = fused_solve(cost, eps, a, b, 300, 1e-6)[0]
    got = fused_backward(plan, g)
    assert (got[:, ~columns] == 0).all() and (got[:, :, ~rows] == 0).all()
    live = cost[:, rows][:, :, columns].double().requires_grad_()
    loss = (log_domain(live, eps, a[:, rows], b[:, columns], 400) * g[:, columns][:, :, rows]).sum()
    want = -eps * torch.autograd.grad(loss, live)[0].mT
    rounding = 3e-7 * (plan * g).abs().max()  # all there is with one token or one prompt
    assert (got[:, columns][:, :, rows] - want).abs().max() < 1e-4 * want.abs().max() + rounding


@on_device
def test_gradient_of_a_sharp_plan():
    "Two groups with 1e-12 of the mass between them: the system is singular in float32"
    plan = torch.rand(1, 6, 40, generator=torch.Generator().manual_seed(0))
    plan[:, :3, 20:] *= 1e-12
    plan[:, 3:, :20] *= 1e-12
    plan, g = (plan / plan.sum()).to(DEVICE), torch.randn(1, 6, 40).to(DEVICE)
    t, h = plan.double(), g.double()
    share = t / t.sum(1, keepdim=True)
    lap = torch.diag_embed(t.sum(2)) - t @ share.mT
    flow = (t * (h - (share * h).sum(1, keepdim=True))).sum(2, keepdim=True)
    h = h - torch.linalg.pinv(lap, rtol=1e-15, hermitian=True) @ flow
    want = t * (h - (share * h).sum(1, keepdim=True))
    assert (fused_backward(plan, g) - want).abs().max() < 1e-5 * want.abs().max()


@on_device
@pytest.mark.parametrize('eps, max_iter', [(.05, 200), (1e-3, 12)])  # the second: the kernel leaves some to Newton
def test_sinkhorn_takes_the_kernel_and_agrees_with_newton(calls, eps, max_iter):
    cost = torch.cat([costs(3, 40, 6, .25), costs(1, 40, 6, .02)]).requires_grad_()
    grad, results = torch.randn(4, 40, 6, generator=torch.Generator().manual_seed(0)).to(DEVICE), {}
    for method in ('fused', 'newton'):
        out = sinkhorn(cost, eps, tol=1e-5, max_iter=max_iter if method == 'fused' else 200, method=method)
        (out.plan * grad).sum().backward()
        results[method], cost.grad = (out, cost.grad), None
    assert calls == ['fused_solve', 'fused_backward']  # Newton's gradient is not the kernel's
    (ours, ours_grad), (newton, newton_grad) = results['fused'], results['newton']
    if eps == .05: assert ours.converged.all()
    assert (ours.plan - newton.plan)[ours.converged].abs().max() < 2e-5 and ours.converged[3]
    assert (ours.g - newton.g)[ours.converged].abs().max() < 1e-4
    assert (ours_grad - newton_grad)[ours.converged].norm() < 1e-3 * newton_grad.norm()
    a, b = (torch.rand(4, s).to(DEVICE).softmax(-1).requires_grad_() for s in (40, 6))  # masses: by torch's gradient
    sinkhorn(cost, a=a, b=b, tol=1e-5, method='fused').plan.square().sum().backward()
    assert a.grad.isfinite().all() and b.grad.isfinite().all() and calls[2:] == ['fused_solve']


@on_device
def test_the_kernel_has_to_be_asked_for(monkeypatch, calls):
    "By name, by OTSEG_SOLVER, or by the constant that makes it the default; a named method wins over both"
    def used(**options):
        calls.clear()
        cost = costs(2, 30, 5, .25).requires_grad_()
        sinkhorn(cost, **options).plan.square().sum().backward()
        return calls[:]
    both = ['fused_solve', 'fused_backward']
    assert used() == [] and used(method='fused') == both
    monkeypatch.setenv('OTSEG_SOLVER', 'fused')
    assert used() == both and used(method='newton') == used(tol=None, max_iter=9) == used(grad='unrolled') == []
    monkeypatch.delenv('OTSEG_SOLVER')
    monkeypatch.setattr(room, 'FUSED_BY_DEFAULT', True)
    assert used() == both and used(method='newton') == used(tol=None, max_iter=9) == used(grad='unrolled') == []
    monkeypatch.setenv('OTSEG_SOLVER', 'log')
    assert used() == []


@on_device
def test_the_default_leaves_what_the_kernel_does_not_take(monkeypatch, calls):
    monkeypatch.setattr(room, 'FUSED_BY_DEFAULT', True)
    for cost in (costs(1, 20, 4, .25).double(), costs(1, 20, 65, .25)):
        calls.clear()
        assert sinkhorn(cost.requires_grad_()).converged.all() and calls == []
        with pytest.raises(InputError, match='the fused kernel should have .*, got .*Use method="newton"'):
            sinkhorn(cost, method='fused')


@on_device
def test_compiled(calls):
    "Forward and backward are operators to a compiler"
    cost, grad = costs(2, 30, 5, .25).requires_grad_(), torch.randn(2, 30, 5).to(DEVICE)
    plain = sinkhorn(cost, method='fused').plan
    want, = torch.autograd.grad(plain, cost, grad)
    compiled = torch.compile(lambda c: sinkhorn(c, method='fused').plan, fullgraph=True, backend='aot_eager')
    calls.clear()
    plan = compiled(cost)
    got, = torch.autograd.grad(plan, cost, grad)
    assert 'fused_solve' in calls and torch.equal(plan, plain)
    assert (got - want).abs().max() < 1e-4 * want.abs().max()


@on_device
def test_the_model_takes_it(calls):
    "Every plan of the model, and none of its softmax twin"
    model, image, text = make(DEVICE, solver='fused').train(), pictures(1, device=DEVICE), prompts(device=DEVICE)
    model(image, text).mask_logits().square().mean().backward()
    assert calls == ['fused_solve'] * 4 + ['fused_backward'] * 4
    calls.clear()
    make(DEVICE).eval()(image, text)
    make(DEVICE, solver='fused', attention='softmax').eval()(image, text)
    assert calls == []


@pytest.mark.gpu
@here_only
@pytest.mark.parametrize('b, m, n, eps, tol', [
    (171, 1024, 8, .05, 1e-6), (59, 1024, 8, .01, 1e-5), (20, 900, 6, .05, 1e-6), (5, MAX_TILE // 8, 8, .05, 1e-6),
    (5, 1024, 16, .05, 1e-6), (3, 1000, 32, .05, 1e-6), (3, 500, 64, .05, 1e-6)])
def test_full_size_on_a_gpu(b, m, n, eps, tol):
    cost, mass_m, mass_n = costs(b, m, n, .25), masses(1, m, True, 0), masses(1, n, True, 0)
    plan, _, _, err, _ = fused_solve(cost, eps, mass_m, mass_n, 300, tol)
    want = log_domain(cost, eps, mass_m, mass_n, 1000)
    assert (err <= tol).all() and (plan - want).abs().max() < 50 * tol * want.max()
    g = torch.randn(b, n, m, device=DEVICE)
    cost = cost[:2].double().requires_grad_()
    loss = (log_domain(cost, eps, mass_m, mass_n, 400) * g[:2]).sum()
    want = -eps * torch.autograd.grad(loss, cost)[0].mT
    assert (fused_backward(plan, g)[:2] - want).abs().max() < (1e-3 if eps < .05 else 1e-4) * want.abs().max()


def test_what_does_not_fit_is_refused():
    z = torch.zeros
    for cost in (z(2, 3, 4).double(), z(2, 3, 4).half(), z(3, 4), z(1, 3, 65), z(1, MAX_TILE // 8 + 1, 8), z(1, 0, 3)):
        assert not fused_available(cost)
    assert fused_available(z(2, 3, 4)) == INTERPRET
    with pytest.raises(InputError, match='fused_available'):
        fused_solve(z(1, 9000, 8), .1, z(1, 9000), z(1, 8), 5, None)


@on_device
def test_masses_elsewhere():
    "The kernel refuses them, `sinkhorn` moves them"
    cost, a, b = costs(1, 20, 4, .25), masses(1, 20, True, 0), masses(1, 4, True, 0)
    with pytest.raises(InputError, match='masses should be on .* got .*Move them'):
        fused_solve(cost, .1, a, b.to('meta'), 5, None)
    assert sinkhorn(cost, a=a[0].cpu(), b=b[0].cpu(), method='fused').plan.device == cost.device


@needs_triton
@pytest.mark.parametrize('place, hip, capability, says', [
    ('cuda', None, (7, 5), ('a GPU of compute capability 8.0 or more', '7.5')), ('cuda', None, (8, 0), None),
    ('cuda', '6.0', (9, 0), ("an NVIDIA GPU, or Triton's interpreter", 'costs on cuda')),
    ('cpu', None, (9, 0), ("an NVIDIA GPU, or Triton's interpreter", 'costs on cpu'))])
def test_which_gpus_it_needs(monkeypatch, place, hip, capability, says):
    import otseg.transport.fused as module
    monkeypatch.setattr(module, 'INTERPRETED', False)
    monkeypatch.setattr(torch.version, 'hip', hip)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: capability)
    cost = SimpleNamespace(device=torch.device(place), dtype=torch.float32, ndim=3, shape=(2, 30, 5))
    assert module.fused_obstacle(cost) == says and module.fused_available(cost) == (says is None)


def test_without_triton(monkeypatch):
    import otseg.transport.fused as module
    monkeypatch.setattr(module, 'triton', None)
    with pytest.raises(InputError, match='the fused kernel should have Triton, got none installed. Use method="newton"'):
        sinkhorn(torch.rand(1, 20, 4), method='fused')


@here_only
def test_without_a_gpu():
    told = "should have (an NVIDIA GPU, or Triton's interpreter, got costs on cpu|Triton, got none)"
    with pytest.raises(InputError, match=told):
        sinkhorn(torch.rand(1, 20, 4), method='fused')


@here_only
@needs_triton
def test_in_the_interpreter():
    "All checks above that need no GPU; the interpreter has to be on before triton is imported, so elsewhere"
    env = dict(os.environ, TRITON_INTERPRET='1', OMP_NUM_THREADS='1')
    run = subprocess.run([sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-m', 'not gpu', __file__],
                         env=env, capture_output=True, text=True, encoding='utf-8', cwd=ROOT)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert 'passed' in run.stdout and 'failed' not in run.stdout


@here_only
@needs_triton
def test_compiles_for_gpus(tmp_path):
    "Down to machine code, without a GPU; shared memory stays within the 99 KB that every GPU since 2020 has"
    env = dict(os.environ, TRITON_CACHE_DIR=str(tmp_path), PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT/'tests')]))
    run = subprocess.run([sys.executable, __file__], env=env, capture_output=True, text=True, encoding='utf-8')
    assert run.returncode == 0, run.stderr[-4000:]
    built = [json.loads(line) for line in run.stdout.splitlines() if line.startswith('{')]
    assert len(built) == len(SHAPES)
    for k in built:
        assert k['shared'] <= 99 * 1024 and k['registers'] <= (128 if k['threads'] <= 512 else 64) and k['loop'] > 50, k
        assert k['moved'] <= 4 * k['m'] * k['n'] * (2.5 if k['kind'] == 'solve' else 3), k
    typical = [k for k in built if k['kind'] == 'solve' and k['m'] * k['n'] <= 8192]
    assert len(typical) == 2 and all(k['loop'] <= 1100 and k['loop_spill_loads'] <= 64 for k in typical), typical


SHAPES = [(90, 'solve', 1024, 8), (90, 'solve', MAX_TILE // 8, 8), (90, 'solve', 512, 64), (80, 'solve', 1000, 6),
          (90, 'gradient', 1024, 8), (90, 'gradient', MAX_TILE // 8, 8), (80, 'gradient', 512, 64)]


def compile_kernels():
    "Print one line of JSON for each of SHAPES, compiled as for a launch, for GPUs that need not be there"
    for arch, kind, m, n in SHAPES: print(json.dumps(compiled_kernel(kind, m, n, arch)))


if __name__ == '__main__': compile_kernels()
