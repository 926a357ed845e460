"Every module can be imported by itself, on any system, and the package is what the requirements say"
import importlib
import pkgutil
import subprocess
import sys
from importlib.metadata import requires

import pytest

import otseg

NAMES = [m.name for m in pkgutil.walk_packages(otseg.__path__, 'otseg.')
         if m.name.rpartition('.')[2] not in ('_modidx', '__main__')]


def test_there_is_something_to_import():
    assert {'otseg.transport.entropic', 'otseg.model.otseg', 'otseg.commands.use'} <= {*NAMES}


@pytest.mark.parametrize('name', NAMES)
def test_import(name): importlib.import_module(name)


def test_none_needs_what_only_developers_have():
    "In a process in which the tools of the extra `dev` cannot be imported"
    tools = ('nbdev', 'jupyterlab', 'nbconvert', 'pytest', 'ruff', 'ot', 'tensorboard', 'torchmetrics', 'hypothesis')
    code = f'import sys; sys.modules.update(dict.fromkeys({tools})); import importlib\n' \
           f'for name in {NAMES}: importlib.import_module(name)'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, encoding='utf-8')
    assert done.returncode == 0, done.stderr[-2000:]


def test_requirements_have_lower_bounds():
    "Each of them, so that the lowest set is one that can be resolved and run"
    needed = [r for r in requires('otseg') if 'extra ==' not in r]
    assert len(needed) > 10 and all('>=' in r for r in needed), needed
