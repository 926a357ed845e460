"Every notebook is a page: it becomes HTML, shows no error, and its links lead somewhere"
import importlib.util
import json
import re
from html import unescape

import pytest
from conftest import ROOT

NBS = ROOT/'nbs'
PAGES = sorted(p for p in NBS.rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)


@pytest.fixture(scope='module')
def exporter():
    return pytest.importorskip('nbconvert').HTMLExporter(exclude_input_prompt=True, exclude_output_prompt=True)


@pytest.mark.parametrize('path', PAGES, ids=lambda p: p.relative_to(NBS).as_posix())
def test_page(path, exporter):
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    outputs = [o for c in cells if c['cell_type'] == 'code' for o in c['outputs']]
    assert not [o['ename'] for o in outputs if o['output_type'] == 'error']
    html, _ = exporter.from_filename(str(path))
    source = next(''.join(c['source']) for c in cells if c['cell_type'] in ('markdown', 'raw'))
    title = re.search(r'^(?:# |title: )"?([^"\n]+)', source, re.M)
    assert title and title[1] in unescape(html)
    assert html.count('data:image/png;base64') >= sum('image/png' in o.get('data', {}) for o in outputs)


@pytest.mark.parametrize('path', PAGES, ids=lambda p: p.relative_to(NBS).as_posix())
def test_links(path):
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    text = '\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'markdown')
    for target in re.findall(r'\]\(([^)#\s]+)', re.sub(r'`[^`]*`', '', text)):
        if re.match(r'\w+:', target): continue
        assert (path.parent/target).exists(), f'{target} is no file beside {path.name}'


@pytest.mark.parametrize('path', PAGES, ids=lambda p: p.relative_to(NBS).as_posix())
def test_imports(path):
    "What a page imports from the package is there, also where the page is not run by the tests"
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    code = '\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'code')
    for module, names in re.findall(r'^\s*from (otseg[.\w]*) import \(?([\w,\s]+?)(?:\)|$|#)', code, re.M):
        found = importlib.import_module(module)
        for name in (n.split(' as ')[0].strip() for n in names.split(',')):
            assert not name or hasattr(found, name) or importlib.util.find_spec(f'{module}.{name}'), f'{module} has no {name}'
