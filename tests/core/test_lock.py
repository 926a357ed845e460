"A folder is one process's at a time, however many want it and however they end"
import os
import random
import signal
import time
from pathlib import Path

import pytest

from otseg.core import HOLDER, LOCK, InputError, locked_folder


def contend(folder, times, seed, told):
    "Take a folder again and again; in it, a file that is there already is one that another process is at work on"
    g, taken = random.Random(seed), 0
    while taken < times:
        try:
            with locked_folder(folder):
                try: handle = os.open(folder/'busy', os.O_CREAT | os.O_EXCL)
                except FileExistsError: told.write_text('two at once', encoding='utf-8'); return
                time.sleep(g.uniform(0, .003))
                os.close(handle)
                (folder/'busy').unlink()
            taken += 1
        except InputError as e: assert 'should be written by one process at a time' in str(e)
        time.sleep(g.uniform(0, .003))


def test_many_want_one_folder(server, tmp_path):
    "Also while its holders remove it, because nothing is left in it"
    folder, told = tmp_path/'run', tmp_path/'told.txt'
    several = [server.Process(target=contend, args=(folder, 25, i, told)) for i in range(4)]
    for p in several: p.start()
    for p in several: p.join(120)
    assert {p.exitcode for p in several} == {0} and not told.exists()
    assert not folder.exists() or not [*folder.iterdir()]


def hold(folder, forks=False):
    with locked_folder(folder):
        if forks and not os.fork(): time.sleep(3); os.kill(os.getpid(), signal.SIGKILL)
        (folder/'mine').touch()
        time.sleep(60)


def until(path):
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(.01)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='kills and forks: POSIX')
@pytest.mark.parametrize('forks', [False, True])
def test_a_holder_that_is_killed(server, tmp_path, forks):
    "Its folder is free at once, or as soon as the processes that it forked have ended; what it left is not a user's"
    holder = server.Process(target=hold, args=(tmp_path/'run', forks))
    holder.start()
    until(tmp_path/'run/mine')
    with pytest.raises(InputError, match=f'got process {holder.pid} on .*at it since 20'), locked_folder(tmp_path/'run'): pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert {p.name for p in (tmp_path/'run').iterdir()} == {LOCK, HOLDER, 'mine'}
    with locked_folder(tmp_path/'run'): assert str(os.getpid()) in (tmp_path/'run'/HOLDER).read_text(encoding='utf-8')
    assert [p.name for p in (tmp_path/'run').iterdir()] == ['mine']


@pytest.mark.parametrize('content', ['', '[]', '{"pid": "x"}', '{"pid": 1, "host"', '\udcff'])
def test_a_holder_that_cannot_be_read(server, tmp_path, content):
    "A damaged note is no reason to fail otherwise, or to take the folder"
    holder = server.Process(target=hold, args=(tmp_path,))
    holder.start()
    until(tmp_path/'mine')
    (tmp_path/HOLDER).write_bytes(content.encode('utf-8', 'surrogateescape'))
    with pytest.raises(InputError, match='one process at a time, got process .* on unknown'), locked_folder(tmp_path): pass
    holder.kill()
    holder.join()
    (tmp_path/HOLDER).write_bytes(content.encode('utf-8', 'surrogateescape'))
    with locked_folder(tmp_path): pass


def test_it_takes_nothing_of_a_user(tmp_path):
    for name in ('.git', '.otseg', 'otseg.lock'): (tmp_path/name).touch()
    (tmp_path/'empty').mkdir()
    with pytest.raises(KeyError), locked_folder(tmp_path/'empty'): raise KeyError
    with locked_folder(tmp_path): pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ['.git', '.otseg', 'empty', 'otseg.lock']


@pytest.mark.skipif(os.name != 'posix' or os.geteuid() == 0, reason='rights bind users, on POSIX')
def test_a_folder_that_is_read_only(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError), locked_folder(Path(tmp_path)): pass
    finally: tmp_path.chmod(0o700)
