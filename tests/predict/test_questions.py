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
