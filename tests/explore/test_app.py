"The page as its server gives it: to those with the token, and to nobody else. Needs Voilà (`otseg[app]`), no browser"
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

pytest.importorskip('voila', reason='pip install "otseg[app]"')
POSIX = pytest.mark.skipif(os.name != 'posix', reason='ends servers by their process group: POSIX')
START = 120  # seconds until a busy machine has a server and a model


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def command(folder, *words):
    "The command otseg-app, as its script calls it"
    (folder / 'otseg-app').write_text('from otseg.explore.app import app\napp()\n', encoding='utf-8')
    return [sys.executable, str(folder / 'otseg-app'), *words, '--no-browser']


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    "Port and token of a running page"
    folder = tmp_path_factory.mktemp('app')
    port, log = free_port(), folder / 'app.log'
    with log.open('w', encoding='utf-8') as out:
        server = subprocess.Popen(command(folder, 'toy', '--port', str(port)), stdout=out, stderr=out, cwd=folder,
                                  env=os.environ | {'OMP_NUM_THREADS': '1'}, start_new_session=True)
    try:
        until = time.monotonic() + START
        while not re.search('running at', text := log.read_text(encoding='utf-8')):
            assert server.poll() is None and time.monotonic() < until, text
            time.sleep(.3)
        said = re.search(rf'^http://localhost:{port}/\?token=([0-9a-f]{{48}}) shows toy', text)
        assert said and text.count(said[1]) == 1, 'the log of the server does not repeat the token'
        yield port, said[1]
    finally:
        os.killpg(server.pid, signal.SIGTERM)  # the group: kernels die with their server
        server.wait(30)


class Stay(urllib.request.HTTPRedirectHandler):
    "A redirection is an answer"
    def redirect_request(self, *args, **kwargs): return None


def status(url, **headers):
    "Status and place that it sends one to"
    try: answer = urllib.request.build_opener(Stay).open(urllib.request.Request(url, headers=headers), timeout=60)
    except urllib.error.HTTPError as e: answer = e
    return answer.status, answer.headers.get('Location', '')


@POSIX
@pytest.mark.parametrize('path', ['/', '/?token=', '/?token=wrong', '/voila/render/otseg.ipynb', '/api/kernels',
                                  '/api/kernels/a/channels'])
def test_nothing_is_shown_without_the_token(page, path):
    port, token = page
    wrong = path.replace('wrong', token[:-1] + ('0' if token[-1] != '0' else '1'))
    code, place = status(f'http://127.0.0.1:{port}{wrong}')
    assert code in (401, 403, 404) or code == 302 and place.startswith('/login')


@POSIX
def test_a_websocket_needs_the_token_too(page):
    port, _ = page
    upgrade = {'Connection': 'Upgrade', 'Upgrade': 'websocket', 'Sec-WebSocket-Version': '13',
               'Sec-WebSocket-Key': 'x' * 22 + '=='}
    kernel = '00000000-0000-0000-0000-000000000000'
    assert status(f'http://127.0.0.1:{port}/api/kernels/{kernel}/channels', **upgrade)[0] == 403


@POSIX
def test_with_the_token_the_page_is_shown(page):
    port, token = page
    with urllib.request.urlopen(f'http://127.0.0.1:{port}/?token={token}', timeout=START) as answer:
        assert answer.status == 200 and '<title>OTSeg' in answer.read().decode()


@POSIX
def test_it_listens_on_this_machine_alone(page):
    port, _ = page
    others = {a[4][0] for a in socket.getaddrinfo(socket.gethostname(), port, type=socket.SOCK_STREAM)} - {'127.0.0.1', '::1'}
    for address in others | {'127.0.0.2'}:
        with socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET) as s:
            s.settimeout(5)
            assert s.connect_ex((address, port)) != 0, address


@POSIX
def test_a_busy_port_is_one_line(page, tmp_path):
    port, _ = page
    got = subprocess.run(command(tmp_path, 'toy', '--port', str(port)), capture_output=True, text=True, encoding='utf-8',
                         timeout=START)
    assert got.returncode == 2 and got.stdout == ''
    assert re.fullmatch(rf'error: port {port} should be free, got .*\. Pass another --port\.\n', got.stderr), got.stderr
