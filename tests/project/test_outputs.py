"Notebooks store what they show: who must hold a picture, who words; no picture is blank, nothing an error or of older code"
import ast
import base64
import io
import json
import re

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

NBS = ROOT/'nbs'
# What these have to show is words and tables; the others of wings, explanations and tutorials hold a picture too
IN_WORDS = '''
    00_core/00_core 01_transport/00_choices 01_transport/02_fused 02_model/01_config 02_model/08_checkpoint
    03_data/02_files 03_data/03_layouts 03_data/06_listing 03_data/08_check 04_evaluate/02_diversity 04_evaluate/03_paper
    04_evaluate/04_protocol 04_evaluate/07_gains 06_train/01_batches 06_train/02_run 06_train/03_processes 06_train/04_step
    06_train/06_command 07_predict/00_words 07_predict/03_folder 07_predict/04_export 07_predict/05_command
    08_study/04_frozen 08_study/05_questions 08_study/07_runs 08_study/09_backbones
    10_commands/00_score 10_commands/01_use 10_commands/02_data 10_commands/03_benchmarks
    10_commands/04_evaluate tutorials/5_many_gpus tutorials/6_reproduce_the_paper
    explanations/paper_and_code explanations/is_it_zero_shot'''.split()
NOTHING = '09_explore/03_page', '09_explore/04_app'  # a page for a browser
SHOWS = ('print', 'Markdown', 'HTML', 'panels_figure')  # and every plot_*: a cell that ends in such a call has an output
PAGES = {p.relative_to(NBS).with_suffix('').as_posix(): p for folder in ('[01][0-9]_*', 'tutorials', 'explanations')
         for p in sorted(NBS.glob(f'{folder}/*.ipynb'))}


def pictures(cell):
    "The pictures among the outputs of a cell"
    for out in cell['outputs']:
        for kind, data in out.get('data', {}).items():
            if kind in ('image/png', 'image/jpeg'): yield Image.open(io.BytesIO(base64.b64decode(''.join(data))))


def is_blank(picture):
    "Whether all of it is as good as one colour"
    return float(np.asarray(picture.convert('RGB'), np.float32).std((0, 1)).max()) < 2


def last_statement(source):
    "The last statement of a cell if it is an expression, and whether it is there to be shown"
    if re.search(r'^\s*[%!]', source, re.M): return None, False
    body = ast.parse(source).body
    if not body or not isinstance(body[-1], ast.Expr): return None, False
    call, silent = body[-1].value, source.rstrip().endswith(';')
    name = getattr(call.func, 'id', '') if isinstance(call, ast.Call) else ''
    return call, not silent and (name in SHOWS or name.startswith('plot_'))


def cell_faults(cell):
    "What is wrong with the stored outputs of a cell"
    outputs, source = cell['outputs'], ''.join(cell['source'])
    if any(o['output_type'] == 'error' for o in outputs): yield 'an error'
    if any(o.get('name') == 'stderr' for o in outputs): yield 'what a library said on stderr'
    if any(is_blank(p) for p in pictures(cell)): yield 'a blank picture'
    call, shows = last_statement(source)
    if shows and not outputs: yield 'no output where its code shows something'
    if call is None and any(o['output_type'] == 'execute_result' for o in outputs): yield 'a result that its code does not give'


def faults(cells, picture=True):
    "What is wrong with the stored outputs of a notebook, a line each"
    cells = [c for c in cells if c['cell_type'] == 'code']
    found = [f'cell {c["id"]} holds {f}' for c in cells for f in cell_faults(c)]
    if not any(c['outputs'] for c in cells): found.append('it shows nothing')
    elif picture and not any(True for c in cells for _ in pictures(c)): found.append('it holds no picture')
    return found


@pytest.mark.parametrize('name', [n for n in PAGES if n not in NOTHING])
def test_a_notebook_shows_what_it_should(name):
    found = faults(json.loads(PAGES[name].read_text(encoding='utf-8'))['cells'], name not in IN_WORDS)
    assert not found, f'{name}: {"; ".join(found)}. Run make outputs NBS=nbs/{name}.ipynb'


def test_names_of_those_in_words_are_notebooks(): assert not {*IN_WORDS, *NOTHING} - PAGES.keys()


def code(source, *outputs):
    return dict(cell_type='code', id='dot', metadata={}, execution_count=None, source=source, outputs=[*outputs])


def picture(array):
    Image.fromarray(np.uint8(array)).save(out := io.BytesIO(), 'png')
    return dict(output_type='display_data', metadata={}, data={'image/png': base64.b64encode(out.getvalue()).decode()})


WHITE = np.full((40, 60, 3), 255)
DRAWN = np.where(np.arange(60)[:, None] % 20 < 10, 255, 40) + 0 * WHITE
WORDS = dict(output_type='stream', name='stdout', text='12 %')
ERROR = dict(output_type='error', ename='NameError', evalue='', traceback=[])
RESULT = dict(output_type='execute_result', metadata={}, execution_count=None, data={'text/plain': '12'})


@pytest.mark.parametrize('cells, told', [
    ([code('plot_dot()', picture(DRAWN))], []),
    ([code('x = 1'), code('plot_dot()', picture(DRAWN)), code('print(x)', WORDS), code('x', RESULT)], []),
    ([code('plot_dot()', picture(WHITE))], ['cell dot holds a blank picture']),
    ([code('plot_dot()', picture(WHITE - 1 * (DRAWN < 99)))], ['cell dot holds a blank picture']),  # one level of 255
    ([code('plot_dot()', picture(DRAWN)), code('plot_more()')], ['cell dot holds no output where its code shows something']),
    ([code('plot_dot()', picture(DRAWN)), code('plot_more();')], []),
    ([code('x = 1')], ['it shows nothing']),
    ([code('print(1)', WORDS)], ['it holds no picture']),
    ([code('x = 1', RESULT), code('dot()', picture(DRAWN))], ['cell dot holds a result that its code does not give']),
    ([code('x', ERROR), code('dot()', picture(DRAWN))], ['cell dot holds an error']),
    ([code('dot()', picture(DRAWN), WORDS | dict(name='stderr'))], ['cell dot holds what a library said on stderr'])])
def test_what_is_wrong_is_told(cells, told): assert faults(cells) == told


def test_words_are_enough_for_some():
    assert faults([code('print(1)', WORDS)], picture=False) == []
    assert faults([code('x = 1')], picture=False) == ['it shows nothing']
