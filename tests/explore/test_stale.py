"What the probe keeps is never the answer to another question: after each change it says what a new one would"
import pytest
import torch

from otseg.data.toy import ToyScenes
from otseg.explore.probe import Probe
from otseg.predict.segmenter import Segmenter

CLASSES, OTHERS, SIZE = ['star', 'sky', 'bee'], ['sky', 'star', 'moon'], (40, 40)  # a bee has no labels
PICTURES = [s.image for s in ToyScenes('val', 2)]


@pytest.fixture(scope='module')
def segmenter(): return Segmenter.from_pretrained('toy', device='cpu')


def said(probe, name='sky', size=SIZE, blend=.5, penalty=0., **options):
    "Everything that it keeps"
    out = probe.answer(**options).output
    paths = probe.paths(name, **options)
    return dict(answer=torch.cat([out.decoder_map, out.score_map]), probs=probe.probs(size, blend, penalty, **options),
                labels=torch.as_tensor(probe.labels(size, blend, penalty, **options)),
                head=torch.tensor(probe.head(**options).config.eps),
                **{f'{k} {part}': v for k, maps in paths.items() for part, v in zip(maps._fields, maps)})


CHANGES = dict(picture=dict(), classes=dict(), name=dict(name='star'), size=dict(size=(24, 32)), blend=dict(blend=1.),
               penalty=dict(penalty=.4), eps=dict(eps=.5), attention=dict(attention='softmax'))
SEEN = dict(  # what has to be another one
    picture=['answer', 'probs', 'labels', 'score map plan'], classes=['answer', 'probs', 'labels'], name=['score map plan'],
    size=['probs', 'labels'], blend=['probs'], penalty=['probs'], eps=['answer', 'probs', 'head', 'score map plan'],
    attention=['answer', 'probs', 'score map plan'])


@pytest.mark.parametrize('change', CHANGES)
def test_nothing_is_stale(segmenter, change):
    probe = Probe(segmenter, PICTURES[0], CLASSES)
    before = said(probe)
    if change == 'picture': probe.see(PICTURES[1])
    if change == 'classes': probe.ask(OTHERS)
    after = said(probe, **CHANGES[change])
    fresh = Probe(segmenter, PICTURES[change == 'picture'], OTHERS if change == 'classes' else CLASSES)
    want = said(fresh, **CHANGES[change])
    for key in want: torch.testing.assert_close(after[key], want[key], msg=lambda m, key=key: f'{key}: {m}')
    for key in SEEN[change]: assert after[key].shape != before[key].shape or not torch.equal(after[key], before[key]), key
