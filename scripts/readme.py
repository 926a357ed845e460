"""Make README.md from nbs/index.ipynb: `python scripts/readme.py [--check]`

Markdown stays, code becomes fences, text outputs become indented blocks and pictures become files beside the README.
A cell with `#| hide` leaves no trace; `#| echo: false` leaves its output only, and no other directive shows.

The cells with `#| echo: false`, here and in the table of the studies, hold the numbers of records. They are run without a
kernel, and what they show is stored in their notebook too; they should not import PyTorch. The outputs of all other cells
are taken as they are stored.
"""
import argparse
import ast
import json
import os
import re
import sys
from pathlib import Path
from posixpath import normpath

ROOT = Path(__file__).resolve().parent.parent
TOLD = 'experiments/answers.ipynb', 'index.ipynb'  # notebooks with cells of records; the last one is the README
RUNS = 'https://github.com/otseg/otseg/actions/workflows'
# What a visitor of the repository sees under the title: how the last runs of the workflows ended, and two facts of pyproject.toml
BADGES = ' '.join((
    *(f'[![{name}]({RUNS}/{name}.yaml/badge.svg)]({RUNS}/{name}.yaml)' for name in ('test', 'docs')),
    '[![Python 3.10 to 3.13](https://img.shields.io/badge/Python-3.10_to_3.13-blue)](pyproject.toml)',
    '[![licence Apache-2.0](https://img.shields.io/badge/licence-Apache--2.0-blue)](LICENSE)'))
NOTE = '<!-- Made from nbs/index.ipynb by `make readme`; edit the notebook, not this file. -->'
DIRECTIVE = re.compile(r'^\s*#\s*\|\s*(\S.*)$')
# The target of ](..), src=".." or href=".." where it is a path relative to the notebook's folder
TARGET = re.compile(r'(\]\(|\b(?:src|href)=")(?![a-zA-Z][\w+.-]*:|[#/])([^)"\s#]+)')
FENCE = '```python\n'
CODE = re.compile(r'(^```.*?^```[^\S\n]*$|`[^`\n]+`)', re.M | re.S)


def text(value):
    "A notebook's text field, which is one string or a list of lines"
    return value if isinstance(value, str) else ''.join(value)


def directives(source):
    "The `#|` lines on top of a cell as {name: value}, and what follows them"
    found, rest = {}, source.split('\n')
    while rest and (m := DIRECTIVE.match(rest[0])):
        name, _, value = m[1].partition(':')
        found[name.strip()] = value.strip()
        rest = rest[1:]
    return found, '\n'.join(rest).strip('\n')


def relink(markdown, folder='nbs'):
    "Links that hold in the notebook's folder, rewritten to hold one folder up; code is left as it is"
    parts = CODE.split(markdown)
    parts[::2] = [TARGET.sub(lambda m: m[1] + normpath(f'{folder}/{m[2]}'), p) for p in parts[::2]]
    return ''.join(parts)


def output(out, cell_id):
    "One output of a code cell as Markdown; a picture has to be a file, so that the README shows what is committed"
    if out['output_type'] == 'stream':
        return indent(text(out['text'])) if out['name'] == 'stdout' else ''
    data = out.get('data', {})
    if 'text/markdown' in data:
        return relink(text(data['text/markdown'])).strip()
    if any(kind.startswith('image/') for kind in data):
        raise SystemExit(f'cell {cell_id} of nbs/index.ipynb holds a picture as output. '
                         'Save it under nbs/images and show it from a markdown cell.')
    return indent(text(data['text/plain'])) if 'text/plain' in data else ''


def indent(block):
    "A block of output, set off by four spaces"
    return '\n'.join(f'    {line}'.rstrip() for line in block.strip('\n').split('\n')) if block.strip() else ''


def cell_parts(cell):
    "The Markdown pieces that a cell leaves in the README"
    found, body = directives(text(cell['source']))
    if 'hide' in found or cell['cell_type'] == 'raw':
        return []
    if cell['cell_type'] == 'markdown':
        return [relink(body).strip()]
    code = [f'{FENCE}{body}\n```'] if body and found.get('echo') != 'false' else []
    return code + [output(o, cell.get('id', '?')) for o in cell['outputs']]


def run(code, names):
    "Run a cell; the value of its last line, if that is an expression"
    *lines, last = ast.parse(code).body or [ast.Pass()]
    if not isinstance(last, ast.Expr):
        lines, last = [*lines, last], None
    exec(compile(ast.Module(lines, []), 'index.ipynb', 'exec'), names)
    return None if last is None else eval(compile(ast.Expression(last.value), 'index.ipynb', 'eval'), names)


def told(path):
    "A notebook with what its cells of records show now; they run in its folder, one after another"
    book, names, here = json.loads(path.read_text(encoding='utf-8')), {}, os.getcwd()
    os.chdir(path.parent)
    try:
        for cell in book['cells']:
            found, body = directives(text(cell['source']))
            if cell['cell_type'] != 'code' or found.get('echo') != 'false':
                continue
            try:
                value = run(body, names)
            except Exception as e:
                raise SystemExit(f'cell {cell.get("id", "?")} of {path.relative_to(ROOT).as_posix()}: {e}') from e
            data = {} if value is None else {'text/markdown': value._repr_markdown_().splitlines(True),
                                             'text/plain': [repr(value)]}
            cell['outputs'] = [dict(data=data, execution_count=None, metadata={}, output_type='execute_result')] if data else []
    finally:
        os.chdir(here)
    return book


def render(notebook):
    "README text of a notebook"
    cells, parts = notebook['cells'], []
    for p in (p for cell in cells for p in cell_parts(cell) if p):
        if p.startswith(FENCE) and parts and parts[-1].startswith(FENCE):
            # Imports have a cell of their own; in the README they stand on top of the code that follows.
            parts[-1] = parts[-1].removesuffix('\n```') + '\n\n' + p.removeprefix(FENCE)
        else:
            parts.append(p)
    # The site sets `> subtitle` under the title as a lead; on a plain page it is the first paragraph.
    parts[:1] = [re.sub(r'\A(# .*\n+)> ?(.*)', rf'\1{BADGES}\n\n\2', parts[0])] if parts else []
    return '\n\n'.join([NOTE] + parts) + '\n'


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--check', action='store_true', help='write nothing; exit 1 if README.md is out of date')
    check = parser.parse_args().check
    sys.path.insert(0, str(ROOT))  # the package of this tree, whichever is installed
    changed = []

    def make(path, content):
        if not path.exists() or path.read_text(encoding='utf-8') != content:
            changed.append(path.relative_to(ROOT).as_posix())
            if not check:
                path.write_text(content, encoding='utf-8')

    for path in (ROOT / 'nbs' / name for name in TOLD):  # a later one may take numbers from one before
        book = told(path)
        make(path, json.dumps(book, indent=1, ensure_ascii=False) + '\n')
    make(ROOT / 'README.md', render(book))
    if check and changed:
        print(f'{", ".join(changed)}: not what the notebook and the records make. Run `make readme` and commit the result.',
              file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
