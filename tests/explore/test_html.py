"Every notebook is a page: it becomes HTML, shows no error, and its links lead somewhere"
import base64
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


def absent(cells, html):
    "What a page should show and does not: its title, the text of its cells, and every picture that they store"
    source = next((''.join(c['source']) for c in cells if c['cell_type'] in ('markdown', 'raw')), '')
    title = re.search(r'^(?:# |title: )"?([^"\n]+)', source, re.M)
    lost = [] if title and title[1] in unescape(html) else ['its title']
    text = re.sub(r'\s', '', unescape(re.sub('<[^>]*>', '', html)))
    for c in cells:
        if c['cell_type'] != 'code': continue
        if re.sub(r'\s', '', ''.join(c['source'])) not in text: lost.append(f'cell {c["id"]}')
        for o in c['outputs']:
            picture = ''.join(o.get('data', {}).get('image/png', '')).replace('\n', '')
            if picture not in html: lost.append(f'the picture of cell {c["id"]}')
            if o['output_type'] == 'error': lost.append(f'a result of cell {c["id"]}, which ended in {o["ename"]}')
    return lost


@pytest.mark.parametrize('path', PAGES, ids=lambda p: p.relative_to(NBS).as_posix())
def test_page(path, exporter):
    cells = json.loads(path.read_text(encoding='utf-8'))['cells']
    html, _ = exporter.from_filename(str(path))
    assert absent(cells, html) == []


def test_what_is_absent_is_seen(exporter, tmp_path):
    "A page without a picture, an empty page, another title, an error: each is told"
    dot = base64.b64encode(b'\x89PNG a dot').decode()
    def code(source, **output): return dict(cell_type='code', id='dot', metadata={}, execution_count=None, source=source,
                                            outputs=[dict(metadata={}, **output)])
    title = dict(cell_type='markdown', id='title', metadata={}, source='# Dots & lines')
    shown = code('dot()', output_type='display_data', data={'image/png': dot})
    cells = [title, shown]

    def page(cells):
        path = tmp_path/'page.ipynb'
        path.write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)), encoding='utf-8')
        return exporter.from_filename(str(path))[0]
    whole = page(cells)
    assert absent(cells, whole) == []
    assert absent(cells, whole.replace(dot, '')) == ['the picture of cell dot']
    assert absent(cells, page([])) == ['its title', 'cell dot', 'the picture of cell dot']
    assert absent(cells, page([title])) == ['cell dot', 'the picture of cell dot']
    assert absent(cells, page([title | dict(source='# Lines'), shown])) == ['its title']
    failed = [title, code('dot()', output_type='error', ename='NameError', evalue='', traceback=[])]
    assert absent(failed, page(failed)) == ['a result of cell dot, which ended in NameError']


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
