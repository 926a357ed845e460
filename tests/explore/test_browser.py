"The explorer in a real browser: in JupyterLab and as a page of its own. `make test-browser` runs it"
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from otseg.data.toy import toy_scene

NAMED = os.environ.get('OTSEG_CHROMIUM')
NAMES = [NAMED] if NAMED else ['chromium', 'chromium-browser', 'google-chrome']
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
GET = 'install one (`apt install chromium`, or google.com/chrome) or name its file in OTSEG_CHROMIUM'
POSIX = pytest.mark.skipif(os.name != 'posix', reason='ends servers by their process group: POSIX')
pytestmark = [pytest.mark.browser, POSIX]
if not CHROMIUM and not NAMED:
    pytestmark.append(pytest.mark.skip(f'no browser: none of {", ".join(NAMES)} is on the PATH; {GET}'))
SHOTS = os.environ.get('OTSEG_SHOTS')  # folder for screenshots; None = none are kept
START = 90_000  # milliseconds until a server, a kernel and the model are there
REDRAW = 20_000  # until a moved handle shows on a busy machine
MOVED = {'opacity': 'ArrowLeft', 'ε': 'ArrowRight', 'iterations': 'Home', 'blend λ': 'Home', 'seen penalty': 'End',
         'its area': 'End', 'row': 'Home'}  # slider -> key
# Console errors that are none of ours, each with its reason
KNOWN = [
    # Voilà's template asks for icons of buttons; without a network the page does without them
    r'cdn\.jsdelivr\.net.*fontawesome',
]


@pytest.fixture(scope='module')
def browser():
    if not CHROMIUM:  # one was asked for, so this is no skip
        pytest.exit(f'no browser: OTSEG_CHROMIUM names {NAMED}, which is no program; {GET}', returncode=1)
    sync = pytest.importorskip('playwright.sync_api', reason='no playwright: pip install "otseg[browser]"')
    with sync.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, headless=True, args=['--no-sandbox'])
        yield browser
        browser.close()


@contextlib.contextmanager
def serving(argv, path, log, **env):
    "A server on a free port of this machine, and its address, or the one with a token that it tells; ended by its id"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    url, env = f'http://127.0.0.1:{port}{path}', os.environ | {'OMP_NUM_THREADS': '1'} | env
    with log.open('w', encoding='utf-8') as out:
        server = subprocess.Popen([a.format(port=port) for a in argv], stdout=out, stderr=out, env=env, cwd=log.parent,
                                  start_new_session=True)
    try:
        until = time.monotonic() + START / 1000
        while True:
            assert server.poll() is None and time.monotonic() < until, log.read_text(encoding='utf-8')
            with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', port), timeout=1):
                break
            time.sleep(.2)
        told = re.search(rf'http://localhost:{port}(/[?]token=\w+)', log.read_text(encoding='utf-8'))
        yield f'http://127.0.0.1:{port}{told[1]}' if told else url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)  # the group: kernels die with their server
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


class Seen:
    "A page with the explorer in it, and all that the browser had to say"
    def __init__(self, browser, url, size=(1360, 1000)):
        self.page = browser.new_page(viewport=dict(zip(('width', 'height'), size)))
        self.page.set_default_timeout(REDRAW)
        self.said, self.shots = [], 0
        self.page.on('console', lambda m: m.type in ('error', 'warning') and self.said.append(
            (m.type, m.text, (m.location or {}).get('url', ''))))
        self.page.on('pageerror', lambda e: self.said.append(('pageerror', str(e), '')))
        self.page.goto(url, timeout=START, wait_until='domcontentloaded')

    def pixels(self):
        "A digest of every picture of the explorer"
        return self.page.evaluate('''() => [...document.querySelectorAll('.widget-gridbox img')].map(img => {
            const c = document.createElement('canvas'); c.width = img.naturalWidth; c.height = img.naturalHeight;
            if (!c.width) return ''; c.getContext('2d').drawImage(img, 0, 0); return c.toDataURL() })''')

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

    def settled(self):
        "Wait until all pictures are there and stay the same"
        before = None
        while True:
            now = self.pixels()
            if now == before and now and all(now):
                return now
            before = now
            self.page.wait_for_timeout(250)

    @contextlib.contextmanager
    def changes(self, what):
        "Some picture changes, in time"
        before, began = self.settled(), time.monotonic()
        yield
        while self.pixels() == before:
            assert time.monotonic() - began < REDRAW / 1000, f'{what}: no picture changed'
            self.page.wait_for_timeout(20)
        print(f'{what}: seen after {1000 * (time.monotonic() - began):.0f} ms')
        self.settled()

    def handle(self, label):
        "The widget with a label"
        exact = self.page.locator('.widget-label', has_text=re.compile(f'^{re.escape(label)}$'))
        return self.page.locator('.widget-inline-hbox', has=exact).first

    def shot(self, name):
        if SHOTS:
            Path(SHOTS).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=f'{SHOTS}/{name}.png', full_page=True)

    def errors(self):
        "Console errors that nothing explains"
        return [s for s in self.said if s[0] != 'warning' and not any(re.search(k, ' '.join(s)) for k in KNOWN)]


def photograph(folder, large):
    "A scene as a camera would store it; a large one is above the 10 MB that a web server takes unasked"
    image = Image.fromarray(toy_scene(3).image).resize((4000, 3000), Image.BICUBIC)
    noise = np.random.default_rng(0).integers(-60, 60, (3000, 4000, 3)) if large else 0
    path = folder / 'beach at noon.jpg'
    Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8)).save(path, quality=98)
    assert (path.stat().st_size > 10 * 2**20) == large
    return path


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
    print('console:', json.dumps(sorted(set(seen.said)), indent=1))
    assert seen.errors() == []


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
    with serving(argv, '/lab/tree/explore.ipynb', tmp_path / 'lab.log', JUPYTER_CONFIG_DIR=own) as url:
        yield url


def test_explorer_in_jupyterlab(browser, lab, tmp_path):
    seen = Seen(browser, lab, (1600, 1400))
    seen.page.get_by_text('Python 3 (ipykernel) | Idle').wait_for(timeout=START)
    seen.page.get_by_role('menuitem', name='Run', exact=True).click()
    seen.page.get_by_role('menuitem', name=re.compile('^Run All Cells')).first.click()
    walk(seen, photograph(tmp_path, large=False), 'lab')


def command(folder, *words):
    "The command otseg-app, as its script calls it"
    pytest.importorskip('voila', reason='pip install "otseg[app]"')
    (folder / 'otseg-app').write_text('from otseg.explore.app import app\napp()\n', encoding='utf-8')
    return [sys.executable, str(folder / 'otseg-app'), *words, '--port', '{port}', '--no-browser']


def narrow(browser, url):
    "Nothing sticks out sideways on a telephone"
    seen = Seen(browser, url, (420, 900))
    seen.ready()
    seen.shot('app-narrow')
    wide = seen.page.evaluate('document.documentElement.scrollWidth')
    assert wide <= 420 and seen.errors() == [], wide


def test_app(browser, tmp_path):
    with serving(command(tmp_path, 'toy'), '/', tmp_path / 'app.log') as url:
        seen = Seen(browser, url)
        assert seen.page.title() == 'OTSeg'
        walk(seen, photograph(tmp_path, large=True), 'app')
        seen.page.close()
        narrow(browser, url)
