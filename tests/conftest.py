"""What every test can rely on: no network, no GPU unless it is asked for, and the shared data folder where there is one."""
import os
import re
import shutil
from pathlib import Path

import pytest

os.environ.setdefault('HF_HUB_OFFLINE', '1')  # before huggingface_hub is imported, which reads it once
ROOT = Path(__file__).resolve().parent.parent


def wants_gpu(marks: str) -> bool:
    "Whether the expression of `pytest -m` asks for the tests of a GPU"
    return bool(re.search(r'(?<!not )\bgpu\b', marks))


def pytest_configure(config):
    """A test gives the same numbers on every machine: torch has one thread, since with more the order of sums is not fixed,
    and a test that does not name the GPU does not see it. Several cores are for several processes of tests."""
    os.environ['OMP_NUM_THREADS'] = '1'  # also for processes that tests start
    import torch
    torch.set_num_threads(1)
    if wants_gpu(config.option.markexpr or ''): return
    os.environ |= dict(CUDA_VISIBLE_DEVICES='', HIP_VISIBLE_DEVICES='', OTSEG_DEVICE='cpu')
    torch.cuda.is_available, torch.cuda.device_count = (lambda: False), (lambda: 0)


def pytest_collection_modifyitems(config, items):
    "Tests of a GPU are skipped where there is none"
    import torch
    if torch.cuda.is_available(): return
    for item in items:
        if item.get_closest_marker('gpu'): item.add_marker(pytest.mark.skip(reason='needs an NVIDIA GPU'))


@pytest.fixture(scope='session')
def root() -> Path:
    "The repository"
    return ROOT


@pytest.fixture(scope='session')
def shared() -> Path:
    "The shared data folder: OTSEG_SHARED, or ../shared beside the repository; the test is skipped where there is none"
    path = Path(os.environ.get('OTSEG_SHARED') or ROOT.parent / 'shared')
    if not path.is_dir():
        pytest.skip(f'no data folder at {path}; set OTSEG_SHARED to where it is')
    return path


@pytest.fixture
def folder(tmp_path, monkeypatch):
    "An empty working directory"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('OTSEG_CACHE', str(tmp_path / 'cache'))
    return tmp_path


@pytest.fixture(autouse=True)
def one_thread():
    "A test that asks for more threads has them alone"
    yield
    import torch
    torch.set_num_threads(1)


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    "A folder with a data set, another of other classes, photographs, a tiny CLIP and a run of two steps; copied, not changed"
    from given.shell import small_world
    return small_world(tmp_path_factory.mktemp('world'))


@pytest.fixture
def world(base, tmp_path, monkeypatch):
    "A copy of `base` to damage; the working directory"
    folder = tmp_path/'world'
    shutil.copytree(base, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv('OTSEG_CACHE', str(folder/'cache'))  # so that a cached file would be noticed as well
    return folder


@pytest.fixture(scope='module')
def server():
    "Processes that start in a moment: forked from one that has imported the trainer and done nothing else"
    from given.training import fork_server
    return fork_server()
