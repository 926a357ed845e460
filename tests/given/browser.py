"Chromium, pages and all that they have to say, and servers of pages"
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from otseg.data.toy import toy_scene

NAMED = os.environ.get('OTSEG_CHROMIUM')
NAMES = [NAMED] if NAMED else ['chromium', 'chromium-browser', 'google-chrome']
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
GET = 'install one (`apt install chromium`, or google.com/chrome) or name its file in OTSEG_CHROMIUM'
SHOTS = os.environ.get('OTSEG_SHOTS')  # folder for screenshots; None = none are kept
START = 120_000  # milliseconds until a server and what it needs are there, on a busy machine
MARKS = [pytest.mark.browser]
if not CHROMIUM and not NAMED: MARKS.append(pytest.mark.skip(f'no browser: none of {", ".join(NAMES)} is on the PATH; {GET}'))
POSIX = pytest.mark.skipif(os.name != 'posix', reason='ends servers by their process group: POSIX')


@pytest.fixture(scope='module')
def browser():
    if not CHROMIUM:  # one was asked for, so this is no skip
        pytest.exit(f'no browser: OTSEG_CHROMIUM names {NAMED}, which is no program; {GET}', returncode=1)
    sync = pytest.importorskip('playwright.sync_api', reason='no playwright: pip install "otseg[browser]"')
    with sync.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, headless=True, args=['--no-sandbox'])
        yield browser
        browser.close()


def open_page(browser, url, size=(1360, 1000), scheme='light', timeout=60_000):
    "A page in a context of its own, and a list that grows by whatever goes wrong on it; no other host can be reached"
    context = browser.new_context(viewport=dict(zip(('width', 'height'), size)), color_scheme=scheme)
    said, here = [], urlsplit(url).netloc

    def ask(route):
        if urlsplit(route.request.url).netloc in (here, ''): return route.continue_()
        said.append(f'asked for {route.request.url}')
        route.abort()
    context.route('**/*', ask)
    page = context.new_page()
    page.set_default_timeout(timeout)
    page.on('console', lambda m: m.type in ('error', 'warning') and said.append(f'{m.type}: {m.text} {m.location}'))
    page.on('pageerror', lambda e: said.append(f'pageerror: {e}'))
    page.on('response', lambda r: r.status >= 400 and said.append(f'{r.status}: {r.url}'))
    page.goto(url, timeout=START, wait_until='domcontentloaded')
    return page, said


class Watched:
    "A page that somebody moves: wait until it stands still, or until what it shows has changed"
    patience = 60_000  # milliseconds until a change shows on a busy machine

    def shown(self): raise NotImplementedError  # what is looked at, to be compared; nothing while a part of it is not there

    def idle(self):
        "Whether nothing is at work"
        return True

    def settled(self):
        "Wait until all is there and stays the same"
        before = None
        while True:
            idle, now = self.idle(), self.shown()
            if idle and now == before and now: return now
            before = now
            self.page.wait_for_timeout(300)

    @contextlib.contextmanager
    def changes(self, what):
        "Something that is shown changes, in time"
        before, began = self.settled(), time.monotonic()
        yield
        while self.shown() == before:
            assert time.monotonic() - began < self.patience / 1000, f'{what}: nothing changed'
            self.page.wait_for_timeout(20)
        print(f'{what}: seen after {1000 * (time.monotonic() - began):.0f} ms')
        self.settled()


def shot(page, name, **how):
    "Keep a screenshot, where they are asked for"
    if SHOTS:
        Path(SHOTS).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f'{SHOTS}/{name}.png', **how)


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def serving(argv, log, path='/', told=None, **env):
    """A server on a free port of this machine, {port} in `argv` and `env`, working in the folder of its log; ended by its id.
    Gives its address with a path, or the one that its log tells, by a pattern"""
    port = free_port()
    env = os.environ | {'OMP_NUM_THREADS': '1'} | {name: value.format(port=port) for name, value in env.items()}
    with log.open('w', encoding='utf-8') as out:
        server = subprocess.Popen([a.format(port=port) for a in argv], stdout=out, stderr=out, env=env, cwd=log.parent,
                                  start_new_session=True)
    try:
        until, url = time.monotonic() + START / 1000, None
        while not url:
            said = log.read_text(encoding='utf-8')
            assert server.poll() is None and time.monotonic() < until, said
            if told: url = (found := re.search(told, said)) and found[0].replace('localhost', '127.0.0.1')
            else:
                with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', port), timeout=1):
                    url = f'http://127.0.0.1:{port}{path}'
            time.sleep(.2)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError): os.killpg(server.pid, signal.SIGTERM)  # the group: kernels die with it
        try: server.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def photograph(path, noise=0):
    "A scene as a camera would store it; noise of 60 makes a file of more than 10 MB"
    image = Image.fromarray(toy_scene(3).image).resize((4000, 3000), Image.BICUBIC)
    grain = np.random.default_rng(0).integers(-noise, noise, (3000, 4000, 3)) if noise else 0
    Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8)).save(path, quality=98)
    return path
