"""Pages for readers: links lead somewhere, and the map from paper to code names what is there."""
import importlib
import json
import re
from pathlib import Path

import pytest

PAGES = ['index.ipynb', *(f'{folder}/*.ipynb' for folder in ('tutorials', 'explanations', 'experiments'))]
LINK = re.compile(r'\]\((?![a-z][\w+.-]*:|#)([^)\s#]+)')


def markdown(path):
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    return '\n\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'markdown')


def dead_links(text, folder):
    return [t for t in LINK.findall(re.sub(r'^```.*?^```$|`[^`\n]+`', '', text, flags=re.M | re.S)) if not (folder/t).exists()]


def test_dead_links_are_found():
    here = Path(__file__).parent
    assert dead_links('[a](test_pages.py) [b](no_such.ipynb#x) [c](https://x.org) `[d](e)` ![f](f.png)', here) == [
        'no_such.ipynb', 'f.png']


@pytest.mark.parametrize('pattern', PAGES)
def test_links_lead_somewhere(root, pattern):
    pages = sorted((root/'nbs').glob(pattern))
    assert pages
    assert not {p.name: dead for p in pages if (dead := dead_links(markdown(p), p.parent))}


def test_links_of_the_readme_lead_somewhere(root):
    assert not dead_links((root/'README.md').read_text(encoding='utf-8'), root)


def module_of(notebook):
    "The module that a notebook exports"
    code = '\n'.join(''.join(c['source']) for c in json.loads(notebook.read_text(encoding='utf-8'))['cells'])
    return importlib.import_module(f'otseg.{re.search(r"^#[|] default_exp ([a-z_.]+)", code, re.M)[1]}')


def test_map_from_paper_to_code(root):
    "Every symbol of a row is in a notebook of that row; every equation from 1 to 18 has a row"
    rows = [line.split('|')[1:-1] for line in markdown(root/'nbs/index.ipynb').splitlines()
            if re.match(r'\| (Eqs?|Sections?|Tables?|Figs?) \d', line)]
    assert len(rows) > 20
    absent, equations = [], set()
    for about, _, notebooks, symbols in rows:
        modules = [module_of(root/'nbs'/f) for f in LINK.findall(notebooks)]
        for name in re.findall(r'`([A-Za-z_]+)`', re.sub(r'\(.*?\)', '', symbols)):
            if not any(hasattr(m, name) for m in modules): absent.append((about.strip(), name))
        if found := re.match(r' Eqs? (\d+)(?:(?:,| to) (\d+))?', about):
            equations |= {*range(int(found[1]), int(found[2] or found[1]) + 1)}
    assert not absent
    assert equations == {*range(1, 19)}


def test_reader_s_pages_run_in_the_tests(root):
    "All but the two that need data or hours"
    asleep = {p.name for folder in ('tutorials', 'explanations') for p in (root/'nbs'/folder).glob('*.ipynb')
              if re.search(r'^skip_exec: true', markdown(p), re.M)}
    assert asleep <= {'5_many_gpus.ipynb', '6_reproduce_the_paper.ipynb'}
