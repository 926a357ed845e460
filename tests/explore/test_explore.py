"The explorer without a browser: every handle changes the pixels, and does so before the eye waits"
import io, statistics, sys, time
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from otseg.core import InputError
from otseg.data.reading import load_dataset
from otseg.explore import explorer
from otseg.explore.explorer import explore
from otseg.explore.panels import explore_prompts, watch_mouse
from otseg.explore.probe import Probe
from otseg.model.areas import enlarged
from otseg.model.otseg import with_areas
from otseg.predict.segmenter import Segmenter
from otseg.data.toy import ToyScenes
from otseg.model.vocab import load_vocab
from otseg.train.areas import learn_areas

LIMITS = ['anew', pytest.param(.2, marks=pytest.mark.timing)]  # what it takes to make the explorer anew, or seconds
MOVES = dict(  # handle -> values, one after the other
    eps=[.1, .2, .4, .02, .05], iterations=['1', '2', '3', '1', 'as trained'], blend=[0., .3, .7, 1., .5],
    penalty=[.1, .2, .3, .4, .05], share=[.2, .5, .9, 0., .4], opacity=[.2, .4, .6, 1., .75],
    row=[0, 3, 6, 9, 11], column=[0, 3, 6, 9, 11],
    name=['star', 'sky', 'sand', 'bee', 'moon'], view=['summands', 'scores', 'plan'], attention=['softmax', 'mpsa'],
    path=['decoder layer 1', 'decoder layer 3', 'all paths', 'score map'], picture=['toy scene 2', 'toy scene 3', 'toy scene 4'])


@pytest.fixture(scope='module')
def segmenter():
    return Segmenter.from_pretrained('toy', device='cpu')


def shown(e):
    "All pictures of the page as arrays"
    files = [cell.children[1].value for panels in (e.front, e.back) for cell in panels.children]
    return [np.asarray(Image.open(io.BytesIO(f))) for f in files]


def lines(e): return [cell.children[2].value for cell in e.back.children]


def seconds_of(fn, *args):
    "Of processor time"
    began = time.process_time()
    fn(*args)
    return time.process_time() - began


@pytest.mark.parametrize('limit', LIMITS)
@pytest.mark.parametrize('handle', MOVES)
def test_redraw_is_quick_and_seen(segmenter, handle, limit, record_property):
    e, seconds = explore(segmenter), []
    if limit == 'anew': limit = statistics.median(seconds_of(explore, segmenter) for _ in range(3))
    before = shown(e), lines(e)
    for value in MOVES[handle]:
        assert getattr(e.handles, handle).value != value
        seconds.append(seconds_of(setattr, getattr(e.handles, handle), 'value', value))
        after = shown(e), lines(e)
        changed = [a.shape != b.shape or (a != b).any() for a, b in zip(before[0], after[0])]
        assert any(changed) or len(before[0]) != len(after[0]), (handle, value)
        before = after
    record_property('milliseconds', [round(1000 * s) for s in seconds])
    print(f'{handle}: median {1000 * statistics.median(seconds):.0f} ms, longest {1000 * max(seconds):.0f} ms')
    assert statistics.median(seconds) < limit, (handle, seconds)


def test_only_what_depends_on_a_handle_is_done_again(segmenter, monkeypatch):
    e, done = explore(segmenter), []
    encoder, head, text = segmenter.model.image_encoder, e.probe._ask_head, segmenter.text
    def note(*args): done.append('tokens')
    hook = encoder.register_forward_hook(note)
    monkeypatch.setattr(e.probe, '_ask_head', lambda o: done.append('head') or head(o))
    monkeypatch.setattr(segmenter, 'text', lambda v: done.append('text') or text(v))

    def after(handle, value):
        done.clear()
        getattr(e.handles, handle).value = value
        return [*dict.fromkeys(done)]

    try:
        for handle, value in dict(opacity=.1, view='scores', path='all paths', row=0, blend=.1, penalty=.3, share=.7, areas='off',
                                  name='star').items():
            assert after(handle, value) == [], handle
        assert after('eps', .2) == after('iterations', '2') == after('attention', 'softmax') == ['head']
        assert after('classes', 'sky, sand, bee') == ['text', 'head']
        assert after('picture', 'toy scene 4') == ['tokens', 'head']
    finally:
        hook.remove()


def test_labels_are_those_of_predict(segmenter):
    e = explore(segmenter, classes='sky, sand, grass, star')
    x = ToyScenes('val', 1)[0].image
    assert (e.labels_at(x.shape[:2]) == segmenter.predict(x, 'sky, sand, grass, star').labels).all()


@pytest.fixture(scope='module')
def aware(segmenter):
    "The same model with areas that some training scenes have taught it"
    model = with_areas(segmenter.model, None)
    data = load_dataset('toy', split='train', n=60, transform=segmenter.preprocess.eval_transform())
    head = learn_areas(model, data, segmenter.text(segmenter.vocab), segmenter.vocab, steps=150)
    how = dict(vocab=segmenter.vocab, preprocess=segmenter.preprocess, seen_penalty=0., device='cpu')
    return Segmenter(with_areas(model, head), **how)


@pytest.fixture(scope='module')
def without(segmenter):
    return Segmenter(with_areas(segmenter.model, None), vocab=segmenter.vocab, preprocess=segmenter.preprocess, device='cpu')


@pytest.mark.parametrize('classes', [None, 'sky, sand, grass, star', 'sky|snow, sand, star|moon', 'sky'])
def test_predicted_areas_are_those_of_predict(aware, without, classes):
    e, x = explore(aware, classes=classes), ToyScenes('val', 1)[0].image
    assert e.handles.areas.value == 'predicted'
    assert (e.labels_at(x.shape[:2]) == aware.predict(x, classes).labels).all()
    e.handles.areas.value = 'off'
    plain = without.predict(x, classes, seen_penalty=0.).labels
    assert (e.labels_at(x.shape[:2]) == plain).all() and '#B00020' not in e.message.value


def test_an_area_by_hand_is_met(aware, without):
    for segmenter in (aware, without):
        e = explore(segmenter)
        own = e.probe.area_of(e.handles.name.value)
        assert e.handles.share.value == pytest.approx(own, abs=.006)
        met = []
        for share in (0., .3, .9):
            e.handles.share.value = share
            assert e.handles.areas.value == 'by hand' and '#B00020' not in e.message.value
            i = e.probe.names.index(e.handles.name.value)
            maps = e.probe.answer((e.handles.name.value, share)).output
            met.append(float(enlarged(maps.mean_map).softmax(1).mean(2)[0, i]))
        np.testing.assert_allclose(met, (0., .3, .9), atol=1e-3)
        e.handles.name.value = e.probe.names[-1]                     # of another class, from its own area on
        assert e.handles.share.value == pytest.approx(e.probe.area_of(e.probe.names[-1]), abs=.006)


def test_areas_that_a_model_does_not_predict_are_not_offered(without):
    assert [*explore(without).handles.areas.options] == ['off', 'by hand']
    with pytest.raises(InputError, match='otseg-areas learns them'): explore(without).probe.answer(areas=True)


def test_words_of_a_class_share_its_area(aware):
    probe = Probe(aware, ToyScenes('val', 1)[0].image, 'sky|snow, sand, star|moon')
    assert sum(map(probe.area_of, probe.names)) == pytest.approx(1, abs=1e-5)
    out = probe.answer(('sky', .6)).output
    assert float(enlarged(out.mean_map).softmax(1).mean(2)[0, :2].sum()) == pytest.approx(.6, abs=1e-3)


def drawn(fig):
    "Maps of the text prompts in a figure, and the small print"
    maps = [np.asarray(ax.images[1].get_array()) for ax in fig.axes if len(ax.images) > 1]
    return maps, ' '.join(t.get_text() for t in fig.texts).replace('\n', ' ')


@pytest.mark.parametrize('path', ['score map', 'decoder layer 2'])
@pytest.mark.parametrize('moved', [{}, dict(eps=.3), dict(attention='softmax'), dict(view='summands'), dict(name='star')])
def test_the_figure_is_of_what_is_shown(segmenter, path, moved):
    "Class, path, view and options: the maps in it are those of the probe"
    e = explore(segmenter, classes='sky, sand, grass, star')
    e.handles.name.value = 'sky'
    for handle, value in moved.items(): getattr(e.handles, handle).value = value
    fig = e.figure(path)
    maps = getattr(Probe(segmenter, ToyScenes('val', 1)[0].image, 'sky, sand, grass, star').paths(
        e.handles.name.value, **e.options)[path], e.handles.view.value)
    shown, note = drawn(fig)
    want = F.interpolate(maps[None], size=(96, 96), mode='bilinear')[0]
    assert len(shown) == len(maps) + 1   # and their mean
    for a, b in zip(shown, [*want, want.mean(0)]): np.testing.assert_allclose(a, b, atol=1e-4)
    assert note.startswith(f'{e.handles.name.value} (seen) {path}: {explorer.UNITS[e.handles.view.value]}. ')
    assert f'eps {e.handles.eps.value:.3g}' in note and ('softmax' in note) == (e.handles.attention.value == 'softmax')


def upload(name, content):
    return ({'name': name, 'type': '', 'size': len(content), 'content': memoryview(content), 'last_modified': datetime.now()},)


def jpeg(shape=(300, 500)):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)).save(f := io.BytesIO(), 'jpeg')
    return f.getvalue()


def test_photograph_is_uploaded(segmenter):
    e = explore(segmenter)
    before = shown(e)
    e.handles.upload.value = upload('beach.jpg', jpeg())
    assert e.handles.picture.value == 'beach.jpg' and e.probe.picture.shape == (300, 500, 3)
    assert shown(e)[0].shape == (120, 200, 3) != before[0].shape
    h, w = e.probe.grid
    assert (e.handles.row.max, e.handles.column.max) == (h - 1, w - 1) and w > h
    e.handles.picture.value = 'toy scene 2'
    assert e.probe.grid == (12, 12)


@pytest.mark.parametrize('file', [b'', b'no picture', jpeg()[:900]])
def test_broken_photograph_is_told_and_nothing_is_lost(segmenter, file):
    e = explore(segmenter)
    before = shown(e)
    e.handles.upload.value = upload('broken.jpg', file)
    assert e.message.value.count('broken.jpg') == 1 and 'should be a whole picture' in e.message.value
    assert all((a == b).all() for a, b in zip(before, shown(e))) and 'broken.jpg' not in e.handles.picture.options
    e.handles.opacity.value = .2
    assert 'broken.jpg' not in e.message.value


def test_a_fault_of_ours_is_no_fault_of_the_photograph(segmenter, monkeypatch):
    "Memory that runs out is not told as a picture that does not decode"
    def full(*args): raise MemoryError('no room')
    e = explore(segmenter)
    monkeypatch.setattr(explorer, 'load_photograph', full)
    with pytest.raises(MemoryError): e.handles.upload.value = upload('large.jpg', jpeg())


@pytest.mark.parametrize('typed, says', [('sky, zebra', 'words that this CLIP learned'), ('sky,,sand', 'should have a name'),
                                         ('sky, sky', 'should differ'), ('<b>x</b>', '&#x27;x&#x27;')])
def test_wrong_classes_are_told_and_nothing_is_lost(segmenter, typed, says):
    e = explore(segmenter, classes='sky, sand')
    before = shown(e)
    e.handles.classes.value = typed
    assert says in e.message.value and '<b>' not in e.message.value
    assert all((a == b).all() for a, b in zip(before, shown(e)))
    assert e.probe.names == ['sky', 'sand'] and e.handles.classes.value == typed
    e.handles.classes.value = 'sky, bee'
    assert 'words' not in e.message.value and e.probe.names == ['sky', 'bee']


def test_row_of_the_plan_is_shown(segmenter):
    e = explore(segmenter)
    e._point(0., .999)
    assert (e.handles.row.value, e.handles.column.value) == (11, 0)
    shares, _ = e.probe.paths(e.handles.name.value, **e.options)['score map'].row(11, 0)
    assert [f'>{s:.0%}<' in line for s, line in zip(shares.tolist(), lines(e)[1:])] == [True] * len(shares)
    assert shares.sum() == pytest.approx(1, abs=1e-5)


def test_mouse_is_watched_where_ipyevents_is_installed(monkeypatch):
    import ipywidgets as widgets
    told, picture = [], widgets.Image()
    monkeypatch.setitem(sys.modules, 'ipyevents', None)
    assert watch_mouse(picture, told.append) is False
    class Event(SimpleNamespace):
        def on_dom_event(self, heard): self.heard = heard
    monkeypatch.setitem(sys.modules, 'ipyevents', SimpleNamespace(Event=Event))
    assert watch_mouse(picture, lambda x, y: told.append((x, y)))
    picture.mouse.heard(dict(relativeX=50, relativeY=20, boundingRectWidth=200, boundingRectHeight=20))
    picture.mouse.heard(dict(relativeX=0, relativeY=0, boundingRectWidth=0, boundingRectHeight=0))
    assert told == [(.25, 1)]


def test_iterations_that_do_not_suffice_are_told(segmenter, monkeypatch):
    assert 'stopped' not in explore(segmenter).message.value
    monkeypatch.setattr(segmenter.model, 'config', replace(segmenter.model.config, max_iter=1))
    assert 'stopped after 1 iterations' in explore(segmenter).message.value


def test_a_small_eps_takes_many_iterations(segmenter):
    e = explore(segmenter)
    e.handles.eps.value = .01
    e.handles.iterations.value = '1'
    one = shown(e)
    e.handles.iterations.value = '200'
    assert any((a != b).any() for a, b in zip(one, shown(e)))


def test_figure_is_saved(segmenter, monkeypatch):
    drawn, draw = [], explorer.plot_prompt_maps

    def note(picture, *args, **kwargs):
        drawn.append(picture.shape)
        return draw(picture, *args, **kwargs)
    monkeypatch.setattr(explorer, 'plot_prompt_maps', note)
    e = explore(segmenter)
    e.handles.save.click()
    assert e.link.value.count('href="data:image/png;base64,') == 1 and 'score-map.png' in e.link.value
    e.handles.upload.value = upload('large.jpg', jpeg((3000, 4000)))
    e.handles.save.click()
    assert max(drawn.pop()) == explorer.PRINT  # not the whole photograph, which takes many times as long
    e.handles.path.value = 'all paths'
    e.handles.save.click()
    assert e.link.value.count('download=') == 4


@pytest.mark.timing
def test_a_figure_of_a_large_photograph_is_saved_soon(segmenter):
    e = explore(segmenter)
    e.handles.upload.value = upload('large.jpg', jpeg((3000, 4000)))
    assert seconds_of(e.handles.save.click) < 5


def test_classes_with_text_prompts_of_their_own_are_in_words(segmenter):
    own = load_vocab('toy')
    vocab = own.with_(text_prompts=[[f'a photo of a {n}.', f'a small {n}.'] for n in own.names], templates=())
    s = Segmenter(segmenter.model, vocab=vocab, preprocess=segmenter.preprocess, device='cpu')
    titles = [c.children[0].value for c in explore(s).back.children[1:3]]
    assert 'a photo of a' in titles[0] and 'a small' in titles[1]
    small = explore_prompts(s.predict(ToyScenes('val', 1)[0].image))
    assert 'a small' in small.children[1].children[3].children[0].value


@pytest.mark.parametrize('limit', LIMITS)
def test_the_small_explorer_redraws_as_quickly(segmenter, limit):
    prediction, seconds = segmenter.predict(ToyScenes('val', 1)[0].image), []
    small = explore_prompts(prediction)
    if limit == 'anew': limit = statistics.median(seconds_of(explore, segmenter) for _ in range(3))
    (menu, path, opacity), panels = small.children[0].children, small.children[1]
    def now(): return [bytes(cell.children[1].value) for cell in panels.children]
    for handle, value in ((opacity, .2), (menu, 3), (path, 'decoder layer 1'), (opacity, .5), (menu, 5)):
        before = now()
        seconds.append(seconds_of(setattr, handle, 'value', value))
        assert now() != before
    assert statistics.median(seconds) < limit, seconds


def test_background_has_no_prompts(segmenter):
    "It is nobody's class: no maps, no entry in the menu, although most pixels are its own"
    x = ToyScenes('val', 1)[0].image
    rest = segmenter.predict(x, 'sky, moon', background=.9)
    assert rest.classes == ['sky', 'moon', 'background'] and (rest.labels == 2).mean() > .5
    assert rest.prompt_maps.shape[:2] == (2, 6) and [len(m) for m in rest.decoder_prompt_maps] == [2] * 3
    for ask in (rest.text_prompts_of, rest.prompt_map_layers):
        with pytest.raises(InputError, match='background'): ask('background')
    small = explore_prompts(rest)
    menu, _, _ = small.children[0].children
    assert [text.split(',')[0] for text, _ in menu.options] == ['sky', 'moon']
    for i, name in enumerate(('sky', 'moon')):   # and the maps of the others are theirs
        menu.value = i
        assert f'a photo of a {name}.' in small.children[1].cells[2][0]
        alone = segmenter.predict(x, 'sky, moon').prompt_map_layers(name)['score map']
        torch.testing.assert_close(rest.prompt_map_layers(name)['score map'], alone, atol=1e-4, rtol=1e-4)


def answers(p, name='sky', size=(30, 40)):
    "Everything that a probe remembers, as arrays"
    out = p.answer().output
    maps = p.paths(name)
    return dict(decoder=out.decoder_map, score=out.score_map, probs=p.probs(size), labels=torch.from_numpy(p.labels(size)),
                **{f'{path} {view}': x for path, m in maps.items() for view, x in m._asdict().items()})


def same(a, b): return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_picture_and_classes_that_are_refused_leave_the_answers(segmenter):
    probe = Probe(segmenter, ToyScenes('val', 1)[0].image, 'sky, sand, kite')
    before = answers(probe)
    for wrong in (lambda: probe.ask('sky, zebra'), lambda: probe.see('no such file.jpg')):
        with pytest.raises(InputError): wrong()
        assert same(answers(probe), before) and probe.names == ['sky', 'sand', 'kite']
