"""The documentation site: the cells that nbdev runs for the pages run by themselves, and each notebook has its own page."""
import ast
import json
import subprocess
import sys
import warnings
from collections import defaultdict

import pytest
from nbdev.config import nbpath2html
from nbdev.frontmatter import FrontmatterProc
from nbdev.process import NBProcessor
from nbdev.processors import add_show_docs, exec_show_docs, populate_language

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


# What nbdev-proc-nbs does to each notebook, but it stops at the first that fails, and it would install Quarto
PROCESS = '''
import json, sys
from pathlib import Path
from fastcore.parallel import parallel
from nbdev.doclinks import nbglob
from nbdev.processors import FilterDefaults
from nbdev.serve_drv import main

nbs, out = Path('nbs').resolve(), Path(sys.argv[1])
names = [p.resolve().relative_to(nbs) for p in nbglob(nbs, as_path=True)]
for name in names: (out/name).parent.mkdir(parents=True, exist_ok=True)
jobs = [(nbs/name, out/name, FilterDefaults) for name in names]
done = parallel(main, jobs, n_workers=2, method='spawn', return_exceptions=True)
(out/'failed.json').write_text(json.dumps({n.as_posix(): str(e) for n, e in zip(names, done) if e}), encoding='utf-8')
'''


def failed_pages(project, out):
    "Process the notebooks of a project for the site: the notebooks that give no page, each with the reason"
    done = subprocess.run([sys.executable, '-c', PROCESS, str(out)], cwd=project, capture_output=True, text=True,
                          encoding='utf-8')
    assert done.returncode == 0, done.stdout + done.stderr
    failed = json.loads((out/'failed.json').read_text(encoding='utf-8'))
    names = [p.relative_to(project/'nbs').as_posix() for p in notebooks(project/'nbs')]
    return failed | {n: 'nbdev makes no page of it' for n in names if n not in failed and not (out/n).is_file()}


@pytest.fixture
def project(tmp_path):
    "A project of no notebooks yet"
    (tmp_path/'nbs').mkdir()
    (tmp_path/'pyproject.toml').write_text('[project]\nname = "planted"\nversion = "1"\n\n[tool.nbdev]\n',
                                           encoding='utf-8')
    return tmp_path


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


def test_planted_failures_are_named(project):
    "All of them, and what fails nowhere else: a cell that nbdev does not run"
    good = write(project/'nbs/00_good.ipynb', 'import os', SHOWN, '1/0')
    write(project/'nbs/01_raises.ipynb', SHOWN, '#| export\n1/0')
    write(project/'nbs/deep/02_mixed.ipynb', SHOWN, 'x = 1', 'import os\nassert x')
    write(project/'nbs/_03_passed_over.ipynb', SHOWN)
    failed = failed_pages(project, project/'out')
    assert failed.keys() == {'01_raises.ipynb', 'deep/02_mixed.ipynb', '_03_passed_over.ipynb'}
    assert 'in cell' in failed['01_raises.ipynb'] and '1/0' in failed['01_raises.ipynb']
    assert 'assert x' in failed['deep/02_mixed.ipynb']
    assert 'show_doc' in (project/'out'/good.name).read_text(encoding='utf-8')


def test_every_notebook_becomes_a_page(root, tmp_path):
    assert not failed_pages(root, tmp_path)
