"The model in every number format and on every device, alone and among others; what trains and what is stored"
import json
import os
import re
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from given.models import DEVICES, TINY, WORDS, apart, gradients, make, outputs, pictures, prompts, step, trained
from otseg.model.checkpoint import save_checkpoint
from otseg.model.otseg import OTSeg
from otseg.model.config import OTSegConfig
from otseg.transport.entropic import sinkhorn

pytestmark = [pytest.mark.filterwarnings('ignore:.*meaningless.*'),
              pytest.mark.filterwarnings('ignore:.*transport problems')]


@pytest.fixture(autouse=True)
def plain_float32():
    "No TF32 on the GPU"
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [b.allow_tf32 for b in backends]
    for b in backends: b.allow_tf32 = False
    yield
    for b, value in zip(backends, before): b.allow_tf32 = value


# number formats

@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('attention', ['mpsa', 'softmax'])
def test_float64_agrees_with_float32(device, attention):
    """1e-5 of the largest value: float32 rounds at 6e-8, and `eps` = 0.05 makes a plan 20 times as sensitive as its cosines
    (1e-6 is measured). With `tol=None` both do the same number of iterations"""
    runs = {}
    for dtype in (torch.float32, torch.float64):
        model = make(device, attention=attention, tol=None, max_iter=300, dropout=0.).to(dtype).train()
        out, loss = step(model)
        assert all(v.dtype == dtype for v in outputs(out).values())
        runs[dtype] = {k: v.detach() for k, v in outputs(out).items()}, float(loss.detach()), gradients(model)
    (a, la, ga), (b, lb, gb) = runs.values()
    assert all(apart(a[k], b[k]) < 1e-5 for k in a), {k: apart(a[k], b[k]) for k in a}
    assert abs(la / lb - 1) < 1e-6 and apart(ga, gb) < 1e-5, apart(ga, gb)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_every_plan_has_the_format_of_the_model(monkeypatch, dtype):
    "Nothing of a float64 model passes through float32 on the way: neither costs nor plans"
    import otseg.transport.mpsa
    seen = []

    def spy(cost, *args, **kwargs):
        out = sinkhorn(cost, *args, **kwargs)
        seen.extend((cost.dtype, out.plan.dtype, out.err.dtype))
        return out
    monkeypatch.setattr(otseg.transport.mpsa, 'sinkhorn', spy)
    step(make().to(dtype))
    assert len(seen) == 3 * 4 and set(seen) == {dtype}     # the score map and three decoder layers


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('attention', ['mpsa', 'softmax'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, pytest.param(torch.float16, marks=pytest.mark.gpu)])
def test_autocast(device, attention, dtype):
    """bfloat16 keeps 8 bits, so each product is off by up to 0.4 %, and `eps` = 0.05 makes a plan 20 times as sensitive as
    its cosines. Measured: logits within 1.4 % of the largest, probabilities 0.005, loss 0.25 %, gradients at a cosine of
    0.99999; the bounds leave a factor of about four"""
    if dtype == torch.float16 and device == 'cpu': pytest.skip('float16 is for the GPU')
    model = make(device, attention=attention, dropout=0.).train()
    out, loss = step(model)
    loss = loss.detach()
    exact, grads = {k: v.detach() for k, v in outputs(out).items()}, gradients(model)
    out, low = step(model, autocast=dtype)
    got, low, low_grads = {k: v.detach() for k, v in outputs(out).items()}, low.detach(), gradients(model)
    assert all(v.isfinite().all() for v in got.values()) and low.isfinite() and low_grads.isfinite().all()
    assert loss.dtype == low.dtype == torch.float32              # the losses are computed in float32 in both
    assert apart(got['decoder'], exact['decoder']) < .06 and apart(got['score'], exact['score']) < .06
    assert float((got['blend'] - exact['blend']).abs().max()) < .02
    assert abs(float(low) / float(loss) - 1) < .01
    assert float(F.cosine_similarity(low_grads, grads, dim=0)) > .9995
    assert not torch.equal(got['score'], exact['score'])         # autocast did something


@pytest.mark.parametrize('device', DEVICES)
def test_sinkhorn_is_float32_inside_autocast(device):
    "Also where the costs come in half precision: the plan is that of the same costs in float32, bit by bit"
    cost = torch.rand(3, 40, 5, generator=torch.Generator().manual_seed(0)).to(device)
    for low in (torch.bfloat16, torch.float16):
        with torch.autocast(device, dtype=torch.bfloat16):
            inside, rounded = sinkhorn(cost), sinkhorn(cost.to(low))
        assert inside.plan.dtype == rounded.plan.dtype == torch.float32
        assert torch.equal(inside.plan, sinkhorn(cost).plan)
        assert torch.equal(rounded.plan, sinkhorn(cost.to(low).float()).plan)
        assert (inside.plan.sum(1) * 5 - 1).abs().max() < 1e-5 and (inside.plan.sum(2) - 1/40).abs().sum(-1).max() < 2e-5
    model = make(device)
    with torch.autocast(device, dtype=torch.bfloat16):
        out = model.eval()(pictures(1, device=device), prompts(device=device))
    assert all(v.dtype == torch.float32 for v in (out.score_prompt_maps, *out.decoder_prompt_maps))


@pytest.mark.gpu
@pytest.mark.parametrize('attention', ['mpsa', 'softmax'])
def test_cuda_agrees_with_cpu(attention):
    runs = []
    for device in ('cpu', 'cuda'):
        model = make('cpu', attention=attention, dropout=0.).to(device).train()
        out, loss = step(model)
        runs.append(({k: v.detach().cpu() for k, v in outputs(out).items()}, float(loss.detach()), gradients(model)))
    (a, la, ga), (b, lb, gb) = runs
    assert all(apart(b[k], a[k]) < 1e-3 for k in a) and abs(lb / la - 1) < 1e-4 and apart(gb, ga) < 1e-2


# alone and among others

SIZES = [(48, 48), (64, 40), (31, 97), (8, 8), (5, 3), (120, 16)]


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('sharp', [False, True])
def test_alone_and_in_a_batch(device, size, sharp):
    "A result belongs to its picture: one alone and one of 8 that need other numbers of iterations differ by rounding only"
    model = make(device, image_size=None, **(dict(eps=.01, max_iter=2000) if sharp else {})).eval()
    batch = pictures(8, size, device=device)
    batch[1] *= 4; batch[2] = 0; batch[3] = batch[0]; batch[5, :, : size[0] // 2] = 3.  # neighbours unlike each other
    text = prompts(spread=3. if sharp else .3, device=device)
    with torch.no_grad():
        together, alone = model(batch, text), [model(x[None], text) for x in batch]
        for blend in (0, .5, 1):
            single = torch.cat([o.mask_probs(blend) for o in alone])
            assert single.shape == (8, 4, *size)
            assert float((together.mask_probs(blend) - single).abs().max()) < 1e-5
        assert float((together.mask_probs()[0] - together.mask_probs()[3]).abs().max()) < 1e-5  # nor on its place


def test_the_batch_needs_unequal_numbers_of_iterations():
    "What the test above rests on: at eps = 0.01 some problems of a batch take more passes than others"
    model, text = make(image_size=None, eps=.01, max_iter=2000).eval(), prompts(spread=3.)
    batch = pictures(8, (64, 40)); batch[1] *= 4; batch[2] = 0
    with torch.no_grad():
        visual, cls = model.image_encoder(batch)
        refined = F.normalize(model.head.descriptor(cls, text), dim=-1)
        scores = torch.einsum('bknd,bmd->bkmn', refined, visual.flatten(2).mT).flatten(0, 1)
        n = sinkhorn(1 - scores, .01, max_iter=2000).n_iter
    assert n.max() > n.min() + 1, n


def test_classes_do_not_depend_on_each_other():
    "A class has its own transport problems and its own mask: adding or reordering classes changes no other's score"
    model, text, image = make().eval(), prompts(5), pictures(2)
    with torch.no_grad():
        whole = model(image, text).mask_probs()
        for order in ([2], [4, 0, 3], [1, 1]):
            assert float((model(image, text[order]).mask_probs() - whole[:, order]).abs().max()) < 1e-5


def test_evaluation_is_deterministic():
    model, text, image = make().eval(), prompts(), pictures(2)
    with torch.no_grad(): assert torch.equal(model(image, text).mask_probs(), model(image, text).mask_probs())


# what trains, what is stored

@pytest.mark.parametrize('config', [dict(), dict(vpt_depth=1), dict(vpt_tokens=0), dict(attention='softmax'),
                                    dict(decoder_layers=1), dict(layer_product=False), dict(init='aligned')], ids=str)
def test_no_parameter_without_gradient(config):
    model = make(**config).train()
    step(model)
    dead = [n for n, p in trained(model).items() if p.grad is None or not (p.grad != 0).any()]
    assert not dead, dead
    frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
    assert frozen and all(n.startswith('image_encoder.clip.') for n in frozen)
    assert all(p.grad is None for n, p in model.named_parameters() if not p.requires_grad)
    groups = model.parameter_groups(1e-3)
    assert sorted(map(id, (p for g in groups for p in g['params']))) == sorted(map(id, trained(model).values()))


@pytest.mark.parametrize('tokens, count', [(10, 8_039_168), (100, 8_868_608)])
def test_parameter_counts(tokens, count):
    "ViT-B/16 of the paper without the 5.78 M parameters of the published head that take part in nothing"
    with torch.device('meta'): model = OTSeg(OTSegConfig(weights='random', vpt_tokens=tokens))
    assert sum(p.numel() for p in trained(model).values()) == count


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_a_checkpoint_holds_what_is_trained(tmp_path, dtype):
    model = make().to(dtype)
    save_checkpoint(model, tmp_path)
    stored = load_file(tmp_path/'model.safetensors')
    assert stored.keys() == trained(model).keys()
    assert all(torch.equal(v, trained(model)[k]) for k, v in stored.items())
    assert sorted(p.name for p in tmp_path.iterdir()) == ['config.json', 'model.safetensors']


def test_training_leaves_clip_alone():
    model = make().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameter_groups(1e-2))
    for _ in range(3): step(model); optimizer.step()
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == set(trained(model)) and not model.image_encoder.clip.training


# several processes

SCRIPT = '''
import sys, json, torch
torch.set_num_threads(1)
from accelerate import Accelerator
from otseg.train.recipes import get_recipe, override
from otseg.train.trainer import fit
recipe = override(get_recipe('folder-inductive'), clip='tiny.json', weights='random', image_size=32, steps=6,
                  batch_size=4, workers=0, warmup_steps=0, lr=3e-3, vpt_tokens=2, dropout=0., accumulate=int(sys.argv[2]))
accelerator = Accelerator(cpu=True)
result = fit(recipe, 'data', sys.argv[1], progress=False, accelerator=accelerator)
if accelerator.is_main_process:
    weights = torch.cat([p.detach().flatten() for p in result.model.parameters() if p.requires_grad])
    print('LOSSES', json.dumps([accelerator.num_processes, result.losses, weights.tolist()]))
'''


@pytest.mark.slow
def test_two_processes_are_one(tmp_path):
    "Two processes on the CPU (gloo), each with half of every batch: the same losses and weights as one"
    from test_cli import NAMES, data_set
    data_set(tmp_path/'data', NAMES, ['dog'], train=10)
    words = sorted({*WORDS, *NAMES})
    tiny = dict(TINY, words=words)
    (tmp_path/'tiny.json').write_text(json.dumps(tiny), encoding='utf-8')
    (tmp_path/'script.py').write_text(SCRIPT, encoding='utf-8')
    env = os.environ | dict(OMP_NUM_THREADS='1', HF_HUB_OFFLINE='1', CUDA_VISIBLE_DEVICES='')

    def run(processes, accumulate, output):
        # `accelerate launch --cpu` starts one process unless there is mpirun; torch's launcher sets the same variables
        several = ['-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', str(processes)]
        command = [sys.executable, *(several if processes > 1 else []), 'script.py', output, str(accumulate)]
        got = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=280, encoding='utf-8')
        assert got.returncode == 0, got.stderr
        n, losses, weights = json.loads(re.search('LOSSES (.*)', got.stdout)[1])
        assert n == processes
        return torch.tensor(losses), torch.tensor(weights), momentum(tmp_path/output)

    def momentum(folder):
        "Mean gradients of the optimiser: AdamW's steps hide their scale"
        state = torch.load(folder/'checkpoints/step_000006/trainer.pt', weights_only=True)['optimizer']['state']
        return torch.cat([state[i]['exp_avg'].flatten() for i in sorted(state)])

    losses, weights, means = run(1, 1, 'one')
    assert losses[-1] < losses[0]
    for processes, accumulate in ((2, 1), (2, 2)):
        other, other_weights, other_means = run(processes, accumulate, f'run{processes}{accumulate}')
        print(f'{processes} processes, {accumulate} accumulated: losses apart by {(other / losses - 1).abs().max():.1e}, '
              f'weights by {(other_weights - weights).abs().max():.1e}, gradients by {apart(other_means, means):.1e}')
        assert (other / losses - 1).abs().max() < 1e-4
        assert (other_weights - weights).abs().max() < 1e-4 and apart(other_means, means) < 1e-3
        folder = tmp_path/f'run{processes}{accumulate}'
        assert json.loads((folder/'environment.json').read_text(encoding='utf-8'))['processes'] == processes
        assert len((folder/'log.csv').read_text(encoding='utf-8').splitlines()) == 7
