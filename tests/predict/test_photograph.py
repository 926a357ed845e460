"A photograph and any classes: CLIP as it was trained, with a file of weights and without any"
import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from otseg.core import InputError
from otseg.data.toy import toy_scene
from otseg.model.vocab import load_templates
from otseg.predict.command import main
from otseg.predict.segmenter import Segmenter

TOY = dict(clip='toy', weights='packaged', side=96, window=96)


@pytest.fixture(scope='module')
def seg(): return Segmenter.from_clip(**TOY)


@pytest.fixture
def photo(folder):
    Image.fromarray(toy_scene(3, 96).image).save('photo.png')
    return 'photo.png'


def ask(*words):
    "Exit code, stdout and stderr of otseg-predict"
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try: main([*map(str, words)])
        except SystemExit as e: code = e.code
    return code, out.getvalue(), err.getvalue()


def test_labels_are_those_of_the_largest_cosine(seg, photo):
    s = seg.predict(photo, 'sky,grass,house')
    x = seg.preprocess.eval_transform()(torch.from_numpy(np.array(Image.open(photo))).permute(2, 0, 1))[None]
    text = seg.question('sky,grass,house').text
    with torch.no_grad(): scores = seg.model(x, text, maps=False).score_logits[0]
    top = scores.topk(2, 0).values
    sure = (top[0] - top[1] > 1e-4).numpy()
    assert sure.mean() > .9 and (s.labels == scores.argmax(0).numpy())[sure].all()


def test_maps_of_the_text_prompts_add_up_to_the_score(seg, photo):
    s = seg.predict(photo, 'sky,grass,house')
    total = s.prompt_maps.sum(1)
    assert total.shape == s.output.outputs[0].score_map.shape[1:]
    assert torch.allclose(total, s.output.outputs[0].score_map[0], atol=1e-5)


def test_every_name_has_the_eighty_sentences_of_its_makers():
    seg = Segmenter.from_clip('ViT-B-32', weights='random')
    assert seg.class_vocab('cat,dog').templates == load_templates('80') and len(load_templates('80')) == 80
    assert seg.class_vocab('cat,dog', templates='6').templates == load_templates('6')
    assert (seg.preprocess.window, seg.preprocess.stride, seg.preprocess.min_side) == (224, 112, 336)


def test_a_level_of_cosines_is_one_of_their_softmax(seg, photo):
    s = seg.predict(photo, 'sky,grass,house', background=.6)
    plain = seg.predict(photo, 'sky,grass,house')
    rows = plain.output.mask_probs(0.)[0]
    want = (40 * rows).softmax(0)
    assert torch.allclose(plain.probs, want, atol=1e-5)
    assert s.classes == ['sky', 'grass', 'house', 'background'] and 0 < (s.labels == 3).mean() < 1
    assert ((s.labels == 3) == (want.amax(0) < .6).numpy()).all()
    sharp = seg.predict(photo, 'sky,grass,house', background=.6, logit_scale=100)
    assert (sharp.labels == 3).mean() < (s.labels == 3).mean()
    with pytest.raises(InputError, match='two classes or more to compare'): seg.predict(photo, 'sky', background=.5)
    s = seg.predict(photo, 'sky', background='grass,house')
    assert s.classes == ['sky', 'background'] and {0, 1} >= {*np.unique(s.labels)}


def test_the_command_takes_all_that_comes_after_the_scores(photo):
    words = [photo, '--classes', 'sky,grass|house', *'--clip toy --weights packaged --output out --results mask,json'.split()]
    after = '--background 0.4,tree --synonyms max --area 0.01 --refine --logit-scale 30 --dense sclip'.split()
    code, out, err = ask(*words, *after)
    assert code == 0, err
    noted = json.loads(Path('out/predict.json').read_text(encoding='utf-8'))
    told = {k: noted[k] for k in ('background', 'synonyms', 'area', 'refine', 'logit_scale', 'dense')}
    assert told == dict(background=[.4, 'tree'], synonyms='max', area=.01, refine=10, logit_scale=30, dense='sclip')
    labels = np.array(Image.open('out/photo.png.mask.png'))
    free = Segmenter.from_clip('toy', weights='packaged', dense='sclip')
    s = free.predict(photo, 'sky,grass|house', background='0.4,tree', synonyms='max', area=.01, refine=10, logit_scale=30)
    assert (labels == s.labels).all() and s.classes[-1] == 'background'
    code, out, err = ask(*words, *after[:-4], '--refine', '3')
    assert code == 2 and 'refine: 10 before, 3 now' in err, err
    for wrong, says in ((['--synonyms', 'mx'], "Did you mean 'max'"), (['--area', '1'], 'a share in 0..1'),
                        (['--refine', '-1'], 'number of rounds'), (['--dense', 'naklip'], "Did you mean 'naclip'"),
                        (['--precision', 'fp64'], 'unknown precision'), (['--background', '0.1,0.2'], 'should have one level')):
        code, out, err = ask(*words, *wrong)
        assert code == 2 and says in err, err


def test_the_best_word_counts_and_an_earlier_folder_is_not_mixed(photo, seg):
    "A folder of an earlier version, whose words were joined by their mean and which does not say so, is gone on with by name"
    words = [photo, '--classes', 'sky,grass|house', *'--clip toy --weights packaged --output out --results mask,json'.split()]
    code, out, err = ask(*words)
    assert code == 0 and json.loads(Path('out/predict.json').read_text(encoding='utf-8'))['synonyms'] == 'max', err
    told = json.loads(Path('out/photo.png.json').read_text(encoding='utf-8'))
    free = Segmenter.from_clip('toy', weights='packaged')
    best, mean = (free.predict(photo, 'sky,grass|house', synonyms=how) for how in ('max', 'mean'))
    labels = np.array(Image.open('out/photo.png.mask.png'))
    assert told['settings']['synonyms'] == 'max' and (labels == best.labels).all() and (labels != mean.labels).any()
    code, out, err = ask(*words, '--synonyms', 'mean')
    assert code == 2 and 'synonyms: max before, mean now. Pass --synonyms max, choose another --output' in err, err
    record = json.loads(Path('out/predict.json').read_text(encoding='utf-8'))
    Path('out/predict.json').write_text(json.dumps({k: v for k, v in record.items() if k != 'synonyms'}), encoding='utf-8')
    Path('out/photo.png.mask.png').unlink()
    code, out, err = ask(*words)
    assert code == 2 and 'synonyms: mean before, max now. Pass --synonyms mean, choose another --output' in err, err
    code, out, err = ask(*words, '--synonyms', 'mean')
    assert code == 0 and (np.array(Image.open('out/photo.png.mask.png')) == mean.labels).all(), err


def test_nothing_is_trained_and_nothing_saved(seg, folder):
    with pytest.raises(InputError, match='a trained model should be saved'): seg.save_pretrained('here')
    assert not any(p.requires_grad for p in seg.model.parameters())
    with pytest.raises(InputError, match='`classes` should be given'): seg.question()


@pytest.mark.parametrize('rule', ['vanilla', 'maskclip', 'sclip', 'naclip', 'clearclip'])
def test_every_rule_and_the_plan_answer(photo, rule):
    for join in ('mean', 'mps'):
        s = Segmenter.from_clip(**TOY, dense=rule, text_prompts=join).predict(photo, 'sky,grass')
        assert s.labels.shape == (96, 96) and s.prompt_maps.isfinite().all()


def test_the_command_takes_clip_and_writes_all_results(photo):
    code, out, err = ask(photo, '--classes', 'sky,grass,house', '--clip', 'toy', '--weights', 'packaged', '--output', 'out')
    assert code == 0, err
    made = {p.name for p in Path('out').iterdir()}
    assert {f'photo.png{e}' for e in ('.mask.png', '.overlay.png', '.prompts.png', '.json')} <= made
    noted = json.loads(Path('out/predict.json').read_text(encoding='utf-8'))
    assert noted['checkpoint'] == 'clip' and noted['clip'] == 'toy' and noted['classes'] == ['sky', 'grass', 'house']
    assert ask(photo, '--classes', 'sky,grass,house', '--clip', 'toy', '--weights', 'packaged', '--output', 'out')[0] == 0


def test_without_weights_it_says_where_they_are(photo, monkeypatch):
    monkeypatch.setenv('HF_HUB_CACHE', str(Path('hub').resolve()))
    code, out, err = ask(photo, '--classes', 'sky,road', '--output', 'out')
    assert code == 2 and 'Traceback' not in err and not Path('out').exists(), err
    for words in ("the weights 'openai' of ViT-B-16-quickgelu", '--weights FILE', 'fetch https://', '(about 35',
                  'The checkpoint "toy" needs no weights, but knows a drawn world alone'): assert words in err, err
