"What the page does, without a browser: who is let in, what a visit answers, what the command refuses. Most of it needs no Gradio"
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import numpy as np
import pytest
from given.browser import POSIX, serving
from PIL import Image

from otseg.core import InputError
from otseg.data.toy import ToyScenes
from otseg.explore.explorer import AREAS
from otseg.explore.page import DRAWN, SAID, SHOWS, Visit, example_pictures, make_page, told
from otseg.explore.probe import Probe
from otseg.predict.segmenter import Segmenter

START = 120  # seconds until a busy machine has a server and a model


@pytest.fixture(scope='module')
def toy(): return Segmenter.from_pretrained('toy', device='cpu')


@pytest.fixture
def visit(toy):
    pictures = {f'scene {i}': scene.image for i, scene in enumerate(ToyScenes('val', 4))}
    return Visit(Probe(toy, pictures['scene 0']), pictures)


@pytest.fixture
def said(visit, toy):
    "What the handles say after the start"
    said = dict(name='', path='score map', view='plan', show=SHOWS[0], attention='mpsa', eps=.05, blend=.5,
                penalty=toy.seen_penalty, areas='predicted', share=.5, row=0, column=0)
    assert {*said} == {*SAID}
    return said | {k: new['value'] for k, new in visit.start(said).items() if k in said}


def picture(made): return np.asarray(made['picture']['value']).astype(int)


@pytest.mark.parametrize('handle, value, also', [
    ('eps', .5, 'maps'), ('attention', 'softmax', 'maps'), ('blend', 0, 'legend'), ('areas', AREAS['off'], 'legend'),
    ('row', 11, 'here'), ('column', 11, 'here'), ('path', 'decoder layer 1', 'maps'), ('view', 'scores', 'maps'),
    ('show', SHOWS[1], None), ('show', SHOWS[2], None)])
def test_a_handle_changes_what_it_is_named_for(visit, said, handle, value, also):
    before, after = visit.draw(said), visit.draw(said | {handle: value})
    assert also is None or before[also] != after[also]
    if handle in ('row', 'column', 'show'): assert (picture(before) != picture(after)).any()


def test_an_area_by_hand_is_the_area_of_the_class(visit, said):
    wins = [visit.seen(said | dict(areas=AREAS['hand'], share=share)).areas()[said['name']] for share in (.05, .9)]
    assert wins[0] < .2 < .6 < wins[1]


def test_a_click_chooses_token_and_class(visit, said):
    labels = visit.seen(said).labels
    for x, y in ((.01, .01), (.99, .5), (1, 1)):
        made = visit.point(x, y, said)
        row, column = (min(int(v * 96), 95) for v in (y, x))
        assert made['name']['value'] == visit.probe.names[labels[row, column]]
        assert (made['row']['value'], made['column']['value']) == (min(int(y * 12), 11), min(int(x * 12), 11))


def test_other_classes_keep_the_chosen_one_where_it_is_asked_for(visit, said):
    made = visit.ask(f'{said["name"]}, star', said)
    assert made['name']['value'] == said['name'] and len(made['name']['choices']) == 2
    hand = visit.ask('sand, star', said | dict(areas=AREAS['hand']))
    assert hand['name']['value'] in ('sand', 'star') and hand['areas']['value'] == 'predicted'
    assert len(visit.ask(' , ', said)['name']['choices']) == 26, 'those of training again'


def test_another_picture_has_other_tokens(visit, said, tmp_path):
    tall = np.repeat(ToyScenes('val', 4)[3].image, 2, 0)
    made = visit.see(tall, 'tall.png', said | dict(row=11, column=11))
    assert made['row']['maximum'] > made['column']['maximum'] and picture(made).shape[0] == 768
    path = visit.save(tmp_path, 'mask', said | {k: made[k]['value'] for k in ('name', 'row', 'column')})
    assert path.name == 'tall.png.mask.png' and Image.open(path).size == tall.shape[1::-1]


def test_what_is_wrong_changes_nothing(visit, said, tmp_path):
    before = visit.draw(said)
    (tmp_path/'text.jpg').write_text('no picture', encoding='utf-8')
    for wrong in (lambda: visit.ask('sand, zebra', said), lambda: visit.see(tmp_path/'text.jpg', 'text.jpg', said)):
        with pytest.raises(InputError): wrong()
        after = visit.draw(said)
        assert after.keys() == before.keys() and (picture(after) == picture(before)).all() and after['legend'] == before['legend']


def test_a_stranger_to_the_model_is_told(visit, said):
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    assert 'stranger to the model' in visit.see(noise, 'noise', said)['message']['value']


def test_words_of_others_are_shown_as_text(visit, said, monkeypatch):
    monkeypatch.setattr(Probe, 'text_prompts', lambda self, name: ['<b>a</b> & "b"'] * 6)
    made = visit.draw(said)
    for shown in (made['here']['value'], made['maps']['value'], told(['<b>'])): assert '<b>' not in shown and '&lt;b&gt;' in shown


def test_visitors_share_the_model_alone(visit, said):
    other = visit.again()
    other.ask('sand, star', said)
    assert visit.probe.model is other.probe.model and len(visit.probe.names) == 26
    assert other.draw(said | dict(name='star'))['legend'] != visit.draw(said)['legend']


def test_a_run_begins_with_its_own_pictures(world, toy):
    run = Segmenter.from_pretrained('run', device='cpu')
    assert example_pictures(run) == {}, 'where its data are is not known'
    found = example_pictures(run, 'data')
    assert [*found] == ['0.jpg', '1.jpg'] and all('images/val' in p.as_posix() for p in found.values())
    with pytest.raises(InputError, match='none'): example_pictures(run, 'none')
    assert len(example_pictures(toy)) == 8


def test_without_pictures_one_is_asked_for(toy):
    free = Segmenter.from_clip('toy', weights='packaged', device='cpu')
    visit = Visit(Probe(free, np.full((64, 64, 3), 128, np.uint8), 'sky, sand'), {})
    said = dict(name='', path='score map', view='plan', show=SHOWS[0], attention='mean', eps=.05, blend=0., penalty=0.,
                areas='off', share=.5, row=0, column=0)
    assert 'No photographs ship' in visit.start(said)['message']['value'] and visit.draw(said) == visit.ask('sky', said) == {}
    with pytest.raises(InputError, match='Drop one'): visit.save('.', 'mask', said)
    made = visit.see(ToyScenes('val', 1)[0].image, 'mine.png', said)
    assert made['name']['value'] in visit.probe.names and picture(made).shape == (768, 768, 3)
    said |= {k: made[k]['value'] for k in ('name', 'row', 'column')}
    assert 'count alike' in made['here']['value'] and 'count alike' not in visit.here(said | dict(attention='mps'))


def test_of_many_text_prompts_those_that_look_are_shown(visit, said, monkeypatch):
    every = visit.draw(said)
    monkeypatch.setattr('otseg.explore.page.MANY', 2)
    some, shares = visit.foremost(said)
    assert len(shares) == 6 and some == sorted(some) and {shares[j] for j in some} == {*sorted(shares)[-2:]}
    made = visit.draw(said)
    assert (every['maps']['value'].count('<figure>'), made['maps']['value'].count('<figure>')) == (8, 4)
    assert '2 of 6 are shown' in made['here']['value'] and 'are shown' not in every['here']['value']


# With Gradio

def gradio(): return pytest.importorskip('gradio', reason='pip install "otseg[app]"')


def test_what_a_visit_gives_fits_the_parts_of_the_page(toy, visit, said):
    gradio()
    parts = {p['props'].get('elem_id') or p['props'].get('label'): p['props'] for p in make_page(
        toy, visit.pictures).get_config_file()['components']}
    assert {'picture', 'legend', 'here', 'maps', 'message', 'Class', 'Row', 'Column'} <= {*parts}
    assert parts['Class']['value'] == said['name'] and parts['Row']['value'] == said['row'] and parts['picture']['value']
    assert {*visit.start(said)} == {*DRAWN}


def test_the_page_is_of_the_clip_that_was_asked_for():
    gradio()
    page = make_page(Segmenter.from_clip('toy', weights='packaged', device='cpu'), None, 'sky, grass|sand')
    told = str(page.get_config_file())
    assert 'CLIP without training, toy' in told and 'No photographs ship' in told and "('sky', 'sky')" in told


def command(folder, *words):
    "The command otseg-app, as its script calls it"
    (folder/'otseg-app').write_text('from otseg.explore.app import app\napp()\n', encoding='utf-8')
    return [sys.executable, str(folder/'otseg-app'), *words, '--no-browser']


@pytest.fixture(scope='module')
def address(tmp_path_factory):
    "The address that a running command tells"
    gradio()
    folder = tmp_path_factory.mktemp('app')
    argv = command(folder, 'toy', '--port', '{port}')
    with serving(argv, folder/'app.log', told=r'http://localhost:\d+/\?token=[0-9a-f]{48}(?= shows toy)') as url:
        yield url
        assert (folder/'app.log').read_text(encoding='utf-8').count(url[-48:]) == 1, 'the log does not repeat the token'


class Stay(urllib.request.HTTPRedirectHandler):
    "A redirection is an answer"
    def redirect_request(self, *args, **kwargs): return None


def ask(url, data=None, **headers):
    "The answer, whatever its status"
    try: return urllib.request.build_opener(Stay).open(urllib.request.Request(url, data, headers), timeout=60)
    except urllib.error.HTTPError as e: return e


@POSIX
@pytest.mark.parametrize('path, data', [
    ('', None), ('?token=', None), ('?token=wrong', None), ('config', None), ('theme.css', None), ('gradio_api/info', None),
    ('gradio_api/queue/data?session_hash=a', None), ('gradio_api/queue/join', b'{}'), ('gradio_api/upload', b''),
    ('gradio_api/file=/etc/hostname', None)])
def test_nothing_is_shown_without_the_token(address, path, data):
    wrong = path.replace('wrong', address[-48:-1] + ('0' if address[-1] != '0' else '1'))
    answer = ask(address.split('?')[0] + wrong, data)
    assert answer.status == 403 and b'whole address that otseg-app told' in answer.read()
    answer = ask(address.split('?')[0] + wrong, data, Cookie=f'otseg-{urlsplit(address).port}=wrong; other={address[-48:]}')
    assert answer.status == 403


@POSIX
def test_with_the_token_the_page_is_shown(address):
    answer = ask(address)
    cookie = answer.headers['Set-Cookie']
    assert answer.status == 303 and answer.headers['Location'] == '/' and 'HttpOnly' in cookie and 'SameSite=Strict' in cookie
    page = ask(address.split('?')[0], Cookie=cookie.split(';')[0])
    text = page.read().decode()
    assert page.status == 200 and re.search(r'"title": ?"OTSeg"', text)
    asked = {urlsplit(found).netloc for found in re.findall(r'<(?:script|link)[^>]*(?:src|href)="([^"]+)"', text)}
    assert asked <= {'', urlsplit(address).netloc}, f'the page asks others: {asked}'


@POSIX
def test_it_listens_on_this_machine_alone(address):
    port = urlsplit(address).port
    others = {a[4][0] for a in socket.getaddrinfo(socket.gethostname(), port, type=socket.SOCK_STREAM)} - {'127.0.0.1', '::1'}
    for other in others | {'127.0.0.2'}:
        with socket.socket(socket.AF_INET6 if ':' in other else socket.AF_INET) as s:
            s.settimeout(5)
            assert s.connect_ex((other, port)) != 0, other


@POSIX
def test_a_busy_port_is_one_line(tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as taken:
        port = taken.getsockname()[1]
        got = subprocess.run(command(tmp_path, 'toy', '--port', str(port)), capture_output=True, text=True, encoding='utf-8',
                             timeout=START)
    assert got.returncode == 2 and got.stdout == ''
    assert re.fullmatch(rf'error: port {port} should be free, got .*\. Pass another --port\.\n', got.stderr), got.stderr
