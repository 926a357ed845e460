"""Run every notebook and every test, and say at the end what failed: `python scripts/run_tests.py`

Both stages run, whatever the first one finds. The last line counts notebooks and tests together; the exit code is 0 only
if neither failed. `make test` calls this.

Both run where matrix products round otherwise for each shape (tests/elsewhere), so that an assertion on bits which holds
on one processor alone fails on all of them. `--machine ""` is the plain machine, `--machine cuda` has a GPU that nobody
may touch.
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What has to work on any system: imports, the mathematics, the model, its checkpoints, data and scores.
ON_GPU = 'nbs/01_transport/02_fused.ipynb'  # the notebook that runs on a GPU where OTSEG_DEVICE asks for it
CORE = ('project/test_imports', 'project/test_layers', 'transport/test_range', 'model/test_model', 'evaluate/test_metrics',
        'model/test_chunks', 'model/test_parity', 'predict/test_export', 'project/test_versions', 'model/test_devices')


def notebooks():
    "Those that nbdev-test runs: none of a folder that holds a file `.notest`, none whose name or folder is hidden"
    for path in sorted((ROOT / 'nbs').rglob('*.ipynb')):
        parts = path.relative_to(ROOT).parts
        if any(p[0] in '._' for p in parts) or any((d / '.notest').exists() for d in path.parents):
            continue
        yield path.relative_to(ROOT).as_posix()


def stage(name, command, machine, **variables):
    "Run a command on a simulated machine, show what it prints and return its exit code and that text"
    path = os.pathsep.join(filter(None, (str(ROOT / 'tests/elsewhere'), os.environ.get('PYTHONPATH'))))
    variables |= dict(OTSEG_ELSEWHERE=machine, PYTHONPATH=path)
    print(f'=== {name}: {" ".join(command)}', flush=True)
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | variables, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, encoding='utf-8', errors='replace')
    lines = []
    for line in process.stdout:
        print(line, end='', flush=True)
        lines.append(line)
    return process.wait(), ''.join(lines)


def failed_notebooks(text, known):
    "Those that nbdev-test lists at its end, by name alone, with their paths"
    listed = text.partition('Tests Failed On The Following Notebooks')[2]
    found = re.findall(r'^\s+(\S.*\.ipynb)\s*$', listed, re.M)
    return [next((k for k in known if k.endswith(f'/{name}')), name) for name in dict.fromkeys(found)]


def run_notebooks(workers, flags, machine, gpu=False):
    "(names that failed, number of notebooks)"
    known = [ON_GPU] if gpu else list(notebooks())
    command = ['nbdev-test', *([ON_GPU] if gpu else []), '--n-workers', str(workers), *(['--flags', flags] if flags else [])]
    code, text = stage('notebooks', command, machine, OMP_NUM_THREADS='1', **(dict(OTSEG_DEVICE='cuda') if gpu else {}))
    failed = failed_notebooks(text, known)
    if code and not failed:
        failed = [f'nbdev-test itself (exit code {code})']
    return failed, max(len(known), len(failed))


def run_pytest(workers, more, machine):
    """(exit code, counts of passed, failed and skipped). The tests of a file run in one process, one after the other; several
    files at a time where there are several workers, in their order: the files with the fewest tests are the slowest."""
    beside = ['-n', str(workers), '--dist', 'loadfile', '--no-loadscope-reorder'] if workers > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / 'report.xml'
        code, _ = stage('tests', [sys.executable, '-m', 'pytest', f'--junitxml={report}', *beside, *more], machine,
                        OMP_NUM_THREADS='1', MPLBACKEND='Agg')
        counts = dict(passed=0, failed=0, skipped=0)
        if report.exists():
            for suite in ET.parse(report).iter('testsuite'):
                size, *wrong = (int(suite.get(k, 0)) for k in ('tests', 'failures', 'errors'))
                counts['failed'] += sum(wrong)
                counts['skipped'] += int(suite.get('skipped', 0))
                counts['passed'] += size - sum(wrong) - int(suite.get('skipped', 0))
    if code not in (0, 5) and not counts['failed']:
        counts['failed'] = 1  # pytest stopped before it could count
    return code, counts


def has_gpu():
    "Asked in a process of its own: this one does not import torch"
    ask = 'import sys, torch; sys.exit(not torch.cuda.is_available())'
    return subprocess.run([sys.executable, '-c', ask], cwd=ROOT).returncode == 0


def list_gpu_tests():
    "What `make test-gpu` would run where there is a GPU"
    subprocess.run([sys.executable, '-m', 'pytest', '-m', 'gpu', '--collect-only', '-q'], cwd=ROOT)
    print(f'{ON_GPU}, with OTSEG_DEVICE=cuda')
    print('There is no NVIDIA GPU here: these were listed, none of them was run.')


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--workers', type=int, default=2, help='notebooks, and files of tests, at a time')
    parser.add_argument('--flags', default='', help='flags of cells that run besides: "data", "gpu", "slow"')
    parser.add_argument('--machine', default='rounding', help='what differs on it: rounding, cuda, both with a comma, or ""')
    parser.add_argument('--only', choices=['notebooks', 'tests'], help='one stage instead of both')
    parser.add_argument('--core', action='store_true', help='only the tests that have to pass on every system')
    parser.add_argument('--gpu', action='store_true', help='what needs a GPU; without one, a list of it')
    parser.add_argument('pytest', nargs='*', help='passed on to pytest (after --)')
    args = parser.parse_args()
    if args.gpu:
        if not has_gpu():
            return list_gpu_tests()
        args.workers, args.pytest = 1, ['-m', 'gpu', '-rs', *args.pytest]
    if args.core:
        args.only, args.pytest = 'tests', [*(f'tests/{name}.py' for name in CORE), *args.pytest]
    failed, number = ([], 0) if args.only == 'tests' else run_notebooks(
        args.workers, args.flags, args.machine, args.gpu)
    code, counts = (0, dict(passed=0, failed=0, skipped=0)) if args.only == 'notebooks' else run_pytest(
        args.workers, args.pytest, args.machine)
    print()
    if args.only != 'tests':
        print(f'notebooks: {number - len(failed)} of {number} passed' if failed else f'notebooks: all {number} passed')
    for name in failed:
        print(f'notebook FAILED: {name}')
    if args.only != 'notebooks':
        print(f'tests: pytest ended with {code}' if code else 'tests: all passed')
    print(f'{number - len(failed) + counts["passed"]} passed, {len(failed) + counts["failed"]} failed, '
          f'{counts["skipped"]} skipped', flush=True)
    return 1 if failed or code not in (0, 5) or counts['failed'] else 0


if __name__ == '__main__':
    sys.exit(main())
