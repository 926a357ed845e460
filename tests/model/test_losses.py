"A loss is one function and one weight: it reaches the sum, the gradient, the log, the trackers and the figure, or is refused"
import csv
import json
import re
from dataclasses import dataclass, fields, replace

import pytest
import torch

from given.models import apart, stripes
from given.training import Squares, recipe, same, weights
from otseg.core import InputError
from otseg.model import losses
from otseg.model.losses import LOSSES, PATHS, loss_terms, mask_losses, one_hot_masks, otseg_loss, register_loss, used_losses
from otseg.model.config import PUBLISHED
from otseg.model.otseg import OTSegOutput
from otseg.show.charts import plot_run
from otseg.train.recipes import RECIPES, Recipe, override
from otseg.train.run import RunLog, run_tables
from otseg.train.trainer import fit
from otseg.train.command import FOR_RUN, main

pytestmark = [pytest.mark.filterwarnings('ignore:.*meaningless.*')]
TERMS = ['decoder_focal', 'decoder_dice', 'score_focal', 'score_dice']
HEAD = ['step', 'loss', *TERMS, 'lr', 'norm', 'seconds']
WITH_AREA = ['decoder_focal', 'decoder_dice', 'decoder_area', 'score_focal', 'score_dice', 'score_area']


@dataclass(frozen=True)
class Wider(Recipe):
    "A recipe with the weight of a third loss"
    area_weight: float | None = None  # How much wrong areas count; None = without this loss


@pytest.fixture
def area():
    "A third loss, for the time of a test"
    @register_loss('area')
    def area_loss(logits, masks, num_masks, valid=None):
        return (logits.sigmoid().mean((-2, -1)) - masks.float().mean((-2, -1))).abs().sum() / num_masks
    yield area_loss
    LOSSES.pop('area')


def wider(**options):
    base = recipe(steps=3)
    return override(Wider(**{f.name: getattr(base, f.name) for f in fields(base)}), **options)


def rows(run):
    with open(run/'log.csv', encoding='utf-8', newline='') as f: return [*csv.DictReader(f)]


def output(b=2, k=5, size=9):
    maps = torch.randn(2, b, k, size, size, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.randint(0, k + 1, (b, size, size), generator=torch.Generator().manual_seed(1))
    return OTSegOutput(maps[0], maps[1], (), None, (size, size)), labels.where(labels < k, 255), maps


def test_columns_of_every_recipe():
    "Those that earlier runs have, so that these go on"
    for r in RECIPES.values(): assert run_tables(r)['log.csv'] == HEAD
    assert loss_terms(PUBLISHED) == TERMS and used_losses(Recipe().loss_weights) == dict(focal=100., dice=1.)


def test_third_loss_in_the_sum(area):
    out, labels, maps = output()
    plain, more = otseg_loss(out, labels), otseg_loss(out, labels, area_weight=3.)
    assert [*more] == ['loss', *WITH_AREA]
    assert all(torch.equal(more[k], plain[k]) for k in TERMS)
    added = more['decoder_area'] + more['score_area']
    torch.testing.assert_close(more['loss'], plain['loss'] + added)
    by_loss, by_terms = (torch.autograd.grad(x, maps, retain_graph=True)[0] for x in (more['loss'], plain['loss'] + added))
    torch.testing.assert_close(by_loss, by_terms)
    assert [*otseg_loss(out, labels, focal_weight=None, area_weight=1.)] == ['loss', *(
        f'{path}_{name}' for path in PATHS for name in ('dice', 'area'))]


def test_every_loss_is_divided_by_the_masks(area):
    "So that the parts of a batch, divided by the masks of the whole, add up"
    out, labels, _ = output()
    every = {f'{name}_weight': 1. for name in LOSSES}
    one, three = (otseg_loss(out, labels, num_masks=n, **every) for n in (1., 3.))
    for k in one: torch.testing.assert_close(one[k], 3 * three[k])


def test_third_loss_in_a_run(area, tmp_path):
    "Each term has its column, its curve and its scalar; the run goes on in the same columns"
    events = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    run, r = tmp_path/'run', wider(area_weight='2')
    losses = fit(r, output=run, dataset=Squares(), progress=False, track='tensorboard').losses
    log = rows(run)
    assert [*log[0]] == ['step', 'loss', *WITH_AREA, 'lr', 'norm', 'seconds'] and len(log) == 3
    for row, loss in zip(log, losses):
        assert all(float(row[k]) > 0 for k in WITH_AREA)
        assert sum(float(row[k]) for k in WITH_AREA) == pytest.approx(loss, rel=1e-5)  # six digits each, all positive
    found = events.EventAccumulator(str(run/'trackers/otseg'))
    found.Reload()
    assert [e.value for e in found.Scalars('score_area')] == pytest.approx([float(x['score_area']) for x in log], rel=1e-5)
    drawn = [t.get_text() for t in plot_run(run).subfigs[0].legends[0].get_texts()]
    assert drawn[1:] == [name.replace('_', ' ') for name in WITH_AREA]
    assert fit(r, output=run, dataset=Squares(), progress=False, resume=True).losses == [] and rows(run) == log


def test_a_loss_that_is_off_changes_nothing(area, tmp_path, monkeypatch):
    "Same weights, same columns; so a run from before the loss was there goes on"
    plain, r = tmp_path/'plain', wider()
    off = fit(r, output=tmp_path/'off', dataset=Squares(), progress=False)
    assert [*rows(tmp_path/'off')[0]] == HEAD
    with monkeypatch.context() as without:
        without.delitem(LOSSES, 'area')
        fit(recipe(steps=3), output=plain, dataset=Squares(), progress=False)
    assert same(weights(plain), weights(tmp_path/'off')) and off.losses
    head = (plain/'log.csv').read_text(encoding='utf-8')
    assert fit(r, output=plain, dataset=Squares(), progress=False, resume=True).losses == []
    assert (plain/'log.csv').read_text(encoding='utf-8') == head
    with pytest.raises(InputError, match='own recipe, got area_weight: None -> 2.0'):
        fit(replace(r, area_weight=2.), output=plain, dataset=Squares(), progress=False, resume=True)


def test_a_log_of_other_losses_is_told(area, tmp_path):
    "A loss that every recipe has from now on: the run of before says which terms are new, and stays as it was"
    run = tmp_path/'run'
    fit(wider(), output=run, dataset=Squares(), progress=False)
    stored = json.loads((run/'recipe.json').read_text(encoding='utf-8'))
    (run/'recipe.json').write_text(json.dumps(stored | dict(area_weight=2.)), encoding='utf-8')
    before = (run/'log.csv').read_bytes()
    with pytest.raises(InputError, match='got a line without decoder_area, score_area. Give the losses of that run'):
        fit(wider(area_weight=2.), output=run, dataset=Squares(), progress=False, resume=True)
    assert (run/'log.csv').read_bytes() == before


def test_unknown_weights_are_refused(area, monkeypatch):
    out, labels, _ = output()
    with pytest.raises(InputError, match="unknown weight 'aera_weight'. Did you mean 'area_weight'"):
        otseg_loss(out, labels, aera_weight=1.)
    with pytest.raises(InputError, match="unknown option 'area_weight'"): override(Recipe(), area_weight=1.)
    with pytest.raises(InputError, match='the loss area should have a weight in the recipe'): run_tables(recipe())
    with pytest.raises(InputError, match='`area_weight` should be 0 or more'): wider(area_weight=-1.)
    monkeypatch.delitem(LOSSES, 'area')
    with pytest.raises(InputError, match="unknown weight 'area_weight'"): run_tables(wider())


def test_a_row_with_a_key_of_its_own_is_an_error(tmp_path):
    with RunLog(tmp_path/'run', replace(recipe(), eval_every=1)) as log:
        log.write(0, dict.fromkeys(['loss', *TERMS, 'lr', 'norm'], 1.))
        with pytest.raises(ValueError, match='decoder_area'): log.write(1, dict(loss=1., decoder_area=2.))
        with pytest.raises(ValueError, match='iuo'): log.score(1, {}, .5, [dict(unseen=1, iuo=.5)])
        with pytest.raises(ValueError, match='haiou'): log.score(1, dict(haiou=.5), .5)
    assert len(rows(tmp_path/'run')) == 1


@pytest.mark.parametrize('name', RECIPES)
def test_help_describes_every_option(name, capsys):
    "Each has a description and its default; the losses' weights are among them"
    main([name, '--help'])
    text = capsys.readouterr().out
    found = re.findall(r'^  --(\w+)(?: [A-Z|]+)?(?=\s)(.*?)(?=^  --|^\S|\Z)', text, re.M | re.S)
    told = {option: ' '.join(words.split()) for option, words in found}
    r, model = RECIPES[name], RECIPES[name].model
    left_out = 'name', 'model', 'areas'  # areas are learned after a training
    values = {f.name: getattr(s, f.name) for s in (model, r) for f in fields(s) if f.name not in left_out}
    assert told.keys() == {*values, *FOR_RUN} and {'focal_weight', 'dice_weight'} < told.keys()
    for option, words in told.items():
        description, default = re.fullmatch(r'(.*) \(default: (.*)\)', words).groups()
        assert len(description) > 5 and not re.search(r'\b[CP]$', description), option
        if option in values: assert default == str(values[option]), option


@pytest.mark.parametrize('budget', [1, 4 * 48 * 40 * 3, 2**40])
def test_losses_of_a_few_masks_at_a_time(monkeypatch, budget):
    "As many as the memory of the device allows: the same terms, and the same gradient"
    (labels,), logits = stripes(1, (48, 40), 5), torch.randn(2, 5, 48, 40)
    labels = torch.stack([labels, labels.flip(-1)])
    masks, valid = one_hot_masks(labels, 5), labels < 5
    def found():
        x = logits.clone().requires_grad_()
        terms = mask_losses(x, masks, 3, valid)
        (100 * terms[0] + terms[1]).backward()
        return *(t.detach() for t in terms), x.grad
    plain, asked = found(), []
    monkeypatch.setattr(losses, 'memory_budget', lambda device, fixed, share: asked.append((device.type, fixed, share)) or budget)
    for a, b in zip(found(), plain): assert apart(a, b) < 1e-6
    assert asked == [('cpu', 2**18, 1/16)]
