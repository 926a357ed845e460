"CLIP without training in the explorer: its one path, its two ways to join text prompts"
import numpy as np
import pytest
import torch

from otseg.data.toy import ToyScenes
from otseg.explore.explorer import explore
from otseg.predict.segmenter import Segmenter

ASKED = 'sky, grass, house|tree'


@pytest.fixture(scope='module')
def free(): return Segmenter.from_clip('toy', weights='packaged', side=96, window=96, device='cpu')


def test_labels_and_scores_are_those_of_predict(free):
    e, x = explore(free, classes=ASKED), ToyScenes('val', 1)[0].image
    s = free.predict(x, ASKED)
    assert e.probe.path_names == ['score map'] and (e.labels_at(x.shape[:2]) == s.labels).mean() > .999
    torch.testing.assert_close(e.probe.probs(x.shape[:2]), s.probs, atol=1e-4, rtol=0)


def test_prompt_maps_add_up_to_the_cosine_and_transport_moves_them(free):
    p = explore(free, classes=ASKED).probe
    scores = p.answer(attention='mean').output.score_map[0, 0]
    torch.testing.assert_close(p.paths('sky', attention='mean')['score map'].summands.sum(0), scores, atol=1e-5, rtol=0)
    even, moved = (p.paths('sky', attention=a)['score map'].plan for a in ('mean', 'mps'))
    assert torch.equal(even, torch.ones_like(even)) and abs(float(moved.mean()) - 1) < 1e-3 and float(moved.std()) > 1e-3


def test_a_class_of_several_words_has_the_maps_of_its_mean(free):
    "And not those of the row that has its number; the class after it those of its own text"
    p, q = explore(free, classes='house|tree, sky').probe, free.question('house|tree, sky')
    assert len(q.text) == 3 and p.names == ['house', 'sky']
    for i, name in enumerate(p.names):
        want = p.model.head(p.tokens[0], None, q.class_text[[i]]).score_prompt_maps[0, 0]
        torch.testing.assert_close(p.paths(name, attention='mean')['score map'].summands, want, atol=1e-5, rtol=0)


def test_handles_change_what_is_shown(free):
    e = explore(free, classes=ASKED)
    assert e.handles.attention.value == 'mean' and 'CLIP without training' in e.about.value
    before = e.probe.probs((96, 96), **e.options).numpy()
    e.handles.attention.value = 'mps'
    e.handles.eps.value, e.handles.iterations.value = .5, '3'
    assert np.abs(e.probe.probs((96, 96), **e.options).numpy() - before).max() > 1e-4
    assert 'MPS' in ' '.join(t.get_text() for t in e.figure().texts)
