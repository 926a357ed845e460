"""Faults made by hand, one at a time, in a copy of the package: the tests named beside each have to fail

`python tests/mutants/run.py [--workers 2] [WORD ...]` runs the mutants of `table.py`, or those with one of the words in
their name, module or tests. `make mutants` calls it. Nothing is changed here: each worker has a copy of package and tests
in a temporary folder. The closing line counts; the exit code is 0 only if none survived.
"""
import argparse
import ast
import multiprocessing
import os
import re
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).resolve().parents[2]
COPIED = 'otseg', 'tests', 'nbs', 'studies', 'scripts', 'pyproject.toml', 'settings.ini', 'setup.py', 'README.md', 'Makefile'
LIMIT = 300  # seconds for the tests of one mutant


def module_of(root, mutant) -> Path: return root/'otseg'/f'{mutant.module}.py'


def mutated(root, mutant) -> str:
    "The text of the module with the fault in it; ValueError where the table does not fit the module"
    path = module_of(root, mutant)
    if not path.is_file(): raise ValueError(f'{mutant.name}: no module {mutant.module}')
    text = path.read_text(encoding='utf-8')
    found = text.count(mutant.old)
    if found != 1: raise ValueError(f'{mutant.name}: its old text is in {mutant.module} {found} times instead of once')
    new = text.replace(mutant.old, mutant.new)
    try: same = ast.dump(ast.parse(new)) == ast.dump(ast.parse(text))
    except SyntaxError as e: raise ValueError(f'{mutant.name}: its new text is no Python ({e})') from None
    if same: raise ValueError(f'{mutant.name}: changes nothing')
    return new


def wrong_tests(root, mutant) -> list[str]:
    "Those of its tests that do not exist"
    wrong = [] if mutant.tests else ['none is named']
    for test in mutant.tests:
        file, _, name = test.partition('::')
        path = root/'tests'/file
        names = {f.name for f in ast.walk(ast.parse(path.read_text(encoding='utf-8'))) if isinstance(f, ast.FunctionDef)
                 } if path.is_file() else set()
        if name.partition('[')[0] not in names: wrong.append(test)
    return wrong


def copy_of(root, into) -> Path:
    "A copy of package and tests"
    for name in COPIED:
        if (root/name).is_dir():
            shutil.copytree(root/name, into/name, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints'))
        elif (root/name).exists(): shutil.copy(root/name, into/name)
    return into


def _pytest(copy, tests, said):
    "In a process of its own: the tests, on the copy"
    with open(said, 'wb') as f:
        for number in (1, 2): os.dup2(f.fileno(), number)
    # a module that changes twice in a second is read each time without bytecode; a clone has no folder of shared data
    sys.dont_write_bytecode = True
    os.environ |= dict(PYTHONPATH=copy, PYTHONDONTWRITEBYTECODE='1', OTSEG_SHARED=os.path.join(copy, 'none'),
                       OTSEG_CACHE=os.path.join(copy, 'cache'))
    os.chdir(copy)
    sys.path[:] = [copy, *(p for p in sys.path if p and Path(p).resolve() not in (ROOT, ROOT/'tests', ROOT/'tests/mutants'))]
    import pytest
    sys.exit(int(pytest.main(['-q', '--tb=line', '-rfE', '-p', 'no:cacheprovider', *(f'tests/{t}' for t in tests)])))


def run_tests(copy, tests, context) -> tuple[int, str]:
    "Exit code and what pytest printed; -1 where it took too long"
    said = copy.parent/f'{copy.name}.txt'
    process = context.Process(target=_pytest, args=(str(copy), tests, str(said)))
    process.start()
    process.join(LIMIT)
    if process.is_alive():
        process.kill()
        return -1, f'{LIMIT} seconds have passed'
    return process.exitcode, said.read_text(encoding='utf-8', errors='replace')


def starting():
    "How processes start: forked, where that is possible, from one that has imported what the package needs, but not the package"
    if 'forkserver' not in multiprocessing.get_all_start_methods(): return multiprocessing.get_context('spawn')
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([
        'pytest', 'hypothesis', 'open_clip', 'torchvision.transforms.v2', 'accelerate', 'torchmetrics', 'jaxtyping',
        'matplotlib.pyplot', 'ipywidgets', 'fastcore.all', 'torch.distributed.tensor', 'scipy.ndimage', 'scipy.io',
        'huggingface_hub', 'safetensors.torch'])
    return context


def survived(copy, mutant, context) -> str:
    "Why a mutant was not killed; empty where each of its tests failed. The copy is as it was afterwards"
    path = module_of(copy, mutant)
    before, text = path.read_bytes(), mutated(copy, mutant)
    try:
        path.write_text(text, encoding='utf-8')
        code, said = run_tests(copy, mutant.tests, context)
    finally: path.write_bytes(before)
    if code not in (0, 1): return f'its tests did not run (pytest ended with {code}): {" ".join(said.split()[-40:])}'
    failed = re.findall(r'^FAILED tests/(\S+)', said, re.M)
    passed = [t for t in mutant.tests if not any(f == t or f.startswith(f'{t}[') for f in failed)]
    return f'passed all the same: {", ".join(passed)}' if passed else ''


def run(root, mutants, workers=1, say=print, context=None) -> int:
    "Run them all; the number of those that survived"
    context, wrong = context or multiprocessing.get_context('spawn'), []
    for m in mutants:
        try: mutated(root, m)
        except ValueError as e: wrong.append(str(e))
        wrong += [f'{m.name}: no test {t}' for t in wrong_tests(root, m)]
    if wrong: raise SystemExit('\n'.join(['error: the table does not fit:', *wrong]))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool:
        copies, began = Queue(), time.perf_counter()
        for i in range(workers): copies.put(copy_of(root, Path(folder)/f'{i}'))
        code, said = run_tests(Path(folder)/'0', sorted({t for m in mutants for t in m.tests}), context)
        if code: raise SystemExit(f'{said}\nerror: the tests should pass without a mutant')
        say(f'the tests pass without a mutant ({time.perf_counter() - began:.0f} s)')

        def one(mutant):
            copy, start = copies.get(), time.perf_counter()
            try: why = survived(copy, mutant, context)
            finally: copies.put(copy)
            say(f'{"SURVIVED" if why else "killed":<9}{time.perf_counter() - start:5.0f} s  {mutant.module}: {mutant.name}'
                f'{"; " if why else ""}{why}')
            return bool(why)
        left = sum(pool.map(one, mutants))
        say(f'{time.perf_counter() - began:.0f} s')
    say(f'{len(mutants) - left} killed, {left} survived')
    return left


def main():
    os.environ |= dict(OMP_NUM_THREADS='1', MPLBACKEND='Agg', HF_HUB_OFFLINE='1')  # libraries read them as they are imported
    sys.path.insert(0, str(ROOT/'tests'))
    from mutants.table import MUTANTS
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--workers', type=int, default=2, help='mutants at a time')
    parser.add_argument('words', nargs='*', help='only mutants with one of these words in name, module or tests')
    args = parser.parse_args()
    def asked(m): return not args.words or any(w in ' '.join([m.name, m.module, *m.tests]) for w in args.words)
    return run(ROOT, [m for m in MUTANTS if asked(m)], args.workers, lambda *a: print(*a, flush=True), starting())


if __name__ == '__main__': sys.exit(1 if main() else 0)
