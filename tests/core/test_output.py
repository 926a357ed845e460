"What cannot be printed ends nothing: other encodings, a reader that left, a closed or a full output; in processes of their own"
import os
import subprocess
import sys

import pytest

WORK = '''
import sys, warnings
from pathlib import Path
from tqdm.auto import tqdm
from otseg.core import command, say, InputError
@command
def work(fails):
    print('café 船 \\udcff'); say('船', file=sys.stderr)
    warnings.warn('天空')
    for i in tqdm(range(20000), desc='船'): print(i)
    Path(sys.argv[1]).write_text('whole', encoding='utf-8')
    print('written')
    if fails: raise InputError('船 should be a ship')
work(len(sys.argv) > 2)
'''


def run(path, *more, env=(), **streams):
    return subprocess.run([sys.executable, '-c', WORK, str(path), *more], env=os.environ | dict(env), timeout=120, **streams)


@pytest.mark.parametrize('coding', ['cp1252', 'ascii', 'utf-16'])
def test_encodings(tmp_path, coding):
    done = run(tmp_path/'a', env=dict(PYTHONIOENCODING=coding), capture_output=True)
    out, err = done.stdout.decode(coding), done.stderr.decode(coding, 'replace')
    assert done.returncode == 0 and 'Traceback' not in err and out.split()[-1] == 'written', err
    assert ('船' if coding == 'utf-16' else '\\u8239') in out
    if coding != 'ascii': return
    done = run(tmp_path/'a', 'fail', env=dict(PYTHONIOENCODING=coding), capture_output=True)
    assert done.returncode == 2 and 'should be a ship' in done.stderr.decode(coding, 'replace').splitlines()[-1]


@pytest.mark.parametrize('both', [False, True])
def test_a_reader_that_leaves(tmp_path, both):
    "As `| head -n 1`, also with `2>&1`: the work goes on to its end, and nothing is said of it"
    p = subprocess.Popen([sys.executable, '-c', WORK, str(tmp_path/'a')], stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT if both else subprocess.PIPE)
    p.stdout.readline()
    p.stdout.close()
    said = b'' if both else p.stderr.read()
    assert p.wait(120) == 0 and b'Broken' not in said and b'Exception' not in said, said
    assert (tmp_path/'a').read_text(encoding='utf-8') == 'whole'


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs /dev/full')
def test_a_full_output(tmp_path):
    with open('/dev/full', 'wb') as full: done = run(tmp_path/'a', stdout=full, stderr=full)
    assert done.returncode == 0 and (tmp_path/'a').exists()


@pytest.mark.skipif(os.name != 'posix', reason='closes descriptors of a child: POSIX')
@pytest.mark.parametrize('closed', ['2>&-', '>&- 2>&-'])
def test_closed_outputs(tmp_path, closed):
    done = subprocess.run(['sh', '-c', f'"$0" -c "$1" "$2" {closed}', sys.executable, WORK, str(tmp_path/'a')],
                          capture_output=True, timeout=120)
    assert done.returncode == 0 and (tmp_path/'a').exists(), done
