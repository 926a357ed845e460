"""Measure how long the commands of the README take that need nothing from elsewhere: `python scripts/durations.py`

Each is run once, in an empty folder. Where the README's line asks for a trained model, the toy world's stands in; CLIP's weights
are random, which take as long. nbs/durations.json keeps the seconds and the machine; `tests/project/test_readme.py` asks that
the README says the same.
"""
import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / 'nbs/durations.json'
PHOTO = "from PIL import Image; from otseg.data import ToyScenes; " \
        "Image.fromarray(ToyScenes('val', 1)[0].image).resize((1024, 768)).save('photo.jpg')"

# How a line of the README begins -> what is run
COMMANDS = {
    'make demo': 'otseg-demo --output demo',
    'otseg-train toy --output runs/toy': 'otseg-train toy --output runs/toy',
    'otseg-eval --table 1 --results results': 'otseg-eval --table 1 --results .',
    'otseg-predict photo.jpg --classes "road,sky" --weights': 'otseg-predict photo.jpg --classes "road,sky" --weights random',
    'otseg-predict photo.jpg --classes "road,sky" --background':
        'otseg-predict photo.jpg --classes "road,sky" --background 0.1,wall --refine --weights random --output refined',
    'otseg-export road.pt2': 'otseg-export toy.pt2 --checkpoint toy',
}


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
            began = time.monotonic()
            done = subprocess.run(shlex.split(command), cwd=folder, env=os.environ | dict(HF_HUB_OFFLINE='1'),
                                  capture_output=True, text=True, encoding='utf-8')
            if done.returncode:
                raise SystemExit(f'{command} failed:\n{done.stderr[-2000:]}')
            seconds[line] = round(time.monotonic() - began, 1)
            print(f'{told(seconds[line]):>7}  {command}', flush=True)
    FILE.write_text(json.dumps(dict(machine=machine, seconds=seconds), indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
