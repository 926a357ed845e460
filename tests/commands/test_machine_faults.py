"A missing right, a full disk and a limit of the system are one plain line in every command, and nothing is left half written"
import configparser
import errno
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from given.shell import EVAL, ask, shell, start, tree
from otseg.core import HOLDER, LOCK, command

FAULTS = {errno.EACCES: 'should be open to this user', errno.EPERM: 'should be open to this user',
          errno.ENOSPC: 'there should be room for', errno.EROFS: 'should be on a disk that takes files',
          errno.EDQUOT: 'there should be room for', errno.ENAMETOOLONG: 'should have a shorter name', errno.EIO: 'should work'}
COMMANDS = dict(train=start(), eval=[*EVAL, '--output', 'new.json'], predict=ask('portrait.jpg'),
                prepare=['otseg-prepare', 'folder', 'data', '--output', 'new.json'],
                demo=['otseg-demo', '--scenes', '8', '--output', 'new'])
_broken = {}  # number of an error that everything below a folder ends with


@pytest.fixture
def world(base, folder):
    import shutil
    shutil.copytree(base, folder, dirs_exist_ok=True)
    return folder


def _hook(event, args):
    "As if the disk did not take it, whoever the user is: root may write everywhere"
    if not _broken or event not in ('open', 'os.mkdir'): return
    writes = event == 'os.mkdir' or isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    path = args[0]
    if not writes or not isinstance(path, (str, os.PathLike)): return
    if Path(os.path.abspath(path)).name.startswith(_broken['name']) or _broken['name'] in Path(os.path.abspath(path)).parts:
        raise OSError(_broken['number'], os.strerror(_broken['number']), str(path))


sys.addaudithook(_hook)


@pytest.fixture
def broken():
    "broken(number, name): what is called so, or lies below it, cannot be written"
    def breaks(number, name): _broken.update(number=number, name=name)
    yield breaks
    _broken.clear()


def results(): return {path: content for path, content in tree().items() if path.split('/')[0] != 'cache'}


# every fault where files are many, two of them elsewhere
CASES = [(name, number) for name in COMMANDS for number in FAULTS
         if name not in ('eval', 'prepare', 'demo') or number in (errno.EACCES, errno.ENOSPC)]


@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('name, number', CASES, ids=[f'{name}-{errno.errorcode[number]}' for name, number in CASES])
def test_an_output_that_cannot_be_written(world, broken, name, number):
    before = results()
    broken(number, '.new' if COMMANDS[name][-1] == 'new.json' else 'new')
    code, out, err = shell(*COMMANDS[name])
    assert code == 2 and 'Traceback' not in err, err
    last = err.splitlines()[-1]
    assert last.startswith('error: ') and FAULTS[number] in last and os.strerror(number) in last and 'new' in last
    assert results() == before


@pytest.mark.parametrize('inside', ['recipe', 'log', 'model', 'trainer', 'manifest'])
def test_a_disk_that_fills_while_a_run_writes(world, broken, inside):
    "What is under a name is whole; with room again, the run ends in the same bits"
    from given.shell import weights
    broken(errno.ENOSPC, f'.{inside}.')
    code, out, err = shell(*start())
    last = err.splitlines()[-1]
    assert code == 2 and 'there should be room for' in last and f'/{inside}.' in last and '.otseg_' not in last, err
    assert not {LOCK, HOLDER} & {Path(p).name for p in tree('.')}
    _broken.clear()
    code, out, err = shell(*start('--resume'))
    assert code == 0, err
    assert all((v == weights()[k]).all() for k, v in weights('new').items())
    assert not [p for p in tree('new') if Path(p).name.startswith('.')]


LIMITED = '''
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from otseg.train.command import main
main(sys.argv[2:])
'''


@pytest.mark.skipif(sys.platform == 'win32', reason='limits of the system: POSIX')
@pytest.mark.parametrize('file', ['model.safetensors', 'trainer.pt'])
def test_files_that_libraries_write(world, file):
    "safetensors and torch tell of a disk in words of their own; a limit on the size of files is one that can be set"
    sizes = {p: Path(f'run/checkpoints/step_000001/{p}').stat().st_size for p in ('model.safetensors', 'trainer.pt')}
    assert sizes['model.safetensors'] < sizes['trainer.pt']
    words = start()[1:]
    done = subprocess.run([sys.executable, '-c', LIMITED, str(sizes[file] - 100), *words], capture_output=True, text=True,
                          encoding='utf-8', timeout=300)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 2 and 'Traceback' not in done.stderr, done.stderr
    assert last.startswith(f'error: new/checkpoints/.step_000001/{file} should be allowed to grow, got File too large'), last


def test_a_reader_that_leaves_does_not_end_a_training(world):
    "otseg-train ... 2>&1 | head -n 1"
    p = subprocess.Popen([sys.executable, '-m', 'otseg.train', *start()[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    p.stdout.readline()
    p.stdout.close()
    assert p.wait(300) == 0
    assert sorted(p.name for p in Path('new/checkpoints').iterdir()) == ['step_000001', 'step_000002']


def test_every_command_has_the_same_way_out():
    parser = configparser.ConfigParser(delimiters=['='])
    parser.read(ROOT/'settings.ini', encoding='utf-8')
    scripts = dict(line.split(' = ') for line in parser['DEFAULT']['console_scripts'].strip().splitlines())
    assert len(scripts) == 11
    decorated = command(print).__code__
    for name, place in scripts.items():
        module, _, function = place.partition(':')
        if name == 'otseg-predict': module, function = 'otseg.predict.command', 'predict'  # which main calls
        f = chain = getattr(importlib.import_module(module), function)
        while f.__code__ is not decorated and (f := getattr(f, '__wrapped__', None)): pass
        assert f, (name, chain)
