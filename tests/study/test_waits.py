"""How often the host would wait for a GPU: counted over tensors that have a device and no data

A copy between devices that may go on behind the host's back is none; `tolist` is one, however long the list."""
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch

import otseg.study.measure
import otseg.transport.entropic as room
import otseg.transport.solvers as solvers
from given.fakes import GPU, OTHER, FakeTensorMode, Fakes, autocast_for_all, fakes_only, moved
from given.models import TINY, make
from otseg.evaluate.windows import predict_windows
from otseg.model.dense import TrainingFree
from otseg.model.losses import count_masks, otseg_loss, pseudo_labels
from otseg.model.vocab import Vocab
from otseg.study.measure import host_waits, launches, memory_bytes
from otseg.train import step as step_room
from otseg.train.recipes import get_recipe

pytestmark = [fakes_only, pytest.mark.filterwarnings('ignore:.*meaningless.*'),
              pytest.mark.filterwarnings('ignore:.*transport problems'),
              pytest.mark.filterwarnings('ignore:.*CUDA is not available')]
FIXED = {'auto': dict(tol=None, max_iter=5), 'newton': dict(tol=None, max_iter=3, solver='newton'),
         'scaling': dict(tol=None, max_iter=5, solver='scaling'), 'log': dict(tol=None, max_iter=5, solver='log'),
         'softmax': dict(attention='softmax'), 'dot': dict(attention='dot')}
VOCAB = Vocab('four', ('a', 'b', 'c', 'd'), (3,))


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch):
    "Autocast, which knows no `lazy` device, is off there; a list is read in one piece"
    autocast_for_all(monkeypatch)
    if FakeTensorMode is not object:
        from torch._subclasses.fake_tensor import FakeTensor
        monkeypatch.setattr(FakeTensor, 'tolist', lambda self: [1.] * self.cpu().numel())


def waits(fn, device=GPU): return host_waits(fn, device)


def forward(model, text):
    "All that a forward pass is used for, losses included"
    def run():
        out = model(torch.empty(2, 3, 44, 40, device=GPU), text)
        labels = torch.empty(2, 44, 40, dtype=torch.long, device=GPU)
        out.mask_logits(), out.mask_probs(seen=[0, 2]), pseudo_labels(out, labels, [0, 1]), count_masks(labels, len(text))
        for negatives in (True, False): otseg_loss(out, labels, ignored_as_negatives=negatives)
    return run


@pytest.mark.parametrize('kind', FIXED)
def test_a_forward_pass_of_fixed_length_waits_for_nothing(kind):
    model = make(**FIXED[kind])
    with Fakes(), torch.no_grad():
        text = torch.empty(4, 6, 32, device=GPU)
        assert waits(forward(moved(model).train(), text)) == {} == waits(forward(model.eval(), text))
        assert waits(lambda: model(torch.empty(2, 3, 44, 40, device=GPU), text, class_chunk=3)) == {}


def test_to_a_tolerance_the_solver_alone_waits(monkeypatch):
    "Nothing but the solver, which is left out: where every truth is true, it would never end"
    model = make()
    def solved(cost, a, b, *how):
        k, m, n = cost.shape
        return cost.new_empty(k, n, m), cost.new_empty(k, m), cost.new_empty(k, n), cost.new_empty(k), torch.ones(k)
    monkeypatch.setattr(otseg.study.measure, '_transported', solved)
    with Fakes(), torch.no_grad():
        found = waits(forward(moved(model).eval(), torch.empty(4, 6, 32, device=GPU)))
    assert found == {}


def test_windows_wait_for_nothing():
    model = make(**FIXED['auto'])
    with Fakes(), torch.no_grad():
        model, text = moved(model).eval(), torch.empty(4, 6, 32, device=GPU)
        run = lambda: predict_windows(model, torch.empty(1, 3, 64, 56, device=GPU), text, window=48, stride=32).labels(seen=[1])
        assert waits(run) == {}


def test_clip_alone_waits_for_nothing():
    model = TrainingFree(TINY, 'random').eval()
    with Fakes(), torch.no_grad():
        model, text = moved(model), torch.empty(4, 6, 32, device=GPU)
        assert waits(lambda: model(torch.empty(1, 3, 64, 56, device=GPU), text).mask_probs(seen=[1])) == {}


def step_waits(setting='inductive', precision='no', batches=1, clip=1., **config):
    "Of one training step, whose batches come from the CPU"
    device = torch.device(OTHER, 0)
    def clipped(parameters, limit): return torch.nn.utils.clip_grad_norm_(list(parameters), limit)
    accelerator = SimpleNamespace(
        device=device, num_processes=1, process_index=0, autocast=nullcontext, no_sync=lambda model: nullcontext(),
        backward=lambda loss: loss.backward(), reduce=lambda x, how: x.clone(), unscale_gradients=lambda optimizer: None,
        clip_grad_norm_=clipped)
    recipe = replace(get_recipe('toy'), setting=setting, precision=precision, clip_norm=clip, accumulate=batches)
    model = make(**config)
    with Fakes():
        model = moved(model, device).train()
        optimizer = torch.optim.AdamW(model.parameter_groups(1e-3))
        image, labels = torch.empty(2, 3, 48, 40), torch.empty(2, 48, 40, dtype=torch.uint8)
        share = [dict(image=image, labels=labels, key=['a', 'b'])] * batches
        text = torch.empty(len(recipe.train_classes(VOCAB)), 6, 32, device=device)
        return waits(lambda: step_room.train_step(accelerator, model, optimizer, share, text, recipe, VOCAB, 0), OTHER)


@pytest.mark.parametrize('kind', FIXED)
def test_a_training_step_waits_once(kind):
    found = step_waits(**FIXED[kind])
    assert list(found.values()) == [1] and all('in train.step' in what for what in found), found


@pytest.mark.parametrize('options', [dict(setting='supervised'), dict(setting='transductive'), dict(batches=3), dict(clip=None),
                                     dict(precision='bf16')], ids=str)
def test_however_it_is_trained(options):
    found = step_waits(**options, **FIXED['auto'])
    assert sum(found.values()) == 1, found


def test_a_planted_wait_is_seen():
    "In the loop over micro-batches"
    plain = step_room.count_masks
    with patch.object(step_room, 'count_masks', lambda labels, k: torch.tensor(plain(labels, k).item(), device=labels.device)):
        assert sum(step_waits(batches=2, **FIXED['softmax']).values()) >= 3


@pytest.mark.parametrize('size', [(1, 96, 96), (4, 256, 256)])
def test_counting_masks_makes_none(size):
    "156 classes would be 156 bytes a pixel; the marks are 8"
    labels = torch.randint(0, 256, size, dtype=torch.uint8)
    peak, _ = memory_bytes(lambda: count_masks(labels, 156))
    assert peak <= 9 * labels.numel() + 4096
    assert count_masks(labels, 156) == sum(len({*p.flatten().tolist()} & {*range(156)}) for p in labels)


def test_launches_do_not_depend_on_classes_or_pixels():
    "Per class or per pixel nothing is launched"
    model = make(**FIXED['auto']).eval()
    def sent(k, size):
        with Fakes(), torch.no_grad():
            there, text = moved(model), torch.empty(k, 6, 32, device=GPU)
            return launches(lambda: there(torch.empty(2, 3, *size, device=GPU), text, maps=False).mask_logits(), GPU)
    assert sent(4, (48, 40)) == sent(40, (64, 96)) and sum(sent(4, (48, 40)).values()) < 1000


def test_the_solver_is_looked_into(monkeypatch):
    cost = torch.rand(3, 50, 5)
    for place in room, solvers: monkeypatch.setattr(place, '_at_hand', lambda device: False)  # as on a GPU
    found = launches(lambda: room.sinkhorn(cost))
    assert found['transport.solvers'] > 10 and sum(host_waits(lambda: room.sinkhorn(cost)).values()) >= 1
