"""The parts of the repository agree: modules with notebooks, README with the index, a built package with its data."""
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import otseg

JUNK = shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints', '.last_checked', '*.egg-info')
PROJECT = 'pyproject.toml', 'settings.ini', 'setup.py', 'MANIFEST.in', 'README.md', 'CHANGELOG.md', 'LICENSE'


def python(code, cwd):
    "Run code in its own process; `IN_TEST` would make nbdev do nothing"
    env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'}
    done = subprocess.run([sys.executable, '-c', code], cwd=cwd, env=env, capture_output=True, text=True, encoding='utf-8')
    assert done.returncode == 0, done.stdout + done.stderr


def files(folder, pattern):
    return {p.relative_to(folder).as_posix(): p.read_text(encoding='utf-8') for p in sorted(folder.rglob(pattern))
            if '__pycache__' not in p.parts and '.ipynb_checkpoints' not in p.parts}


@pytest.fixture
def copy(root, tmp_path):
    "The project in a folder where it may be changed"
    for folder in 'otseg', 'nbs':
        shutil.copytree(root / folder, tmp_path / folder, ignore=JUNK)
    for file in PROJECT:
        shutil.copy(root / file, tmp_path)
    return tmp_path


def differing(a, b):
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def listed(index):
    "The symbols of nbdev's index; whether a module without any is listed depends on the version of nbdev"
    found = {}
    exec(index, found)
    return found['d']['settings'], {module: symbols for module, symbols in found['d']['syms'].items() if symbols}


def test_modules_are_what_the_notebooks_export(root, copy):
    for module in copy.glob('otseg/**/*.py'):
        if module.name not in ('__init__.py', '__main__.py'):  # so that a module whose notebook is gone shows as a difference
            module.unlink()
    python('from nbdev.doclinks import nbdev_export; nbdev_export()', copy)
    ours, made = files(root / 'otseg', '*.py'), files(copy / 'otseg', '*.py')
    assert listed(ours.pop('_modidx.py')) == listed(made.pop('_modidx.py')), 'run `make export`'
    changed = differing(ours, made)
    assert not changed, 'run `make export` (or move an edit of a module into its notebook)'
    assert (root / 'pyproject.toml').read_text(encoding='utf-8') == (copy / 'pyproject.toml').read_text(encoding='utf-8')


def test_notebooks_are_clean(root, copy):
    python('from nbdev.clean import nbdev_clean; nbdev_clean()', copy)
    assert not differing(files(root / 'nbs', '*.ipynb'), files(copy / 'nbs', '*.ipynb')), 'run `make clean`'


def test_readme_is_up_to_date(root):
    done = subprocess.run([sys.executable, root / 'scripts/readme.py', '--check'], capture_output=True, text=True,
                          encoding='utf-8')
    assert done.returncode == 0, done.stderr


def test_package_is_built_with_its_data(root, copy):
    "sdist from the tree, wheel from the sdist: what a user gets from an index"
    build = 'import os; from setuptools import build_meta; build_meta.build_{}({!r})'
    python(build.format('sdist', 'dist'), copy)
    sdist = next(copy.glob('dist/*.tar.gz'))
    with tarfile.open(sdist) as tar:
        tar.extractall(copy / 'unpacked')
    source = next((copy / 'unpacked').iterdir())
    python(build.format('wheel', str(copy / 'dist')), source)
    with zipfile.ZipFile(next(copy.glob('dist/*.whl'))) as wheel:
        inside = set(wheel.namelist())
        info = next(n.split('/')[0] for n in inside if '.dist-info/' in n)
        meta, entry = (wheel.read(f'{info}/{f}').decode() for f in ('METADATA', 'entry_points.txt'))
    there = {p.relative_to(root).as_posix() for p in (root / 'otseg').rglob('*')
             if p.is_file() and '__pycache__' not in p.parts}
    assert {n for n in inside if n.startswith('otseg/')} == there
    assert {n.split('/')[0] for n in inside} == {'otseg', info}
    assert f'Version: {otseg.__version__}\n' in meta and 'License-Expression: Apache-2.0' in meta
    assert 'Requires-Dist: torch>=' in meta and 'Provides-Extra: dev' in meta
    assert 'otseg-demo = otseg.commands.use:demo' in entry and 'otseg = otseg._modidx:d' in entry


def test_importing_the_package_loads_nothing_heavy():
    python('import sys, otseg; assert not {"torch", "open_clip", "matplotlib"} & sys.modules.keys()', Path.cwd())
