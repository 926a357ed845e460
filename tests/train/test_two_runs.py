"Two `otseg-train --resume auto` on one folder: one works, the other is told, and nothing is lost whoever is killed"
import os
import random
import signal
import sys
import time

import pytest

from given.training import child, column, equal_runs, killed_at, recipe, train, unbroken_run, whole
from otseg.core import InputError, read_json
from otseg.train.trainer import fit

pytestmark = [pytest.mark.filterwarnings('ignore:.*meaningless.*'),
              pytest.mark.skipif(not hasattr(signal, 'SIGKILL'), reason='kills: POSIX')]
THEIRS = ('.git/config', '.DS_Store', '.step_000003.swp', '.best.bak', '.nfs000001', '.gone_fishing/notes.txt')


def turn_by_turn(run, r, moment=None, dies_in='before'):
    "Train when the folder is free, and be killed at the n-th moment, if one is given"
    while True:
        try: return killed_at(run, r, moment, dies_in) if moment else train(run, r)
        except InputError as e:
            if 'should be written by one process at a time' not in str(e): raise
            time.sleep(.01)


def plant(folder):
    "Hidden files that are not ours, as young as what a run writes"
    for name in THEIRS:
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        if not (folder/name).exists(): (folder/name).write_text('mine', encoding='utf-8')


def are_left(folder): return all((folder/n).read_text(encoding='utf-8') == 'mine' for n in THEIRS)


def without_theirs(run):
    "The facts of a run but for what was planted"
    log, scores, names, bits = whole(run)
    planted = {f'{f}{part}' for f in ('', 'checkpoints/') for n in THEIRS for part in (n, n.partition('/')[0])}
    return log, scores, [n for n in names if n not in planted], bits


def two_at_once(server, tmp_path, kills, seed):
    "Two processes at all times: one that is killed is started again, until enough were killed"
    r, run, g = recipe(eval_every=2, keep=1), tmp_path/'run', random.Random(seed)
    unbroken, moments = unbroken_run(server, tmp_path, r)
    run.mkdir()
    plant(run)

    def start():
        nonlocal to_come
        to_come -= 1
        moment = g.randint(1, len(moments) // 6) if to_come >= 0 else None
        p = server.Process(target=turn_by_turn, args=(run, r, moment, g.choice(['before', 'half'])))
        p.start()
        return p

    to_come, killed = kills, 0
    both = [start(), start()]
    end = time.monotonic() + 600
    while any(p.exitcode != 0 for p in both):
        assert time.monotonic() < end
        if (run/'checkpoints').is_dir(): plant(run/'checkpoints')
        for i, p in enumerate(both):
            if p.exitcode in (None, 0): continue
            assert p.exitcode == -signal.SIGKILL
            killed += 1
            both[i] = start()
        time.sleep(.005)
    assert killed >= kills - 1  # the last may find nothing left to do
    print(f'{killed} kills; the run is bit for bit the unbroken one')
    equal_runs(without_theirs(run), whole(unbroken))
    assert column(run/'log.csv', 'step') == [str(i) for i in range(r.steps)]
    assert are_left(run) and are_left(run/'checkpoints')


def test_two_at_once_and_two_kills(server, tmp_path): two_at_once(server, tmp_path, 2, 0)


@pytest.mark.slow
def test_two_at_once_and_ten_kills(server, tmp_path): two_at_once(server, tmp_path, 10, 1)


def told(run, r, path):
    try: train(run, r)
    except InputError as e: path.write_text(str(e), encoding='utf-8'); sys.exit(2)


def test_the_second_is_told_who_is_there(server, tmp_path):
    "At once, and without a change to the folder"
    run, words = tmp_path/'run', tmp_path/'told.txt'
    first = server.Process(target=train, args=(run, recipe(steps=10_000, eval_every=None)))
    first.start()
    end = time.monotonic() + 120
    while not (run/'log.csv').exists(): assert time.monotonic() < end; time.sleep(.01)
    assert child(server, told, run, recipe(), words) == 2
    assert f'should be written by one process at a time, got process {first.pid} on ' in words.read_text(encoding='utf-8')
    assert first.is_alive()
    first.kill()
    first.join()


def test_a_resumed_run_deletes_its_own_alone(tmp_path):
    "Every hidden entry of `checkpoints` went, a `.git` among them"
    from given.training import Squares
    run, r = tmp_path/'run', recipe(steps=6)
    fit(r, output=run, dataset=Squares(), progress=False)
    for folder in (run, run/'checkpoints'): plant(folder)
    os.symlink(tmp_path, run/'checkpoints/.gone_step_000001') if hasattr(os, 'symlink') else None
    (run/'checkpoints/.step_000009').mkdir()
    fit(r, output=run, dataset=Squares(), progress=False, resume=True)
    assert are_left(run) and are_left(run/'checkpoints') and run.is_dir()
    assert not (run/'checkpoints/.step_000009').exists() and not os.path.lexists(run/'checkpoints/.gone_step_000001')
    assert read_json(run/'recipe.json')['steps'] == 6
