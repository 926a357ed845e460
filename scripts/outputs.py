"""Run notebooks from the first cell to the last, in place, and keep what they show

    python scripts/outputs.py nbs/05_show/*.ipynb

A notebook that fails stays as it was. Pictures are stored once and with 256 colours, a third of the bytes; what needs a
running kernel, widgets, is left out, and so is what a library says on stderr.
"""
import base64
import io
import sys
import time
from copy import deepcopy
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

LIVE = 'application/vnd.jupyter.widget-view+json'


def small_png(data: str) -> str:
    "A PNG in base64 with 256 colours, if that makes it smaller"
    image = Image.open(io.BytesIO(base64.b64decode(data))).convert('RGB')
    few = image.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)  # keeps colours that are rare
    few.save(out := io.BytesIO(), 'png', optimize=True)
    return min(base64.b64encode(out.getvalue()).decode(), ''.join(data.split()), key=len)


def kept(output) -> bool:
    "Whether an output says something to a reader without a kernel"
    return LIVE not in output.get('data', {}) and output.get('name') != 'stderr'


def run(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    metadata = deepcopy(notebook.metadata)
    here = dict(metadata=dict(path=str(path.parent)))
    NotebookClient(notebook, timeout=1800, store_widget_state=False, resources=here).execute()
    notebook.metadata = metadata
    for cell in notebook.cells:
        if cell.cell_type != 'code': continue
        cell.execution_count, cell.outputs = None, [o for o in cell.outputs if kept(o)]
        for data in (o.get('data', {}) for o in cell.outputs):
            if 'image/png' in data: data['image/png'] = small_png(data['image/png'])
            both = sorted(data.keys() & {'image/png', 'image/jpeg'}, key=lambda k: len(data[k]))
            for kind in both[1:]: del data[kind]  # Pillow gives a picture twice
    nbformat.write(notebook, path)


if __name__ == '__main__':
    for path in map(Path, sys.argv[1:]):
        began = time.monotonic()
        run(path)
        print(f'{path}: {path.stat().st_size / 1000:.0f} kB, {time.monotonic() - began:.0f} s', flush=True)
