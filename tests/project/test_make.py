"The commands of a newcomer: an environment or the reason why not, and both stages of the tests, whatever the first one finds"
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

pytestmark = pytest.mark.skipif(os.name != 'posix' or not shutil.which('sh'), reason='needs a POSIX shell')


def python(path, version, starts=True):
    "A stand-in for an interpreter of some version: it answers what the script asks"
    path.parent.mkdir(parents=True, exist_ok=True)
    old = tuple(map(int, version.split('.'))) < (3, 10)
    path.write_text(f'#!/bin/sh\n{"" if starts else "exit 127"}\n'
                    f'case "$2" in *exit*) exit {int(old)} ;; *) echo {version} ;; esac\n', encoding='utf-8')
    path.chmod(0o755)
    return path


def environment(*args, cwd):
    done = subprocess.run(['sh', str(ROOT/'scripts/environment.sh'), *map(str, args)], cwd=cwd, capture_output=True, text=True,
                          encoding='utf-8')
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def at(tmp_path):
    "A folder whose path has a space in it, with an environment of Python 3.11"
    folder = tmp_path/'my project'
    python(folder/'.venv/bin/python', '3.11')
    return folder


@pytest.mark.parametrize('version, more, code, says', [
    ('3.11', '', 0, ''), ('3.12', '', 0, '.venv is of Python 3.11 ('), ('3.11', 'asked', 0, ''),
    ('3.12', 'asked', 1, '.venv is of Python 3.11, and '), ('3.9', 'asked', 1, 'Python should be 3.10 or later, got 3.9')])
def test_an_environment_of_another_python_is_told(at, version, more, code, says):
    "It is used unless the other Python was asked for by name"
    got, out, err = environment('--check', python(at/'python', version), '.venv', *filter(None, [more]), cwd=at)
    assert got == code and says in (err if code else out) and len((out + err).splitlines()) == bool(says), out + err
    if more and says.startswith('.venv'): assert 'rm -r .venv' in err and 'VENV=.venv-3.12' in err


def test_pythons_that_cannot_be_used(at):
    assert environment('no-such-python', 'new', cwd=at)[::2] == (
        1, 'make: there is no no-such-python. Install Python 3.10 or later, or name one: make PYTHON=python3.12 ...\n')
    old = python(at/'old', '3.8')
    code, out, err = environment(old, 'new', cwd=at)
    assert code == 1 and 'Python should be 3.10 or later, got 3.8' in err and not (at/'new').exists()
    python(at/'.venv/bin/python', '3.11', starts=False)
    code, out, err = environment('--check', python(at/'python', '3.11'), '.venv', cwd=at)
    assert code == 1 and 'the Python that made .venv is gone. Remove it' in err


def test_make_hands_on_which_python_was_asked_for(at):
    "As it would run: nothing is installed"
    shutil.copy(ROOT/'Makefile', at)
    for file in ('pyproject.toml', 'settings.ini', 'setup.py', 'constraints.txt', 'scripts/environment.sh'):
        (at/file).parent.mkdir(exist_ok=True)
        (at/file).touch()
    (at/'.venv/.installed').touch()
    def plan(*args): return subprocess.run(['make', '-n', 'demo', *args], cwd=at, capture_output=True, text=True,
                                           encoding='utf-8').stdout
    if not shutil.which('make'): pytest.skip('there is no make')
    env = [line for line in plan().splitlines() if '--check' in line]
    assert len(env) == 1 and not env[0].rstrip().endswith('asked')
    assert [line for line in plan('PYTHON=python3.12').splitlines() if '--check' in line][0].endswith('python3.12 .venv asked')
    assert '.venv/bin/otseg-demo --output demo' in plan()


def notebook(path, *sources):
    cells = [dict(cell_type='code', execution_count=None, id=f'0000000{i}', metadata={}, outputs=[], source=[s])
             for i, s in enumerate(sources)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)), encoding='utf-8')


@pytest.fixture
def project(tmp_path):
    "A project of two notebooks and two tests, in a folder whose path has a space in it"
    root = tmp_path/'a project'
    for file in ('scripts/run_tests.py', 'tests/elsewhere/sitecustomize.py'):
        (root/file).parent.mkdir(parents=True)
        shutil.copy(ROOT/file, root/file)
    (root/'pyproject.toml').write_text('[project]\nname = "planted"\nversion = "1"\n\n[tool.nbdev]\ntst_flags = ["slow"]\n'
                                       '[tool.pytest.ini_options]\ntestpaths = ["tests"]\n', encoding='utf-8')
    notebook(root/'nbs/00_one.ipynb', 'x = 1', 'assert x == 1')
    notebook(root/'nbs/tutorials/two.ipynb', 'y = 2')
    notebook(root/'nbs/kept/never_run.ipynb', 'assert False')
    (root/'nbs/kept/.notest').touch()
    (root/'tests/test_it.py').write_text('import pytest\ndef test_a(): pass\n@pytest.mark.skip\ndef test_b(): pass\n',
                                         encoding='utf-8')
    return root


def run(project):
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ['PATH']))
    env = {k: v for k, v in os.environ.items() if k not in ('IN_TEST', 'PYTEST_ADDOPTS', 'PYTHONPATH')} | dict(PATH=path)
    done = subprocess.run([sys.executable, 'scripts/run_tests.py'], cwd=project, env=env, capture_output=True, text=True,
                          encoding='utf-8')
    return done.returncode, done.stdout


def test_all_is_well(project):
    code, out = run(project)
    assert code == 0, out
    assert out.splitlines()[-3:] == ['notebooks: all 2 passed', 'tests: all passed', '3 passed, 0 failed, 1 skipped']


def test_a_notebook_that_fails_is_named_at_the_end_and_the_tests_run(project):
    notebook(project/'nbs/tutorials/two.ipynb', 'assert 1 == 2')
    code, out = run(project)
    assert code == 1 and '1 passed, 1 skipped' in out
    assert out.splitlines()[-4:] == ['notebooks: 1 of 2 passed', 'notebook FAILED: nbs/tutorials/two.ipynb', 'tests: all passed',
                                     '2 passed, 1 failed, 1 skipped']


@pytest.mark.parametrize('broken, says', [('def test_a(): assert 0', '2 passed, 1 failed, 0 skipped'),
                                          ('import no_such_module', '2 passed, 1 failed, 0 skipped')])
def test_a_test_that_fails(project, broken, says):
    (project/'tests/test_it.py').write_text(broken, encoding='utf-8')
    code, out = run(project)
    assert code == 1 and 'notebooks: all 2 passed' in out and out.splitlines()[-1] == says and 'pytest ended with' in out


def test_both_fail(project):
    notebook(project/'nbs/00_one.ipynb', 'x = 1', 'assert x == 2')
    (project/'tests/test_it.py').write_text('def test_a(): assert 0', encoding='utf-8')
    code, out = run(project)
    assert code == 1 and 'notebook FAILED: nbs/00_one.ipynb' in out and out.splitlines()[-1] == '1 passed, 2 failed, 0 skipped'


def test_bits_across_batch_sizes_fail_in_either_stage(project):
    "On every machine, although this one may give equal bits"
    bits = 'import torch; x, y = torch.rand(4, 40, 6), torch.rand(4, 6, 7); ' \
           'assert torch.equal(torch.bmm(x, y)[0], torch.bmm(x[:1], y[:1])[0])'
    notebook(project/'nbs/00_one.ipynb', bits)
    (project/'tests/test_it.py').write_text('def test_a():\n    ' + bits, encoding='utf-8')
    code, out = run(project)
    assert code == 1 and 'notebook FAILED: nbs/00_one.ipynb' in out and out.splitlines()[-1] == '1 passed, 2 failed, 0 skipped'


def test_the_notebook_for_a_gpu_is_there():
    sys.path.insert(0, str(ROOT/'scripts'))
    try: from run_tests import CORE, ON_GPU
    finally: sys.path.pop(0)
    assert (ROOT/ON_GPU).is_file() and all((ROOT/f'tests/{name}.py').is_file() for name in CORE)
