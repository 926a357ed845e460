"A training of seconds, alone, among others and killed"
import csv
import itertools
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import socket
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from otseg.model import checkpoint
from otseg.core import check, read_json
from otseg.train.recipes import get_recipe, override
from otseg.train.run import RunLog
from otseg.train.trainer import fit
from otseg.model.vocab import Vocab

WORDS = sorted('a photo of portrait part segment small medium ball cat dog'.split())
TINY = dict(model_cfg=dict(embed_dim=16, quick_gelu=True,
                           vision_cfg=dict(image_size=32, patch_size=8, width=24, head_width=12, layers=2),
                           text_cfg=dict(context_length=8, vocab_size=len(WORDS) + 3, width=24, heads=2, layers=1)),
            words=WORDS)


class Squares(torch.utils.data.Dataset):
    "A bright square (class 0 or 1) on dark ground (class 2), where the seed says; some pictures are bad"
    vocab = Vocab('squares', ('ball', 'cat', 'dog'), (1,))

    def __init__(self, n=12, bad=(), nan=(), dies=(), moves=True):
        self.n, self.bad, self.nan, self.dies, self.moves = n, bad, nan, dies, moves

    def __len__(self): return self.n

    def __getitem__(self, item):
        i, seed = item if isinstance(item, tuple) else (item, item)
        check(i not in self.bad, f'{i}.jpg should be a whole picture', 'a file that does not decode')
        if i in self.dies: os.kill(os.getpid(), signal.SIGKILL)
        g = torch.Generator().manual_seed(seed if self.moves else i)
        labels, (r, c) = torch.full((32, 32), 2), torch.randint(0, 16, (2,), generator=g).tolist()
        labels[r:r+16, c:c+16] = i % 2
        image = torch.where(labels == 2, -1., labels + 1.) + .1 * torch.randn(3, 32, 32, generator=g)
        return dict(image=image * (math.nan if i in self.nan else 1), labels=labels, key=str(i), size=(32, 32))


def recipe(**options):
    "A few steps with a tiny CLIP"
    base = override(get_recipe('toy'), steps=12, image_size=32, stride=32, batch_size=4, save_every=3, warmup_steps=2,
                    vpt_tokens=2, init='published', workers=0, strip=0)
    return override(replace(base, model=replace(base.model, clip=TINY, weights='random')), **options)


def weights(folder):
    "Those of the newest checkpoint, copied: the file is mapped into memory"
    path = sorted(Path(folder).glob('checkpoints/step_*'))[-1]/'model.safetensors'
    return {k: v.clone() for k, v in load_file(path).items()}


def trained(model): return torch.cat([p.detach().flatten() for p in model.parameters() if p.requires_grad])


def same(a, b): return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def column(path, name):
    with open(path, newline='', encoding='utf-8') as f: return [r[name] for r in csv.DictReader(f)]


def steps_left(run): return [int(p.name[5:]) for p in sorted(Path(run).glob('checkpoints/step_*'))]


def fork_server(module='otseg.train.trainer'):
    "Processes that start in a moment: forked from one that has imported the module and done nothing else"
    if 'forkserver' not in multiprocessing.get_all_start_methods(): pytest.skip('starts processes by a fork server: POSIX')
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([module])
    return context


FSDP = dict(ACCELERATE_USE_FSDP='true', FSDP_VERSION='2', FSDP_AUTO_WRAP_POLICY='TRANSFORMER_BASED_WRAP',
            FSDP_TRANSFORMER_CLS_TO_WRAP='ResidualAttentionBlock,DecoderLayer', FSDP_RESHARD_AFTER_FORWARD='true')


def spread(rank, processes, port, r, output, variables=None, resume=False, **faults):
    "One process of a launcher: torchrun sets these variables"
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    os.environ |= dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), MASTER_ADDR='127.0.0.1',
                       MASTER_PORT=str(port), CUDA_VISIBLE_DEVICES='') | (variables or {})
    result = fit(r, output=output, dataset=Squares(24, **faults), eval_dataset=Squares(5), progress=False, resume=resume)
    if rank == 0: torch.save((result.losses, trained(result.model)), f'{output}/result.pt')
    if processes > 1: torch.distributed.destroy_process_group()


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def together(server, processes, r, output, codes=(0,), **faults):
    "Losses and weights of a run in several processes"
    port = free_port()
    all_of_them = [server.Process(target=spread, args=(i, processes, port, r, output), kwargs=faults) for i in range(processes)]
    for p in all_of_them: p.start()
    for p in all_of_them: p.join(240)
    assert {p.exitcode for p in all_of_them} == {*codes}
    assert read_json(output/'environment.json')['processes'] == processes
    if codes == (0,): return torch.load(output/'result.pt')


VALUES = {2: .1, 4: .3, 6: .2, 8: .4, 10: .3, 12: .5}  # what the best is by, after these steps: it is replaced, or it stays


def half_file(f, value, path):
    f(value, path)
    os.truncate(path, os.path.getsize(path) // 2)


def half_tree(f, path, *args, **kwargs):
    for p in list(Path(path).glob('*'))[:1]: p.unlink()


def watch(run, strike):
    """Call strike(operation, path, half) before each moment at which this process puts something on the disk in a run folder

    A path is relative to the folder, and * where a file that is being written has a random name; half() does half of it.
    """
    def path_of(operation, given):
        if operation == 'row': return f'log.csv {given}'
        if operation == 'rmtree' and not Path(given).exists(): return None
        if operation == 'fsync':
            stat = os.fstat(given)
            given = next((p for p in [run, *run.rglob('*')] if os.path.samestat(stat, p.stat())), None) if run.is_dir() else None
        path = given and Path(os.path.abspath(given))
        if not path or not path.is_relative_to(run): return None
        return re.sub(r'(^|/)\.(\w+)\.\w+(\.\w+)$', r'\1.\2.*\3', path.relative_to(run).as_posix())

    def told(operation, f, which, half=None):
        def g(*args, **kwargs):
            path = path_of(operation, args[which])
            if path is not None: strike(operation, path, half and partial(half, f, *args, **kwargs))
            return f(*args, **kwargs)
        return g

    torch.save = told('save', torch.save, 1, half_file)
    checkpoint.save_file = told('save', checkpoint.save_file, 1, half_file)
    shutil.rmtree = told('rmtree', shutil.rmtree, 0, half_tree)
    os.fsync, os.replace = told('fsync', os.fsync, 0), told('replace', os.replace, 1)
    Path.rename = told('rename', Path.rename, 0)
    RunLog.write = told('row', RunLog.write, 1)


def recorded(run, r, file):
    "An unbroken run, whose moments go to a file: operation and path"
    moments = []
    watch(run, lambda operation, path, half: moments.append((operation, path)))
    train(run, r)
    file.write_text(json.dumps(moments), encoding='utf-8')


def killed_at(run, r, moment, dies_in='before'):
    "Train, and die at a moment (operation and path, or the n-th of all): before it, or half-way through"
    count = itertools.count(1)

    def strike(operation, path, half):
        if next(count) != moment if isinstance(moment, int) else [operation, path] != [*moment]: return
        if half and dies_in == 'half': half()
        os.kill(os.getpid(), signal.SIGKILL)

    watch(run, strike)
    train(run, r)


def unbroken_run(server, tmp_path, r, before=()):
    "The folder of a run that nothing happens to, and its moments"
    run, file = tmp_path/'unbroken', tmp_path/'moments.json'
    assert child(server, *before, recorded, run, r, file) == 0
    return run, [tuple(m) for m in read_json(file)]


def train(run, r):
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    score = RunLog.score
    RunLog.score = lambda self, step, scores, value, classes=(): score(self, step, scores, VALUES[step], classes)
    fit(r, output=run, dataset=Squares(), eval_dataset=Squares(4), progress=False, resume=True)


def child(server, target, *args, after=None):
    "Exit code of a process, which is killed after some seconds"
    p = server.Process(target=target, args=args)
    p.start()
    p.join(240 if after is None else after)
    if p.is_alive(): p.kill(); p.join()
    return p.exitcode


def whole(run):
    "Every byte that a run leaves, but for times"
    log = [','.join(line.split(',')[:-1]) for line in (run/'log.csv').read_text(encoding='utf-8').splitlines()]
    names = sorted(p.relative_to(run).as_posix() for p in run.rglob('*'))
    bits = {p.relative_to(run).as_posix(): load_file(p) for p in run.rglob('model.safetensors')}
    return log, (run/'scores.csv').read_text(encoding='utf-8'), names, bits


def equal_runs(a, b):
    assert a[:3] == b[:3] and a[3].keys() == b[3].keys() and all(same(a[3][k], b[3][k]) for k in a[3])
