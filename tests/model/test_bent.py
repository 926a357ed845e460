"Marginals that bend, masses of prompts and their spread: options of the model from the configuration to the maps"
from dataclasses import replace

import pytest
import torch

from otseg.core import InputError, l2_normalize
from otseg.model.checkpoint import load_checkpoint, save_checkpoint
from otseg.model.clip import encode_vocab
from otseg.model.config import OTSegConfig
from otseg.model.otseg import OTSeg, entropy_masses, head_with
from otseg.model.vocab import load_vocab
from otseg.transport.mpsa import MPSA, cosine_scores, mps

SMALL = dict(clip='toy', weights='packaged', image_size=96, vpt_tokens=2, init='aligned', logit_scale=20., dropout=0.)


def given(**options):
    torch.manual_seed(0)
    model = OTSeg(OTSegConfig(**SMALL | options)).eval()
    text = encode_vocab(model.config, load_vocab('toy'))[:5]
    return model, torch.randn(2, 3, 96, 96), text


def seen(model, image, text):
    with torch.no_grad(): return model(image, text)


@pytest.mark.parametrize('options', [dict(tau_b=0.), dict(tau_a=.1), dict(partial=.4), dict(top=1)])
def test_options_reach_the_score_map_and_every_layer(options):
    model, image, text = given(**options)
    out = seen(model, image, text)
    with torch.no_grad():
        visual, cls = model.encode_image(image)
        scores = cosine_scores(model.head.descriptor(cls, text), visual.flatten(2).mT)
        want = mps(scores, logit_scale=20., tol=1e-7, **options).unflatten(2, (12, 12))
    assert torch.allclose(out.score_map, want, atol=2e-3)
    layers = [m for m in model.modules() if isinstance(m, MPSA)]
    assert len(layers) == 3 and all(options.items() <= layer.solving.items() for layer in layers)
    plain = OTSeg(OTSegConfig(**SMALL)).eval()
    plain.load_state_dict(model.state_dict())
    with torch.no_grad(): assert not torch.allclose(plain(image, text).decoder_map, out.decoder_map, atol=1e-2)
    other = head_with(plain, **options)
    with torch.no_grad(): assert torch.equal(other(visual, cls, text).decoder_map, model.head(visual, cls, text).decoder_map)


def test_learned_masses_are_trained_kept_and_uniform_at_first(tmp_path):
    plain, image, text = given()
    model, *_ = given(masses='learned')
    before = dict(plain.named_parameters())
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters() if n in before)  # nothing is drawn before them
    assert torch.allclose(seen(model, image, text).decoder_map, seen(plain, image, text).decoder_map, atol=1e-3)
    optimizer = torch.optim.SGD(model.head.masses.parameters(), 5.)
    for _ in range(3):
        loss = -model.train()(image, text).score_map[:, 0].mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
    visual, cls = model.eval().encode_image(image)
    masses, = model.head.prompt_masses(text, cls, visual.flatten(2).mT)
    assert masses.shape == (2, 5, 6) and torch.allclose(masses.sum(-1), torch.ones(2, 5)) and masses.std() > 1e-3
    plan = MPSA.score_maps(model.head.descriptor(cls, text), visual.flatten(2).mT, masses=masses, tol=1e-7).weights
    assert torch.allclose(plan.sum(2), masses, atol=1e-5)
    save_checkpoint(model, tmp_path/'run', vocab=load_vocab('toy'))
    again = load_checkpoint(tmp_path/'run').model.eval()
    assert torch.equal(seen(again, image, text).decoder_map, seen(model, image, text).decoder_map)


def test_entropy_masses_leave_out_prompts_without_a_name():
    torch.manual_seed(0)
    names, same = l2_normalize(torch.randn(1, 4, 1, 16)), l2_normalize(torch.randn(16))
    text = torch.cat([names, same.expand(1, 4, 1, 16)], 2)  # a right prompt, and one of all classes
    memory = names[:, torch.randint(4, (30,)), 0]
    masses = entropy_masses(text, memory)
    assert torch.allclose(masses.sum(-1), torch.ones(1, 4)) and bool((masses[..., 0] > .99).all())


@pytest.mark.parametrize('attention', ['softmax', 'dot'])
def test_masses_without_a_plan_weigh_the_prompts(attention):
    model, image, text = given(attention=attention, masses='learned')
    torch.nn.init.normal_(model.head.masses.linear.weight, std=3.)
    out = seen(model, image, text)
    with torch.no_grad():
        visual, cls = model.encode_image(image)
        refined, memory = model.head.descriptor(cls, text), visual.flatten(2).mT
        masses, = model.head.prompt_masses(text, cls, memory)
        want = 20. * (masses[:, :, None] * cosine_scores(refined, memory)).sum(-1)
    assert torch.allclose(out.score_map.flatten(2), want, atol=1e-3)


def test_spread_moves_prompts_away_from_their_mean_and_back():
    config, vocab = OTSegConfig(**SMALL), load_vocab('toy')
    one, none, far = (encode_vocab(replace(config, spread=s), vocab) for s in (1., 0., 8.))
    def alike(t): return float((t @ t.mT).mean())
    assert torch.allclose(none, none[:, :1].expand_as(none), atol=1e-6) and alike(far) < alike(one) < 1
    assert torch.allclose(far.norm(dim=-1), torch.ones(far.shape[:2]))
    assert torch.allclose(none[:, 0], l2_normalize(one.mean(1)), atol=1e-6)


@pytest.mark.parametrize(('options', 'told'), [
    (dict(tau_b=-1.), '`tau_b` should be 0 or more'), (dict(partial=0.), '`partial` should lie in 0..1'),
    (dict(partial=1.5), '`partial` should lie in 0..1'), (dict(top=0), '`top` should be at least 1'),
    (dict(masses='entropies'), "Did you mean 'entropy'"), (dict(spread=-1.), '`spread` should be 0 or more'),
    (dict(attention='softmax', tau_b=0.), 'tau_b should bend a plan')])
def test_bad_options_are_told(options, told):
    with pytest.raises(InputError, match=told.replace('(', r'\(')): OTSeg(OTSegConfig(**SMALL | options))
