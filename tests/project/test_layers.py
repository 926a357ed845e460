"""Place is layer: a wing imports only wings below it, a notebook only lower numbers of its own wing; a library has one home"""
import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

LIB, NBS = ROOT/'otseg', ROOT/'nbs'

# wing -> its level
LEVEL = dict(core=0, transport=1, model=2, data=3, evaluate=4, show=5, train=6, predict=7, study=8, explore=9, commands=10)
# library -> the rooms that may import it
HOME = {
    'open_clip': {'model.clip'},
    'huggingface_hub': {'model.checkpoint', 'model.clip'},  # clip: only to know when there is no network
    'torchmetrics': set(),  # what our counts are tested against
    'triton': {'transport.fused'},
    'scipy': {'data.masks', 'evaluate.gains', 'study.compare'},  # MATLAB files; statistics
    'filelock': {'core'},
    'matplotlib': {'show.charts', 'show.figures'},
    'ipywidgets': {'explore.panels', 'explore.explorer'},
    'ipyevents': {'explore.panels'},  # the mouse over a picture; not required
    'gradio': {'explore.page'},  # not required, as the two that come with it
    'fastapi': {'explore.app'},
    'uvicorn': {'explore.app'},
    # processes that train one model; those of predict and evaluate only tell each other words, by torch.distributed
    'accelerate': {'train.processes', 'train.step', 'train.trainer'},
    'unittest': set(),  # what a library function stands in for, it sets and restores openly
}
# library -> the lowest wing that may import it
LOWEST = {'torchvision': 'data'}
WITHOUT = {'predict': {'train'}}  # wing -> wings below it that it does without: who predicts has no training to do
LEAF = {'explore': {'explore', 'commands'}, 'commands': {'commands'}}  # wing -> the wings that may import it
NAMES = 13     # at most, on top of the package
NOTEBOOKS = 10  # at most, in a folder


def rooms(nbs: Path) -> dict[str, tuple[str, str, int]]:
    "Module -> its notebook's path, its wing, and its number in the wing"
    found = {}
    for path in sorted(nbs.rglob('*.ipynb')):
        if '.ipynb_checkpoints' in path.parts: continue
        cells = json.loads(path.read_text(encoding='utf-8'))['cells']
        source = '\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'code')
        for name in re.findall(r'^#\s*\|\s*default_exp:?\s+(\S+)', source, re.M):
            number = re.match(r'(\d\d)_', path.name)
            found[name] = path.relative_to(nbs).as_posix(), name.split('.')[0], int(number[1]) if number else -1
    return found


def misplaced(nbs: Path) -> list[str]:
    "Notebooks whose place does not say what they are: 02_model/05_otseg.ipynb exports model.otseg"
    found, folders = [], {}
    for name, (path, wing, _) in rooms(nbs).items():
        *parents, file = path.split('/')
        want = rf'\d\d_{wing}/\d\d_{name.rpartition(".")[2]}\.ipynb'
        if wing not in LEVEL: found.append(f'{path}: there is no wing {wing}')
        elif not re.fullmatch(want, path): found.append(f'{path}: {name} should lie in a place like {want}')
        folders.setdefault('/'.join(parents), {}).setdefault(file[:2], []).append(file)
    for folder, numbers in folders.items():
        found += [f'{folder}: {" and ".join(files)} share a number' for files in numbers.values() if len(files) > 1]
        if sum(map(len, numbers.values())) > NOTEBOOKS: found.append(f'{folder}: more than {NOTEBOOKS} notebooks')
    of_wing = {wing: path.split('/')[0] for path, wing, _ in rooms(nbs).values()}
    found += [f'{path}: {wing} has two folders' for path, wing, _ in rooms(nbs).values() if path.split('/')[0] != of_wing[wing]]
    order = sorted(of_wing, key=of_wing.get)
    levels = [LEVEL.get(w, 0) for w in order]
    if levels != sorted(levels): found.append(f'the folders are in the order {order}')
    return found


def modules(lib: Path) -> dict[str, Path]:
    "Python files of the package by dotted name, without nbdev's own; a package by its own name"
    names = {}
    for path in sorted(lib.rglob('*.py')):
        parts = path.relative_to(lib).with_suffix('').parts
        if parts[-1] != '_modidx': names['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return names


def imports(path: Path, name: str):
    "Every (line, dotted target, is it a star) that a module imports: on top, in functions, relative, by importlib"
    package = name.split('.') if path.name == '__init__.py' else name.split('.')[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            here = ['otseg', *(p for p in package if p)]
            parts = (here[:len(here) - node.level + 1] if node.level else []) + ([node.module] if node.module else [])
            for alias in node.names:  # `from otseg import x` may name a module or something in one
                yield node.lineno, '.'.join([*parts, alias.name]), alias.name == '*'
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, 'id', '')
            if called in ('import_module', '__import__') and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value, False


def target(dotted: str, known) -> str | None:
    "The module or package that a dotted name lies in"
    parts = dotted.split('.')[1:]
    return next((m for n in range(len(parts), 0, -1) if (m := '.'.join(parts[:n])) in known), None)


def violations(lib: Path, nbs: Path) -> list[str]:
    "What breaks the layers, one line each; empty when all is well"
    room, files = rooms(nbs), modules(lib)
    found = misplaced(nbs)
    made = {name for name, path in files.items() if path.name not in ('__init__.py', '__main__.py')}
    found += [f'{name}.py: no notebook exports it' for name in made if name not in room]
    found += [f'{name}: a notebook exports it, but the module is not there' for name in room if name not in files]
    on_top = {p.stem for p in lib.iterdir() if p.name not in ('__init__.py', '__pycache__')}
    if len(on_top) > NAMES: found.append(f'more than {NAMES} names on top of the package: {", ".join(sorted(on_top))}')
    for name, path in files.items():
        wing, face = name.split('.')[0], path.name == '__init__.py'
        number = room[name][2] if name in room else NOTEBOOKS  # what starts a wing stands above its rooms
        for line, dotted, star in imports(path, name):
            where = f'{path.relative_to(lib).as_posix()}:{line}'
            if star: found.append(f'{where}: import the names of {dotted[:-2]}, not *')
            library = dotted.split('.')[0]
            if library in HOME and name not in HOME[library]:
                found.append(f'{where}: {library} is at home in {", ".join(sorted(HOME[library])) or "no room"} only')
            if library in LOWEST and LEVEL.get(wing, 0) < LEVEL[LOWEST[library]]:
                found.append(f'{where}: {library} is for {LOWEST[library]} and above')
            other = target(dotted, files.keys() | room.keys()) if library == 'otseg' else None
            if not other: continue
            above = other.split('.')[0]
            if face: found.append(f'{where}: a package that is imported imports nothing of ours, got {other}')
            elif wing not in LEAF.get(above, {wing}):
                found.append(f'{where}: nothing imports {above} except {", ".join(sorted(LEAF[above]))}')
            elif above in WITHOUT.get(wing, ()): found.append(f'{where}: {wing} does without {above}, got {other}')
            elif above != wing and LEVEL.get(above, 99) >= LEVEL.get(wing, 0):
                found.append(f'{where}: {wing} imports {other}, which is not below it')
            elif above == wing and '.' not in other and wing != 'core':
                found.append(f'{where}: import a room of {wing}, not its face')
            elif above == wing and other in room and room[other][2] >= number:
                found.append(f'{where}: number {number} of {wing} imports {other}, number {room[other][2]}')
    return found


def test_layers(): assert violations(LIB, NBS) == []


def test_every_room_is_read():
    assert {'core', 'transport.entropic', 'commands.use'} <= rooms(NBS).keys() & modules(LIB).keys()
    assert {w for _, w, _ in rooms(NBS).values()} == LEVEL.keys()
    assert {t for _, t, _ in imports(LIB/'transport/entropic.py', 'transport.entropic')} >= {'otseg.core.check', 'torch',
                                                                                            'otseg.transport.solvers.pin'}


@pytest.mark.parametrize('start', ['otseg', *(f'otseg.{w}' for w in LEVEL if w != 'core')])
def test_importing_a_package_loads_nothing_heavy(start):
    heavy = {'torch', 'open_clip', 'matplotlib', 'torchvision', 'accelerate', 'scipy', 'torchmetrics', 'ipywidgets'}
    code = f'import sys, {start}; assert not {heavy} & sys.modules.keys()'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, encoding='utf-8')
    assert done.returncode == 0, done.stderr


def test_a_room_of_mathematics_loads_no_library_of_pictures():
    code = 'import sys, otseg.transport.mpsa; ' \
           'assert not {"open_clip", "matplotlib", "torchvision", "accelerate"} & sys.modules.keys()'
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, encoding='utf-8')
    assert done.returncode == 0, done.stderr


def test_faces():
    "Every name that a face shows is there, is what its room defines, and stays so whatever is imported first"
    import importlib

    import otseg.transport.entropic
    assert callable(otseg.transport.sinkhorn) and otseg.transport.sinkhorn is otseg.sinkhorn
    for wing in LEVEL:
        face = importlib.import_module(f'otseg.{wing}')
        if wing in ('core', 'commands'): continue
        for name in face.__all__:
            value = getattr(face, name)
            assert getattr(value, '__module__', f'otseg.{wing}.').startswith(f'otseg.{wing}.'), (wing, name)
        assert {*face.__all__} <= {*dir(face)}
        with pytest.raises(AttributeError, match='has no attribute'): face.no_such_name  # noqa: B018
    assert {'sinkhorn', 'mps', 'MPSA', 'OTSeg', 'TrainingFree', 'Segmenter', 'load_dataset', 'fit'} <= {*otseg.__all__}
    for name in otseg.__all__: assert callable(getattr(otseg, name))


@pytest.fixture
def house(tmp_path):
    "A small sound package"
    code = {
        '00_core/00_core': 'import torch',
        '02_model/02_clip': 'from otseg.core import check\nimport open_clip',
        '02_model/03_mix': 'from .clip import encode\nfrom ..core import check',
        '06_train/05_trainer': 'def fit():\n    from otseg.model import mix\n    import accelerate, torchvision',
        '08_study/00_bench': 'from otseg.train.trainer import fit',
        '09_explore/02_explorer': 'from ..core import check',
        '10_commands/01_use': 'from otseg.explore.explorer import explore\nimport otseg.train.trainer',
    }
    for file, source in code.items(): plant(tmp_path, file, source)
    for wing in ('', 'model', 'train', 'study', 'explore', 'commands'):
        (tmp_path/'otseg'/wing/'__init__.py').write_text('x = 1\n', encoding='utf-8')
    return tmp_path


def plant(house, file, code, name=None):
    "Write a room: its notebook and its module"
    folder, stem = file.split('/')
    name = name or ('core' if folder == '00_core' else '.'.join(re.sub(r'^\d+[a-z]*_', '', p) for p in (folder, stem)))
    cell = dict(cell_type='code', source=[f'#| default_exp {name}'], metadata={}, outputs=[])
    (house/'nbs'/folder).mkdir(parents=True, exist_ok=True)
    (house/f'nbs/{file}.ipynb').write_text(json.dumps(dict(cells=[cell])), encoding='utf-8')
    write(house, name, code)


def write(house, name, code):
    "Write a module alone"
    path = house/'otseg'/f'{name.replace(".", "/")}.py'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(code + '\n', encoding='utf-8')


def test_sound_package_passes(house): assert violations(house/'otseg', house/'nbs') == []


@pytest.mark.parametrize('room, code, says', [
    ('core', 'from otseg.train.trainer import fit', 'core imports train.trainer, which is not below it'),
    ('core', 'import otseg.model.clip', 'core imports model.clip'),
    ('core', 'import otseg.model.clip as c', 'core imports model.clip'),
    ('core', 'from otseg.model import clip', 'core imports model.clip'),
    ('core', 'from otseg.model import OTSeg', 'core imports model, which is not below it'),
    ('core', 'from .model.clip import encode', 'core imports model.clip'),
    ('core', 'from .model import clip', 'core imports model.clip'),
    ('core', 'def f():\n    if True:\n        from otseg.model.clip import encode', 'core.py:3: core imports model.clip'),
    ('core', 'import importlib\nimportlib.import_module("otseg.model.clip")', 'core imports model.clip'),
    ('model.clip', 'from otseg.model.mix import f', 'number 2 of model imports model.mix, number 3'),
    ('model.clip', 'from .mix import f', 'number 2 of model imports model.mix, number 3'),
    ('model.clip', 'import otseg.model.clip', 'number 2 of model imports model.clip, number 2'),
    ('model.mix', 'from ..train.trainer import fit', 'model imports train.trainer'),
    ('model.mix', 'from otseg.model import OTSeg', 'import a room of model, not its face'),
    ('model.__init__', 'from otseg.core import check', 'a package that is imported imports nothing of ours, got core'),
    ('__init__', 'from otseg.core import check', 'a package that is imported imports nothing of ours, got core'),
    ('train.trainer', 'from otseg.explore.explorer import explore', 'nothing imports explore except commands, explore'),
    ('explore.explorer', 'from otseg.commands.use import demo', 'nothing imports commands except commands'),
    ('train.trainer', 'from otseg.study.bench import run_bench', 'train imports study.bench'),
    ('model.mix', 'import accelerate', 'accelerate is at home in train.processes, train.step, train.trainer only'),
    ('model.mix', 'from torchvision import io', 'torchvision is for data and above'),
    ('train.trainer', 'from unittest.mock import patch', 'unittest is at home in no room only'),
    ('train.trainer', 'import open_clip', 'open_clip is at home in model.clip only'),
    ('train.trainer', 'def f():\n    import matplotlib.pyplot as plt', 'matplotlib is at home in show.charts, show.figures'),
    ('model.mix', 'from huggingface_hub import hf_hub_download', 'huggingface_hub is at home in model.checkpoint, model.clip'),
    ('train.trainer', 'from otseg.core import *', 'import the names of otseg.core, not *'),
    ('model.stray', 'x = 1', 'model.stray.py: no notebook exports it'),
])
def test_planted_import_is_found(house, room, code, says):
    write(house, room, code)
    found = violations(house/'otseg', house/'nbs')
    assert len(found) == 1 and says in found[0], found


def test_a_study_may_predict_but_a_prediction_is_no_study(house):
    plant(house, '07_predict/02_segmenter', 'x = 1')
    write(house, 'study.bench', 'from otseg.predict.segmenter import x')
    assert violations(house/'otseg', house/'nbs') == []
    write(house, 'predict.segmenter', 'from otseg.study.bench import y')
    assert ['predict imports study.bench' in v for v in violations(house/'otseg', house/'nbs')] == [True]


@pytest.mark.parametrize('code, says', [
    ('from otseg.train.trainer import fit', 'predict does without train, got train.trainer'),
    ('from otseg.train import fit', 'predict does without train, got train'),
    ('import accelerate', 'accelerate is at home in train.processes, train.step, train.trainer only')])
def test_who_predicts_does_without_training(house, code, says):
    plant(house, '07_predict/03_folder', code)
    found = violations(house/'otseg', house/'nbs')
    assert len(found) == 1 and says in found[0], found


@pytest.mark.parametrize('file, name, says', [
    ('02_model/03ab_text', 'model.text', '02_model/03ab_text.ipynb: model.text should lie in a place like'),
    ('02_model/03a_text', 'model.text', 'should lie in a place'), ('02_model/3_text', 'model.text', 'should lie in a place'),
    ('02_model/04_text', 'model.words', 'should lie in a place'), ('02_model/04_text', 'train.text', 'should lie in a place'),
    ('02_model/04_text', 'text', 'there is no wing text'), ('02_model/03_text', 'model.text', 'share a number'),
    ('05_helpers/00_text', 'helpers.text', 'there is no wing helpers'),
    ('01_explore/04_text', 'explore.text', 'explore has two folders'),
    ('01_study/00_bench', 'study.bench', 'in the order')])
def test_a_notebook_out_of_place_is_found(house, file, name, says):
    if name == 'study.bench': shutil.rmtree(house/'nbs/08_study')
    plant(house, file, 'x = 1', name)
    assert any(says in v for v in violations(house/'otseg', house/'nbs')), violations(house/'otseg', house/'nbs')


def test_too_many_are_found(house):
    for i in range(4, 13): plant(house, f'02_model/{i:02d}_room_{i}', 'x = 1')
    for i in range(8): (house/f'otseg/more_{i}').mkdir()
    found = violations(house/'otseg', house/'nbs')
    assert [v.partition(':')[0] for v in found] == ['02_model', f'more than {NAMES} names on top of the package']


def test_missing_module_is_found(house):
    (house/'otseg/model/mix.py').unlink()
    assert any(f.startswith('model.mix: a notebook exports it') for f in violations(house/'otseg', house/'nbs'))


def test_upward_imports_in_a_copy_of_this_package_are_found(tmp_path):
    shutil.copytree(LIB, tmp_path/'otseg', ignore=shutil.ignore_patterns('assets', '__pycache__'))
    for file, planted, says in (('core.py', 'otseg.transport.entropic', 'core imports transport.entropic'),
                                ('model/vocab.py', 'otseg.model.otseg', 'number 0 of model imports model.otseg'),
                                ('show/charts.py', 'otseg.explore.panels', 'nothing imports explore')):
        path = tmp_path/'otseg'/file
        path.write_text(path.read_text(encoding='utf-8') + f'\n\ndef planted():\n    import {planted}\n', encoding='utf-8')
        assert [v for v in violations(tmp_path/'otseg', NBS) if says in v], file
