"What the text encoder reads: classes that it cannot tell apart, prompts that are cut, and a cache that knows all that counts"
import copy
import json
import os
import re
import warnings
from unittest.mock import patch

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from given.shell import TINY
from otseg.core import InputError
from otseg.model import clip as room
from otseg.model.clip import WordTokenizer, check_distinct, cut_texts, encode_vocab, file_sha256, load_clip, text_embeddings
from otseg.model.clip import weights_id
from otseg.model.config import OTSegConfig
from otseg.model.vocab import Vocab

pytestmark = pytest.mark.filterwarnings('ignore:.*meaningless.*')
WORDS = ['a', 'cat', 'dog', 'of', 'photo', 'red']
SMALL = dict(model_cfg=dict(embed_dim=16, quick_gelu=True,
                            vision_cfg=dict(image_size=32, patch_size=8, width=24, head_width=12, layers=1),
                            text_cfg=dict(context_length=8, vocab_size=9, width=24, heads=2, layers=1)), words=WORDS)
LONG = ' '.join(['very'] * 80)


@pytest.fixture(scope='module')
def tokenizer(): return open_clip.get_tokenizer('ViT-B-16-quickgelu')


@pytest.fixture
def stored(tmp_path):
    "Weights in a file that is called random, and a folder for the cache"
    path = tmp_path/'random_clip.safetensors'
    save_file(load_clip(SMALL, 'random:1').state_dict(), path)
    return str(path), tmp_path/'cache'


# classes that become one

@pytest.mark.parametrize('pair', [(f'{LONG} cat', f'{LONG} dog'), ('cat &amp; dog', 'cat & dog'), ('tv   monitor', 'TV monitor')])
def test_two_names_of_the_same_tokens_are_an_error_with_both(tokenizer, pair):
    tokens = tokenizer(['a road', *(f'a photo of a {n}.' for n in pair)])[:, None]
    with pytest.raises(InputError, match=re.escape(f'got {pair[0]!r} and {pair[1]!r}, whose prompts become the same tokens')):
        check_distinct(['road', *pair], tokens)


def test_one_prompt_that_differs_tells_classes_apart(tokenizer):
    rows = [[f'a {n}', f'a photo of a {LONG} {n}'] for n in ('cat', 'dog')]
    tokens = torch.stack([tokenizer(r) for r in rows])
    assert torch.equal(tokens[0, 1], tokens[1, 1])
    check_distinct(['cat', 'dog'], tokens)


@pytest.mark.parametrize('names', [('船', '天空'), ('船', 'cat'), ('☃', '☀'), ('кот', 'пёс'), ('²', '³'), ('café', 'cafè'),
                                   ('c++', 'c')])
def test_the_small_tokenizer_drops_no_letter(names):
    "A sign that it has no word for is an error with its name, in any script"
    vocab = Vocab('signs', names, templates=['a photo of a {}.'])
    with pytest.raises(InputError, match='should use words that this CLIP learned, got'):
        encode_vocab(OTSegConfig(clip=TINY | dict(words=[*TINY['words'], 'c']), weights='random'), vocab)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=12), st.text(max_size=12))
def test_whatever_the_names_they_differ_or_are_refused(one, two):
    "Two texts of the same tokens differ in case, spaces and punctuation alone"
    tok = WordTokenizer([*WORDS, 'é', '船'], 16)
    try: a, b = tok([one, two])
    except InputError: return
    def plain(text): return [w for w in re.split(r'[\W_]+', text.lower()) if w]
    assert torch.equal(a, b) == (tok.split(one) == tok.split(two))
    if torch.equal(a, b): assert ''.join(plain(one)).replace("'", '') == ''.join(plain(two)).replace("'", '')


def test_a_vocabulary_names_its_classes():
    "The names of the vocabulary, and not their sentences"
    vocab = Vocab('two', ('cat', 'dog'), text_prompts=(('a red cat',), ('A red, cat!',)))
    with pytest.raises(InputError, match="got 'cat' and 'dog', whose prompts become the same tokens"):
        encode_vocab(OTSegConfig(clip=SMALL, weights='random'), vocab)


# prompts that are cut

def test_what_is_cut_is_named(tokenizer):
    sentences = ['a cat', f'a {LONG} cat', 'a ' + 'b ' * 74, 'a ' + 'b ' * 75]
    assert cut_texts(tokenizer, sentences, tokenizer(sentences)) == [sentences[1], sentences[3]]  # 77 tokens fit, 78 do not
    assert cut_texts(tokenizer, sentences[:1], tokenizer(sentences[:1])) == []


def test_a_warning_says_so_from_the_cache_too(tmp_path):
    "Of a tokenizer that cuts; the second time nothing is encoded"
    cutting = copy.deepcopy(SMALL) | dict(words=None)
    cutting['model_cfg']['text_cfg'] |= dict(context_length=77, vocab_size=49408)
    weights = tmp_path/'w.pt'
    torch.save(load_clip(cutting, 'random:1').state_dict(), weights)
    texts = [[f'a {n} {LONG}'] for n in ('cat', 'dog')]
    with patch.object(room, 'get_tokenizer', lambda clip: open_clip.get_tokenizer('ViT-B-16')):
        for tower in (room._text_tower, None):
            room._encoder.cache_clear()
            with patch.object(room, '_text_tower', tower), pytest.warns(UserWarning, match='read up to 77 tokens.*a cat very'):
                text_embeddings(texts, cutting, str(weights), tmp_path)


# the tower without the padding

@pytest.mark.parametrize('change', [{}, dict(no_causal_mask=True), dict(pool_type='last'), dict(pool_type='first'),
                                    dict(proj_type='none'), dict(proj_bias=True)], ids=str)
def test_whatever_the_tower_it_reads_as_open_clip_does(change):
    "What stands behind the end of a sentence is left out only where no token attends to it"
    described = copy.deepcopy(SMALL)
    described['model_cfg']['text_cfg'] |= dict(width=16) | change
    model, tokenizer = load_clip(described, 'random:1'), WordTokenizer(WORDS, 8)
    tokens = tokenizer(['a cat', 'a photo of a red cat', 'dog'])
    with torch.no_grad(): want = model.encode_text(tokens)
    torch.testing.assert_close(room._embed(model, tokens), want / want.norm(dim=-1, keepdim=True), atol=1e-6, rtol=0)


def test_padding_costs_nothing():
    "Three tokens of eight are read where the longest sentence has three"
    model, lengths = load_clip(SMALL, 'random:1'), []
    model.transformer.register_forward_pre_hook(lambda module, inputs: lengths.append(inputs[0].shape[1]))
    room._embed(model, WordTokenizer(WORDS, 8)(['cat', 'dog']))
    assert lengths == [3]


# the cache

def test_the_cache_tells_tokenizers_apart(stored):
    "The same weights with other words are another embedding: here cat and dog change places"
    weights, cache = stored
    texts = [['a cat'], ['a dog']]
    first = text_embeddings(texts, SMALL, weights, cache)
    swapped = SMALL | dict(words=['a', 'dog', 'cat', 'of', 'photo', 'red'])
    assert torch.allclose(text_embeddings(texts, swapped, weights, cache), first.flip(0), atol=1e-6)
    assert not torch.allclose(first[0], first[1], atol=1e-3) and len([*(cache/'text').iterdir()]) == 2


@pytest.mark.parametrize('same_time', [False, True])
def test_the_cache_follows_the_file(stored, same_time):
    "Other weights under the same name, of the same size, at the same time of change"
    weights, cache = stored
    texts, before = [['a cat'], ['a dog']], os.stat(weights)
    first = text_embeddings(texts, SMALL, weights, cache)
    save_file(load_clip(SMALL, 'random:2').state_dict(), weights)
    if same_time: os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert os.stat(weights).st_size == before.st_size
    again = text_embeddings(texts, SMALL, weights, cache)
    assert torch.equal(again, text_embeddings(texts, SMALL, 'random:2', False)) and not torch.equal(again, first)


def test_a_file_called_random_is_a_file(stored):
    weights, cache = stored
    assert weights_id(SMALL, weights) == f'sha256:{file_sha256(weights)}' and weights_id(SMALL, 'random:1') == 'custom/random:1'
    assert torch.equal(load_clip(SMALL, weights).visual.proj, load_clip(SMALL, 'random:1').visual.proj)
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # of random weights nothing is said
        load_clip(SMALL, weights)
        text_embeddings([['a cat']], SMALL, weights, cache)
    assert (cache/'text').is_dir()
    with pytest.raises(InputError, match='no such file'): load_clip(SMALL, 'random_other.safetensors')


def test_a_damaged_or_foreign_entry_is_made_again(stored):
    "Whatever is wrong with a file, a new process computes what it should have held"
    weights, cache = stored
    texts = [['a cat'], ['a dog']]
    first = text_embeddings(texts, SMALL, weights, cache)
    (entry,) = (cache/'text').iterdir()
    with safe_open(entry, 'pt') as f: whole, told = {k: f.get_tensor(k) for k in f.keys()}, f.metadata()  # noqa: SIM118
    data, at = entry.read_bytes(), entry.read_bytes().index(whole['text'].numpy().tobytes())
    swapped = told | dict(sentences=json.dumps(['a dog', 'a cat']))
    for spoil in (lambda: entry.write_bytes(b'x'), lambda: save_file(dict(other=torch.ones(2)), entry),
                  lambda: entry.write_bytes(data[:at + 6] + bytes([data[at + 6] ^ 1]) + data[at + 7:]),  # one bit of a number
                  lambda: save_file(whole, entry, metadata=swapped), lambda: save_file(whole, entry),
                  lambda: save_file(whole | dict(text=first[:, 0] * torch.nan), entry, metadata=told)):
        spoil()
        room._encoder.cache_clear()
        assert torch.equal(text_embeddings(texts, SMALL, weights, cache), first)
    entry.rename(entry.with_name('0' * 32 + entry.name[32:]))  # under the key of others
    assert room._from_cache(entry.with_name('0' * 32 + entry.name[32:]), '0' * 32) == {}


def test_a_large_file_is_read_once_and_in_blocks(tmp_path):
    path, opened, sizes = tmp_path/'large.bin', [], []
    path.write_bytes(bytes(3 * 2**20 + 5))
    os.utime(path, (1, 1))
    real = open

    class Watched:
        def __init__(self, f): self.f = f
        def __enter__(self): return self
        def __exit__(self, *_): self.f.close()
        def read(self, n=-1): sizes.append(n); return self.f.read(n)

    def watch(p, *args, **kwargs):
        opened.append(p)
        return Watched(real(p, *args, **kwargs))
    with patch.object(room, 'open', watch, create=True), patch('time.time', lambda: os.stat(path).st_ctime + 60):
        assert len({file_sha256(path) for _ in range(3)}) == 1
    assert len(opened) == 1 and set(sizes) == {2**20}
