"Two machines of one process each: network namespaces with an address of their own, joined by a cable that can be cut"
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import torch

from conftest import ROOT
from given.training import column, same, weights
from otseg.core import read_json
from otseg.train.command import main

ADDRESS, PORT = '10.77.0.{}', 29600
CONFIGS = ROOT/'nbs/tutorials/accelerate'
OPTIONS = ['toy', '--steps', '24', '--batch_size', '4', '--dropout', '0', '--save_every', '5', '--keep', '9']


def ip(*words):
    done = subprocess.run(['ip', *map(str, words)], capture_output=True, text=True, encoding='utf-8')
    if done.returncode: raise OSError(f'ip {" ".join(map(str, words))}: {done.stderr.strip()}')
    return done.stdout


class Hosts:
    "Two machines; only what runs in them is ever killed"
    def __init__(self):
        self.names, self.started = [f'otseg{os.getpid()}{x}' for x in 'ab'], []

    def connect(self):
        for name in self.names: ip('netns', 'add', name)
        a, b = self.names
        ip('link', 'add', 'cable', 'netns', a, 'type', 'veth', 'peer', 'name', 'cable', 'netns', b)
        for i, name in enumerate(self.names):
            ip('-n', name, 'address', 'add', f'{ADDRESS.format(i + 1)}/24', 'dev', 'cable')
            for device in ('lo', 'cable'): ip('-n', name, 'link', 'set', device, 'up')

    @contextmanager
    def cut(self):
        "The cable, as long as the block lasts"
        ip('-n', self.names[1], 'link', 'set', 'cable', 'down')
        try: yield
        finally: ip('-n', self.names[1], 'link', 'set', 'cable', 'up')

    def kill(self, host):
        for pid in map(int, ip('netns', 'pids', self.names[host]).split()):
            try: os.kill(pid, signal.SIGKILL)
            except ProcessLookupError: pass

    def launch(self, folder, *options, outputs=None):
        "`accelerate launch` on both; what they print goes to files"
        env = os.environ | dict(OMP_NUM_THREADS='1', GLOO_SOCKET_IFNAME='cable', CUDA_VISIBLE_DEVICES='')
        for host, name in enumerate(self.names):
            output = (outputs or [folder/'run'] * 2)[host]
            command = [sys.executable, '-m', 'accelerate.commands.launch', '--config_file', CONFIGS/'two_machines.yaml',
                       '--num_processes', '2', '--machine_rank', host, '--main_process_ip', ADDRESS.format(1),
                       '--main_process_port', PORT, '-m', 'otseg.train', *OPTIONS, '--output', output, *options]
            with open(folder/f'{host}.txt', 'w', encoding='utf-8') as told:
                self.started.append(subprocess.Popen(['ip', 'netns', 'exec', name, *map(str, command)], env=env, stdout=told,
                                                     stderr=subprocess.STDOUT))
        return self.started[-2:]

    def close(self):
        for host, name in enumerate(self.names):
            if name not in ip('netns', 'list').split(): continue
            self.kill(host)
            ip('netns', 'delete', name)  # the cable goes with it
        for p in self.started: p.wait(60)


@pytest.fixture(scope='module')
def hosts():
    if sys.platform != 'linux' or not shutil.which('ip'): pytest.skip('network namespaces need Linux and `ip` (iproute2)')
    if os.geteuid(): pytest.skip('network namespaces need root')
    if not torch.distributed.is_gloo_available(): pytest.skip('no gloo')
    h = Hosts()
    try:
        try: h.connect()
        except OSError as e: pytest.skip(f'no network namespaces on this machine ({e})')
        yield h
    finally: h.close()


def finish(processes, seconds=240): return [p.wait(seconds) for p in processes]


def until_row(run, row, processes, seconds=240):
    "Wait until a run has done so many steps"
    end = time.monotonic() + seconds
    while not (run/'log.csv').exists() or len(column(run/'log.csv', 'step')) < row:
        assert time.monotonic() < end and all(p.poll() is None for p in processes), 'the run did not get so far'
        time.sleep(.02)


def until_told(path, process, seconds):
    "Wait for the plain error of a host; the line, and the seconds that it took"
    start = time.monotonic()
    while time.monotonic() < start + seconds:
        lines = [x for x in path.read_text(encoding='utf-8').splitlines() if x.startswith('error: ')]
        if lines: return lines[0], time.monotonic() - start
        time.sleep(.05)
    said = path.read_text(encoding='utf-8')
    raise AssertionError(f'no error was told:\n{said[-3000:]}')


def assert_plain(path, line):
    "What should be, what came, what to do; before any traceback"
    told = path.read_text(encoding='utf-8')
    assert line.startswith('error: all 2 processes should go on, got one that is lost (') and line.endswith('--resume.')
    assert 'Traceback' not in told[:told.index(line)]


def apart(a, b):
    "Relative differences of two runs' losses, step by step"
    x, y = (torch.tensor([*map(float, column(run/'log.csv', 'loss'))], dtype=torch.double) for run in (a, b))
    assert len(x) == len(y) == 24
    return (x / y - 1).abs()


@pytest.fixture(scope='module')
def alone(tmp_path_factory):
    "The run of one process"
    run = tmp_path_factory.mktemp('alone')/'run'
    main([*OPTIONS, '--output', str(run)])
    return run


@pytest.fixture(scope='module')
def unbroken(hosts, tmp_path_factory):
    "The run of two hosts that nothing happens to"
    folder = tmp_path_factory.mktemp('unbroken')
    codes = finish(hosts.launch(folder))
    assert codes == [0, 0], (folder/'0.txt').read_text(encoding='utf-8')[-3000:]
    return folder/'run'


@pytest.mark.slow
def test_two_hosts(unbroken, alone):
    far = apart(unbroken, alone)
    print('two hosts and one process: losses apart by', ', '.join(f'{v:.0e}' for v in far.tolist()))
    assert read_json(unbroken/'environment.json')['processes'] == 2
    # sums in another order differ by rounding, which training enlarges from step to step
    assert float(far[:4].max()) <= 1e-5 and float(far.max()) <= 1e-2


@pytest.mark.slow
def test_a_host_that_dies(hosts, unbroken, tmp_path):
    "The other ends at once, long before --timeout; resumed, nothing is lost"
    run, both = tmp_path/'run', hosts.launch(tmp_path, '--timeout', '100')
    until_row(run, 8, both)
    hosts.kill(1)
    line, seconds = until_told(tmp_path/'0.txt', both[0], 60)
    assert finish(both, 60) == [1, -signal.SIGKILL]
    assert_plain(tmp_path/'0.txt', line)
    done = len(column(run/'log.csv', 'step'))
    assert done < 24 and finish(hosts.launch(tmp_path, '--resume')) == [0, 0]
    print(f'killed after {done} steps, told after {seconds:.1f} s: {line}')
    assert column(run/'log.csv', 'loss') == column(unbroken/'log.csv', 'loss') and same(weights(run), weights(unbroken))


@pytest.mark.slow
def test_a_cable_that_is_cut(hosts, tmp_path):
    "Nothing tells of it but the silence: both hosts end after --timeout"
    both = hosts.launch(tmp_path, '--steps', '4000', '--timeout', '20')
    until_row(tmp_path/'run', 8, both)
    with hosts.cut():
        told = [until_told(tmp_path/f'{host}.txt', both[host], 60) for host in (0, 1)]
        assert finish(both, 120) == [1, 1]
    for host, (line, _) in enumerate(told): assert_plain(tmp_path/f'{host}.txt', line)
    print(f'told after {told[0][1]:.1f} s of --timeout 20: {told[0][0]}')
    assert told[0][1] > 15  # not before --timeout; `until_told` waits no longer than a minute


@pytest.mark.slow
def test_a_run_folder_that_is_not_shared(hosts, unbroken, tmp_path):
    "A host that does not see the checkpoints cannot go on from them"
    shutil.copytree(unbroken, tmp_path/'run')
    shutil.rmtree(tmp_path/'run/checkpoints/step_000024')
    both = hosts.launch(tmp_path, '--resume', '--timeout', '30', outputs=[tmp_path/'run', tmp_path/'elsewhere'])
    assert 0 not in finish(both)
    assert any('should be one folder that all' in (tmp_path/f'{host}.txt').read_text(encoding='utf-8') for host in (0, 1))


@pytest.mark.slow
@pytest.mark.parametrize('name, processes', [('one_cpu', 1), ('eight_gpus', 2), ('eight_gpus_fsdp', 2)])
def test_configurations(name, processes, alone, tmp_path):
    "The tutorial's files of Accelerate, where there is no GPU"
    if processes > 1 and not torch.distributed.is_gloo_available(): pytest.skip('no gloo')
    if name.endswith('fsdp') and not hasattr(torch.cpu.Stream, 'record_event'): pytest.skip('this torch shards on GPUs only')
    command = [sys.executable, '-m', 'accelerate.commands.launch', '--config_file', CONFIGS/f'{name}.yaml',
               '--num_processes', processes, '--main_process_port', 0, '-m', 'otseg.train', *OPTIONS, '--output', tmp_path/'run']
    done = subprocess.run([*map(str, command)], env=os.environ | dict(OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES=''),
                          capture_output=True, text=True, timeout=300, encoding='utf-8')
    assert done.returncode == 0, done.stderr[-3000:]
    facts, far = read_json(tmp_path/'run/environment.json'), apart(tmp_path/'run', alone)[:4].max()
    print(f'{name}: {facts["processes"]} processes, losses apart from those of one by {far:.1e}')
    assert facts['processes'] == processes and facts['sharded'] == name.endswith('fsdp') and far <= 1e-5
