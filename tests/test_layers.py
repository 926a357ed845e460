"""A notebook's number is its layer, and a heavy library has one home. Both are read off the imports of the modules."""
import ast
import json
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIB, NBS = ROOT / 'otseg', ROOT / 'nbs'

# library -> the rooms that may import it
HOME = {
    'open_clip': {'clip', 'text'},
    'huggingface_hub': {'hub', 'checkpoint', 'clip'},  # clip: only to know when there is no network
    'torchmetrics': {'metrics'},
    'triton': {'fused'},
    'scipy': {'data'},  # MATLAB files
    'matplotlib': {'charts', 'figures'},
    'ipywidgets': {'panels', 'explorer', 'app'},
    'ipyevents': {'panels'},  # the mouse over a picture; not required
    'voila': {'app'},  # not required
    'IPython': {'charts'},
}
# library -> the lowest layer that may import it: pictures from above the toy scenes, Accelerate from what trains
LOWEST = {'torchvision': (11, ''), 'accelerate': (13, 'c')}
# module -> the rooms that may import it. The commands write figures, so `cli` stands above `viz`.
LEAF = {'viz': {'cli'}, 'cli': set(), 'prepare_cli': set(), 'app': set()}


def layers(nbs: Path) -> dict[str, tuple[int, str]]:
    "Layer of each exported module: 02a_x.ipynb lies between 02 and 03"
    found = {}
    for path in sorted(nbs.rglob('*.ipynb')):
        if '.ipynb_checkpoints' in path.parts:
            continue
        cells = json.loads(path.read_text(encoding='utf-8'))['cells']
        source = '\n'.join(''.join(c['source']) for c in cells if c['cell_type'] == 'code')
        for name in re.findall(r'^#\s*\|\s*default_exp:?\s+(\S+)', source, re.M):
            number = re.match(r'(\d+)([a-z]*)_', path.name)
            found[name] = (int(number[1]), number[2]) if number else None
    return found


def modules(lib: Path) -> dict[str, Path]:
    "Python files of the package by dotted name, without nbdev's own"
    names = {'.'.join(p.relative_to(lib).with_suffix('').parts): p for p in sorted(lib.rglob('*.py'))}
    return {name: path for name, path in names.items() if not name.rpartition('.')[2].startswith('_modidx')}


def imports(path: Path, name: str):
    "Every (line, dotted target, is it a star) that a module imports: on top, in functions, relative, by importlib"
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            here = ['otseg', *name.split('.')]
            parts = (here[:-node.level] if node.level else []) + ([node.module] if node.module else [])
            for alias in node.names:  # `from otseg import x` may name a module or something in one
                yield node.lineno, '.'.join([*parts, alias.name]), alias.name == '*'
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, 'id', '')
            if called in ('import_module', '__import__') and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value, False


def target(dotted: str, known) -> str | None:
    "The module of the package that a dotted name lies in"
    parts = dotted.split('.')[1:]
    return next((m for n in range(len(parts), 0, -1) if (m := '.'.join(parts[:n])) in known), None)


def label(layer) -> str:
    return f'{layer[0]:02d}{layer[1]}'


def violations(lib: Path, nbs: Path) -> list[str]:
    "What breaks the layers, one line each; empty when all is well"
    found, layer, files = [], layers(nbs), modules(lib)
    found += [f'{name}: the notebook has no number in its name' for name, number in layer.items() if number is None]
    found += [f'{name}.py: no notebook exports it' for name in files if name != '__init__' and name not in layer]
    found += [f'{name}: a notebook exports it, but the module is not there' for name in layer if name not in files]
    for name, path in files.items():
        own = (layer.get(name) or (-1, ''))  # the package itself lies below every room: importing it loads nothing
        for line, dotted, star in imports(path, name):
            where = f'{name}.py:{line}'
            if star:
                found.append(f'{where}: import the names of {dotted[:-2]}, not *')
            library = dotted.split('.')[0]
            if library in HOME and name not in HOME[library]:
                found.append(f'{where}: {library} is at home in {", ".join(sorted(HOME[library]))} only')
            if library in LOWEST and own < LOWEST[library]:
                found.append(f'{where}: {library} is for layer {label(LOWEST[library])} and up, this is {label(own)}')
            other = target(dotted, files.keys() | layer.keys()) if library == 'otseg' else None
            if other is None or other == '__init__':
                continue
            if name not in LEAF.get(other, {name}):
                found.append(f'{where}: nothing imports {other} except {", ".join(LEAF[other]) or "the shell"}')
            elif layer.get(other) and layer[other] >= own:
                found.append(f'{where}: layer {label(own)} imports {other} of layer {label(layer[other])}')
    return found


def test_layers():
    assert violations(LIB, NBS) == []


def test_every_room_is_read():
    assert {'core', 'sinkhorn'} <= layers(NBS).keys() & modules(LIB).keys()
    assert {t for _, t, _ in imports(LIB / 'sinkhorn.py', 'sinkhorn')} >= {'otseg.core.check', 'torch'}


@pytest.fixture
def house(tmp_path):
    "A small sound package: core, clip, mix, train, viz and cli"
    rooms = {
        '00_core': 'import torch',
        '04_clip': 'from otseg.core import check\nimport open_clip',
        '04b_mix': 'from .clip import encode',
        '14_train': 'def fit():\n    from otseg import mix\n    import accelerate, torchvision',
        '16_viz': 'from otseg.core import check',
        '17_cli': 'from otseg.show.figures import plot_scores\nimport otseg.train.trainer',
    }
    for sub in 'otseg', 'nbs':
        (tmp_path / sub).mkdir()
    (tmp_path / 'otseg/__init__.py').write_text('__version__ = "0"\n', encoding='utf-8')
    for file, code in rooms.items():
        plant(tmp_path, file, code)
    return tmp_path


def plant(house, file, code):
    "Write a room, its notebook and its module; a file name without a number leaves the notebook alone"
    name = re.sub(r'^\d+[a-z]*_', '', file)
    cell = dict(cell_type='code', source=[f'#| default_exp {name}'], metadata={}, outputs=[])
    if name != file:
        (house / f'nbs/{file}.ipynb').write_text(json.dumps(dict(cells=[cell])), encoding='utf-8')
    (house / f'otseg/{name}.py').write_text(code + '\n', encoding='utf-8')


def test_sound_package_passes(house):
    assert violations(house / 'otseg', house / 'nbs') == []


@pytest.mark.parametrize('room, code, says', [
    ('core', 'from otseg.train.trainer import fit', 'layer 00 imports train of layer 14'),
    ('core', 'import otseg.model.clip', 'layer 00 imports clip of layer 04'),
    ('core', 'import otseg.model.clip as c', 'layer 00 imports clip of layer 04'),
    ('core', 'from otseg import clip', 'layer 00 imports clip of layer 04'),
    ('core', 'from .clip import encode', 'layer 00 imports clip of layer 04'),
    ('core', 'from . import clip', 'layer 00 imports clip of layer 04'),
    ('core', 'def f():\n    if True:\n        from otseg.model.clip import encode', 'core.py:3: layer 00 imports clip'),
    ('core', 'import importlib\nimportlib.import_module("otseg.model.clip")', 'layer 00 imports clip of layer 04'),
    ('clip', 'from otseg.mix import f', 'layer 04 imports mix of layer 04b'),
    ('clip', 'import otseg.model.clip', 'layer 04 imports clip of layer 04'),
    ('__init__', 'from otseg.core import check', 'imports core of layer 00'),
    ('train', 'from otseg.show.figures import plot_scores', 'nothing imports viz except cli'),
    ('viz', 'from otseg.commands.use import demo', 'nothing imports cli'),
    ('mix', 'import accelerate', 'accelerate is for layer 13c and up, this is 04b'),
    ('mix', 'from torchvision import io', 'torchvision is for layer 11 and up'),
    ('train', 'import open_clip', 'open_clip is at home in clip, text only'),
    ('train', 'def f():\n    import matplotlib.pyplot as plt', 'matplotlib is at home in charts, figures only'),
    ('mix', 'from huggingface_hub import hf_hub_download', 'huggingface_hub is at home in checkpoint, clip, hub only'),
    ('mix', 'from torchmetrics import Metric', 'torchmetrics is at home in metrics only'),
    ('train', 'from otseg.core import *', 'import the names of otseg.core, not *'),
    ('stray', 'x = 1', 'stray.py: no notebook exports it'),
])
def test_planted_import_is_found(house, room, code, says):
    plant(house, room, code)
    found = violations(house / 'otseg', house / 'nbs')
    assert len(found) == 1 and says in found[0], found


def test_missing_module_is_found(house):
    (house / 'otseg/mix.py').unlink()
    assert any(f.startswith('mix: a notebook exports it') for f in violations(house / 'otseg', house / 'nbs'))


def test_upward_import_in_a_copy_of_this_package_is_found(tmp_path):
    shutil.copytree(LIB, tmp_path / 'otseg', ignore=shutil.ignore_patterns('assets', '__pycache__'))
    core = tmp_path / 'otseg/core.py'
    planted = '\n\ndef planted():\n    from otseg.transport.entropic import sinkhorn\n'
    core.write_text(core.read_text(encoding='utf-8') + planted, encoding='utf-8')
    assert [v for v in violations(tmp_path / 'otseg', NBS) if 'layer 00 imports sinkhorn of layer 01' in v]
