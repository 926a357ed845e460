"""What a user gets: build the sdist and the wheel, install each in a fresh environment far from here, run the demo

`python scripts/clean_room.py [--python python3.12] [--wheel-only] [--keep]`. It needs the package index, some 6 GB in the
temporary folder and some minutes, most of them for torch. Only files that git tracks go into the room, as they are now.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHOWN = 40  # lines of a step that failed
NEEDED = {'setup.py', 'settings.ini', 'pyproject.toml', 'otseg/__init__.py', 'README.md', 'LICENSE'}  # to build from the sdist
WRITTEN = ['out/demo.png', 'out/scores.json']  # by the demo
# Where packages come from is the machine's affair; nothing else of the environment enters the room.
SOURCE = re.compile(r'PIP_(INDEX_URL|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX|CERT|CLIENT_CERT|PROXY|TRUSTED_HOST|CACHE_DIR|'
                    r'DEFAULT_TIMEOUT|RETRIES)|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|(HTTPS?|ALL|NO)_PROXY', re.I)
# Where the package was imported from, and which packages of the extra `dev` came along; pip and torch bring setuptools.
ASK = '''
import json, re
from importlib.metadata import PackageNotFoundError, distribution
import otseg, otseg.predict.folder
dev = []
for line in distribution('otseg').requires:
    name = re.match('[A-Za-z0-9_.-]+', line)[0]
    if re.search("extra == .dev.", line) and name != 'setuptools':
        try: dev.append(distribution(name).name)
        except PackageNotFoundError: pass
print(json.dumps([otseg.__file__, otseg.predict.folder.__file__, otseg.__version__, dev]))
'''


class Failed(Exception):
    "A step that failed: one line, and the output that explains it"
    def __init__(self, line, output=''):
        super().__init__(line)
        self.output = output


class Room:
    "A folder outside the repository with an empty home, and the steps that are done in it"
    def __init__(self, folder: Path):
        self.folder, self.home, self.source, self.dist = folder, folder/'home', folder/'source', folder/'dist'
        self.home.mkdir()
        self.clean = {'PATH': os.defpath, 'HOME': str(self.home), 'PYTHONUNBUFFERED': '1'}  # the error is told last

    def step(self, name, argv, cwd=None, pip=False):
        "Run a command, tell how long it took, and give back what it printed"
        print(f'{name:<28}', end='', flush=True)
        env = self.clean | ({k: v for k, v in os.environ.items() if SOURCE.fullmatch(k)} if pip else {})
        began = time.monotonic()
        done = subprocess.run([*map(str, argv)], cwd=cwd or self.folder, env=env, text=True, encoding='utf-8', errors='replace',
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        print(f'{time.monotonic() - began:6.1f} s', flush=True)
        if done.returncode:
            raise Failed(f'{name} failed with exit code {done.returncode}', done.stdout)
        return done.stdout

    def environment(self, name, python):
        "A fresh environment: its interpreter"
        self.step(f'make {name}', [python, '-m', 'venv', self.folder/name])
        return self.folder/name/'bin/python'


def copy_tracked(folder):
    "The files that git tracks, with edits that are not yet committed; a file that was never added is missing, as for a user"
    listed = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True, encoding='utf-8')
    if listed.returncode:
        raise Failed(f'{ROOT} should be a git repository', listed.stderr)
    for name in filter(None, listed.stdout.split('\0')):
        if (ROOT/name).is_file():
            (folder/name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT/name, folder/name)


def build(room, python):
    "The sdist from the tree and the wheel from the sdist"
    tools = room.environment('build tools', python)
    room.step('install build', [tools, '-m', 'pip', 'install', 'build'], pip=True)
    said = room.step('build sdist and wheel', [tools, '-m', 'build', '--outdir', room.dist, room.source], pip=True)
    if deprecated := [line for line in said.splitlines() if re.search('deprecat', line, re.I)]:
        raise Failed(f'the build should use nothing deprecated: {deprecated[0].strip()}', said)
    (sdist,), (wheel,) = room.dist.glob('*.tar.gz'), room.dist.glob('*.whl')
    with tarfile.open(sdist) as tar:
        inside = {name.partition('/')[2] for name in tar.getnames()}
    if absent := sorted(NEEDED - inside):
        raise Failed(f'{sdist.name} should hold {", ".join(absent)}: see MANIFEST.in')
    return sdist, wheel


def install(room, kind, python, file):
    "Install a built file with what it requires"
    pins = room.source/'constraints.txt'
    room.step(f'install the {kind}', [python, '-m', 'pip', 'install', file, *(['-c', pins] if pins.exists() else [])],
              pip=True)


def try_out(room, kind, python):
    "The package lies where it was installed, brings no tool of ours, and its demo runs in an empty folder"
    empty = room.folder/f'empty folder for the {kind}'
    empty.mkdir()
    said = room.step(f'{kind}: import', [python, '-c', ASK], empty)
    *files, version, dev = json.loads(said.splitlines()[-1])
    inside = python.parent.parent
    for file in files:
        if not Path(file).resolve().is_relative_to(inside.resolve()) or Path(file).resolve().is_relative_to(ROOT):
            raise Failed(f'the {kind} should be imported from {inside}, but {file} was')
    if dev:
        raise Failed(f'the {kind} should not install what only the extra `dev` names: {", ".join(dev)}')
    said = room.step(f'{kind}: otseg-demo', [python.parent/'otseg-demo', '--output', 'out'], empty)
    there = sorted(p.relative_to(empty).as_posix() for p in empty.rglob('*') if p.is_file() and p.stat().st_size)
    if there != WRITTEN:
        raise Failed(f'otseg-demo of the {kind} should write {", ".join(WRITTEN)}, but wrote {", ".join(there) or "nothing"}',
                     said)
    json.loads((empty/'out/scores.json').read_text(encoding='utf-8'))
    return version


def clean_room(folder, python, wheel_only):
    "All steps in a folder; the version that was tried"
    room = Room(folder)
    copy_tracked(room.source)
    sdist, wheel = build(room, python)
    user = room.environment('environment', python)
    install(room, 'wheel', user, wheel)
    version = try_out(room, 'wheel', user)
    if not wheel_only:
        room.step('uninstall the wheel', [user, '-m', 'pip', 'uninstall', '-y', 'otseg'])
        install(room, 'sdist', user, sdist)
        version = try_out(room, 'sdist', user)
    return version


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--python', default=sys.executable, help='the interpreter to install for (default: this one)')
    parser.add_argument('--wheel-only', action='store_true', help='do not install the sdist as well')
    parser.add_argument('--keep', action='store_true', help='leave the folder and tell where it is')
    args = parser.parse_args()
    python = shutil.which(args.python)
    if not python:
        print(f'--python should name an interpreter, but {args.python} is not there.', file=sys.stderr)
        return 1
    began, failed = time.monotonic(), None
    folder = Path(tempfile.mkdtemp(prefix='otseg clean room ')).resolve()  # spaces, as in many a user's home
    try:
        version = clean_room(folder, os.path.abspath(python), args.wheel_only)
    except Failed as e:
        failed = e
    finally:
        if args.keep:
            print(f'kept: {folder}')
        else:
            shutil.rmtree(folder, ignore_errors=True)
    took = f'{time.monotonic() - began:.0f} s'
    if failed:
        for line in failed.output.rstrip().splitlines()[-SHOWN:]:
            print(line, file=sys.stderr)
        print(f'clean room: {failed} ({took})', file=sys.stderr)
        return 1
    print(f'clean room: otseg {version} installs and runs from the wheel{"" if args.wheel_only else " and the sdist"} ({took})')
    return 0


if __name__ == '__main__':
    sys.exit(main())
