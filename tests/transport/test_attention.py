"A new attention is one class and one line: whoever makes, shows or measures maps asks the class and knows no names"
import ast

import pytest
import torch
import torch.nn.functional as F

from conftest import ROOT
from given.models import make, outputs, pictures, prompts, step
from otseg.core import InputError
from otseg.explore.explorer import explore
from otseg.explore.probe import Probe
from otseg.model.checkpoint import load_checkpoint, save_checkpoint
from otseg.model.otseg import head_with
from otseg.model.config import OTSegConfig
from otseg.model.vocab import load_vocab
from otseg.predict.segmenter import Segmenter
from otseg.study.bench import QUICK, Bench, attention_cases, run_bench
from otseg.transport.mpsa import ATTENTIONS, MPSA, Attention

pytestmark = [pytest.mark.filterwarnings('ignore:.*meaningless.*'),
              pytest.mark.filterwarnings('ignore:.*transport problems')]
LIB = ROOT/'otseg'


class TopOne(Attention):
    "Each token listens to the prompt that fits it best"
    label = 'best prompt'

    @staticmethod
    def plan(scores, eps, **solving): return F.one_hot(scores.argmax(-1), scores.shape[-1]).to(scores) / scores.shape[-2]


class Even(Attention):
    "Equal shares, in the values too"
    @staticmethod
    def plan(scores, eps, **solving): return None


class Scaled(MPSA):
    "Transport with a parameter of its own"
    def __init__(self, dim, **kwargs):
        super().__init__(dim, **kwargs)
        self.strength = torch.nn.Parameter(torch.ones(()))

    def maps(self, scores, weights): return super().maps(scores, weights) * self.strength


MORE = dict(top1=TopOne, even=Even, scaled=Scaled)
ALL = [*ATTENTIONS, *MORE]


@pytest.fixture
def more(monkeypatch):
    "The registry with three lines more"
    for name, kind in MORE.items(): monkeypatch.setitem(ATTENTIONS, name, kind)


@pytest.fixture(scope='module')
def segmenter():
    return Segmenter.from_pretrained('toy', device='cpu')


def alone(maps, dim):
    "At most one text prompt has a share in each token"
    return bool(((maps != 0).sum(dim) <= 1).all())


# model

@pytest.mark.parametrize('name', ALL)
def test_it_trains_by_its_name(more, name):
    model = make(attention=name, dropout=0.).train()
    optimizer = torch.optim.SGD(model.parameter_groups(.01))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    _, loss = step(model)
    assert loss.isfinite() and all(p.grad is not None for p in model.parameters() if p.requires_grad)
    optimizer.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert any(n.startswith('head.decoder.last.') for n in moved) and 'head.descriptor.linear.weight' in moved
    assert name != 'scaled' or 'head.decoder.last.strength' in moved


def test_its_maps_are_those_of_every_path(more):
    model, image, text = make(attention='top1').eval(), pictures(2), prompts()
    with torch.no_grad():
        out, plain = model(image, text), head_with(model, attention='softmax')(*model.image_encoder(image), text)
        for maps in (out.score_prompt_maps, *out.decoder_prompt_maps): assert alone(maps, 2) and maps.any()
        assert not alone(plain.score_prompt_maps, 2)
        n = text.shape[1]                          # its only prompt has the whole token, so n times what an equal share is
        best = plain.score_prompt_maps.amax(2)
        torch.testing.assert_close(out.score_prompt_maps.sum(2), n * best, rtol=1e-5, atol=1e-5)
        assert not torch.equal(out.score_map, plain.score_map)


def test_equal_shares_need_no_plan(more):
    "As the softmax twin, whose score map they share; the values of the layers differ"
    model, image, text = make(attention='even').eval(), pictures(2), prompts()
    with torch.no_grad():
        out, twin = model(image, text), head_with(model, attention='softmax')(*model.image_encoder(image), text)
    assert torch.equal(out.score_prompt_maps, twin.score_prompt_maps)
    torch.testing.assert_close(out.decoder_prompt_maps[0], twin.decoder_prompt_maps[0])
    assert not torch.equal(out.decoder_prompt_maps[1], twin.decoder_prompt_maps[1])


@pytest.mark.parametrize('name', ALL)
def test_it_is_stored_and_found_again(more, folder, name):
    model = make(attention=name).eval()
    save_checkpoint(model, folder/'new', vocab=load_vocab('toy'))
    again = load_checkpoint(folder/'new').model.eval()
    assert type(again.head.decoder.last) is ATTENTIONS[name]
    with torch.no_grad():
        a, b = outputs(model(pictures(1), prompts())), outputs(again(pictures(1), prompts()))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_what_is_not_registered_is_told():
    with pytest.raises(InputError, match="unknown attention 'sotfmax'. Did you mean 'softmax'"):
        OTSegConfig(attention='sotfmax')
    with pytest.raises(InputError, match="unknown attention 'top1'"): make(attention='top1')


def test_weights_of_others_do_for_the_same_parameters_only(more):
    model = make()
    assert type(head_with(model, attention='top1').decoder.last) is TopOne
    with pytest.raises(InputError, match="attention 'scaled' should have the parameters of this model, got .*strength"):
        head_with(model, attention='scaled')


# probe and explorer

def test_probe_shows_it(more, segmenter):
    from otseg.data.toy import ToyScenes
    probe = Probe(segmenter, ToyScenes('val', 1)[0].image)
    found = probe.paths('sky', attention='top1')
    assert list(found) == probe.path_names
    for maps in found.values():
        assert alone(maps.plan, 0) and alone(maps.summands, 0)
        n = len(maps.plan)                                   # 1 = the even plan, so all of a token is n
        torch.testing.assert_close(maps.plan.sum(0), torch.full(probe.grid, float(n)))
        torch.testing.assert_close(maps.plan.argmax(0), maps.scores.argmax(0))


def test_explorer_lists_the_registry(more, segmenter):
    handle = explore(segmenter).handles.attention
    assert [v for _, v in handle.options] == ALL
    assert {v: k for k, v in handle.options}.items() >= {
        'mpsa': 'Sinkhorn (transport)', 'softmax': 'softmax (no transport)', 'dot': 'softmax of dot products (no transport)',
        'top1': 'best prompt (no transport)', 'even': 'Even (no transport)', 'scaled': 'Scaled (transport)'}.items()
    assert handle.value == 'mpsa'


def test_explorer_shows_it(more, segmenter):
    e = explore(segmenter)
    before = [c.children[1].value for c in e.back.children]
    e.handles.attention.value, e.handles.iterations.value = 'top1', '2'
    assert e.options == dict(attention='top1', eps=e.handles.eps.value)            # iterations are for those that transport
    assert [c.children[1].value for c in e.back.children] != before and '#B00020' not in e.message.value
    assert any('best prompt, eps 0.05' in t.get_text() for t in texts(e.figure('score map')))
    e.handles.attention.value = 'mpsa'
    assert e.options['max_iter'] == 2
    assert any('Sinkhorn, 2 iterations, eps 0.05' in t.get_text() for t in texts(e.figure('score map')))
    e.handles.attention.value = 'scaled'
    assert 'should have the parameters of this model' in e.message.value


def texts(fig):
    import matplotlib.text
    return fig.findobj(matplotlib.text.Text)


# bench

@pytest.mark.slow
def test_bench_gains_the_case(more):
    rows = run_bench(Bench(threads=(1,), **QUICK), ['head', 'model', 'training'])['rows']
    for question in {r['question'] for r in rows}:
        cases = {r['case']: r for r in rows if r['question'] == question}
        assert cases.keys() == {'textbook loop', *attention_cases()} and MORE.keys() < cases.keys(), question
        assert {c for c, a in attention_cases().items() if ATTENTIONS[a].transports} >= {'otseg', 'scaled'}
        for case, attention in attention_cases().items():
            assert ('n_iter' in cases[case]) == ATTENTIONS[attention].transports, (question, case)
        assert cases['top1']['ms'] > 0 and cases['top1']['base'] == cases['otseg']['base']


# nobody knows names

def compared(source: str, name='mpsa') -> list[int]:
    "Lines that compare something with a name, alone or in a list of names"
    def says(node): return any(isinstance(n, ast.Constant) and n.value == name for n in ast.walk(node))
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare) and any(map(says, (node.left, *node.comparators))): found.append(node.lineno)
        elif isinstance(node, ast.match_case) and says(node.pattern): found.append(node.pattern.lineno)
        elif isinstance(node, ast.Call) and getattr(node.func, 'attr', '') in ('startswith', 'endswith', '__eq__', '__ne__'):
            if any(map(says, node.args)): found.append(node.lineno)
    return found


@pytest.mark.parametrize('source, lines', [
    ("plan = None if c.attention != 'mpsa' else plan", [1]), ("if 'mpsa' == name: pass", [1]),
    ("x = 1\nx = a in ('mpsa', 'dot')", [2]),
    ("match a:\n    case 'mpsa' | 'dot': pass", [2]), ("a.startswith('mpsa')", [1]),
    ("f'{a if h.value == \"mpsa\" else b}'", [1]),
    ("variants = {'mpsa': dict(attention='mpsa')}", []), ("def f(attention='mpsa'): pass", []), ("a == 'mpsa-six'", [])])
def test_a_comparison_is_found(source, lines): assert compared(source) == lines


@pytest.mark.parametrize('name', ['mpsa', 'softmax'])
def test_no_module_compares_with_a_name(name):
    files = [p for p in LIB.rglob('*.py') if p.relative_to(LIB).as_posix() != 'transport/mpsa.py']
    assert LIB/'model/otseg.py' in files and LIB/'explore/explorer.py' in files
    found = {p.relative_to(LIB).as_posix(): lines for p in files if (lines := compared(p.read_text(encoding='utf-8'), name))}
    assert found == {}, 'ask the class: otseg.transport.mpsa.get_attention'


def test_a_label_is_not_inherited():
    "Or two attentions would have one name in menus"
    assert (Scaled.label, Scaled.transports, MPSA.label) == ('Scaled', True, 'Sinkhorn')
    assert len({k.label for k in ATTENTIONS.values()}) == len(ATTENTIONS)
