"""Write constraints.txt: one set of versions that fit together, for every Python and system: `python scripts/constraints.py`

The newest versions that settings.ini allows, as uv resolves them for all of them at once. `make setup` installs these,
so that an environment made tomorrow is the one that was tested.
"""
import argparse
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOWEST = '3.10'  # as requires-python of pyproject.toml
HEAD = '''# The versions that `make setup` installs, {date}. Made by `make constraints{more}`; do not edit.
# Python {lowest} and later on Linux, macOS and Windows; the same line may stand here once for each Python.
'''


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('pins', nargs='*', help='versions that are given: torch==2.14.1 torchvision==0.29.1')
    args = parser.parse_args()
    subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', 'uv'], check=True)
    with tempfile.TemporaryDirectory() as folder:
        given, out = Path(folder) / 'given.txt', Path(folder) / 'out.txt'
        given.write_text('\n'.join(args.pins) + '\n', encoding='utf-8')
        subprocess.run([sys.executable, '-m', 'uv', 'pip', 'compile', '--quiet', '--universal', '--python-version', LOWEST,
                        '--all-extras', '--no-annotate', '--no-header', '-c', str(given), '-o', str(out), 'pyproject.toml'],
                       cwd=ROOT, check=True)
        lines = out.read_text(encoding='utf-8')
    head = HEAD.format(date=date.today(), lowest=LOWEST, more=f' PIN="{" ".join(args.pins)}"' if args.pins else '')
    (ROOT / 'constraints.txt').write_text(head + lines, encoding='utf-8', newline='\n')
    print(f'constraints.txt: {len(lines.splitlines())} lines')


if __name__ == '__main__':
    main()
