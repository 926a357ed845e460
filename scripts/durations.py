"""Measure how long the commands of the README take that need nothing from elsewhere: `python scripts/durations.py`

Each is run once, in an empty folder, on one thread, and its CPU time is taken: that is what it takes where nothing else runs,
also if something does. CLIP's weights are random, which take as long. nbs/durations.json keeps the seconds and the machine;
`tests/project/test_readme.py` asks that the README says the same. How long a training takes is in the records of studies.
"""
import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ENV = dict(HF_HUB_OFFLINE='1', OMP_NUM_THREADS='1', OTSEG_DEVICE='cpu', CUDA_VISIBLE_DEVICES='')
ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / 'nbs/durations.json'
PHOTO = "from PIL import Image; from otseg.data import ToyScenes; " \
        "Image.fromarray(ToyScenes('val', 1)[0].image).resize((1024, 768)).save('photo.jpg')"

# How a line of the README begins -> what is run
COMMANDS = {
    'make demo': 'otseg-demo --output demo',
    'otseg-eval --table 1 --results results': 'otseg-eval --table 1 --results .',
    'otseg-predict photo.jpg --classes "road,sky" --weights': 'otseg-predict photo.jpg --classes "road,sky" --weights random',
    'otseg-predict photo.jpg --classes "road,sky" --background':
        'otseg-predict photo.jpg --classes "road,sky" --background 0.1,wall --refine --weights random --output refined',
}


def spent():
    "CPU seconds of all commands so far"
    return sum(os.times()[2:4])


def told(seconds):
    "A duration as the README has it"
    return f'{seconds:.0f} s' if seconds < 90 else f'{seconds / 60:.0f} min'


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--machine', required=True, help='what it is measured on, such as "2 cores (AMD EPYC)"')
    machine, seconds = parser.parse_args().machine, {}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, '-c', PHOTO], cwd=folder, check=True)
        for line, command in COMMANDS.items():
            began = spent()
            done = subprocess.run(shlex.split(command), cwd=folder, env=os.environ | ENV, capture_output=True, text=True,
                                  encoding='utf-8')
            if done.returncode:
                raise SystemExit(f'{command} failed:\n{done.stderr[-2000:]}')
            seconds[line] = round(spent() - began, 1)
            print(f'{told(seconds[line]):>7}  {command}', flush=True)
    FILE.write_text(json.dumps(dict(machine=machine, seconds=seconds), indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
