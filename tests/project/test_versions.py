"""Nothing is bound unseen to one version of a library, one system, or one locale: read off the code of the package and the tests

A reach into another library's own names, a text file without its encoding, and a module or a call of POSIX alone are found by
their syntax. Those that are meant stand in a table, with what happens where they fail.
"""
import ast
import sys

import pytest
from conftest import ROOT

FILES = sorted([*ROOT.glob('otseg/**/*.py'), *ROOT.glob('tests/**/*.py'), *ROOT.glob('scripts/*.py')])

# (file, name) -> library, and what happens, or why not, where a version does not have it
REACHES = {
    ('otseg/train/processes.py', 'AcceleratorState._reset_state'): 'accelerate: an InputError names the versions that have it',
    ('tests/model/test_compile.py', 'torch.utils._python_dispatch'): 'torch: counts operations, as torch documents',
    ('otseg/study/measure.py', 'torch.utils._python_dispatch'): 'torch: counts products, and is what torch documents for it',
    ('otseg/study/backbones.py', 'torch.utils._python_dispatch'): 'torch: as above',
    ('otseg/study/backbones.py', 'torch._subclasses.fake_tensor'): 'torch: the room of one table, which nothing else imports',
    ('otseg/study/measure.py', 'op._schema'): 'torch: what a dispatch mode is given, with the names of its documentation',
    ('tests/given/counting.py', 'torch.utils._python_dispatch'): 'torch: as above',
    ('tests/study/test_waits.py', 'torch._subclasses.fake_tensor'): 'torch: skipped with a reason where it is not there',
    ('tests/given/fakes.py', 'torch._subclasses.fake_tensor'): 'torch: skipped with a reason where it is not there',
    ('tests/given/fakes.py', 'aten._local_scalar_dense'): 'torch: skipped as above',
    ('tests/elsewhere/sitecustomize.py', 'torch.cuda.is_available ='): 'torch: the simulated machine',
    ('tests/elsewhere/sitecustomize.py', 'torch.cuda.device_count ='): 'torch: the simulated machine',
    ('tests/elsewhere/sitecustomize.py', 'torch.cuda._lazy_init ='): 'torch: the simulated machine',
    ('tests/conftest.py', 'torch.cuda.is_available ='): 'torch: public; so that no test sees a GPU unasked',
    ('tests/conftest.py', 'torch.cuda.device_count ='): 'torch: public; as above',
    ('tests/given/training.py', 'torch.save ='): 'torch: so that a process dies while it writes',
}
# Protocols of IPython that a class of ours implements, and names of the standard library that it documents
OWN = {'_repr_html_', '_repr_png_', '_repr_svg_', '_repr_markdown_', '_replace', '_asdict', '_fields', '_make', '_exit'}
# Parts of open_clip's towers: the weights files fix their names, the versions of open_clip the rest
TOWER = {'resblocks', 'ln_1', 'ln_2', 'ls_1', 'ls_2', 'mlp', 'c_fc', 'c_proj', 'gelu', 'attn_pool', 'in_proj_weight',
         'in_proj_bias'}
TOWERS = {('otseg/model/clip.py', n) for n in TOWER - {'c_fc', 'gelu'}}  # and those of timm, in `PlainViT` and `SigLIPViT` alone
# Modules and names that Windows lacks, some of them macOS too
POSIX = {'resource', 'fcntl', 'pwd', 'grp', 'termios', 'pty', 'fork', 'forkpty', 'killpg', 'sched_getaffinity', 'AF_UNIX',
         'geteuid', 'getuid', 'setitimer', 'SIGALRM', 'SIGKILL', 'SIGCHLD', 'mkfifo', 'getrusage', 'symlink_to', 'symlink'}


def private(name): return name.startswith('_') and not name.startswith('__') and name not in OWN and name != '_'


def dotted(node):
    "a.b.c of an attribute of names, else None"
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return '.'.join([node.id, *parts[::-1]]) if isinstance(node, ast.Name) else None


def is_ours(module, level=0): return bool(level) or module.split('.')[0] in ('otseg', 'conftest') or module.startswith('test_')


def named(tree):
    "Local name -> module that it is imported from, of other libraries only"
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for a in node.names:
                if not is_ours(a.name): found[a.asname or a.name.split('.')[0]] = a.name.split('.')[0]
        elif isinstance(node, ast.ImportFrom) and not is_ours(node.module or '', node.level):
            found |= {a.asname or a.name: node.module.split('.')[0] for a in node.names}
    return found


def defined(trees):
    "Every private name that our own code gives to something"
    names = set()
    for node in (n for tree in trees for n in ast.walk(tree)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)): names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store): names.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store): names.add(node.id)
    return {n for n in names if n.startswith('_')}


def reaches(tree, own):
    "(line, name) of every reach into another library: a private name, or something of it that is set"
    libraries = named(tree)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = getattr(node, 'module', None) or ''
            if isinstance(node, ast.ImportFrom) and is_ours(module, node.level): continue
            for a in node.names:
                if any(map(private, module.split('.'))): yield node.lineno, module
                elif any(map(private, a.name.split('.'))): yield node.lineno, f'{module}.{a.name}'.strip('.')
        elif isinstance(node, ast.Attribute):
            name = dotted(node) or f'?.{node.attr}'
            library = libraries.get(name.split('.')[0])
            theirs = library and library not in sys.stdlib_module_names
            if isinstance(node.ctx, ast.Store) and theirs: yield node.lineno, f'{name} ='
            elif private(node.attr) and (library or node.attr not in own): yield node.lineno, name
        elif isinstance(node, ast.Call) and getattr(node.func, 'id', '') in ('getattr', 'setattr', 'hasattr', 'delattr'):
            if len(node.args) < 2 or not isinstance(node.args[1], ast.Constant): continue
            of, name = dotted(node.args[0]) or '?', str(node.args[1].value)
            if private(name) and (of.split('.')[0] in libraries or name not in own): yield node.lineno, f'{of}.{name}'


def towers(tree):
    "(line, name) of every part of a tower of open_clip that is reached for"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in TOWER: yield node.lineno, node.attr
        if isinstance(node, ast.Call) and getattr(node.func, 'id', '') in ('getattr', 'hasattr') and len(node.args) > 1:
            if getattr(node.args[1], 'value', None) in TOWER: yield node.lineno, node.args[1].value


def without_encoding(tree):
    "(line, call) of every text file or text of a process whose encoding is left to the locale"
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call): continue
        given = {k.arg: k.value for k in node.keywords}
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, 'id', '')
        if 'encoding' in given or None in given: continue
        mode = given.get('mode') or (node.args[1] if len(node.args) > 1 else None)
        binary = isinstance(mode, ast.Constant) and 'b' in str(mode.value)
        if name == 'open' and isinstance(node.func, ast.Name) and not binary: yield node.lineno, 'open'
        if name == 'open' and isinstance(node.func, ast.Attribute):  # of a path: its first word is a mode, or there is none
            first = node.args[0] if node.args else given.get('mode')
            text = first is None or isinstance(first, ast.Constant) and set(str(first.value)) <= set('rwax+t')
            if text: yield node.lineno, 'open'
        if name == 'read_text' and not node.args: yield node.lineno, name
        if name == 'write_text' and len(node.args) < 2: yield node.lineno, name
        if name in ('run', 'Popen', 'check_output') and ({'text', 'universal_newlines'} & given.keys()): yield node.lineno, name


def on_import(tree):
    "Nodes that run when a module is imported, conditions and try blocks left out"
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)): yield node
        elif isinstance(node, (ast.Assign, ast.Expr)): yield from ast.walk(node)


def posix_on_import(tree):
    "(line, name) of what Windows or macOS lacks and an import of the module asks for"
    for node in on_import(tree):
        if isinstance(node, ast.Import): names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom): names = [node.module or '', *(a.name for a in node.names)]
        else: names = [node.attr] if isinstance(node, ast.Attribute) else []
        yield from ((node.lineno, n) for n in names if n in POSIX)


def posix_anywhere(tree):
    "The same for the library, which nothing skips: wherever it is used"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in POSIX: yield node.lineno, node.attr
    yield from posix_on_import(tree)


def parsed(): return {p.relative_to(ROOT).as_posix(): ast.parse(p.read_text(encoding='utf-8')) for p in FILES}


def test_every_reach_into_another_library_is_in_the_table():
    trees = parsed()
    own = defined(trees.values())
    found = {(file, name): line for file, tree in trees.items() for line, name in reaches(tree, own)}
    assert not [f'{file}:{line}: {name}' for (file, name), line in found.items() if (file, name) not in REACHES]
    assert not REACHES.keys() - found.keys(), 'no longer there: take it out of the table'
    towered = {(file, name): line for file, tree in trees.items() if file.startswith('otseg/') for line, name in towers(tree)}
    assert not [f'{file}:{line}: {name}' for (file, name), line in towered.items() if (file, name) not in TOWERS]
    assert not TOWERS - towered.keys(), 'no longer there: take it out of the table'


def test_every_text_file_names_its_encoding():
    found = [f'{file}:{line}: {name}' for file, tree in parsed().items() for line, name in without_encoding(tree)]
    assert not found


def test_nothing_of_posix_alone_is_asked_for_on_import():
    trees = parsed()
    assert not [f'{file}:{line}: {name}' for file, tree in trees.items() for line, name in posix_on_import(tree)]
    library = {f: t for f, t in trees.items() if f.startswith('otseg/')}
    assert not [f'{file}:{line}: {name}' for file, tree in library.items() for line, name in posix_anywhere(tree)]


@pytest.mark.parametrize('code, name', [
    ('from torch._dynamo import x', 'torch._dynamo'), ('from torch.utils import _pytree', 'torch.utils._pytree'),
    ('import torch._inductor', 'torch._inductor'), ('import torch\ntorch._C.f()', 'torch._C'),
    ('from accelerate.state import PartialState\nPartialState._shared_state["x"] = 1', 'PartialState._shared_state'),
    ('def f(m): return m._forward_hooks', 'm._forward_hooks'), ('def f(): return g()._private', '?._private'),
    ('import torch\ngetattr(torch, "_C")', 'torch._C'), ('import torch\ntorch.save = 1', 'torch.save ='),
    ('from open_clip import model\nmodel._build()', 'model._build')])
def test_a_planted_reach_is_found(code, name):
    assert name in [n for _, n in reaches(ast.parse(code), {'_build', '_ours'})]


@pytest.mark.parametrize('code', [
    'from otseg.transport.fused import _options\n_options()',
    'from .core import _x', 'import otseg\notseg._x', 'def f(m): return m._ours',
    'def f(m): return m._repr_html_()', 'import os\nos.replace = 1', 'x.__dict__'])
def test_what_is_ours_is_none(code):
    assert [*reaches(ast.parse(code), {'_x', '_ours'})] == []


@pytest.mark.parametrize('code, bad', [
    ('open(x)', 1), ('open(x, "w", newline="")', 1), ('open(x, "rb")', 0), ('open(x, encoding="utf-8")', 0),
    ('p.read_text()', 1), ('p.write_text("x")', 1), ('p.write_text("x", encoding="utf-8")', 0), ('Image.open(x)', 0),
    ('p.open("w")', 1), ('p.open()', 1), ('p.open("rb")', 0), ('subprocess.run(x, text=True)', 1),
    ('subprocess.run(x, text=True, encoding="utf-8")', 0), ('subprocess.run(x, capture_output=True)', 0)])
def test_a_planted_file_without_encoding_is_found(code, bad):
    assert len([*without_encoding(ast.parse(code))]) == bad


@pytest.mark.parametrize('code, bad', [
    ('import resource', 1), ('import json, fcntl', 1), ('from os import fork', 1), ('import signal\nX = signal.SIGKILL', 1),
    ('try: import resource\nexcept ImportError: resource = None', 0), ('def f(): import resource', 0)])
def test_a_planted_import_of_posix_is_found(code, bad):
    assert len([*posix_on_import(ast.parse(code))]) == bad


def test_a_planted_part_of_a_tower_is_found():
    assert [n for _, n in towers(ast.parse('def f(block): return block.ls_1(block.attn(x))'))] == ['ls_1']
