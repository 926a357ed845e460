"The model as a compiler, an exporter and a CUDA graph see it: one graph, and no question to the device where none is needed"
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from given.models import TINY, apart, make as make_model, pictures, prompts
from otseg.core import InputError
from otseg.transport.entropic import sinkhorn
from otseg.transport.solvers import spread_scores

pytestmark = [pytest.mark.filterwarnings('ignore:.*meaningless.*'), pytest.mark.filterwarnings('ignore:.*transport problems')]
KINDS = {'to a tolerance': dict(), 'fixed': dict(tol=None, max_iter=20), 'softmax': dict(attention='softmax')}
ASKS = ('_local_scalar_dense', 'nonzero', 'is_nonzero', 'equal')   # operations whose result the host has to wait for

CLIP = TINY | dict(model_cfg=TINY['model_cfg'] | dict(vision_cfg=TINY['model_cfg']['vision_cfg'] | dict(layers=1)))


def make(*args, **config): return make_model(*args, **(dict(clip=CLIP, decoder_layers=2) | config))


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Counter:
    "A backend that runs each graph as it is, and counts them"
    def __init__(self): self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


class Questions(TorchDispatchMode):
    "Notes every operation that makes the host wait for a value"
    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.__name__.split('.')[0] in ASKS:
            self.asked.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize('kind, training', [*((k, True) for k in KINDS), ('to a tolerance', False)])
def test_one_graph(kind, training):
    model, image, text = make(dropout=0., **KINDS[kind]).train(training), pictures(2), prompts()
    plain, counter = model(image, text), Counter()
    torch.compile(model, backend=counter)(image, text)
    assert counter.graphs == 1
    torch.compiler.reset()
    out = torch.compile(model, fullgraph=True, backend='aot_eager')(image, text)
    assert apart(out.mask_logits().detach(), plain.mask_logits().detach()) < 1e-5
    assert apart(out.decoder_prompt_maps[0].detach(), plain.decoder_prompt_maps[0].detach()) < 1e-5
    if not training:
        return
    grads = []
    for o in (plain, out):
        model.zero_grad()
        o.mask_logits().square().mean().backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert apart(grads[1], grads[0]) < 1e-4


def test_a_break_would_be_seen():
    counter = Counter()
    torch.compile(lambda x: x * 2 if x.sum() > 0 else x, backend=counter)(torch.ones(3))
    assert counter.graphs > 1
    with pytest.raises(Exception, match='(?s)graph|Dynamo'):
        torch.compile(lambda x: x * 2 if x.sum() > 0 else x, fullgraph=True, backend='aot_eager')(torch.ones(3))


@pytest.mark.slow
def test_other_classes_and_sizes_need_no_break_either():
    model = make(image_size=None).eval()
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    for k, size in ((3, (48, 40)), (5, (48, 40)), (5, (64, 52))):
        text, image = prompts(k), pictures(1, size)
        with torch.no_grad():
            assert apart(compiled(image, text).mask_logits(), model(image, text).mask_logits()) < 1e-5


def test_export_of_a_fixed_number_of_iterations_needs_none_of_our_operators():
    class Maps(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, image, text): return self.model(image, text).mask_logits()

    image, text = pictures(1), prompts()
    for kind, ours in (('fixed', False), ('to a tolerance', True)):
        maps = Maps(make(**KINDS[kind]).eval())
        with torch.no_grad():
            exported = torch.export.export(maps, (image, text))
            assert apart(exported.module()(image, text), maps(image, text)) < 1e-5
        parts = [m for m in exported.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
        assert any('otseg' in m.code for m in parts) == ours


@pytest.mark.parametrize('method', ['auto', 'scaling', 'log', 'newton'])
def test_a_fixed_number_of_iterations_asks_nothing(method):
    cost = (1 - spread_scores(3, 50, 6)).requires_grad_()
    a, b = torch.rand(3, 50).softmax(-1), torch.rand(6).softmax(-1)
    for options in (dict(), dict(a=a, b=b)):
        with Questions() as q:
            sinkhorn(cost, tol=None, max_iter=10, method=method, nan='nan', **options).plan.square().sum().backward()
        assert q.asked == []  # as on a GPU; on a CPU, where it costs nothing, costs are looked at unless NaN may come back
    with pytest.raises(InputError, match='NaN in 1 of 3'):
        sinkhorn(cost.detach().index_fill(0, torch.tensor([1]), float('nan')), tol=None, max_iter=10, method=method)


@pytest.mark.parametrize('solver', ['newton', 'scaling', 'log'])
@pytest.mark.parametrize('by', ['name', 'variable'])
def test_another_solver_is_one_graph_too(monkeypatch, solver, by):
    "Named, or by OTSEG_SOLVER, which a graph takes as it is when it is compiled"
    cost = (1 - spread_scores(2, 30, 5)).requires_grad_()
    want = sinkhorn(cost, method=solver)
    if by == 'variable': monkeypatch.setenv('OTSEG_SOLVER', solver)
    method = solver if by == 'name' else 'auto'
    got = torch.compile(lambda c: sinkhorn(c, method=method), fullgraph=True, backend='aot_eager')(cost)
    assert torch.equal(got.plan, want.plan) and torch.equal(got.n_iter, want.n_iter)
    grads = [torch.autograd.grad(out.plan.square().sum(), cost)[0] for out in (got, want)]
    assert apart(*grads) < 1e-5
    monkeypatch.setenv('OTSEG_SOLVER', 'log' if solver != 'log' else 'newton')
    assert torch.equal(sinkhorn(cost, method=solver).n_iter, want.n_iter)


def test_the_model_under_the_variable(monkeypatch):
    "A loose tolerance tells the solvers apart"
    model, image, text = make(tol=.1, decoder_layers=1).eval(), pictures(2), prompts()
    with torch.no_grad():
        plain = model(image, text).score_map
        monkeypatch.setenv('OTSEG_SOLVER', 'log')
        out, want = (f(image, text).score_map for f in (torch.compile(model, fullgraph=True, backend='aot_eager'), model))
    assert apart(out, want) < 1e-5 < 1e-3 < apart(plain, want)


def test_a_wrong_variable_is_told_when_compiling(monkeypatch):
    monkeypatch.setenv('OTSEG_SOLVER', 'newtn')
    with pytest.raises(Exception, match='unknown solver in OTSEG_SOLVER'):
        torch.compile(lambda c: sinkhorn(c).plan, fullgraph=True, backend='aot_eager')(torch.rand(1, 9, 3))


def test_a_tolerance_has_to_ask():
    "The operator hides its questions from this mode, the unrolled loop does not"
    with Questions() as q:
        sinkhorn(1 - spread_scores(3, 50, 6), tol=1e-5, grad='unrolled')
    assert q.asked


def test_nor_does_the_model():
    for attention in ('mpsa', 'softmax'):
        model, image, text = make(tol=None, max_iter=20, attention=attention).eval(), pictures(1), prompts()
        with Questions() as q, torch.no_grad():
            model(image, text)
        assert q.asked == [], attention


@pytest.mark.gpu
def test_cuda_graph():
    model, image, text = make('cuda', tol=None, max_iter=20).eval(), pictures(1, device='cuda'), prompts(device='cuda')
    with torch.no_grad():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                model(image, text)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = model(image, text).score_map
        image.copy_(pictures(1, seed=9, device='cuda'))
        graph.replay()
        assert apart(out, model(image, text).score_map) < 1e-5


@pytest.mark.slow
def test_inductor():
    "Needs a C++ compiler"
    model, image, text = make().eval(), pictures(1), prompts()
    with torch.no_grad():
        assert apart(torch.compile(model, fullgraph=True)(image, text).mask_logits(), model(image, text).mask_logits()) < 1e-4
