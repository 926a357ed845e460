"The explorer in a real browser, in JupyterLab. `make test-browser` runs it"
import json
import re
import sys
import time

import pytest
from given.browser import MARKS, POSIX, START, Watched, browser, photograph, serving, shot  # noqa: F401
from PIL import Image

pytestmark = [*MARKS, POSIX]
REDRAW = 20_000  # until a moved handle shows on a busy machine
MOVED = {'opacity': 'ArrowLeft', 'ε': 'ArrowRight', 'iterations': 'Home', 'blend λ': 'Home', 'seen penalty': 'End',
         'its area': 'End', 'row': 'Home'}  # slider -> key


class Seen(Watched):
    "A page with the explorer in it, and the errors that the browser had to tell"
    patience = REDRAW

    def __init__(self, browser, url):  # noqa: F811
        self.page = browser.new_page(viewport=dict(width=1600, height=1400))
        self.page.set_default_timeout(REDRAW)
        self.said = []
        self.page.on('console', lambda m: m.type == 'error' and self.said.append(f'{m.text} {m.location}'))
        self.page.on('pageerror', lambda e: self.said.append(f'pageerror: {e}'))
        self.page.goto(url, timeout=START, wait_until='domcontentloaded')

    def shown(self):
        "A digest of every picture of the explorer; none while one is not there"
        digests = self.page.evaluate('''() => [...document.querySelectorAll('.widget-gridbox img')].map(img => {
            const c = document.createElement('canvas'); c.width = img.naturalWidth; c.height = img.naturalHeight;
            if (!c.width) return ''; c.getContext('2d').drawImage(img, 0, 0); return c.toDataURL() })''')
        return digests if all(digests) else []

    def ready(self):
        "Wait for the explorer; what stands there instead of it is told"
        began = time.monotonic()
        try:
            self.page.locator('.widget-gridbox img').nth(5).wait_for(timeout=START)
        except Exception:
            self.shot('not-ready')
            pytest.fail(f'no explorer, but\n{self.page.inner_text("body")[-3000:]}\n{self.said}')
        self.settled()
        print(f'explorer: there after {time.monotonic() - began:.1f} s')

    def handle(self, label):
        "The widget with a label"
        exact = self.page.locator('.widget-label', has_text=re.compile(f'^{re.escape(label)}$'))
        return self.page.locator('.widget-inline-hbox', has=exact).first

    def shot(self, name): shot(self.page, name, full_page=True)


def walk(seen, photo, name):
    "What a visitor does, each time with an eye on the pictures"
    page = seen.page
    seen.ready()
    seen.shot(f'{name}-1-start')
    for label, key in MOVED.items():
        with seen.changes(label):
            seen.handle(label).locator('.noUi-handle').focus()
            page.keyboard.press(key)
    with seen.changes('path'):
        seen.handle('path').locator('select').select_option('all paths')
    seen.shot(f'{name}-2-all-paths')
    with seen.changes('path'):
        seen.handle('path').locator('select').select_option('decoder layer 2')
    typed = seen.handle('classes').locator('input')
    with seen.changes('classes'):
        typed.fill('sky, grass, sand, star, ladybug')
        typed.press('Enter')
    assert len(seen.handle('class').locator('option').all()) == 5
    before = seen.settled()
    typed.fill('sky, zebra')
    typed.press('Enter')
    page.get_by_text('should use words that this CLIP learned').wait_for()
    assert seen.settled() == before and typed.input_value() == 'sky, zebra'
    seen.shot(f'{name}-3-unknown-word')
    with seen.changes('upload'):
        with page.expect_file_chooser() as chosen:
            page.get_by_role('button', name='upload a picture').click()
        chosen.value.set_files(photo)
    assert seen.handle('picture').locator('select').input_value() == 'beach at noon.jpg'
    with seen.changes('mouse'):
        page.locator('.widget-gridbox').nth(1).locator('img').nth(2).hover(position=dict(x=5, y=5))
    page.get_by_text('framed token, row 0, column 0').wait_for()
    page.get_by_role('button', name='save figure').click()
    with page.expect_download() as got:
        page.locator('a[download]').first.click()
    figure = Image.open(got.value.path())
    assert figure.format == 'PNG' and figure.width > 600
    assert got.value.suggested_filename.endswith('decoder-layer-2.png')
    seen.shot(f'{name}-4-photograph')
    assert not seen.said


@pytest.fixture
def lab(tmp_path):
    "JupyterLab on a folder with a small notebook"
    pytest.importorskip('jupyterlab', reason='pip install jupyterlab (otseg[browser])')
    pytest.importorskip('ipyevents', reason='pip install ipyevents (otseg[browser])')
    cell = dict(cell_type='code', id='explore0', metadata={}, execution_count=None, outputs=[],
                source='from otseg.explore.explorer import explore\nexplore()')
    kernel = dict(name='python3', display_name='Python 3', language='python')
    notebook = dict(cells=[cell], metadata=dict(kernelspec=kernel), nbformat=4, nbformat_minor=5)
    (tmp_path / 'explore.ipynb').write_text(json.dumps(notebook), encoding='utf-8')
    quiet = {'disabledExtensions': {'@jupyterlab/apputils-extension:announcements': True}}
    (tmp_path / 'config/labconfig').mkdir(parents=True)
    (tmp_path / 'config/labconfig/page_config.json').write_text(json.dumps(quiet), encoding='utf-8')
    argv = [sys.executable, '-m', 'jupyterlab', '--no-browser', '--ip=127.0.0.1', '--port={port}', '--allow-root',
            '--IdentityProvider.token=', '--ServerApp.password=', f'--ServerApp.root_dir={tmp_path}']
    own = str(tmp_path / 'config')
    with serving(argv, tmp_path / 'lab.log', '/lab/tree/explore.ipynb', JUPYTER_CONFIG_DIR=own) as url:
        yield url


def test_explorer_in_jupyterlab(browser, lab, tmp_path):  # noqa: F811
    seen = Seen(browser, lab)
    seen.page.get_by_text('Python 3 (ipykernel) | Idle').wait_for(timeout=START)
    seen.page.get_by_role('menuitem', name='Run', exact=True).click()
    seen.page.get_by_role('menuitem', name=re.compile('^Run All Cells')).first.click()
    walk(seen, photograph(tmp_path/'beach at noon.jpg'), 'lab')
