"The trainer loses nothing: spread over processes, killed at any moment, given bad files, against a loop written out plainly"
import itertools
import shutil
import signal
import statistics
import time
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from given.training import (
    FSDP, Squares, child, column, equal_runs, killed_at, recipe, same, steps_left, together,
    train, trained, unbroken_run, weights, whole,
)
from otseg.model.clip import encode_vocab
from otseg.model.checkpoint import load_checkpoint
from otseg.core import InputError, read_json
from otseg.data.reading import collate, load_dataset
from otseg.evaluate.windows import evaluate
from otseg.model.otseg import OTSeg
from otseg.train.recipes import VOC, get_recipe, learning_rate, override
from otseg.train.run import newest_checkpoint
from otseg.train.processes import get_accelerator
from otseg.train.step import forward_loss
from otseg.train.trainer import Trainer, fit

pytestmark = [pytest.mark.filterwarnings('ignore:.*meaningless.*')]


# processes of their own


def test_however_it_is_spread(server, tmp_path):
    "One process with batches of 8, two with 4 each, one with 4 twice: the same losses, weights and scores"
    if not torch.distributed.is_gloo_available(): pytest.skip('no gloo')
    r = recipe(steps=6, batch_size=8, dropout=0., eval_every=3)
    losses, final = together(server, 1, r, tmp_path/'one')
    for processes, accumulate in ((2, 1), (1, 2)):
        run = tmp_path/f'{processes}{accumulate}'
        other, other_final = together(server, processes, replace(r, accumulate=accumulate), run)
        apart = float((torch.tensor(other) / torch.tensor(losses) - 1).abs().max())
        far = float((other_final - final).norm() / final.norm())
        print(f'{processes} processes, {accumulate} accumulated: losses apart by {apart:.1e}, weights by {far:.1e}')
        assert apart < 1e-5 and far < 1e-5
        for name in ('hiou', 'miou_seen'):
            assert [float(v) for v in column(run/'scores.csv', name)] == pytest.approx(
                [float(v) for v in column(tmp_path/'one/scores.csv', name)], abs=1e-3)


def test_shards_leave_the_same_run(server, tmp_path):
    "Weights in parts (FSDP) or whole (DDP): the same checkpoints, from which one process can go on, and the other way round"
    if not torch.distributed.is_gloo_available(): pytest.skip('no gloo')
    if not hasattr(torch.cpu.Stream, 'record_event'): pytest.skip('this torch shards on GPUs only')
    r = recipe(steps=6, batch_size=8, accumulate=2, dropout=0., eval_every=3, ema=.9, clip_norm=5.)
    found = {name: together(server, 2, r, tmp_path/name, variables=given) for name, given in (('ddp', {}), ('fsdp', FSDP))}
    assert read_json(tmp_path/'fsdp/environment.json')['sharded'] and not read_json(tmp_path/'ddp/environment.json')['sharded']
    assert found['fsdp'][0] == pytest.approx(found['ddp'][0], rel=1e-5)
    assert [float(v) for v in column(tmp_path/'fsdp/scores.csv', 'hiou')] == pytest.approx(
        [float(v) for v in column(tmp_path/'ddp/scores.csv', 'hiou')], abs=1e-3)
    state = {n: torch.load(tmp_path/n/'checkpoints/step_000003/trainer.pt', weights_only=True) for n in found}
    for a, b in ((weights(tmp_path/n) for n in found), (state[n]["own"] for n in found)):
        assert a.keys() == b.keys() and all(torch.allclose(a[k], b[k], rtol=1e-4, atol=1e-6) for k in a)
    moments = [{(i, k): v for i, of in s['optimizer']['state'].items() for k, v in of.items()} for s in state.values()]
    assert moments[0].keys() == moments[1].keys() and all(v.shape == moments[1][k].shape for k, v in moments[0].items())
    model = load_checkpoint(tmp_path/'fsdp').model  # as one process loads it
    assert same({n: p.detach() for n, p in model.named_parameters() if n in weights(tmp_path/'fsdp')}, weights(tmp_path/'fsdp'))
    for name, given, other, processes in (('fsdp', {}, 'ddp', 1), ('ddp', FSDP, 'fsdp', 2)):
        run = tmp_path/f'{name} resumed'
        shutil.copytree(tmp_path/name, run)
        shutil.rmtree(run/'checkpoints/step_000006')
        losses, _ = together(server, processes, r, run, variables=given, resume=True)
        print(f'{name} resumed as {other}: losses {losses}')
        a, b = weights(run), weights(tmp_path/name)
        assert len(losses) == 3 and all(torch.allclose(a[k], b[k], rtol=1e-4, atol=1e-6) for k in a)


def test_loader_processes_change_nothing():
    "Order and transforms of the pictures come from the seed and the step, whoever reads them"
    first, *others = [fit(recipe(workers=n), dataset=Squares(), progress=False) for n in (0, 1, 2)]
    for other in others: assert other.losses == first.losses and torch.equal(trained(other.model), trained(first.model))


# killed


def test_killed_while_it_writes(server, tmp_path):
    "In the first file, in the first checkpoint, half-way through its tensors, while the best is replaced, while one is removed"
    r, run = recipe(eval_every=2, keep=1), tmp_path/'run'
    unbroken, moments = unbroken_run(server, tmp_path, r)
    plan = {'before the first file': (moments[0], 'before'),
            'between two steps': (('row', 'log.csv 1'), 'before'),
            'in the first best': (('replace', 'checkpoints/.best/model.safetensors'), 'before'),
            'in the first checkpoint': (('replace', 'checkpoints/.step_000003/config.json'), 'before'),
            'half-way through its weights': (('save', 'checkpoints/.step_000003/.model.*.safetensors'), 'half'),
            'half-way through its state': (('save', 'checkpoints/.step_000003/.trainer.*.pt'), 'half'),
            'while the best is replaced: there is none': (('rename', 'checkpoints/.best'), 'before'),
            'before the name of a checkpoint': (('rename', 'checkpoints/.step_000006'), 'before'),
            'before an old one is removed': (('rename', 'checkpoints/step_000003'), 'before'),
            'while an old one is removed': (('rmtree', 'checkpoints/.gone_step_000003'), 'half'),
            'before the list of names is on the disk': (('fsync', 'checkpoints'), 'before'),
            'in the last checkpoint': (('fsync', 'checkpoints/.step_000012/.manifest.*.json'), 'before')}
    absent = [name for name, (moment, _) in plan.items() if moment not in moments]
    assert not absent, (absent, moments)
    for name, how in plan.items(): assert child(server, killed_at, run, r, *how) == -signal.SIGKILL, name
    assert child(server, train, run, r) == 0
    equal_runs(whole(run), whole(unbroken))


def test_damage_falls_back(tmp_path):
    "A bit that flipped in the newest checkpoint: the one before it is used, and the run ends the same"
    r = recipe(steps=6)
    fit(r, output=tmp_path/'run', dataset=Squares(), progress=False)
    final, newest = weights(tmp_path/'run'), tmp_path/'run/checkpoints/step_000006'
    content = bytearray((newest/'model.safetensors').read_bytes())
    content[-1] ^= 4
    (newest/'model.safetensors').write_bytes(content)
    with pytest.warns(UserWarning, match='step_000006 .model.safetensors is not as it was written.; going on from .*step_000003'):
        again = fit(r, output=tmp_path/'run', dataset=Squares(), progress=False, resume=True)
    assert len(again.losses) == 3 and same(weights(tmp_path/'run'), final) and newest_checkpoint(tmp_path/'run') == newest


# guards

def test_a_loss_that_is_not_finite(tmp_path):
    "Its pictures are named, nothing is lost, and the run goes on once they are mended"
    with pytest.raises(InputError, match='loss and gradient should be finite, got nan') as told:
        fit(recipe(), output=tmp_path/'run', dataset=Squares(nan=(5,)), progress=False)
    facts = read_json(tmp_path/'run/nonfinite.json')
    assert '5' in facts['keys'] and len(facts['keys']) == 4 and facts['terms']['loss'] == 'nan'
    assert f'at step {facts["step"]}' in str(told.value) and steps_left(tmp_path/'run')[-1] == facts['step']
    assert all(v.isfinite().all() for v in weights(tmp_path/'run').values())
    fit(recipe(), output=tmp_path/'run', dataset=Squares(), progress=False, resume=True)
    fit(recipe(), output=tmp_path/'clean', dataset=Squares(), progress=False)
    assert same(weights(tmp_path/'run'), weights(tmp_path/'clean'))


def test_faults_in_two_processes(server, tmp_path):
    "Pictures are named whichever process reads them, and those that gave way are the same as in one"
    if not torch.distributed.is_gloo_available(): pytest.skip('no gloo')
    r = recipe(steps=6, batch_size=8, dropout=0., skip_bad=2)
    apart, alone = (together(server, n, r, tmp_path/f'{n}', bad=(3, 7)) for n in (2, 1))
    assert apart[0] == pytest.approx(alone[0], rel=1e-5)
    assert [*map(sorted, map(read_json, (tmp_path/'1/skipped.json', tmp_path/'2/skipped.json')))] == [['3', '7']] * 2
    together(server, 2, r, tmp_path/'nan', codes=(1,), nan=(3,))
    facts = read_json(tmp_path/'nan/nonfinite.json')
    assert '3' in facts['keys'] and len(facts['keys']) == 8 and steps_left(tmp_path/'nan')[-1] == facts['step']


def test_bad_pictures(tmp_path):
    with pytest.raises(InputError, match='^3.jpg should be a whole picture, got a file that does not decode.$'):
        fit(recipe(), output=tmp_path/'none', dataset=Squares(bad=(3, 7)), progress=False)
    with pytest.raises(InputError, match=r'[37].jpg should be .* 1 were skipped before it'):
        fit(recipe(skip_bad=1), output=tmp_path/'one', dataset=Squares(bad=(3, 7)), progress=False)
    got = [fit(recipe(skip_bad=2, workers=n), output=tmp_path/f'{n}', dataset=Squares(bad=(3, 7)), progress=False)
           for n in (0, 2)]
    assert got[0].losses == got[1].losses
    for n in (0, 2): assert {*read_json(tmp_path/f'{n}/skipped.json')} == {'3', '7'}
    shutil.rmtree(tmp_path/'0/checkpoints/step_000012')
    again = fit(recipe(skip_bad=2), output=tmp_path/'0', dataset=Squares(bad=(3, 7)), progress=False, resume=True)
    assert again.losses == got[0].losses[9:] and same(weights(tmp_path/'0'), weights(tmp_path/'2'))


@pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='a process ends by a signal: POSIX')
def test_a_loader_process_that_dies(tmp_path):
    told = 'that load pictures should go on, got one that ended with SIGKILL, reading picture 3. Memory'
    with pytest.raises(InputError, match=told):
        fit(recipe(workers=1), output=tmp_path/'run', dataset=Squares(dies=(3,)), progress=False)


# scores

def test_scores_on_the_way(tmp_path):
    "They change nothing in training, are those of the weights of that step, and the best weights are kept"
    r, data = recipe(eval_every=3, keep=9), Squares(5)
    plain = fit(recipe(), dataset=Squares(), progress=False)
    scored = fit(r, output=tmp_path/'run', dataset=Squares(), eval_dataset=data, progress=False)
    assert scored.losses == plain.losses and torch.equal(trained(scored.model), trained(plain.model))
    assert column(tmp_path/'run/scores.csv', 'step') == ['3', '6', '9', '12']
    hiou = [float(v) for v in column(tmp_path/'run/scores.csv', 'hiou')]
    text = encode_vocab(r.model, data.vocab)
    for step, value in zip((3, 6, 9, 12), hiou):
        kept = load_checkpoint(tmp_path/f'run/checkpoints/step_{step:06d}')
        loader = torch.utils.data.DataLoader(data, collate_fn=collate)
        assert evaluate(kept.model, loader, text, data.vocab, **r.eval_options()).hiou == pytest.approx(value, abs=1e-6)
    best = load_checkpoint(tmp_path/'run/checkpoints/best')
    assert best.info['step'] == 3 * (1 + hiou.index(max(hiou))) and best.info['scores']['hiou'] == max(hiou)


def test_trackers(tmp_path):
    "TensorBoard holds every step and every evaluation"
    events = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    run = tmp_path/'run'
    losses = fit(recipe(eval_every=6), output=run, dataset=Squares(), eval_dataset=Squares(4), progress=False,
                 track='tensorboard').losses
    found = events.EventAccumulator(str(run/'trackers/otseg'))
    found.Reload()
    assert [e.value for e in found.Scalars('loss')] == pytest.approx(losses, rel=1e-5)
    assert [e.step for e in found.Scalars('hiou')] == [6, 12]
    with pytest.raises(InputError, match='one that is installed .*, got loss-o-meter'):
        fit(recipe(), output=tmp_path/'none', dataset=Squares(), progress=False, track='loss-o-meter')
    assert not (tmp_path/'none').exists()


@pytest.mark.slow
def test_compiled(tmp_path):
    "A compiled model rounds otherwise, and has no other numbers (dropout off: it draws its own)"
    plain, compiled = (fit(recipe(dropout=0., compile=c), dataset=Squares(), progress=False).losses for c in (False, True))
    assert compiled == pytest.approx(plain, rel=1e-4)


# numbers

def test_learning_rate_is_the_published_one():
    "Linear warm-up of 1500 steps from a millionth, times polynomial decay of power 0.9 to 1e-6 over 20,000 steps"
    for step in (0, 1, 750, 1500, 1501, 10_000, 19_999):
        decayed = (2e-4 - 1e-6) * (1 - step / 20_000) ** .9 + 1e-6
        warm = 1 - (1 - step / 1500) * (1 - 1e-6) if step < 1500 else 1
        assert learning_rate(VOC, step) == pytest.approx(decayed * warm, rel=1e-12)
    by_hand = {0: 2e-10, 10_000: 1.99e-4 * 2 ** -.9 + 1e-6, 19_999: 1.99e-4 * 20_000 ** -.9 + 1e-6}
    for step, value in by_hand.items(): assert learning_rate(VOC, step) == pytest.approx(value, rel=1e-9)


def textbook(model, text, batch, steps, lr, warmup, decay):
    "Losses of a plain loop: every formula written out, every batch the same pictures"
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], weight_decay=decay)
    truth = F.one_hot(batch['labels'].clamp(max=2), 3)[..., [0, 2]].permute(0, 3, 1, 2).float()  # class 1 is unseen
    present = truth.amax((-2, -1))
    losses = []
    for step in range(steps):
        rate = (lr - 1e-6) * (1 - step / steps) ** .9 + 1e-6
        if step < warmup: rate *= 1 - (1 - step / warmup) * (1 - 1e-6)
        for group in optimizer.param_groups: group['lr'] = rate
        out, loss = model(batch['image'], text), 0
        for logits in (out.decoder_logits, out.score_logits):
            p = logits.sigmoid()
            right = p * truth + (1 - p) * (1 - truth)
            focal = -(.25 * truth + .75 * (1 - truth)) * (1 - right) ** 2 * right.log()
            dice = 1 - (2 * (p * truth).sum((-2, -1)) + 1) / (p.sum((-2, -1)) + truth.sum((-2, -1)) + 1)
            loss = loss + (100 * focal.mean((-2, -1)).sum() + (dice * present).sum()) / present.sum()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_fifty_losses_of_a_textbook_loop():
    r, data = recipe(steps=50, warmup_steps=5, dropout=0.), Squares(4, moves=False)
    torch.manual_seed(r.seed)
    model, batch = OTSeg(r.model_config()), [data[i] for i in range(4)]
    batch = {k: torch.stack([b[k] for b in batch]) for k in ('image', 'labels')}
    text = encode_vocab(r.model, data.vocab)[[0, 2]]
    plain = textbook(model.train(), text, batch, 50, r.lr, 5, r.weight_decay)
    ours = fit(r, dataset=data, progress=False).losses
    apart = (torch.tensor(ours) / torch.tensor(plain) - 1).abs().max()
    print(f'losses {plain[0]:.3f} -> {plain[-1]:.3f}, apart by {apart:.1e}')
    assert plain[-1] < .5 * plain[0] and apart < 1e-5


def test_averaged_weights(tmp_path):
    "The average of all steps is what is saved and scored; training itself does not notice, and goes on with its own"
    r = recipe(steps=4, save_every=1, keep=9, ema=.6)
    plain = fit(replace(r, ema=None), output=tmp_path/'plain', dataset=Squares(), progress=False)
    ours = fit(r, output=tmp_path/'run', dataset=Squares(), progress=False)
    assert ours.losses == plain.losses
    torch.manual_seed(r.seed)
    mean = {n: p.detach().clone() for n, p in OTSeg(r.model_config()).named_parameters() if p.requires_grad}
    for step in (1, 2, 3, 4):
        for n, w in load_file(tmp_path/f'plain/checkpoints/step_00000{step}/model.safetensors').items():
            mean[n] = .6 * mean[n] + .4 * w
        saved = load_file(tmp_path/f'run/checkpoints/step_00000{step}/model.safetensors')
        assert all(torch.allclose(saved[n], mean[n], atol=1e-6) for n in mean)
    final = weights(tmp_path/'run')
    assert same({n: p.detach() for n, p in ours.model.named_parameters() if p.requires_grad}, final)
    for step in (3, 4): shutil.rmtree(tmp_path/f'run/checkpoints/step_00000{step}')
    again = fit(r, output=tmp_path/'run', dataset=Squares(), progress=False, resume=True)
    assert again.losses == ours.losses[2:] and same(weights(tmp_path/'run'), final)


@pytest.mark.parametrize('limit, steps', [(1.5, 11), pytest.param(1.03, 28, marks=pytest.mark.timing)])
def test_overhead_of_the_trainer(limit, steps):
    "A step of the trainer against the same step written out, in turns, in CPU time; asked on a quiet machine: under 3 %"
    r = override(get_recipe('toy'), steps=steps, workers=0)
    data = load_dataset('toy', split='train', n=32, transform=r.train_transform())
    run = Trainer(r, None, None, data, None, get_accelerator())
    device = run.accelerator.device
    batches = [{k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in next(run.batches).items()} for _ in range(2)]
    run.batches = itertools.cycle(batches)
    torch.manual_seed(0)
    model = OTSeg(r.model_config()).train().to(device)
    optimizer = torch.optim.AdamW(model.parameter_groups(r.lr, r.weight_decay))
    run.model.train()

    def bare(step):
        terms, masks = forward_loss(model, batches[step % 2], run.text, r, run.vocab)
        (terms['loss'] / masks).backward()
        optimizer.step(); optimizer.zero_grad()

    seconds = {bare: [], run.step: []}
    for step in range(r.steps):
        for f in (bare, run.step):
            began = time.process_time()
            f(step)
            seconds[f].append(time.process_time() - began)
    plain, ours = (statistics.median(v[4:]) for v in seconds.values())
    print(f'bare {1000 * plain:.0f} ms, trainer {1000 * ours:.0f} ms: {ours / plain - 1:+.1%}')
    assert ours / plain < limit
