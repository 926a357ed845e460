"""The documentation site: imports stand alone, each notebook has its own page, and pages say what the source says."""
import ast
import base64
import io
import json
import re
import shutil
import sys
import warnings
from collections import defaultdict
from pathlib import Path
from posixpath import dirname, normpath

import pytest
from conftest import ROOT
from nbdev.config import nbpath2html
from nbdev.frontmatter import FrontmatterProc
from nbdev.process import NBProcessor
from nbdev.processors import add_show_docs, exec_show_docs, populate_language
from PIL import Image

sys.path.insert(0, str(ROOT/'scripts'))
import pages

IMPORTS = ast.Import, ast.ImportFrom
RUN = {'export', 'exports', 'exporti', 'exec_doc'}  # directives of the cells that nbdev runs, with all they need
EXPORT = 'import nbdev; nbdev.nbdev_export()'  # the only code that may stand beside its import; nbdev passes it over


def notebooks(nbs):
    return sorted(p for p in nbs.rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)


class Noted(exec_show_docs):
    "What nbdev runs for a page, by its own rule, but noted and not run"
    exc = None

    def begin(self):
        self.k, self.cells = self, []  # nbdev hands each cell to its shell `k`

    def cell(self, cell):
        self.cells.append(cell)

    def end(self):
        pass


def noted(path):
    "A notebook's cells, and the ids of those that nbdev runs for its page"
    done = NBProcessor(path, [FrontmatterProc, populate_language, add_show_docs, Noted])
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # nbdev warns of the mixtures that are looked for
        done.process()
    return done.nb.cells, {c.id for c in done.procs[-1].cells}


def mixed(path):
    """The ids of cells in which an import shares a cell with other code.

    For a page nbdev runs each cell with an import, and of the rest only what is exported: other code beside an import
    runs without the cells that it builds on. An import inside a function or a block is such a cell too, where it runs."""
    cells, run = noted(path)
    found = []
    for cell in cells:
        if cell.cell_type != 'code' or cell.source.strip() == EXPORT: continue
        code = cell.parsed_() or []  # None: a magic, which nbdev does not run
        top = [isinstance(part, IMPORTS) for part in code]
        inside = any(isinstance(node, IMPORTS) for part in code for node in ast.walk(part))
        alone = cell.id in run and not cell.directives_.keys() & RUN
        if inside and not all(top) and (any(top) or alone): found.append(cell.id)
    return found


def shared_pages(nbs):
    "Pages that more than one notebook would be written to"
    pages = defaultdict(list)
    for path in notebooks(nbs):
        pages[nbpath2html(path.relative_to(nbs)).as_posix()].append(path.relative_to(nbs).as_posix())
    return {page: paths for page, paths in pages.items() if len(paths) > 1}


def write(path, *sources):
    "A notebook with code cells c0, c1, ... below a title"
    cells = [dict(cell_type='markdown', id='title', metadata={}, source='# Planted\n\n> a page')]
    cells += [dict(cell_type='code', id=f'c{i}', metadata={}, outputs=[], execution_count=None, source=s)
              for i, s in enumerate(sources)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)), encoding='utf-8')
    return path


SHOWN = '#| export\ndef f(): return 1'  # makes nbdev run the cells of a page


@pytest.mark.parametrize('found, cells', [
    (['c1'], [SHOWN, 'import os\nx = 1']),
    (['c1'], [SHOWN, 'x = 1\nimport os']),
    (['c1'], [SHOWN, 'import os; os.getcwd()']),
    (['c1'], [SHOWN, '#| hide\nfrom os import path\npath.sep']),
    (['c0', 'c1'], ['#| export\nimport os\nx = 1', 'from os import path\ndef g(): pass']),
    (['c1'], [SHOWN, 'def g():\n    import os']),
    (['c1'], [SHOWN, 'try: import os\nexcept ImportError: pass']),
    (['c1'], [SHOWN, 'import nbdev; nbdev.nbdev_export(); x = 1']),
    (['c0'], ['import os\nx = 1']),  # a page that exports nothing
    ([], ['x = 1', 'def g():\n    import os']),  # nbdev runs none of it
    ([], [SHOWN, '#| eval: false\ndef g():\n    import os']),
    ([], ['#| export\ndef f():\n    import os', '#| export\ntry: import os\nexcept ImportError: os = None']),
    ([], [SHOWN, '#| hide\n# why\nimport os\nfrom os import (path,\n    sep)', 'x = "import os"', '%time import os']),
    ([], [SHOWN, '#| hide\nimport nbdev; nbdev.nbdev_export()']),
])
def test_planted_mixtures_are_found(tmp_path, found, cells):
    assert mixed(write(tmp_path/'00_a.ipynb', *cells)) == found


def test_imports_have_cells_of_their_own(root):
    pages = notebooks(root/'nbs')
    assert len(pages) > 60
    assert not {p.name: ids for p in pages if (ids := mixed(p))}


def test_planted_pages_of_one_name_are_found(tmp_path):
    for name in '02_clip', '17ab_Clip', '03_text', 'tutorials/1_clip', 'tutorials/02b_clip', 'clip_2':
        write(tmp_path/f'{name}.ipynb')
    assert shared_pages(tmp_path) == {'clip.html': ['02_clip.ipynb', '17ab_Clip.ipynb'],
                                      'tutorials/clip.html': ['tutorials/02b_clip.ipynb', 'tutorials/1_clip.ipynb']}


def test_each_notebook_has_a_page_of_its_own(root):
    assert not shared_pages(root/'nbs')


def copied(root, to, *names):
    "A project of some of the notebooks, with the package's own files"
    for name in names:
        (to/'nbs'/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root/'nbs'/name, to/'nbs'/name)
    shutil.copytree(root/'otseg', to/'otseg', ignore=shutil.ignore_patterns('assets', '__pycache__'))
    return to


@pytest.fixture(scope='module')
def site(root):
    made = pages.Site(root)
    return made, *made.all()


def test_every_notebook_has_a_page_and_stands_in_the_contents(root, site):
    made, files, copies = site
    assert len(made.names) == len(notebooks(root/'nbs')) > 90
    listed = {'index'}
    for path in (p for p in files if p.endswith('.md')):
        for tree in re.findall(r'```{toctree}\n(.*?)```', files[path], re.S):
            lines = [line for line in tree.split('\n') if line and not line.startswith(':')]
            listed |= {normpath(f'{dirname(path) or "."}/{line}') for line in lines}
    assert listed == {p.removesuffix('.md') for p in files if p.endswith('.md')}
    assert listed == {p.removesuffix('.html.md') for p in copies}
    for name in made.names:  # by nbdev's rule
        assert nbpath2html(Path(name)).with_suffix('').as_posix() == pages.page_of(name) in listed


def test_the_address_of_every_module_is_made(root, site):
    _, _, copies = site
    told = {m[1] for p in (root/'otseg').rglob('*.py')
            if (m := re.search(r'^Docs: https://otseg\.github\.io/otseg/(\S+?)"""', p.read_text(encoding='utf-8'), re.M))}
    assert len(told) > 60 and told <= copies.keys()


def public(path):
    "What a module offers, by its `__all__`"
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '__all__': return set(ast.literal_eval(node.value))
    return set()


def test_every_public_name_has_an_entry(root, site):
    made, files, _ = site
    for name, module in made.modules.items():
        shown = {e['name'] for e in made.entries[name]}
        want = {n for n in public(root/f'{module.replace(".", "/")}.py') if not n.startswith('_')}
        assert want <= shown, (module, want - shown)
        page = files[f'{pages.page_of(name)}.md']
        for n in want: assert re.search(rf'^:+{{py:\w+}} {n}\b', page, re.M), (module, n)


def test_the_recorded_explorer_holds_its_pictures(site):
    "In one line, since a blank one would end the HTML; a plain reader has the picture without the script"
    _, files, copies = site
    line, = (s for s in files['09_explore/explorer.md'].splitlines() if s.startswith('<div class="recorded"'))
    frames = json.loads(re.search(r'const frames = (\[.*?\])', line)[1])
    sizes = {Image.open(io.BytesIO(base64.b64decode(f))).size for f in frames}
    assert line.endswith('</script></div>') and len(line) < 400_000
    assert (len(frames), len({*frames}), len(sizes)) == (25, 25, 1) and frames[7] in line.partition('<script>')[0]
    plain = copies['09_explore/explorer.html.md']
    assert 'class="recorded"' in plain and frames[7] in plain and '<script' not in plain


def test_an_entry_says_types_shapes_defaults_and_meanings():
    source = '''
@dataclass
class Kept(Base):
    "A record | of *things*"
    names: list[str]  # What they are called; `a|b`
    n: int = 3        # How many
    _inside: int = 0
    def __len__(self): return self.n
    def of(self, i: int) -> str:  # One of them
        "By number"

@patch
def first(self: Kept,
    x: Float[Tensor, "b n"]=None,  # Scores, 0 to 1
    *, y, z=(1, 2),                # Of z alone
    **kwargs,
) -> int:                          # Its place
    "The first"

LIMIT = 5
def _hidden(): pass
'''
    kept, first, limit = pages.entries(source)
    assert (kept['kind'], kept['name'], kept['sig'], kept['doc']) == ('class', 'Kept', '(names, n=3)', 'A record | of *things*')
    assert kept['rows'] == [('names', 'list[str]', None, 'What they are called; `a|b`'), ('n', 'int', '3', 'How many')]
    assert [(m['name'], m['sig'], m['rows'], m['back']) for m in kept['methods']] == [
        ('of', '(i)', [('i', 'int', None, '')], ('str', 'One of them'))]
    assert first['name'] == 'Kept.first' and first['sig'] == '(x=None, *, y, z=(1, 2), **kwargs)' and first['kind'] == 'method'
    assert first['rows'] == [('x', "Float[Tensor, 'b n']", 'None', 'Scores, 0 to 1'), ('y', None, None, ''),
                             ('z', None, '(1, 2)', 'Of z alone'), ('**kwargs', None, None, '')]
    assert first['back'] == ('int', 'Its place') and limit['flags'] == ['value: 5']
    assert pages.table(kept['methods'][0]['rows'], ('str', 'One | two')).split('\n')[::2] == [
        '| parameter | type | meaning |', '| `i` | `int` |  |']
    assert pages.table([], ('str', 'Its *name*')) == 'Returns `str` Its \\*name\\*' and pages.table([], (None, '')) == ''
    assert '| `x` | `list` | `list()` |' in pages.table([('x', 'list', 'field(default_factory=list)', 'y')], (None, ''))
    shown = pages.directive(kept)
    assert shown.startswith(':::::{py:class} Kept(names, n=3)\n\nA record | of \\*things\\*\n')
    assert '| `names` | `list[str]` |  | What they are called; `a\\|b` |' in shown and '::::{py:method} of(i)' in shown


def test_links_hold_on_the_site_and_a_dead_one_is_an_error(root, tmp_path):
    one = write(copied(root, tmp_path, '01_transport/05_mpsa.ipynb')/'nbs/tutorials/1_one.ipynb')
    book = json.loads(one.read_text(encoding='utf-8'))
    book['cells'].append(dict(cell_type='markdown', id='m', metadata={}, source=(
        'See [it](../01_transport/05_mpsa.ipynb#scores), `prompt_plan`, [`prompt_plan`](https://a.b), `[x](../no.ipynb)`, '
        '[all](../../otseg).')))
    one.write_text(json.dumps(book), encoding='utf-8')
    site = pages.Site(tmp_path)
    site.files = {}
    assert ('See [it](../01_transport/mpsa.md#scores), {py:obj}`prompt_plan <otseg.transport.mpsa.prompt_plan>`, '
            f'[`prompt_plan`](https://a.b), `[x](../no.ipynb)`, [all]({pages.GITHUB}/tree/main/otseg).'
            ) in site.page('tutorials/1_one.ipynb')
    assert 'See [it](../01_transport/mpsa.html.md#scores), `prompt_plan`' in site.page('tutorials/1_one.ipynb', sphinx=False)
    book['cells'][-1]['source'] = '[it](../01_transport/05_gone.ipynb)'
    one.write_text(json.dumps(book), encoding='utf-8')
    with pytest.raises(SystemExit, match='should lead to a file, got ../01_transport/05_gone.ipynb'):
        pages.Site(tmp_path).page('tutorials/1_one.ipynb')


def test_what_is_dead_on_a_built_site_is_found(tmp_path):
    (tmp_path/'deep').mkdir()
    (tmp_path/'a.html').write_text('<p id="here"><a href="deep/b.html#there">b</a><a href="#here">up</a>'
                                   '<a href="https://c.d">c</a>', encoding='utf-8')
    (tmp_path/'deep/b.html').write_text('<p id="there"><a href="../a.html">a</a>', encoding='utf-8')
    assert pages.faults(tmp_path) == []
    (tmp_path/'deep/b.html').write_text('<a href="../a.html#gone">a</a><a href="c.html">c</a><img src="https://e.f/g.png">'
                                        '<script src="//cdn.h/i.js"></script>', encoding='utf-8')
    (tmp_path/'deep/b.html.md').write_text('[a](../a.html.md)', encoding='utf-8')
    (tmp_path/'s.css').write_text('@import url("https://fonts.j/k.css")', encoding='utf-8')
    assert pages.faults(tmp_path) == [
        'a.html: deep/b.html#there has no such place', 'deep/b.html.md: ../a.html.md leads nowhere',
        'deep/b.html: ../a.html#gone has no such place', 'deep/b.html: c.html leads nowhere',
        'deep/b.html: fetches //cdn.h/i.js', 'deep/b.html: fetches https://e.f/g.png', 's.css: fetches https://fonts.j/k.css']
