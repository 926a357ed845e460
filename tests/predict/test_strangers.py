"The toy model says what it is: of other words, of pictures that are none of its world, and never of its own scenes"
import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from otseg.core import InputError
from otseg.data.toy import ToyScenes, toy_scene, toy_seed
from otseg.explore.explorer import explore
from otseg.model.config import PACKAGED, clip_config
from otseg.model.vocab import load_vocab
from otseg.predict.command import main
from otseg.predict.segmenter import Preparation, Segmenter

SCENES = 200


@pytest.fixture(scope='module')
def toy(): return Segmenter.from_pretrained('toy', device='cpu')


def doubts(seg, picture): return seg.picture_doubts(Preparation(seg.preprocess)(np.ascontiguousarray(picture)))


def street(seed=0, size=(90, 120)):
    "A picture with the grain of a photograph: shaded surfaces of all sizes over each other, and no colour of the toy world"
    rng = np.random.default_rng(seed)
    h, w = size
    y, x = np.mgrid[:h, :w] / h
    picture = np.stack([90 + 60 * y + 20 * c * x for c in (1, 1.2, 1.5)], -1)
    for _ in range(60):
        top, left, high, wide = rng.integers(0, h), rng.integers(0, w), *(2 + 40 * rng.random(2) ** 3).astype(int)
        block = picture[top:top + high, left:left + wide]
        shade = rng.uniform(20, 200) * (1 + .3 * rng.normal() * np.linspace(-1, 1, block.shape[0]))[:, None, None]
        block[:] = shade + rng.normal(0, 12, (*block.shape[:2], 1)) + rng.normal(0, 5, 3)
    return np.clip(picture, 0, 255).astype(np.uint8)


def through_jpeg(picture, quality):
    Image.fromarray(picture).save(buffer := io.BytesIO(), 'JPEG', quality=quality)
    return np.array(Image.open(buffer))


def test_none_of_its_own_scenes_is_a_stranger(toy):
    strange = [i for i, s in enumerate(ToyScenes('test', SCENES)) if doubts(toy, s.image)]
    assert strange == []


@pytest.mark.parametrize('how', ['small', 'large', 'enlarged', 'flipped', 'cropped', 'JPEG 75'])
def test_nor_is_one_in_another_form(toy, how):
    size = dict(small=48, large=192).get(how, 96)
    def changed(i):
        x = toy_scene(toy_seed('test', 10_000 + i), size).image
        if how == 'enlarged': return np.asarray(Image.fromarray(x).resize((300, 300), Image.BICUBIC))
        if how == 'flipped': return x[:, ::-1]
        if how == 'cropped': return x[16:80, 8:88]
        return through_jpeg(x, 75) if how == 'JPEG 75' else x
    assert [i for i in range(12) if doubts(toy, changed(i))] == []


def test_noise_and_what_looks_like_a_street_are(toy):
    rng = np.random.default_rng(0)
    for picture in (rng.integers(0, 256, (96, 96, 3), dtype=np.uint8), *(street(i) for i in range(5))):
        [told] = doubts(toy, picture)
        for words in ('stranger to the model', 'drawn world of 20 things on 6 grounds', '--checkpoint clip'): assert words in told


def test_python_warns_and_the_result_says_so(toy):
    with pytest.warns(UserWarning, match='stranger to the model') as told: s = toy.predict(street())
    assert Path(told[0].filename) == Path(__file__)
    assert s.warnings and s.to_dict()['warnings'] == list(s.warnings)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert toy.predict(toy_scene(toy_seed('test', 0)).image).to_dict()['warnings'] == []


def test_words_of_another_world_are_refused_and_told_apart(toy):
    with pytest.raises(InputError, match="got 'road'. This model knows a drawn world of 20 things on 6 grounds") as e:
        toy.question('road,sky,car')
    assert '--checkpoint clip' in str(e.value)
    assert toy.question().doubts == toy.question('sky,car,small house').doubts == ()
    [told] = toy.question('sky,segment').doubts
    assert told.startswith("'segment': no such thing")


def test_a_training_on_the_toy_world_is_known_by_its_data(toy):
    "Also where its CLIP is another: what it was trained on tells"
    own = Segmenter(toy.model, vocab=toy.vocab, info=dict(recipe=dict(dataset='toy')))
    assert 'drawn world' in own.nature and 'trained on toy' in own.nature
    photographs = Segmenter.from_clip('ViT-B-32', weights='random')
    assert photographs.word_doubts(['road']) == () and photographs.world is None and 'random weights' in photographs.nature
    photographs.info = dict(recipe=dict(dataset='toy'))
    assert 'no such thing' in photographs.word_doubts(['road'])[0]


@pytest.mark.parametrize('clip', PACKAGED)
def test_the_world_of_a_clip_has_the_names_of_its_vocabulary(clip):
    assert clip_config(clip)['world']['names'] == list(load_vocab('toy').names)


def test_the_command_warns_in_words_in_json_and_goes_on(folder, capsys):
    Image.fromarray(street()).save('street.png')
    Image.fromarray(toy_scene(toy_seed('test', 0)).image).save('scene.png')
    main(['street.png', 'scene.png', '--checkpoint', 'toy', '--output', 'out', '--results', 'json,mask', '--workers', '0'])
    out, err = capsys.readouterr()
    assert 'warning: street.png: This picture is a stranger' in err and 'warning: scene.png' not in err
    lines = {line.split(':')[0]: line for line in out.splitlines()}
    assert '(not to be trusted: see the warning)' in lines['street.png'] and 'trusted' not in lines['scene.png']
    told = {n: json.loads(Path(f'out/{n}.json').read_text(encoding='utf-8')) for n in ('street.png', 'scene.png')}
    assert told['street.png']['warnings'] and told['scene.png']['warnings'] == []


def test_the_explorer_says_what_the_model_is_and_warns(toy):
    e = explore(toy, [toy_scene(toy_seed('test', 0)).image, street()])
    assert 'drawn world' in e.about.value and 'stranger' not in e.message.value
    e.handles.picture.value = 'picture 2'
    assert 'stranger to the model' in e.message.value and '#B00020' in e.message.value
    e.handles.picture.value = 'picture 1'
    assert 'stranger' not in e.message.value


PHOTOGRAPHS = dict(camvid='camvid/val/*.jpg', voc2012_mini='voc2012_mini/**/JPEGImages/*.jpg', msrc21='msrc21/images/**/*.jpg')


def streets(folder):
    "Photographs of MSRC-21 whose mask says that they are of a street"
    names = json.loads((folder/'dataset.json').read_text(encoding='utf-8'))['names']
    for path in sorted(folder.glob('images/**/*.jpg')):
        labels = np.array(Image.open(next(folder.glob(f'masks/**/{path.stem}.png'))))
        there = {n for i, n in enumerate(names) if (labels == i).mean() > .03}
        if 'road' in there and there & {'building', 'car', 'bicycle', 'sign'}: yield path


@pytest.mark.data
@pytest.mark.parametrize('data', PHOTOGRAPHS)
def test_a_street_with_the_words_of_the_model_is_warned_of(toy, shared, data):
    folder = shared/'data'
    path = next(streets(folder/data)) if data == 'msrc21' else sorted(folder.glob(PHOTOGRAPHS[data]))[0]
    picture = np.array(Image.open(path).convert('RGB'))
    with pytest.warns(UserWarning, match='stranger to the model'): s = toy.predict(picture, list(toy.vocab.names))
    assert s.warnings


@pytest.mark.data
@pytest.mark.parametrize('data, least', [('camvid', 1.), ('voc2012_mini', .85), ('msrc21', .75), ('streets', .95)])
def test_most_photographs_are_strangers(toy, shared, data, least):
    folder = shared/'data'
    paths = [*streets(folder/'msrc21')] if data == 'streets' else sorted(folder.glob(PHOTOGRAPHS[data]))
    found = [bool(doubts(toy, np.array(Image.open(p).convert('RGB')))) for p in paths]
    assert np.mean(found) >= least, f'{np.mean(found):.3f} of {len(found)}'
