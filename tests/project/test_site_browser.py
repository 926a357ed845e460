"The built documentation site in a real browser, with everything but the site itself out of reach. `make test-docs` runs it"
import functools
import http.server
import re
import threading

import pytest
from conftest import ROOT
from given.browser import MARKS, browser, open_page, shot  # noqa: F401

SITE = ROOT/'_docs'
pytestmark = MARKS
FRONT, API, TUTORIAL, EQUATIONS = ('index.html', '01_transport/solvers.html', 'tutorials/transport_by_hand.html',
                                   '01_transport/mpsa.html')
DESK, PHONE = (1360, 900), (390, 844)


class Quiet(http.server.SimpleHTTPRequestHandler):
    "A server of files that says nothing"
    def log_message(self, *args): pass


@pytest.fixture(scope='module')
def url():
    assert (SITE/'index.html').is_file(), 'the site should be there; `make docs` builds it'
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}/'
    server.shutdown()
    server.server_close()


@pytest.fixture
def visit(browser, url):  # noqa: F811
    "A page of the site by its path; at the end nothing may have failed, and nothing been asked of any other host"
    opened = []

    def visit(path, size=DESK, scheme='light'):
        opened.append(open_page(browser, url + path, size, scheme))
        return opened[-1][0]
    yield visit
    for page, _ in opened: page.context.close()
    assert not [line for _, said in opened for line in said]


def background(page):
    "Mean of red, green and blue behind the page, 0 to 255"
    colour = page.evaluate('getComputedStyle(document.body).backgroundColor')
    return sum(map(int, re.findall(r'\d+', colour)[:3])) / 3


def test_the_front_page_leads_to_every_chapter(visit):
    page = visit(FRONT)
    page.wait_for_load_state()
    shot(page, 'front')
    assert page.locator('h1').first.inner_text().startswith('otseg')
    chapters = [c.lower() for c in page.locator('.sidebar-tree .caption-text').all_inner_texts()]
    assert chapters == ['tutorials', 'explanations', 'experiments', 'the package', 'project']
    assert page.locator('.sidebar-tree a', has_text=re.compile(r'^otseg\.')).count() == len(list((ROOT/'nbs').glob('[0-9]*_*')))
    broken = page.evaluate('[...document.images].filter(i => i.loading != "lazy" && !i.naturalWidth).map(i => i.src)')
    assert not broken
    page.locator('.sidebar-tree a', has_text='Transport by hand').click()
    page.wait_for_url('**/' + TUTORIAL)


def test_a_page_of_the_package_has_signature_shapes_and_source(visit):
    page = visit(f'{API}#otseg.transport.solvers.textbook_sinkhorn')
    shot(page, 'api')
    entry = page.locator('dl.py.function', has=page.locator('[id="otseg.transport.solvers.textbook_sinkhorn"]'))
    assert entry.locator('dt').first.inner_text().startswith('textbook_sinkhorn(')
    assert 'Float[Tensor, \'b m n\']' in entry.locator('table').first.inner_text()
    source = page.locator('details.source').first
    assert not source.locator('pre').is_visible()
    source.locator('summary').click()
    assert 'def textbook_sinkhorn' in source.locator('pre').inner_text()
    shot(page, 'api-source')


def test_a_tutorial_shows_what_its_cells_show(visit):
    page = visit(TUTORIAL)
    shot(page, 'tutorial')
    assert page.locator('div.output').count() > 3
    figure = page.locator('article img').first
    figure.scroll_into_view_if_needed()
    page.wait_for_function('i => i.complete && i.naturalWidth > 100', arg=figure.element_handle())
    shot(page, 'tutorial-figure')


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_equations_are_typeset(visit, scheme):
    page = visit(EQUATIONS, scheme=scheme)
    page.evaluate('document.fonts.ready')
    assert page.evaluate('[...document.fonts].some(f => f.family.includes("STIX Two Math") && f.status == "loaded")')
    display = page.locator('math[display="block"]')
    assert display.count() and page.locator('math').count() > 20
    display.first.scroll_into_view_if_needed()
    shot(page, f'equations-{scheme}')
    assert display.first.bounding_box()['height'] > 20
    assert page.locator('math', has_text='ℳ').count() and not page.locator('[mathvariant]:not([mathvariant="normal"])').count()
    assert '\\' not in ''.join(page.locator('math').all_text_contents()) and '$$' not in page.locator('article').inner_text()


def test_search_finds_a_symbol_and_words(visit):
    page = visit(FRONT)
    page.locator('.sidebar-search').fill('textbook_sinkhorn')
    page.locator('.sidebar-search').press('Enter')
    hit = page.locator('#search-results a[href*="solvers.html#otseg.transport.solvers.textbook_sinkhorn"]').first
    hit.wait_for()
    page.wait_for_timeout(1000)
    shot(page, 'search')
    hit.click()
    page.locator('[id="otseg.transport.solvers.textbook_sinkhorn"]').wait_for()
    words = visit('search.html?q=photograph')
    words.locator('#search-results a[href*="tutorials/segment_your_photograph.html"]').first.wait_for()


@pytest.mark.parametrize('path', [FRONT, API, TUTORIAL, EQUATIONS, 'experiments/index.html', 'experiments/answers.html',
                                  'tutorials/reproduce_the_paper.html', '02_model/otseg.html', '02_model/index.html',
                                  '09_explore/explorer.html'])
def test_a_phone_needs_no_scrolling_sideways(visit, path):
    page = visit(path, PHONE)
    shot(page, f'phone-{path.replace("/", "-").removesuffix(".html")}')
    assert page.evaluate('document.documentElement.scrollWidth') <= PHONE[0]
    wide = '''() => [...document.querySelectorAll('article *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1 &&
        e.getBoundingClientRect().width && !e.closest('math, details:not([open])')).filter(e => { for (let p = e.parentElement; p;
        p = p.parentElement) if (['auto', 'scroll'].includes(getComputedStyle(p).overflowX)) return false; return true })
        .map(e => e.outerHTML.slice(0, 120))'''
    assert not page.evaluate(wide)


def test_dark_mode_follows_the_system_and_the_button(visit):
    page = visit(API, scheme='dark')
    assert background(page) < 60
    shot(page, 'api-dark')
    page = visit(FRONT)
    assert background(page) > 230
    button = page.locator('.theme-toggle:visible').first
    for _ in range(3):
        if page.evaluate('document.body.dataset.theme') == 'dark': break
        button.click()
    assert background(page) < 60
    page.reload()
    assert background(page) < 60  # it is remembered
    shot(page, 'front-dark')


def test_the_recorded_explorer_is_moved_by_keys(visit):
    "Two sliders with their values, a picture for each pair, in the dark too"
    page = visit('09_explore/explorer.html', scheme='dark')
    recorded = page.locator('.recorded')
    recorded.scroll_into_view_if_needed()
    sliders, image, seen = recorded.locator('input[type=range]'), recorded.locator('img'), set()
    assert sliders.count() == 2
    for i in range(2):
        sliders.nth(i).focus()
        for key in ('Home', *['ArrowRight'] * 4):
            page.keyboard.press(key)
            told = recorded.locator('output').nth(i).inner_text()
            assert told and sliders.nth(i).get_attribute('aria-valuetext') == told
            seen.add(image.get_attribute('src'))
    assert len(seen) == 9 and image.evaluate('i => i.complete && i.naturalWidth') >= 300
    shot(page, 'explorer-dark')


def test_the_address_in_a_docstring_is_there(visit):
    import otseg.transport.solvers as solvers
    path = re.search(r'Docs: https://otseg\.github\.io/otseg/(\S+)', solvers.__doc__)[1]
    page = visit(path.removesuffix('.md'))
    assert page.locator('h1').first.inner_text().startswith('solvers')
    assert (SITE/path).read_text(encoding='utf-8').startswith('# solvers')
