"The solver of a model: from the command line to every plan, and of no account for what a run is"
import json
from dataclasses import asdict, replace

import pytest
import torch

import otseg.transport.mpsa
from given.models import make, pictures, prompts
from given.shell import shell
from otseg.model.checkpoint import load_checkpoint, save_checkpoint
from otseg.core import InputError
from otseg.model.otseg import head_with
from otseg.model.config import OTSegConfig
from otseg.train.recipes import differences, get_recipe, override, recipe_from_dict
from otseg.train.run import resume_weights
from otseg.transport.entropic import sinkhorn
from otseg.transport.choices import METHODS
from otseg.model.vocab import load_vocab

pytestmark = pytest.mark.filterwarnings('ignore:.*meaningless.*')


@pytest.fixture
def methods(monkeypatch):
    "What `sinkhorn` is asked for by models"
    seen = []
    monkeypatch.setattr(otseg.transport.mpsa, 'sinkhorn',
                        lambda *args, **kwargs: seen.append(kwargs['method']) or sinkhorn(*args, **kwargs))
    return seen


def test_every_plan_of_a_model_has_it(methods):
    for solver in ('auto', 'newton', 'scaling', 'log'):
        methods.clear()
        model = make(solver=solver).eval()
        with torch.no_grad(): model(pictures(1), prompts())
        assert methods == [solver] * 4
        methods.clear()
        with torch.no_grad(): head_with(model, solver='log')(*model.image_encoder(pictures(1)), prompts())
        assert methods == ['log'] * 4


def test_an_impossible_solver_says_so():
    model = make(solver='scaling', eps=.001).eval()
    with torch.no_grad(), pytest.raises(InputError, match='should span at most 60 times `eps` for scaling'):
        model(pictures(1), prompts())
    with pytest.raises(InputError, match="unknown solver 'newtn'. Did you mean 'newton'"): OTSegConfig(solver='newtn')
    twin = make(solver='fused', attention='softmax').eval()
    with torch.no_grad(): assert twin(pictures(1), prompts()).mask_logits().isfinite().all()


def test_checkpoints_from_before(folder):
    "Without the setting they load as auto, with the same weights and results to the last bit"
    model = make().eval()
    save_checkpoint(model, folder/'new', vocab=load_vocab('toy'))
    record = json.loads((folder/'new/config.json').read_text(encoding='utf-8'))
    assert record['model'].pop('solver') == 'auto'
    (folder/'new/config.json').write_text(json.dumps(record), encoding='utf-8')
    old = load_checkpoint(folder/'new').model
    with torch.no_grad():
        assert torch.equal(old(pictures(1), prompts()).mask_logits(), model(pictures(1), prompts()).mask_logits())


def test_a_recipe_takes_it():
    recipe = override(get_recipe('toy'), solver='log')
    assert recipe.model_config().solver == 'log' and get_recipe('toy').model.solver == 'auto'
    stored = json.loads(json.dumps(recipe.to_dict()))
    assert recipe_from_dict(stored) == recipe
    del stored['model']['solver']
    assert recipe_from_dict(stored).model.solver == 'auto'
    assert differences(recipe_from_dict(stored), recipe) == []                        # a run may go on with another
    assert differences(get_recipe('toy'), override(recipe, eps=.1)) == ['model.eps: 0.05 -> 0.1']
    with pytest.raises(InputError, match='unknown solver'): override(get_recipe('toy'), solver='gradient')


@pytest.mark.parametrize('before', [*METHODS, None])
def test_a_run_goes_on_with_another_solver(folder, before):
    model, vocab = make(solver='newton'), load_vocab('toy')
    stored = make(seed=1, solver=before or 'auto')
    save_checkpoint(stored, folder/'step', vocab=vocab)
    torch.save(dict(own={}), folder/'step/trainer.pt')
    if before is None:
        record = json.loads((folder/'step/config.json').read_text(encoding='utf-8'))
        del record['model']['solver']
        (folder/'step/config.json').write_text(json.dumps(record), encoding='utf-8')
    resume_weights(folder/'step', model, vocab)
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    there = dict(stored.named_parameters())
    assert trained and all(torch.equal(dict(model.named_parameters())[n], there[n]) for n in trained)
    other = make()
    other.config = replace(other.config, eps=.1)
    with pytest.raises(InputError, match='should hold the model of this run'): resume_weights(folder/'step', other, vocab)


def test_the_command_lists_it():
    code, out, _ = shell('otseg-train', 'toy', '--help')
    assert code == 0 and 'solver' in out and asdict(get_recipe('toy').model)['solver'] == 'auto'
