"The page of `otseg-app` in a real browser, and the one for a Space. `make test-browser` runs it"
import base64
import io
import json
import re
import sys
import time

import numpy as np
import pytest
from conftest import ROOT
from given.browser import MARKS, POSIX, Watched, browser, open_page, photograph, serving, shot  # noqa: F401
from PIL import Image

from otseg.data.toy import ToyScenes
from otseg.predict.segmenter import Segmenter

pytest.importorskip('gradio', reason='pip install "otseg[app]"')
pytestmark = [*MARKS, POSIX]
KNOWN = 'warning: Method not implemented.'  # of Gradio's own upload, which goes on without
FIRST = 5  # seconds from the request of the page to its first picture
SLOW = 60_000  # milliseconds until a handle shows on a busy machine
KEYS = {'ε, how soft the transport is': 'ArrowRight', 'Blend λ': 'Home', 'Seen penalty': 'End', 'Area of the class': 'End',
        'Row': 'Home', 'Column': 'End'}  # slider -> key
MENUS = {'Text prompts are joined by': 1, 'Areas share out the picture': 1, 'Class': 2, 'Where': 1, 'What': 1}  # -> steps down


@pytest.fixture(scope='module')
def address(tmp_path_factory):
    "The address that the command tells, with its token"
    folder = tmp_path_factory.mktemp('app')
    (folder/'otseg-app').write_text('from otseg.explore.app import app\napp()\n', encoding='utf-8')
    argv = [sys.executable, str(folder/'otseg-app'), 'toy', '--port', '{port}', '--no-browser']
    with serving(argv, folder/'app.log', told=r'http://localhost:\d+/\?token=\w{48}') as url:
        yield url
        assert 'Traceback' not in (folder/'app.log').read_text(encoding='utf-8')


class Page(Watched):
    "The page, and what it shows"
    patience = SLOW

    def __init__(self, browser, url, **how):  # noqa: F811
        began = time.monotonic()
        self.page, self.said = open_page(browser, url, timeout=SLOW, **how)
        self.page.locator('#picture img').wait_for()
        self.took = time.monotonic() - began
        self.settled()

    def shown(self):
        "Address of the large picture, the maps, what is said"
        return self.page.evaluate('''() => [document.querySelector('#picture img')?.src,
            ...['legend', 'here', 'maps', 'message'].map(id => document.getElementById(id)?.innerHTML)].join('\\n')''')

    def idle(self): return not self.page.evaluate('() => /processing|queue:|uploading/i.test(document.body.innerText)')

    def text(self, part): return self.page.locator(f'#{part}').inner_text()

    def overflow(self): return self.page.evaluate('document.documentElement.scrollWidth - innerWidth')

    def done(self):
        assert not (told := [line for line in self.said if not line.startswith(KNOWN)]), told
        self.page.context.close()


@pytest.fixture
def seen(browser, address):  # noqa: F811
    page = Page(browser, address)
    yield page
    page.done()


def test_the_first_picture_comes_in_time(seen, browser, address):  # noqa: F811
    shot(seen.page, 'app', full_page=True)
    visits = [Page(browser, address) for _ in range(3)]  # none of which finds anything in a cache
    for visit in visits: visit.done()
    print('first picture after', *(f'{visit.took:.1f}' for visit in visits), 's')
    assert sorted(visit.took for visit in visits)[1] < FIRST
    assert seen.page.title() == 'OTSeg' and 'token' not in seen.page.url
    assert 'drawn world of 20 things' in seen.text('head') and 'car' in seen.text('legend')
    assert seen.page.locator('#maps figure').count() == 8


def test_a_click_tells_which_prompt_looked_there(seen):
    box = seen.page.locator('#picture img').bounding_box()
    side = min(box['width'], box['height'])  # the picture is square and stands in the middle of its box
    left, top = box['x'] + (box['width'] - side) / 2, box['y'] + (box['height'] - side) / 2
    with seen.changes('click'): seen.page.mouse.click(left + .3 * side, top + .62 * side)
    assert 'row 7 and column 3' in seen.text('here') and '“fish”' in seen.text('here')
    shares = [int(s) for s in re.findall(r'(\d+)% a ', seen.text('here'))]
    assert len(shares) == 6 and 97 <= sum(shares) <= 103 and max(shares) > 1.5 * min(shares)


def test_every_handle_by_keyboard(seen):
    page = seen.page
    fold = page.get_by_role('button', name='Transport')
    fold.focus()
    page.keyboard.press('Enter')
    for label, key in KEYS.items():
        with seen.changes(label):
            page.get_by_role('slider', name=re.compile(f'for {re.escape(label)}$')).focus()
            page.keyboard.press(key)
    assert 'row 0 and column 11' in seen.text('here')
    for label, steps in MENUS.items():
        with seen.changes(label):
            page.get_by_label(label, exact=True).focus()
            for key in ['ArrowDown'] * steps + ['Enter']: page.keyboard.press(key)
    for show in ('picture', 'scores of the class'):
        with seen.changes(show):
            page.get_by_role('radio', name=show).focus()
            page.keyboard.press('Space')
    with seen.changes('example'):
        page.get_by_role('button', name='Thumbnail 8 of 8').focus()
        page.keyboard.press('Enter')
    shot(page, 'app-moved', full_page=True)


def test_classes_and_wrong_words(seen):
    typed = seen.page.get_by_role('textbox', name='Classes')
    with seen.changes('classes'):
        typed.fill('sand, car, star')
        seen.page.get_by_role('button', name='Segment').click()
    assert {'sand', 'car'} <= {*re.findall('[a-z]+', seen.text('legend'))} <= {'sand', 'car', 'star', 'unseen'}
    before = seen.text('legend')
    with seen.changes('zebra'):
        typed.fill('sand, zebra')
        seen.page.get_by_role('button', name='Segment').click()
    assert "got 'zebra'" in seen.page.get_by_role('alert').inner_text()
    assert seen.text('legend') == before and typed.input_value() == 'sand, zebra'
    shot(seen.page, 'app-unknown-word')
    with seen.changes('again'):
        typed.fill('sand, fish')
        seen.page.get_by_role('button', name='Segment').click()
    assert 'fish' in seen.text('legend') and not seen.page.get_by_role('alert').count()


DROP = '''([name, data]) => { const all = new DataTransfer();
    const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
    all.items.add(new File([bytes], name, {type: 'image/png'}));
    const field = [...document.querySelectorAll('button')].find(b => /Drop File Here/.test(b.innerText));
    field.dispatchEvent(new DragEvent('drop', {dataTransfer: all, bubbles: true, cancelable: true})) }'''


def png(image):
    Image.fromarray(image).save(buffer := io.BytesIO(), format='PNG')
    return base64.b64encode(buffer.getvalue()).decode()


def test_photographs_by_upload_and_drop_and_one_that_is_none(seen, tmp_path):
    photo = photograph(tmp_path/'beach at noon.jpg', noise=60)
    assert photo.stat().st_size > 10 * 2**20
    with seen.changes('photograph'):
        seen.page.locator('input[type=file]').first.set_input_files(photo)
    assert seen.page.locator('#picture img').evaluate('i => i.naturalWidth / i.naturalHeight') == pytest.approx(4 / 3, .01)
    seen.page.get_by_role('button', name=re.compile('Clear|Remove')).first.click()
    with seen.changes('drop'): seen.page.evaluate(DROP, ['drawn.png', png(ToyScenes('val', 8)[3].image)])
    assert 'donut' in seen.text('legend')
    before = seen.text('legend')
    seen.page.get_by_role('button', name=re.compile('Clear|Remove')).first.click()
    with seen.changes('text'): seen.page.evaluate(DROP, ['text.jpg', base64.b64encode(b'no picture').decode()])
    assert 'text.jpg should be' in seen.page.get_by_role('alert').inner_text() and seen.text('legend') == before


def test_downloads_are_what_predict_saves(seen, tmp_path):
    got = {}
    for kind in ('mask', 'overlay', 'prompt maps', 'numbers'):
        with seen.page.expect_download() as told: seen.page.get_by_role('button', name=f'Download {kind}').click()
        got[kind] = told.value
    whole = Segmenter.from_pretrained('toy').predict(ToyScenes('val', 8)[0].image)
    assert [d.suggested_filename for d in got.values()] == [f'scene 1.{end}' for end in (
        'mask.png', 'overlay.png', 'prompts.png', 'json')]
    assert (np.asarray(Image.open(got['mask'].path())) == whole.labels).all()
    assert (np.asarray(Image.open(got['overlay'].path())) == np.asarray(whole.overlay())).all()
    assert Image.open(got['prompt maps'].path()).width > 600
    assert json.loads(got['numbers'].path().read_text(encoding='utf-8'))['areas'] == whole.areas()


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_on_a_telephone_nothing_sticks_out(browser, address, scheme):  # noqa: F811
    seen = Page(browser, address, size=(390, 844), scheme=scheme)
    assert seen.overflow() <= 0
    seen.page.get_by_role('button', name='Transport').click()
    seen.page.wait_for_timeout(500)
    shot(seen.page, f'app-phone-{scheme}', full_page=True)
    assert seen.overflow() <= 0
    seen.done()


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_accessibility(browser, address, scheme):  # noqa: F811
    axe = pytest.importorskip('axe_playwright_python.sync_playwright', reason='pip install "otseg[browser]"')
    seen = Page(browser, address, scheme=scheme)
    seen.page.get_by_role('button', name='Transport').click()
    seen.page.wait_for_timeout(1000)
    found = axe.Axe().run(seen.page).response
    wrong = [f'{v["id"]} ({v["impact"]}): {[n["html"][:120] for n in v["nodes"]]}' for v in found['violations']]
    print(f'{scheme}: {len(found["passes"])} rules of axe pass, {len(wrong)} do not', *wrong, sep='\n')
    assert not [v for v in found['violations'] if v['impact'] in ('moderate', 'serious', 'critical')], wrong
    seen.done()


def test_without_the_token_there_is_nothing(browser, address):  # noqa: F811
    bare = address.split('?')[0]
    for wrong in (bare, f'{bare}?token=', f'{address[:-1]}{"0" if address[-1] != "0" else "1"}', f'{bare}config',
                  f'{bare}gradio_api/info', f'{bare}gradio_api/upload', f'{bare}assets/', f'{bare}theme.css'):
        page, said = open_page(browser, wrong)
        assert 'whole address that otseg-app told' in page.inner_text('body') and len(said) >= 1 and '403' in ' '.join(said)
        page.context.close()


def test_a_space_starts_without_a_network(browser, tmp_path):  # noqa: F811
    argv = [sys.executable, str(ROOT/'space/app.py')]
    there = dict(GRADIO_SERVER_PORT='{port}', GRADIO_SERVER_NAME='127.0.0.1', HF_HUB_OFFLINE='1')
    with serving(argv, tmp_path/'space.log', **there) as url:
        seen = Page(browser, url)
        assert 'car' in seen.text('legend')
        seen.done()
