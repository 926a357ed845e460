"The rules of a training: numbers of the recipes, order, dropout, where a run starts, which weights are best"
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator

from given.training import Squares, column, fit, recipe, trained
from otseg.model.clip import encode_vocab
from otseg.core import read_json
from otseg.evaluate.metrics import Scores
from otseg.model.checkpoint import load_checkpoint, save_checkpoint
from otseg.model.otseg import OTSeg
from otseg.train import step as step_module
from otseg.train import trainer
from otseg.train.batches import StepSampler
from otseg.train.recipes import RECIPES, SETTINGS
from otseg.train.run import SCORE_COLUMNS, RunLog
from otseg.train.step import forward_loss, train_step

pytestmark = [pytest.mark.filterwarnings('ignore:.*starts from')]


@pytest.mark.parametrize('name, steps, size, stride, tokens', [
    ('voc12', 20_000, 512, 426, 10), ('context59', 40_000, 480, 80, 10), ('cocostuff171', 80_000, 512, 426, 100)])
def test_recipes_hold_the_published_numbers(name, steps, size, stride, tokens):
    "Batch of 16, AdamW with 2e-4 and .01; half the steps and no seen penalty in transductive runs alone"
    for setting in SETTINGS:
        r = RECIPES[f'{name}-{setting}']
        assert (r.batch_size, r.lr, r.weight_decay, r.norm_weight_decay) == (16, 2e-4, .01, None)
        assert (r.warmup_steps, r.warmup_ratio, r.poly_power, r.min_lr) == (1500, 1e-6, .9, 1e-6)
        assert (r.focal_weight, r.dice_weight, r.blend, r.ignored_as_negatives) == (100., 1., .5, True)
        assert (r.image_size, r.stride, r.model.vpt_tokens, r.model.decoder_layers, r.model.eps) == (size, stride, tokens, 3, .05)
        assert (r.scale_range, r.cat_max_ratio, r.flip, r.photometric) == ((.5, 2.), .75, .5, True)
        half = setting == 'transductive'
        assert (r.setting, r.steps, r.seen_penalty) == (setting, steps // 2 if half else steps, 0. if half else .1)


@pytest.mark.parametrize('name', sorted(RECIPES))
def test_transductive_recipes_have_no_seen_penalty(name):
    assert (RECIPES[name].seen_penalty == 0) == (RECIPES[name].setting == 'transductive')


def test_each_epoch_has_an_order_of_its_own():
    "All pictures once in each, in another order; another seed has others"
    sampler = StepSampler(20, 5, 12, seed=3)
    read = [i for batch in sampler for i, _ in batch]
    epochs = [read[e:e + 20] for e in (0, 20, 40)]
    assert all(sorted(e) == [*range(20)] for e in epochs)
    assert len({*map(tuple, epochs)}) == 3 and epochs[0] != StepSampler(20, 5, 12, seed=4).epoch(0)


def batch_of(pictures, labels=None):
    items = [Squares()[i] for i in pictures]
    image, given = (torch.stack([s[k] for s in items]) for k in ('image', 'labels'))
    return dict(image=image, labels=given if labels is None else torch.full_like(given, labels), key=[s['key'] for s in items])


class Second(Accelerator):
    "The second of several processes, as far as it is asked"
    process_index = 1


def losses(r, *steps, kind=Accelerator, times=1):
    "Of a batch at each of some steps, with weights that hardly move"
    accelerator = kind(cpu=True)
    torch.manual_seed(0)
    model = OTSeg(r.model_config())
    optimizer = torch.optim.AdamW(model.parameter_groups(r.lr))
    model, optimizer = accelerator.prepare(model.train(), optimizer)
    text = encode_vocab(r.model, Squares.vocab)[list(r.train_classes(Squares.vocab))]
    batches = [batch_of([1, 2])] * times
    return [train_step(accelerator, model, optimizer, batches, text, r, Squares.vocab, step)['loss'] for step in steps]


def still(dropout=.3, **options): return recipe(lr=1e-12, min_lr=1e-13, dropout=dropout, **options)


def test_every_step_has_a_dropout_of_its_own():
    "A step has the same one each time, another step, micro-batch or process another; without dropout all agree"
    a, again, other = losses(still(), 0, 0, 1)
    assert a == pytest.approx(again, rel=1e-5) and abs(a - other) > 1e-3 * a
    (two,) = losses(still(accumulate=2), 0, times=2)
    assert abs(two - a) > 1e-3 * a
    (second,) = losses(still(), 0, kind=Second)
    assert abs(second - a) > 1e-3 * a
    same = losses(still(0.), 0, 1) + losses(still(0.), 0, kind=Second) + losses(still(0., accumulate=2), 0, times=2)
    assert same == pytest.approx([same[0]] * 4, rel=1e-5)


def test_blend_and_threshold_reach_the_pseudo_labels(monkeypatch):
    "No pixel is sure enough for a threshold of 1, so that no mask is left; the blend is the recipe's"
    torch.manual_seed(0)
    base, given = replace(recipe(dropout=0.), setting='transductive'), []
    model, text = OTSeg(base.model_config()).eval(), encode_vocab(base.model, Squares.vocab)
    unseen = batch_of([1, 2], labels=1)
    numbers = [int(forward_loss(model, unseen, text, replace(base, threshold=t), Squares.vocab)[1]) for t in (None, 0., 1.)]
    assert numbers == [2, 2, 0]
    monkeypatch.setattr(step_module, 'pseudo_labels', lambda out, labels, *more, **o: given.append(o['blend']) or labels)
    for blend in (0., .25, 1.): forward_loss(model, unseen, text, replace(base, blend=blend), Squares.vocab)
    assert given == [0., .25, 1.]


def test_a_run_starts_from_the_checkpoint_that_it_names(tmp_path):
    r = recipe(steps=1, lr=1e-12, min_lr=1e-13, save_every=1)
    torch.manual_seed(5)
    start = OTSeg(r.model_config())
    save_checkpoint(start, tmp_path/'start', vocab=Squares.vocab)
    given = replace(r, setting='transductive', start=str(tmp_path/'start'), seen_penalty=0.)
    result = fit(given, output=tmp_path/'run', dataset=Squares(), progress=False)
    torch.testing.assert_close(trained(result.model), trained(start), rtol=0, atol=1e-6)
    fresh = fit(r, dataset=Squares(), progress=False)
    assert (trained(fresh.model) - trained(start)).abs().max() > .01


def scores_of(seen, unseen, miou):
    "Scores with these means"
    hiou = 2 * seen * unseen / (seen + unseen)
    return Scores(iou=torch.zeros(3), accuracy=torch.zeros(3), pixels=torch.ones(3).long(), pixel_accuracy=.5, miou=miou,
                  miou_seen=seen, miou_unseen=unseen, hiou=hiou, unseen=(1,))


def test_the_best_weights_are_those_of_the_best_hiou(tmp_path, monkeypatch):
    "Not of the best mIoU, which seen classes carry"
    found = iter([scores_of(.9, .1, .8), scores_of(.6, .5, .4), scores_of(.95, .2, .9), scores_of(.5, .45, .5)])
    monkeypatch.setattr(trainer, 'score_split', lambda *a, **k: next(found))
    r = recipe(steps=4, save_every=4, eval_every=1)
    fit(r, output=tmp_path/'run', dataset=Squares(), eval_dataset=Squares(), progress=False)
    best = read_json(tmp_path/'run/checkpoints/best/config.json')['info']
    assert best['step'] == 2 and best['scores']['hiou'] == pytest.approx(6 / 11)
    assert [float(v) for v in column(tmp_path/'run/scores.csv', 'best')] == pytest.approx([.18, 6 / 11, 6 / 11, 6 / 11])
    assert load_checkpoint(tmp_path/'run/checkpoints/best').info['step'] == 2


def test_a_run_that_goes_on_knows_the_best_score(tmp_path):
    r, row = recipe(eval_every=1), dict.fromkeys(SCORE_COLUMNS[1:-1], .5)
    with RunLog(tmp_path, r) as log: assert [log.score(s, row, v) for s, v in ((1, .4), (2, .6), (3, .5))] == [True, True, False]
    with RunLog(tmp_path, r, start=3) as log:
        assert log.best == .6
        assert not log.score(4, row, .55) and log.score(5, row, .7)


def test_the_decays_of_a_recipe_reach_the_optimizer(monkeypatch):
    "Both of them, and the learning rate"
    given, own = [], OTSeg.parameter_groups
    monkeypatch.setattr(OTSeg, 'parameter_groups', lambda self, *a, **k: given.append((*a, *k.values())) or own(self, *a, **k))
    fit(recipe(steps=1, lr=.002, weight_decay=.3, norm_weight_decay=0.), dataset=Squares(), progress=False)
    assert given == [(.002, .3, 0.)]
