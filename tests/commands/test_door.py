"A command tells what it is for, and refuses what it cannot do, before PyTorch is imported"
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import pytest

from given.shell import COMMANDS

ALL = COMMANDS | {'otseg-export': 'commands.use:export', 'otseg-app': 'explore.app:app'}
HEAVY = 'torch', 'torchvision', 'open_clip', 'matplotlib', 'scipy', 'accelerate', 'torchmetrics', 'IPython'


def script(name: str) -> str:
    "What the installer writes for a command, and at the end which of `HEAVY` was imported"
    module, function = ALL[name].split(':')
    return (f'import atexit, sys\natexit.register(lambda: print("imported:", *({set(HEAVY)!r} & sys.modules.keys())))\n'
            f'from otseg.{module} import {function}\nif __name__ == "__main__": sys.exit({function}())\n')


def door(*argv) -> tuple[int, str]:
    "Exit code and output of a console script, which has imported nothing heavy when it ends"
    name, *argv = map(str, argv)
    with tempfile.TemporaryDirectory() as d:
        path = Path(d, name)
        path.write_text(script(name), encoding='utf-8')
        got = subprocess.run([sys.executable, path, *argv], capture_output=True, text=True, encoding='utf-8', timeout=120)
    said, told, imported = got.stdout.rpartition('imported:')
    assert told and not imported.strip(), imported
    return got.returncode, said + got.stderr


@pytest.mark.parametrize('name', ALL)
def test_help(name):
    code, said = door(name, '--help')
    assert code == 0 and 'usage' in said.lower() and 'Traceback' not in said, said


@pytest.fixture
def files(folder):
    "A folder with an empty data set and a file that is a picture by its name"
    (folder/'data').mkdir()
    (folder/'photo.jpg').write_bytes(b'\xff\xd8')
    return folder


REFUSED = [  # words of a command, what it says
    (['otseg-train', 'tyo', '--output', 'x'], "unknown recipe 'tyo'. Did you mean 'toy'"),
    (['otseg-train', 'toy', '--output', 'x', '--stepz', '3'], "unknown option 'stepz'. Did you mean 'steps'"),
    (['otseg-train', 'toy', '--output', 'x', '--attention', 'sotfmax'], "unknown attention 'sotfmax'. Did you mean 'softmax'"),
    (['otseg-train', 'toy', '--output', 'x', '--solver', 'netwon'], "unknown solver 'netwon'. Did you mean 'newton'"),
    (['otseg-train', 'toy', '--output', 'x', '--setting', 'induktive'], "Did you mean 'inductive'"),
    (['otseg-train', 'toy', '--output', 'x', '--precision', 'bf61'], "unknown precision 'bf61'. Did you mean 'bf16'"),
    (['otseg-train', 'toy', '--output', 'x', '--clip', 'ViT-B-61'], "unknown CLIP architecture 'ViT-B-61'. Did you mean"),
    (['otseg-train', 'toy', '--output', 'x', '--steps', 'many'], '`steps` should be int'),
    (['otseg-train', 'voc12', '--output', 'x', '--data', 'none'], 'none should be the folder of a data set, got no such folder'),
    (['otseg-train', 'voc12', '--output', 'x', '--data', 'data', '--weights', 'none.pt'], 'weights should be a file: none.pt'),
    (['otseg-train', 'voc12', '--output', 'x', '--data', 'data', '--start', 'absent'], 'a checkpoint should be a folder'),
    (['otseg-train', 'voc12', '--output', 'x', '--data', 'data', '--dataset', 'voc21x'], "unknown data set 'voc21x'"),
    (['otseg-train', 'voc12', '--output', 'x', '--data', 'data', '--clip', 'none.json'], 'none.json should be a JSON file'),
    (['otseg-eval', 'none'], 'a checkpoint should be a folder'),
    (['otseg-eval'], 'a checkpoint should be named'),
    (['otseg-eval', 'toy', '--dataset', 'camvit'], "unknown data set 'camvit'. Did you mean 'camvid'"),
    (['otseg-eval', 'toy', '--cross', 'ade15', '--data', 'data'], "unknown data set 'ade15'. Did you mean 'ade150'"),
    (['otseg-eval', 'toy', '--weights', 'none.pt'], 'weights should be a file: none.pt'),
    (['otseg-eval', 'toy', '--training-free', 'naklip'], "Did you mean 'naclip'"),
    (['otseg-eval', 'voc12-inductve', '--training-free'], "Did you mean 'voc12-inductive'"),
    (['otseg-eval', 'toy', '--windov', '3'], 'windov'),
    (['otseg-predict', 'none.jpg', '--classes', 'sky'], 'none.jpg should be a picture or a folder of pictures'),
    (['otseg-predict', 'photo.jpg'], 'classes should be named, got none. CLIP takes any'),
    (['otseg-predict', 'photo.jpg', '--classes', 'sky', '--clip', 'ViT-B-61'],
     "unknown CLIP architecture 'ViT-B-61'"),
    (['otseg-predict', 'photo.jpg', '--checkpoint', 'toy', '--clip', 'toy'],
     '--clip should be given with --checkpoint clip only'),
    (['otseg-predict', 'photo.jpg', '--classes', 'none.txt'], 'none.txt should be a file of classes'),
    (['otseg-predict', 'photo.jpg', '--classes', 'sky,sky'], "'sky' twice"),
    (['otseg-predict', 'photo.jpg', '--classes', 'sky', '--results', 'maks'],
     "unknown kind of result 'maks'. Did you mean 'mask'"),
    (['otseg-predict', 'photo.jpg', '--checkpoint', 'none'], 'a checkpoint should be a folder'),
    (['otseg-predict', 'photo.jpg', '--weights', 'none.pt'], 'weights should be a file: none.pt'),
    (['otseg-predict', 'photo.jpg', '--classes', 'sky', '--precision', 'half'], "unknown precision 'half'"),
    (['otseg-predict', 'photo.jpg', '--classes', 'sky', '--background', '2'], 'between 0 and 1'),
    (['otseg-predict', 'photo.jpg', '--sice', '3'], '--sice'),
    (['otseg-prepare', 'camvit', 'data'], "unknown data set 'camvit'. Did you mean 'camvid'"),
    (['otseg-prepare', 'voc12', 'none'], 'none should be the folder of a data set, got no such folder'),
    (['otseg-areas', 'toy'], 'a folder for the checkpoint with areas should be given'),
    (['otseg-areas', 'none', '--output', 'new'], 'a checkpoint should be a folder'),
    (['otseg-areas', 'clip', '--output', 'new'], 'areas should be learned for a trained model, got CLIP without training'),
    (['otseg-areas', 'toy', '--output', 'photo.jpg'], 'photo.jpg should be a folder'),
    (['otseg-areas', 'toy', '--output', '.'], '. should be empty or absent'),
    (['otseg-areas', 'toy', '--output', 'new', '--n', '0'], '--n should be positive'),
    (['otseg-areas', 'toy', '--output', 'new', '--steps', '0'], '--steps should be positive'),
    (['otseg-areas', 'toy', '--output', 'new', '--seen-penalty', '2'], '--seen-penalty should lie in 0..1'),
    (['otseg-areas', 'toy', '--output', 'new', '--dataset', 'camvit'], "unknown data set 'camvit'. Did you mean 'camvid'"),
    (['otseg-areas', 'toy', '--output', 'new', '--weights', 'none.pt'], 'weights should be a file: none.pt'),
    (['otseg-convert', 'none.pth', 'out'], 'none.pth should be a checkpoint file, got no such file'),
    (['otseg-convert', 'photo.jpg', 'out', '--recipe', 'voc13'], "unknown recipe 'voc13'"),
    (['otseg-export', 'a.pt2', '--checkpoint', 'none'], 'a checkpoint should be a folder'),
    (['otseg-export', 'a.pt2', '--size', '3'], '--size should be HEIGHTxWIDTH'),
    (['otseg-bench', '--only', 'sinkhonr'], "unknown question 'sinkhonr'. Did you mean 'sinkhorn'"),
    (['otseg-study', 'atention'], "unknown study 'atention'. Did you mean 'attention'"),
    (['otseg-study', 'eps', '--only', 'eps-2'], "unknown variant of eps 'eps-2'"),
    (['otseg-demo', '--checkpoint', 'none'], 'a checkpoint should be a folder'),
    (['otseg-app', 'none'], 'a checkpoint should be a folder')]


@pytest.mark.parametrize('argv, says', REFUSED, ids=[' '.join(a) for a, _ in REFUSED])
def test_refused(files, argv, says):
    before = sorted(files.rglob('*'))
    code, said = door(*argv)
    assert code == 2 and says in said and 'Traceback' not in said, said
    assert sorted(files.rglob('*')) == before


def test_a_list_of_studies():
    code, said = door('otseg-study', '--list')
    assert code == 0 and 'attention: Does transport help' in said, said


@pytest.mark.timing
@pytest.mark.parametrize('name', ALL)
def test_help_takes_a_fraction_of_the_import_of_pytorch(name, tmp_path):
    def seconds(*command):
        began = time.perf_counter()
        subprocess.run([sys.executable, *command], capture_output=True, check=True)
        return time.perf_counter() - began
    path = tmp_path/name
    path.write_text(script(name), encoding='utf-8')
    rounds = [(seconds(path, '--help'), seconds('-c', 'import torch')) for _ in range(5)]
    assert median(a for a, _ in rounds) <= .3 * median(b for _, b in rounds), rounds
