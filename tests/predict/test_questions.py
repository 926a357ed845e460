"What a question means: which classes had labels in training, and which rows of text are classes"
from dataclasses import replace

import numpy as np
import pytest
import torch

from given.shell import NAMES, TINY
from otseg.core import InputError
from otseg.model.checkpoint import save_checkpoint
from otseg.model.otseg import OTSeg
from otseg.model.vocab import vocab_of
from otseg.predict.segmenter import Segmenter
from otseg.train.recipes import get_recipe, override

pytestmark = pytest.mark.filterwarnings('ignore:.*starts from random weights')


def segmenter(folder, setting='inductive'):
    "Of a model trained on four classes, dog without labels"
    recipe = override(get_recipe('folder'), clip=TINY, weights='random', image_size=32, vpt_tokens=2)
    recipe = replace(recipe, setting=setting, model=replace(recipe.model, image_size=32))
    torch.manual_seed(0)
    save_checkpoint(OTSeg(recipe.model), folder, vocab=vocab_of(NAMES, unseen=['dog']), info=dict(recipe=recipe.to_dict()))
    return Segmenter.from_pretrained(folder, device='cpu')


@pytest.mark.parametrize('setting, seen', [('inductive', ('cat',)), ('transductive', ('cat',)), ('supervised', ('cat', 'dog'))])
def test_classes_with_labels_are_those_of_the_training(tmp_path, setting, seen):
    "A supervised run had labels of all its classes, also of those that the data set counts as unseen; none had those of water"
    asked = segmenter(tmp_path/'model', setting)
    assert asked.class_vocab(['cat', 'dog', 'water']).seen_names == seen
    question = asked.question(['cat', 'dog', 'water'])
    assert question.seen == tuple(range(len(seen)))


@pytest.mark.parametrize('background, rows', [(None, 2), (True, 2), (.3, 2), ('road', 3), (['road', 'sky'], 4)])
def test_the_background_is_no_class_text(tmp_path, background, rows):
    "Text of the classes alone: what is background has rows of its own behind them, or a level and none"
    asked = segmenter(tmp_path/'model')
    plain = asked.question(['cat', 'water'])
    question = asked.question(['cat', 'water'], background=background)
    assert len(question.text) == rows and question.class_text.shape == (2, *plain.text.shape[1:])
    torch.testing.assert_close(question.class_text, plain.text)
    assert question.vocab.names == ('cat', 'water', *['background'] * (background is not None))


@pytest.mark.parametrize('background, size', [('road', (40, 48)), (.5, (40, 48)), ('road', (32, 32))])  # the last is one window
def test_the_background_has_no_prompt_maps(tmp_path, background, size):
    "Prompt maps of the classes alone, the same as without it; it has none of its own"
    asked, picture = segmenter(tmp_path/'model'), np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    plain, with_it = asked.predict(picture, ['cat', 'water']), asked.predict(picture, ['cat', 'water'], background=background)
    assert [*with_it.classes] == ['cat', 'water', 'background'] and with_it.prompt_maps.shape[0] == 2
    torch.testing.assert_close(with_it.prompt_maps, plain.prompt_maps)
    with pytest.raises(InputError, match='background'): with_it.prompt_map_layers('background')


@pytest.mark.parametrize('synonyms', [None, 'max', 'mean'])
def test_words_of_a_class_of_a_trained_model(tmp_path, synonyms):
    "The best word by default: a row for each, all of them lowered where one had labels; or a row of their mean"
    asked, picture = segmenter(tmp_path/'model'), np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)
    classes, each = {'animal': ['cat', 'dog'], 'water': ['water', 'road']}, 'cat,dog,water,road'
    question, rows = asked.question(classes, synonyms=synonyms), asked.question(each).text
    means = asked.question(classes, synonyms='mean').text
    if synonyms == 'mean':
        assert question.synonyms == 'mean' and len(question.text) == 2 and question.rules.row_class is None
        assert question.seen is None                                      # each class has a word with labels, so none is lowered
        return
    assert question.synonyms == 'max' and question.rules.row_class == (0, 0, 1, 1) and question.seen is None
    torch.testing.assert_close(question.text, rows), torch.testing.assert_close(question.class_text, means)
    some = {'animal': ['cat', 'dog'], 'wet': ['water', 'tree']}
    assert asked.question(some, synonyms=synonyms).seen == (0, 1)         # rows of the animal, of which cats had labels
    levelled = asked.question(some, background=.4, synonyms=synonyms)
    assert levelled.rules.row_class == (0, 0, 1, 1, 2) and levelled.seen == (0, 1) and len(levelled.text) == 4
    named = asked.question(some, background='sky|road', synonyms=synonyms)
    assert named.rules.row_class == (0, 0, 1, 1, 2, 2) and named.seen == (0, 1, 4, 5)
    plain = asked.predict(picture, 'cat,dog,water,tree', seen_penalty=0)
    for penalty in (0, .05, .3):
        got = asked.predict(picture, some, seen_penalty=penalty, synonyms=synonyms)
        want = torch.stack([plain.probs[:2].amax(0) - penalty, plain.probs[2:].amax(0)])
        torch.testing.assert_close(got.probs, want, atol=1e-5, rtol=0)
        sure = ((want[0] - want[1]).abs() > 1e-4).numpy()
        assert (got.labels == want.argmax(0).numpy())[sure].all() and sure.mean() > .9
        assert got.to_dict()['settings']['synonyms'] == 'max'


def test_classes_of_a_training_are_asked_for_as_they_were_trained(tmp_path):
    "By the mean of their words, in Python and for a file, unless the best word is asked for"
    asked = segmenter(tmp_path/'model')
    asked.vocab = asked.vocab.with_(words=dict(cat=['cat', 'small cat'], sky=['sky', 'water', 'tree']))
    question = asked.question()
    assert question.synonyms == 'mean' and question.text.shape[0] == 4 and question.words['sky'] == ('sky', 'water', 'tree')
    torch.testing.assert_close(question.text, asked.text(asked.vocab))
    assert asked.question(synonyms='max').rules.row_class == (0, 0, 1, 2, 2, 2, 3)
    assert asked.question('cat|small cat').synonyms == 'max'
