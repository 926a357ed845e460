"One more class costs its own sentences: what is built, hashed and encoded is counted, and on ViT-B/16 timed"
import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from otseg.core import seed_everything
from otseg.explore.probe import Probe
from otseg.model import clip as room
from otseg.model.clip import get_tokenizer, load_clip, text_embeddings
from otseg.model.config import OTSegConfig
from otseg.model.otseg import OTSeg
from otseg.predict import Segmenter

pytestmark = pytest.mark.filterwarnings('ignore:.*meaningless.*')
SMALL = dict(model_cfg=dict(embed_dim=16, quick_gelu=True,
                            vision_cfg=dict(image_size=32, patch_size=8, width=24, head_width=12, layers=1),
                            text_cfg=dict(context_length=8, vocab_size=9, width=24, heads=2, layers=1)),
             words=['a', 'cat', 'dog', 'of', 'photo', 'red'])
TEMPLATES = ['a photo of a {}.', 'a {}']


def segmenter(clip, weights, size):
    seed_everything(0)
    return Segmenter(OTSeg(OTSegConfig(clip=clip, weights=str(weights), vpt_tokens=2, image_size=size)))


@pytest.fixture
def weights(tmp_path, monkeypatch):
    "A file that is not new, and an empty cache in a process that knows nothing"
    path = tmp_path/'clip.safetensors'
    save_file(load_clip(SMALL, 'random:1').state_dict(), path)
    monkeypatch.setenv('OTSEG_CACHE', str(tmp_path/'cache'))
    now = os.stat(path).st_ctime + 60
    monkeypatch.setattr(room.time, 'time', lambda: now)
    room._encoder.cache_clear()
    return path


@pytest.fixture
def counts():
    "Text towers built, CLIPs built, sentences encoded, files hashed"
    n = SimpleNamespace(towers=0, clips=0, sentences=0, hashes=0)

    def watch(name, what, amount=lambda *args: 1):
        real = getattr(room, name)
        def run(*args, **kwargs):
            setattr(n, what, getattr(n, what) + amount(*args))
            return real(*args, **kwargs)
        return patch.object(room, name, run)
    with ExitStack() as stack:
        for name, what in (('_text_tower', 'towers'), ('load_clip', 'clips'), ('_digest', 'hashes')):
            stack.enter_context(watch(name, what))
        stack.enter_context(watch('_embed', 'sentences', lambda model, tokens: len(tokens)))
        yield n


def told(n): return n.towers, n.sentences, n.hashes


def test_a_class_more_costs_its_own_sentences(weights, counts):
    seg = segmenter(SMALL, weights, 32)
    seg.question(['cat', 'dog'], TEMPLATES)
    assert told(counts) == (1, 4, 1)
    for names, sentences in ((['cat', 'dog', 'red cat'], 6), (['red cat', 'cat'], 6), (['dog'], 6), (['dog', 'red dog'], 8)):
        seg.question(names, TEMPLATES)
        assert told(counts) == (1, sentences, 1), names
    assert counts.clips == 0  # no image tower is built for names


def test_words_of_a_class_and_a_background_too(weights, counts):
    seg = segmenter(SMALL, weights, 32)
    seg.question('cat|red cat', TEMPLATES)
    seg.question('cat|red cat,dog', TEMPLATES, background='photo,red photo')
    assert told(counts) == (1, 10, 1)


def test_whoever_asks_shares_it(weights, counts):
    "A second segmenter, embeddings asked for by name: one tower, no sentence twice"
    picture, names = np.zeros((32, 40, 3), np.uint8), ['cat', 'dog']
    first = segmenter(SMALL, weights, 32)
    first.predict(picture, names, TEMPLATES)
    second = segmenter(SMALL, weights, 32)
    second.predict(picture, ['dog', 'red cat'], TEMPLATES)
    text_embeddings([['a red cat'], ['a cat']], SMALL, str(weights))
    assert told(counts) == (1, 6, 1)


def test_the_explorer_asks_the_same_encoder(weights, counts):
    seg = segmenter(SMALL, weights, 32)
    seg.vocab = seg.class_vocab('cat,dog', TEMPLATES)
    probe = Probe(seg, np.zeros((32, 40, 3), np.uint8))
    seen = told(counts)
    probe.ask('cat,dog,red cat')
    assert (told(counts)[0], told(counts)[1] - seen[1], told(counts)[2]) == (1, 2, 1)


def test_a_second_process_needs_no_tower(weights, counts):
    "As after a restart: everything comes from the folder, from files of several batches"
    seg = segmenter(SMALL, weights, 32)
    for names in (['cat'], ['cat', 'dog'], ['cat', 'dog', 'red cat']): want = seg.question(names, TEMPLATES).text
    room._encoder.cache_clear()
    again = segmenter(SMALL, weights, 32).question(['red cat', 'dog', 'cat'], TEMPLATES).text
    assert torch.equal(again, want.flip(0)) and told(counts) == (1, 6, 1)


def test_many_batches_become_one_file(weights, counts, tmp_path, monkeypatch):
    monkeypatch.setattr(room.TextEncoder, 'MANY', 3)
    sentences = ['a cat', 'a dog', 'a red cat', 'a red dog', 'a photo of a cat', 'a photo of a dog']
    want = [text_embeddings([[s]], SMALL, str(weights)) for s in sentences]
    assert len([*(tmp_path/'cache/text').iterdir()]) == 3  # one of four, two after it
    room._encoder.cache_clear()
    assert torch.equal(text_embeddings([[s] for s in sentences], SMALL, str(weights)), torch.cat(want))
    assert told(counts) == (1, 6, 1)


def test_random_weights_keep_their_tower_and_no_file(counts, tmp_path, monkeypatch):
    monkeypatch.setenv('OTSEG_CACHE', str(tmp_path))
    room._encoder.cache_clear()
    seg = segmenter(SMALL, 'random:1', 32)
    for names in (['cat'], ['cat', 'dog']): seg.question(names, TEMPLATES)
    assert told(counts) == (1, 4, 0) and not [*tmp_path.iterdir()]


def test_other_weights_are_another_encoder(weights, counts):
    "A file that is replaced under a live segmenter answers by its new content, and another seed is another tower"
    texts = [['a cat'], ['a dog']]
    first = text_embeddings(texts, SMALL, str(weights))
    save_file(load_clip(SMALL, 'random:2').state_dict(), weights)
    second = text_embeddings(texts, SMALL, str(weights))
    torch.testing.assert_close(second, text_embeddings(texts, SMALL, 'random:2'), atol=1e-6, rtol=0)
    assert (first - second).abs().max() > .01


def test_a_file_that_changes_while_it_is_read_is_refused(weights, monkeypatch):
    real = room._text_tower
    def changed(*args):
        tower = real(*args)
        save_file(load_clip(SMALL, 'random:2').state_dict(), weights)
        return tower
    monkeypatch.setattr(room, '_text_tower', changed)
    with pytest.raises(ValueError, match='should stay as it is while it is read'):
        text_embeddings([['a cat']], SMALL, str(weights))


def test_autocast_and_the_mode_of_gradients_do_not_reach_it(weights):
    "Embeddings are float32 and can take part in training, whoever asks first"
    with torch.autocast('cpu', torch.bfloat16), torch.inference_mode():
        inside = text_embeddings([['a cat']], SMALL, str(weights))
    room._encoder.cache_clear()
    outside = text_embeddings([['a cat']], SMALL, str(weights), cache=False)
    torch.testing.assert_close(inside, outside, atol=1e-6, rtol=0)
    again = text_embeddings([['a cat']], SMALL, str(weights))
    (again * torch.ones(1, requires_grad=True)).sum().backward()


WRITER = '''
import sys, warnings
warnings.simplefilter('ignore')
from otseg.model.clip import text_embeddings, TextEncoder
from test_more_classes import SMALL
TextEncoder.MANY = 4
words, weights, seed = ['a', 'red', 'photo'], sys.argv[1], int(sys.argv[2])
for i in range(14):
    x = (i + seed) % 27
    text_embeddings([[f'{words[x % 3]} {words[x // 3 % 3]} {words[x // 9]} {name}'] for name in ('cat', 'dog')], SMALL, weights)
'''


def test_several_processes_write_at_once(weights, tmp_path):
    "Three of them, merging often; what is in the folder afterwards is right and whole"
    here = os.path.dirname(__file__)
    env = os.environ | dict(PYTHONPATH=os.pathsep.join([here, os.path.dirname(here), os.environ.get('PYTHONPATH', '')]))
    writers = [subprocess.Popen([sys.executable, '-c', WRITER, str(weights), str(i * 9)], env=env) for i in range(3)]
    assert [w.wait(300) for w in writers] == [0, 0, 0]
    key = room._cache_key(SMALL, str(weights))
    held = {}
    for path in (tmp_path/'cache/text').iterdir():
        found = room._from_cache(path, key)
        assert found, path
        held |= found
    assert len(held) == 54
    want = text_embeddings([[s] for s in held], SMALL, str(weights), cache=False)[:, 0]
    torch.testing.assert_close(torch.stack([s.embedding for s in held.values()]), want, atol=1e-6, rtol=0)


@pytest.mark.timing
def test_a_class_more_takes_as_long_as_its_sentences(tmp_path, monkeypatch):
    "ViT-B/16: the question of a live segmenter against the same sentences through open_clip's tower, CPU time"
    monkeypatch.setenv('OTSEG_CACHE', str(tmp_path/'cache'))
    name = 'ViT-B-16-quickgelu'
    clip = load_clip(name, 'random:1')
    save_file(clip.state_dict(), tmp_path/'clip.safetensors')
    seg = segmenter(name, tmp_path/'clip.safetensors', 224)
    tokenizer, names, ratios = get_tokenizer(name), ['road', 'sky', 'tree', 'car'], []
    seg.question(names, '6')
    time.sleep(2.1)  # until the file is old enough for its hash to be kept
    seg.question([*names, 'house'], '6')
    for i in range(9):
        names.append(f'street lamp number {i}')
        began = time.process_time()
        seg.question(names, '6')
        middle = time.process_time()
        with torch.no_grad(): clip.encode_text(tokenizer(seg.class_vocab(names[-1], '6').texts()[0]))
        ratios.append((middle - began) / (time.process_time() - middle))
    print('one more class / bare tower:', [f'{r:.2f}' for r in ratios])
    assert statistics.median(ratios) <= 1.2
