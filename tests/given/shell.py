"The commands as a user runs them, and a small world for them"
import contextlib
import io
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from otseg.train.batches import StepSampler

COMMANDS = {'otseg-train': 'commands.use:train', 'otseg-eval': 'commands.evaluate:evaluate',
            'otseg-predict': 'commands.use:predict', 'otseg-demo': 'commands.use:demo', 'otseg-convert': 'commands.use:convert',
            'otseg-areas': 'commands.use:areas', 'otseg-bench': 'commands.use:bench', 'otseg-study': 'commands.use:study',
            'otseg-prepare': 'commands.data:prepare'}
NAMES = ['cat', 'dog', 'sky', 'road']                  # dog is unseen
WORDS = sorted({'a', 'photo', 'of', 'portrait', 'part', 'segment', 'small', 'medium', 'water', 'tree', *NAMES})
TINY = dict(model_cfg=dict(embed_dim=16, quick_gelu=True,
                           vision_cfg=dict(image_size=32, patch_size=8, width=24, head_width=12, layers=2),
                           text_cfg=dict(context_length=8, vocab_size=len(WORDS) + 3, width=24, heads=2, layers=1)),
            words=WORDS)
OPTIONS = ('--clip tiny.json --weights random --image_size 32 --steps 2 --batch_size 2 --workers 0 --save_every 1 '
           '--vpt_tokens 2').split()
TRAIN = ['otseg-train', 'folder-inductive', *OPTIONS]
EVAL = ['otseg-eval', 'run', '--data', 'data']
FILES = ('', '/config.json', '/manifest.json', '/model.safetensors', '/trainer.pt')  # of a checkpoint that can be resumed
# the order in which a run of four pictures reads them: the first of them in step 0, the last in step 1
ORDER = StepSampler(4, 2, 2, seed=0).epoch(0)
FIRST, LAST = f'{ORDER[0]}', f'{ORDER[-1]}'


def shell(*argv) -> tuple[int, str, str]:
    "Exit code, stdout and stderr of the console script, run in this process (importing torch takes seconds)"
    name, *argv = map(str, argv)
    script = Path('.scripts')/name
    script.parent.mkdir(exist_ok=True)
    module, function = COMMANDS[name].split(':')
    script.write_text(f'import sys\nfrom otseg.{module} import {function}\n'
                      f'if __name__ == "__main__": sys.exit({function}())\n', encoding='utf-8')
    out, err, code, before = io.StringIO(), io.StringIO(), 0, sys.argv
    sys.argv = [str(script), *argv]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            runpy.run_path(str(script), run_name='__main__')
    except SystemExit as e: code = e.code or 0
    finally:
        sys.argv = before
        shutil.rmtree(script.parent)
    return code, out.getvalue(), err.getvalue()


def process(*argv) -> tuple[int, str, str]:
    "The same in a process of its own: the installed script, and `python -m otseg.train` for training"
    name, *argv = map(str, argv)
    script = Path(sys.executable).with_name(name)
    run = [sys.executable, '-m', 'otseg.train'] if name == 'otseg-train' else [str(script)]
    if name != 'otseg-train' and not script.is_file(): pytest.skip(f'{name} is not installed beside this Python')
    env = os.environ | dict(OMP_NUM_THREADS='1', MPLBACKEND='Agg', HF_HUB_OFFLINE='1')
    got = subprocess.run([*run, *argv], capture_output=True, text=True, env=env, timeout=300, encoding='utf-8')
    return got.returncode, got.stdout, got.stderr


def tree(folder='.') -> dict[str, bytes | None]:
    "Every file with its bytes, every folder with None"
    return {p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else None
            for p in sorted(Path(folder).rglob('*')) if '__pycache__' not in p.parts}


def refused(*argv, says, run=shell, within=None) -> str:
    "The command ends with exit code 2 and one plain line, and not a byte on the disk has changed"
    before = tree()
    code, out, err = run(*argv)
    assert 'Traceback' not in err, err
    assert code == 2, (code, out, err)
    lines = [line for line in err.split('\n') if line]
    assert lines[-1].startswith('error: '), err
    assert sum('error: ' in line for line in lines) == 1
    for word in [says] if isinstance(says, str) else says: assert word in lines[-1], lines[-1]
    if run is shell and within is None: assert len(lines) == 1 and not out, (out, err)
    after = tree()
    assert {k for k in before if before[k] != after.get(k)} == set() and after.keys() - before.keys() == set()
    return lines[-1]


def misused(*argv, says):
    "The options themselves are wrong, which argparse says: its usage, an error in its own words that names one, exit code 2"
    before = tree()
    code, out, err = shell(*argv)
    assert code == 2 and says in err.splitlines()[-1] and 'Traceback' not in err, (code, err)
    assert tree() == before


def picture(path, size=(48, 40), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def mask(path, values, size=(48, 40)):
    "Vertical stripes of the values"
    path.parent.mkdir(parents=True, exist_ok=True)
    stripes = np.asarray(values, np.uint8)[np.arange(size[0]) * len(values) // size[0]]
    Image.fromarray(np.broadcast_to(stripes, size[::-1]).copy()).save(path)


def data_set(root, names, unseen, val=2, train=4):
    for split, n in dict(train=train, val=val).items():
        for i in range(n):
            size = (48, 40) if i % 2 else (40, 56)
            picture(root/'images'/split/f'{i}.jpg', size, seed=i)
            mask(root/'masks'/split/f'{i}.png', [*range(len(names)), 255], size)
    (root/'dataset.json').write_text(json.dumps(dict(names=names, unseen=unseen)), encoding='utf-8')


@contextlib.contextmanager
def inside(folder):
    before = os.getcwd()
    os.chdir(folder)
    try: yield folder
    finally: os.chdir(before)


def small_world(folder):
    "Fill the folder with a data set, another of other classes, photographs, a tiny CLIP and a run of two steps"
    data_set(folder/'data', NAMES, ['dog'])
    data_set(folder/'other', ['water', 'sky', 'tree'], ['water'])
    (folder/'tiny.json').write_text(json.dumps(TINY), encoding='utf-8')
    picture(folder/'portrait.jpg', (40, 60)); picture(folder/'landscape.png', (70, 36))
    (folder/'text.jpg').write_text('no picture', encoding='utf-8')
    (folder/'cut.jpg').write_bytes((folder/'portrait.jpg').read_bytes()[:900])
    with inside(folder): code, out, err = shell(*TRAIN, '--data', 'data', '--output', 'run')
    assert code == 0, err
    return folder


def start(*more, recipe='folder-inductive', data='data', output='new'):
    return ['otseg-train', recipe, *OPTIONS, '--data', data, '--output', output, *more]


def ask(*photos, output='new', **more):
    options = [word for k, v in more.items() for word in (f'--{k}', v)]
    return ['otseg-predict', *photos, '--checkpoint', 'run', '--output', output, *options]


def rows(log): return Path(log).read_text(encoding='utf-8').splitlines()


def weights(run='run', step=2):
    return load_file(f'{run}/checkpoints/step_{step:06d}/model.safetensors')
