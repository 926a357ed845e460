"""Make README.md from nbs/index.ipynb without Quarto: `python scripts/readme.py [--check]`

Markdown stays, code becomes fences, text outputs become indented blocks and pictures become files beside the README.
A cell with `#| hide` leaves no trace; `#| echo: false` leaves its output only, and no other directive shows.
"""
import argparse
import json
import re
import sys
from pathlib import Path
from posixpath import normpath

ROOT = Path(__file__).resolve().parent.parent
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


def render(notebook):
    "README text of a notebook file"
    cells = json.loads(Path(notebook).read_text(encoding='utf-8'))['cells']
    parts = []
    for p in (p for cell in cells for p in cell_parts(cell) if p):
        if p.startswith(FENCE) and parts and parts[-1].startswith(FENCE):
            # Imports have a cell of their own; in the README they stand on top of the code that follows.
            parts[-1] = parts[-1].removesuffix('\n```') + '\n\n' + p.removeprefix(FENCE)
        else:
            parts.append(p)
    # Quarto sets `> subtitle` under the title as a lead; on a plain page it is the first paragraph.
    parts[:1] = [re.sub(r'\A(# .*\n+)> ?(.*)', r'\1\2', parts[0])] if parts else []
    return '\n\n'.join([NOTE] + parts) + '\n'


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--check', action='store_true', help='write nothing; exit 1 if README.md is out of date')
    check = parser.parse_args().check
    readme, new = ROOT / 'README.md', render(ROOT / 'nbs/index.ipynb')
    old = readme.read_text(encoding='utf-8') if readme.exists() else None
    if old == new:
        return 0
    if check:
        print('README.md differs from what nbs/index.ipynb makes. Run `make readme` and commit the result.',
              file=sys.stderr)
        return 1
    readme.write_text(new, encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
