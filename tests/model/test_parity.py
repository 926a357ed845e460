"""The published numbers, reproduced from the equations: a compact set in every clone, the whole sets where they are"""
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from otseg.model.checkpoint import load_official
from otseg.model.losses import otseg_loss, pseudo_labels
from otseg.transport.entropic import sinkhorn

HERE = Path(__file__).parent/'golden'


def relative(got, want): return float((got.detach() - want).abs().max() / want.abs().max().clamp(min=1e-12))


def read_compact(name):
    "Settings, weights by their published names, numbers of the encoder and of the head"
    with np.load(HERE/f'{name}.npz') as f: arrays = {k: torch.from_numpy(f[k]) for k in f.files}
    kinds = {torch.float16: torch.float32, torch.int16: torch.int64}
    arrays = {k: v.to(kinds.get(v.dtype, v.dtype)) for k, v in arrays.items()}
    def part(start): return {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}
    return json.loads((HERE/f'{name}.json').read_text(encoding='utf-8')), *map(part, ('weights.', 'encoder.', 'head.'))


def compact(name, folder):
    "Settings, model, and numbers of a set of the clone; `a` has no encoder, so the model borrows one of other numbers"
    meta, weights, encoder, head = read_compact(name)
    if not encoder:
        other, more, *_ = read_compact('c')
        weights |= {k: v for k, v in more.items() if k.startswith('backbone.')}
        weights['backbone.proj'] = torch.zeros(len(weights['backbone.proj']), meta['embed_dim'])
        meta['encoder'] = other['encoder']
    torch.save(dict(state_dict=weights), folder/f'{name}.pth')
    return meta, load_official(folder/f'{name}.pth', heads=meta['encoder']['heads']), encoder, head


@pytest.fixture(params=['c', 'a', 'shared c', 'shared a'], scope='module')
def golden(request, tmp_path_factory):
    place, _, name = request.param.rpartition(' ')
    if not place: return compact(name, tmp_path_factory.mktemp('golden'))
    folder = request.getfixturevalue(place)/'golden'/name
    if not folder.is_dir(): pytest.skip(f'no golden numbers {name}')
    meta = json.loads((folder/'meta.json').read_text(encoding='utf-8'))
    model = load_official(folder/'official_checkpoint.pth', heads=meta['encoder']['heads'])
    return meta, model, load_file(folder/'encoder.safetensors'), load_file(folder/'head.safetensors')


def run_head(meta, model, h, visual=None):
    return model.head(h['visual'] if visual is None else visual, h['cls'], h['text'], size=(meta['image_size'],) * 2)


def test_in_every_clone():
    "What the compact sets are made of: small, and complete"
    assert sum(p.stat().st_size for p in HERE.iterdir()) <= 1_000_000
    (one, _, encoder, _), (four, *_) = read_compact('c'), read_compact('a')
    assert (one['num_prompts'], four['num_prompts'], four['batch']) == (1, 4, 2)
    assert encoder.keys() == {f'{k}{s}' for k in ('image', 'visual', 'cls') for s in ('', '_rect')}
    for name in ('c', 'a'): assert {'decoder_logits', 'score_logits', 'grad.visual'} <= read_compact(name)[3].keys()


@pytest.mark.parametrize('golden', ['c', 'shared c', 'shared a'], indirect=True)
def test_encoder(golden):
    meta, model, e, _ = golden
    for suffix in ('', '_rect'):
        with torch.no_grad(): visual, cls = model.image_encoder(e[f'image{suffix}'])
        assert relative(visual, e[f'visual{suffix}']) < 1e-4
        assert relative(cls, e[f'cls{suffix}']) < 1e-4


def test_layers(golden):
    meta, model, _, h = golden
    with torch.no_grad(): out = run_head(meta, model, h)
    assert len(out.decoder_prompt_maps) == meta['decoder_layers']
    for i, maps in enumerate(out.decoder_prompt_maps):
        assert relative(maps.sum(2).flatten(2), h[f'layer{i}.attn']) < 2e-3


def test_logits(golden):
    meta, model, _, h = golden
    with torch.no_grad(): out = run_head(meta, model, h)
    assert relative(out.decoder_logits, h['decoder_logits']) < 2e-3
    assert relative(out.score_logits, h['score_logits']) < 2e-3


@pytest.mark.parametrize('golden', ['c', 'shared c', 'shared a'], indirect=True)
def test_probabilities(golden):
    meta, model, _, h = golden
    with torch.no_grad(): out = run_head(meta, model, h)
    inductive = out.mask_probs(seen=meta['seen'], seen_penalty=meta['seen_calibration'])
    for probs, want in ((inductive, h['pred_inductive']), (out.mask_probs(), h['pred_transductive'])):
        assert relative(probs, want) < 2e-3
        assert (probs.argmax(1) == want.argmax(1)).float().mean() >= 0.9999


def test_sinkhorn(golden):
    meta, _, _, h = golden
    tight = sinkhorn(1 - h['sinkhorn.scores'].double(), meta['sinkhorn']['epsilon'], tol=1e-12, max_iter=5000).plan
    assert relative(tight, h['sinkhorn.plan_float64']) < 1e-6
    assert relative(sinkhorn(1 - h['sinkhorn.scores']).plan, h['sinkhorn.plan_official']) < 1e-4


def test_losses_and_gradients(golden):
    meta, model, _, h = golden
    model.zero_grad()
    visual = h['visual'].clone().requires_grad_()
    terms = otseg_loss(run_head(meta, model, h, visual), h['loss.labels'])
    for path in ('decoder', 'score'):
        for ours, theirs in (('focal', 'mask'), ('dice', 'dice')):
            assert relative(terms[f'{path}_{ours}'], h[f'loss.{path}.{theirs}']) < 2e-3
    assert relative(terms['loss'], h['loss.total']) < 2e-3
    terms['loss'].backward()
    assert relative(visual.grad, h['grad.visual']) < 2e-2
    assert relative(model.head.descriptor.linear.weight.grad, h['grad.q_proj.weight']) < 2e-2
    assert relative(model.head.decoder.layers[0].attention.q.weight.grad, h['grad.layer0.q.weight']) < 2e-2


@pytest.mark.parametrize('golden', ['c', 'shared c', 'shared a'], indirect=True)
def test_what_the_readme_says(golden):
    "Numbers that were not rounded for a small file: the encoder to 1e-6, all else to 1e-5 of the largest value"
    meta, model, e, h = golden
    model.zero_grad()
    visual = h['visual'].clone().requires_grad_()
    out = run_head(meta, model, h, visual)
    loss = otseg_loss(out, h['loss.labels'])['loss']
    loss.backward()
    found = {'loss.total': loss, 'decoder_logits': out.decoder_logits, 'score_logits': out.score_logits,
             'pred_transductive': out.mask_probs(), 'grad.visual': visual.grad,
             'grad.q_proj.weight': model.head.descriptor.linear.weight.grad,
             'grad.layer0.q.weight': model.head.decoder.layers[0].attention.q.weight.grad}
    assert {k: apart for k, v in found.items() if not (apart := relative(v, h[k])) < 1e-5} == {}
    with torch.no_grad(): pair = dict(zip(('visual', 'cls'), model.image_encoder(e['image'])))
    assert {k: apart for k, v in pair.items() if not (apart := relative(v, e[k])) < 1e-6} == {}


def test_pseudo_labels(golden):
    meta, model, _, h = golden
    with torch.no_grad(): out = run_head(meta, model, h)
    assert torch.equal(pseudo_labels(out, h['pseudo.labels_in'], seen=meta['seen']), h['pseudo.labels_out'])
    assert torch.equal(pseudo_labels(out, h['pseudo.labels_in'], unseen=meta['unseen']), h['pseudo.labels_out'])


@pytest.mark.parametrize('golden', ['shared c', 'shared a'], indirect=True)
def test_dead_parameters_are_dropped(golden):
    meta, model, _, _ = golden
    dropped = model.import_report['dropped']
    assert any('.self_attn.' in k for k in dropped) and any('.norm1.' in k for k in dropped)
    assert model.import_report['ignored'] == []
