"The trainer once more and for longer: twenty kills at random moments, twenty steps in every spread"
import multiprocessing
import random
import signal
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from given.training import Squares, child, column, killed_at, recipe, same, together, train, unbroken_run
from otseg.train.batches import StepSampler

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore:.*meaningless.*')]


def forking(target, *args):
    "Loader processes that start in a moment, as they do on Linux where nothing else is asked for"
    multiprocessing.set_start_method('fork', force=True)
    target(*args)


def killed_after(server, run, r, row, seconds):  # noqa: F811
    "Train, and be killed from outside so many seconds after so many steps are logged"
    p = server.Process(target=forking, args=(train, run, r))
    p.start()
    while p.is_alive() and (not (run/'log.csv').exists() or len(column(run/'log.csv', 'step')) < row): time.sleep(.001)
    time.sleep(seconds)
    p.kill(); p.join()
    return p.exitcode


def left(run):
    "Log without times, names of all files, weights of every checkpoint"
    log = [','.join(line.split(',')[:-1]) for line in (run/'log.csv').read_text(encoding='utf-8').splitlines()]
    files = sorted(p.relative_to(run).as_posix() for p in run.rglob('*'))
    return log, files, {p.relative_to(run): load_file(p) for p in sorted(run.rglob('model.safetensors'))}


def to_come(moments, run, last):
    "How many of an unbroken run's moments a resumed one still has before it, up to a checkpoint"
    there = sorted(p.name for p in run.glob('checkpoints/step_*'))
    begin = moments.index(('rename', f'checkpoints/.{there[-1]}')) if there else -1
    return moments[begin + 1:moments.index(('rename', f'checkpoints/.step_{last:06d}'))]


def test_twenty_kills_at_random_moments(server, tmp_path):  # noqa: F811
    "Shuffled, read by two processes; in the middle of epoch 2, between steps, while a checkpoint is written"
    r = recipe(steps=30, save_every=4, workers=2, ema=.9)
    epoch = len(Squares()) // r.batch_size
    sampler = StepSampler(len(Squares()), r.batch_size, r.steps, seed=r.seed)
    assert epoch == 3 and r.save_every % epoch and sampler.epoch(0) != sampler.epoch(1) != sorted(sampler.epoch(1))
    folder, moments = unbroken_run(server, tmp_path, r, (forking,))
    unbroken = left(folder)
    assert unbroken[2]
    g, steps, writing = random.Random(0), [], 0
    for i in range(5):
        run = tmp_path/str(i)
        for kill in range(4):
            if kill == 0: moment = 'row', f'log.csv {g.randint(epoch + 1, 2 * epoch - 1)}'  # in the middle of epoch 2
            if kill == 1: moment = g.choice([m for m in to_come(moments, run, 12) if m[1].startswith('checkpoints/.')])
            if kill == 3: moment = g.randint(1, len(to_come(moments, run, 28)))
            if kill == 2: code = killed_after(server, run, r, steps[-1] + g.randint(1, epoch - 1), g.uniform(0, .02))
            else: code = child(server, forking, killed_at, run, r, moment, g.choice(['before', 'half']))
            assert code == -signal.SIGKILL, (i, kill)
            steps.append(len(column(run/'log.csv', 'step')) if (run/'log.csv').exists() else 0)
            writing += any(run.glob('checkpoints/.*'))
        assert child(server, forking, train, run, r) == 0
        ours = left(run)
        assert ours[:2] == unbroken[:2] and all(same(w, unbroken[2][k]) for k, w in ours[2].items())
    middle = sum(epoch < s < 2 * epoch for s in steps)
    print(f'{len(steps)} kills, after {steps} steps of {r.steps}: {middle} in the middle of epoch 2, '
          f'{writing} while a checkpoint was written; every run ended bit for bit as the unbroken one')
    assert len(steps) == 20 and middle >= 5 and writing >= 5


def test_twenty_steps_however_they_are_spread(server, tmp_path):  # noqa: F811
    "Batches of 8 in one process or two, at once or in parts"
    if not torch.distributed.is_gloo_available(): pytest.skip('no gloo')
    r = recipe(steps=20, batch_size=8, dropout=0.)
    losses, final = together(server, 1, r, tmp_path/'one')
    worst = 0
    for processes, accumulate in ((2, 1), (1, 2), (2, 2), (1, 8)):
        other, other_final = together(server, processes, replace(r, accumulate=accumulate), tmp_path/f'{processes}{accumulate}')
        apart = float((torch.tensor(other) / torch.tensor(losses) - 1).abs().max())
        far = float((other_final - final).norm() / final.norm())
        print(f'{processes} processes, {accumulate} accumulated: losses apart by {apart:.1e}, weights by {far:.1e}')
        worst = max(worst, apart, far)
    assert worst <= 1e-5
