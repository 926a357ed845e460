"""Whether tensors meet on one device: shown without a GPU, by tensors that have a device, a shape and a type, but no data.

They complain where an operation mixes devices, as a GPU would. A stand-in answers what is asked of values, so that code whose
way depends on them runs too. What has a gradient runs on torch's `lazy` device: for CUDA, the autograd engine asks the driver."""
import os
from contextlib import nullcontext
from unittest.mock import patch

import pytest
import torch

import otseg.transport.entropic as room
from given.fakes import GPU, OTHER, Fakes, autocast_for_all, fakes_only, moved
from given.models import TINY, make
from otseg.core import InputError, best_device, environment
from otseg.evaluate.windows import count_pixels, predict_windows
from otseg.train.processes import get_accelerator
from otseg.model.losses import otseg_loss
from otseg.evaluate.metrics import ConfusionMatrix, prompt_diversity
from otseg.model.otseg import head_with
from otseg.transport.mpsa import MPSA, CrossAttention, mps
from otseg.predict.segmenter import Segmenter
from otseg.transport.entropic import sinkhorn
from otseg.model.dense import TrainingFree
from otseg.model.vocab import load_vocab

pytestmark = [pytest.mark.filterwarnings('ignore:.*meaningless.*'), pytest.mark.filterwarnings('ignore:.*CUDA is not available'),
              pytest.mark.filterwarnings('ignore:.*transport problems')]
MIXED = '(?i)devices'  # the word in what torch says of two of them


@pytest.fixture(autouse=True)
def autocast_off(monkeypatch): autocast_for_all(monkeypatch)


def places(values):
    "Kinds of device of the tensors among some values"
    return {v.device.type for v in values if isinstance(v, torch.Tensor)}


def open_solver():
    "The solvers themselves, instead of one operation that stands for them"
    return patch.object(room, '_transport', room._solve)


@fakes_only
@pytest.mark.parametrize('inside', [False, True])
@pytest.mark.parametrize('method', ['auto', 'newton', 'scaling', 'log'])
def test_sinkhorn(method, inside):
    for options in (dict(tol=1e-5), dict(tol=1e-5, bound=2.), dict(tol=None, max_iter=5), dict(tol=None, max_iter=5, bound=2.)):
        with Fakes(), open_solver() if inside else nullcontext():
            cost = torch.empty(3, 30, 5, device=GPU)
            for a, b in ((None, None), (torch.empty(30), torch.empty(3, 5)), (torch.empty(3, 30, device=GPU), None)):
                assert places(sinkhorn(cost, a=a, b=b, method=method, **options)) == {GPU}


@fakes_only
def test_both_ways_of_newton():
    "Steps and all, which a tolerance that is met at once does not reach"
    with Fakes():
        cost, a, b = (torch.empty(s, device=GPU) for s in ((3, 30, 5), (1, 30), (1, 5)))
        for solve in (room._solve_near, room._solve_far): assert places(solve(cost, a, b, .05, 5, None)) == {GPU}


@fakes_only
@pytest.mark.parametrize('fault', ['masses', 'level'])
def test_a_planted_fault_is_seen(fault):
    "Masses that stay where they are, and a number kept on the CPU"
    plain = room.row_error
    faults = dict(masses=patch.object(room, '_marginal', lambda w, *_: w[None]),
                  level=patch.object(room, 'row_error', lambda plan, a: plain(plan, torch.ones(1, 30))))
    with Fakes(), faults[fault], pytest.raises(Exception, match=MIXED):
        sinkhorn(torch.empty(3, 30, 5, device=GPU), a=torch.empty(30), b=torch.empty(5), tol=None, max_iter=5)


@fakes_only
@pytest.mark.parametrize('kind', [MPSA, CrossAttention])
def test_attention(kind):
    with Fakes(), torch.no_grad():
        layer = moved(kind(16))
        text, memory = torch.empty(2, 3, 4, 16, device=GPU), torch.empty(2, 20, 16, device=GPU)
        assert places(layer(text, memory)) == {GPU} and mps(torch.empty(2, 3, 20, 4, device=GPU)).device.type == GPU
        with pytest.raises(InputError, match='on one device, got cpu and cuda'): layer(text.cpu(), memory)


KINDS = {'to a tolerance': dict(), 'fixed': dict(tol=None, max_iter=5), 'newton': dict(tol=None, max_iter=3, solver='newton'),
         'log': dict(solver='log'), 'softmax': dict(attention='softmax'), 'dot': dict(attention='dot')}


@fakes_only
@pytest.mark.parametrize('kind', [pytest.param(k, marks=pytest.mark.slow) if k == 'log' else k for k in KINDS])
def test_model(kind):
    model = make(**KINDS[kind])
    with Fakes(), open_solver(), torch.no_grad():
        model = moved(model)
        image, text = torch.empty(2, 3, 44, 40, device=GPU), torch.empty(4, 6, 32, device=GPU)
        for out in (model.train()(image, text), model.eval()(image, text, class_chunk=3)):
            assert places([out.decoder_map, out.score_map, out.score_prompt_maps, *out.decoder_prompt_maps]) == {GPU}
            assert places([out.decoder_logits, out.mask_logits(), out.mask_probs(seen=[0, 2])]) == {GPU}
        assert places([model(image, text, maps=False).mask_logits(classes=[0, 1])]) == {GPU}
        assert places(otseg_loss(out, torch.empty(2, 44, 40, dtype=torch.long, device=GPU)).values()) == {GPU}


@fakes_only
def test_head_with_another_solver():
    model = make()
    with Fakes(), torch.no_grad():
        head = head_with(moved(model), solver='log', eps=.1)
        out = head(torch.empty(1, 32, 5, 6, device=GPU), torch.empty(1, 32, device=GPU), torch.empty(4, 6, 32, device=GPU))
    assert places([out.decoder_map, out.score_map]) == {GPU}
    assert head.config.solver == head.decoder.last.solving['method'] == 'log'


@fakes_only
@pytest.mark.parametrize('kind', KINDS)
def test_training_step(kind):
    model = make(**KINDS[kind])
    with Fakes():
        model = moved(model, OTHER).train()
        out = model(torch.empty(2, 3, 48, 40, device=OTHER), torch.empty(4, 6, 32, device=OTHER), maps=False)
        labels = torch.empty(2, 48, 40, dtype=torch.long, device=OTHER)
        terms = otseg_loss(out, labels)
        assert places(terms.values()) == {OTHER}
        terms['loss'].backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        assert places([p.grad for p in trained]) == {OTHER} and all(p.grad is not None for p in trained)
        torch.optim.AdamW(model.parameter_groups(1e-3)).step()


@fakes_only
@pytest.mark.parametrize('options', [dict(tol=1e-5), dict(tol=None, max_iter=5), dict(tol=1e-5, grad='unrolled', max_iter=5)])
def test_gradient_of_sinkhorn(options):
    "Of costs and masses, from plan and potentials"
    with Fakes():
        cost, a, b = (torch.empty(s, device=OTHER, requires_grad=True) for s in ((3, 30, 5), (3, 30), (5,)))
        out = sinkhorn(cost, a=a, b=b, **options)
        (out.plan.sum() + out.f.sum() + out.g.sum()).backward()
        assert places([cost.grad, a.grad, b.grad]) == {OTHER}


@fakes_only
@pytest.mark.parametrize('device', ['cpu', GPU])
def test_counting(device):
    "Counts that began on the CPU move to the predictions"
    with Fakes():
        labels = torch.empty(2, 8, 9, dtype=torch.uint8, device=device)
        counts = ConfusionMatrix(4).update(torch.empty(2, 8, 9, dtype=torch.long, device=device), labels)
        sums = ConfusionMatrix(4) + counts, counts + ConfusionMatrix(4)
        assert places([counts.counts, *(s.counts for s in sums)]) <= {device, 'cpu'}
        assert places([counts.counts, (counts + ConfusionMatrix(4)).counts]) == {device}
        assert places([(ConfusionMatrix(4) + counts).counts]) == {'cpu'}


@fakes_only
def test_windows():
    model = make()
    with Fakes(), torch.no_grad():
        out = predict_windows(moved(model).eval(), torch.empty(1, 3, 64, 56, device=GPU), torch.empty(4, 6, 32, device=GPU),
                              window=48, stride=32)
        assert places([out.mask_probs(.5), out.labels(blend=.5)]) == {GPU}


@fakes_only
@pytest.mark.skipif(GPU == OTHER, reason=f'torch {torch.__version__} takes `lazy` and `lazy:0` for two devices')
def test_evaluation():
    "A loader gives CPU tensors, the model is elsewhere; so are the counts in the end"
    vocab, model = load_vocab('toy'), make()
    with Fakes():
        text = torch.empty(len(vocab), 6, 32)
        batch = dict(image=torch.empty(1, 3, 48, 56), labels=torch.empty(1, 48, 56, dtype=torch.uint8))
        found = count_pixels(moved(model), [batch], text, vocab, [(.5, .1), (1., 0.)], window=48, stride=32)
        assert places([c.counts for c in found.values()]) == {GPU}


@fakes_only
def test_clip_alone():
    model = TrainingFree(TINY, 'random').eval()
    with Fakes(), torch.no_grad():
        out = moved(model)(torch.empty(1, 3, 64, 56, device=GPU), torch.empty(4, 6, 32, device=GPU))
        assert places([out.score_map, out.mask_logits(), out.mask_probs(seen=[1])]) == {GPU}


@fakes_only
def test_diversity_of_prompt_maps():
    with Fakes():
        found = prompt_diversity(torch.empty(3, 6, 8, 9, device=GPU))
        assert found is not None


def test_the_variable_decides(monkeypatch):
    "For everything that takes a default device; an argument wins"
    segmenter = Segmenter.from_pretrained('toy', device='cpu')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device=None: f'GPU {torch.device(device).index}')
    monkeypatch.delenv('OTSEG_DEVICE', raising=False)
    assert str(best_device()) == 'cuda'
    monkeypatch.setenv('OTSEG_DEVICE', 'cuda:1')
    assert environment()['device'] == 'GPU 1'
    monkeypatch.setenv('OTSEG_DEVICE', 'cpu')
    assert environment()['device'] == 'CPU' and Segmenter(segmenter.model).device.type == 'cpu'
    monkeypatch.setenv('OTSEG_DEVICE', 'cuda:2')
    with pytest.raises(InputError, match="OTSEG_DEVICE should be .* got 'cuda:2'. torch sees 2 GPUs"): Segmenter(segmenter.model)
    assert Segmenter(segmenter.model, device='cpu').device.type == 'cpu'


@pytest.mark.parametrize('processes, gpus, name, cpu', [(1, 1, None, False), (1, 1, 'cpu', True), (2, 1, 'cpu', True),
                                                        (2, 1, None, False), (2, 0, None, True), (1, 0, None, False)])
def test_accelerate_follows(monkeypatch, processes, gpus, name, cpu):
    import otseg.train.processes as launch
    asked = {}

    def accelerator(**options):
        asked.update(options)
        return type('Stub', (), dict(num_processes=processes))()
    monkeypatch.setattr(launch, 'Accelerator', accelerator)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: gpus)
    monkeypatch.setenv('WORLD_SIZE', str(processes))
    monkeypatch.delenv('OTSEG_DEVICE', raising=False)
    if name: monkeypatch.setenv('OTSEG_DEVICE', name)
    get_accelerator()
    assert asked['cpu'] == cpu


def test_accelerate_takes_the_gpu_that_is_named(monkeypatch):
    import otseg.train.processes as launch
    taken = []
    monkeypatch.setattr(launch, 'Accelerator', lambda **_: type('Stub', (), dict(num_processes=1))())
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'set_device', taken.append)
    monkeypatch.setenv('OTSEG_DEVICE', 'cuda:1')
    monkeypatch.delenv('WORLD_SIZE', raising=False)
    get_accelerator()
    assert taken == [torch.device('cuda:1')]


def test_a_process_under_the_variable(folder):
    "A wrong name is one line of a command, whatever machine it runs on"
    import subprocess
    import sys
    env = dict(os.environ, OTSEG_DEVICE='gpu')
    code = 'from otseg.commands.use import demo; import sys; sys.argv[1:] = ["--scenes", "8"]; demo()'
    run = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True, encoding='utf-8')
    assert run.returncode == 2 and "error: OTSEG_DEVICE should be" in run.stderr and 'Traceback' not in run.stderr
