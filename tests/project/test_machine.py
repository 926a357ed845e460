"What the tests say does not depend on the machine: no GPU unless asked for, no bits where only rounding is promised"
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, wants_gpu

ELSEWHERE = ROOT/'tests/elsewhere'


def elsewhere(what, *command, cwd=None, **variables):
    "Run a command on a machine that differs"
    path = os.pathsep.join(filter(None, (str(ELSEWHERE), str(ROOT), os.environ.get('PYTHONPATH'))))
    env = os.environ | dict(OTSEG_ELSEWHERE=what, PYTHONPATH=path, OMP_NUM_THREADS='1', MPLBACKEND='Agg') | variables
    if what == 'cuda': env = {k: v for k, v in env.items() if k != 'CUDA_VISIBLE_DEVICES'}  # a GPU in plain sight
    return subprocess.run([sys.executable, *command], cwd=cwd or ROOT, env=env, capture_output=True, text=True,
                          encoding='utf-8')


@pytest.mark.parametrize('marks, wanted', [
    ('', False), ('not slow and not gpu', False), ('gpu', True), ('slow or not slow', False), ('gpu and not slow', True)])
def test_who_asks_for_a_gpu(marks, wanted): assert wants_gpu(marks) == wanted


@pytest.mark.skipif(torch.cuda.is_available(), reason='the GPU was asked for')
def test_no_gpu_is_seen():
    assert not torch.cuda.is_available() and torch.cuda.device_count() == 0 and os.environ['CUDA_VISIBLE_DEVICES'] == ''


# a GPU that nobody may touch

def test_the_pretended_gpu_bites():
    assert elsewhere('cuda', '-c', 'import torch; assert torch.cuda.is_available()').returncode == 0
    done = elsewhere('cuda', '-c', 'import torch; torch.ones(1, device="cuda")')
    assert done.returncode and 'the GPU was touched' in done.stderr


TOUCHES = '''
import torch
def test_it():
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    assert float(torch.ones(2, device=device).sum()) == 2
'''


def test_a_default_test_does_not_touch_it(tmp_path):
    "Under the conftest of the project a test that takes a GPU where there is one gets the CPU; without it, it fails"
    (tmp_path/'test_it.py').write_text(TOUCHES, encoding='utf-8')
    assert elsewhere('cuda', '-m', 'pytest', '-q', '-p', 'no:cacheprovider', 'test_it.py', cwd=tmp_path).returncode == 1
    (tmp_path/'conftest.py').write_text((ROOT/'tests/conftest.py').read_text(encoding='utf-8'), encoding='utf-8')
    done = elsewhere('cuda', '-m', 'pytest', '-q', '-p', 'no:cacheprovider', 'test_it.py', cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def test_parts_that_choose_a_device_leave_it_alone():
    "Where a GPU is visible and the CPU is asked for: segmenter, trainer, bench, records of a machine"
    code = '''
from otseg.study.bench import machine
from otseg.predict.segmenter import Segmenter
from otseg.train.processes import get_accelerator
from otseg.data.toy import ToyScenes
s = Segmenter.from_pretrained('toy')
assert s.device.type == 'cpu' and s.predict(ToyScenes('val', 1)[0].image).labels.shape
assert get_accelerator().device.type == 'cpu'
print(machine("cpu"))
'''
    done = elsewhere('cuda', '-c', code, OTSEG_DEVICE='cpu')
    assert done.returncode == 0, done.stderr[-2000:]


# a machine that rounds otherwise

PLANTED = {
    'bits of a batch': 'assert torch.equal(torch.bmm(x, y)[0], torch.bmm(x[:1], y[:1])[0])',
    'bits of a plan': 'assert torch.equal(sinkhorn(x)[0][0], sinkhorn(x[:1])[0][0])',
    'bits of a linear map': 'assert torch.equal(torch.nn.Linear(6, 3, bias=False).requires_grad_(False)(x)[1:2], '
                            'torch.nn.Linear(6, 3, bias=False)(x[1:2]))',
}
SOUND = {
    'the same shape': 'assert torch.equal(torch.bmm(x, y), torch.bmm(x, y))',
    'rounding': 'assert (sinkhorn(x)[0][0] - sinkhorn(x[:1])[0][0]).abs().max() < 1e-7',
}
START = ('import torch; from otseg.transport.entropic import sinkhorn; torch.manual_seed(0)\n'
         'x, y = torch.rand(4, 40, 6), torch.rand(4, 6, 7)\n')


@pytest.mark.parametrize('kind', [*PLANTED, *SOUND])
def test_bits_across_batch_sizes_are_found(kind):
    done = elsewhere('rounding', '-c', START + (PLANTED | SOUND)[kind])
    assert (done.returncode == 1 and 'AssertionError' in done.stderr) if kind in PLANTED else done.returncode == 0, done.stderr


def test_a_notebook_with_bits_is_found(tmp_path):
    cells = [dict(cell_type='code', execution_count=None, id=f'0000000{i}', metadata={}, outputs=[], source=[s])
             for i, s in enumerate((START, PLANTED['bits of a batch']))]
    path = Path(tmp_path/'planted.ipynb')
    path.write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)), encoding='utf-8')
    code = f'import sys; from pathlib import Path; from nbdev.test import test_nb\n' \
           f'ok, _ = test_nb(Path({str(path)!r})); sys.exit(not ok)'
    assert elsewhere('', '-c', code).returncode == 0
    assert elsewhere('rounding', '-c', code).returncode == 1
