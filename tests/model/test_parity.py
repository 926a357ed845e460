"""The published numbers, reproduced from the equations (needs the golden files; skips without them)."""
import json

import pytest
import torch
from safetensors.torch import load_file

from otseg.model.checkpoint import load_official
from otseg.model.losses import otseg_loss, pseudo_labels
from otseg.transport.entropic import sinkhorn


def relative(got, want): return float((got.detach() - want).abs().max() / want.abs().max().clamp(min=1e-12))


@pytest.fixture(params=["a", "c"], scope="module")
def golden(request, shared):
    folder = shared/"golden"/request.param
    if not folder.is_dir(): pytest.skip(f"no golden numbers {request.param}")
    meta = json.loads((folder/"meta.json").read_text(encoding='utf-8'))
    model = load_official(folder/"official_checkpoint.pth", heads=meta["encoder"]["heads"])
    return meta, model, load_file(folder/"encoder.safetensors"), load_file(folder/"head.safetensors")


def run_head(meta, model, h, visual=None):
    return model.head(h["visual"] if visual is None else visual, h["cls"], h["text"], size=(meta["image_size"],) * 2)


def test_encoder(golden):
    meta, model, e, _ = golden
    for suffix in ("", "_rect"):
        with torch.no_grad(): visual, cls = model.image_encoder(e[f"image{suffix}"])
        assert relative(visual, e[f"visual{suffix}"]) < 1e-4
        assert relative(cls, e[f"cls{suffix}"]) < 1e-4


def test_layers(golden):
    meta, model, _, h = golden
    with torch.no_grad(): out = run_head(meta, model, h)
    assert len(out.decoder_prompt_maps) == meta["decoder_layers"]
    for i, maps in enumerate(out.decoder_prompt_maps):
        assert relative(maps.sum(2).flatten(2), h[f"layer{i}.attn"]) < 2e-3


def test_logits(golden):
    meta, model, _, h = golden
    with torch.no_grad(): out = run_head(meta, model, h)
    assert relative(out.decoder_logits, h["decoder_logits"]) < 2e-3
    assert relative(out.score_logits, h["score_logits"]) < 2e-3
    inductive = out.mask_probs(seen=meta["seen"], seen_penalty=meta["seen_calibration"])
    for probs, want in ((inductive, h["pred_inductive"]), (out.mask_probs(), h["pred_transductive"])):
        assert relative(probs, want) < 2e-3
        assert (probs.argmax(1) == want.argmax(1)).float().mean() >= 0.9999


def test_sinkhorn(golden):
    meta, _, _, h = golden
    tight = sinkhorn(1 - h["sinkhorn.scores"].double(), meta["sinkhorn"]["epsilon"], tol=1e-12, max_iter=5000).plan
    assert relative(tight, h["sinkhorn.plan_float64"]) < 1e-6
    assert relative(sinkhorn(1 - h["sinkhorn.scores"]).plan, h["sinkhorn.plan_official"]) < 1e-4


def test_losses_and_gradients(golden):
    meta, model, _, h = golden
    model.zero_grad()
    visual = h["visual"].clone().requires_grad_()
    terms = otseg_loss(run_head(meta, model, h, visual), h["loss.labels"])
    for path in ("decoder", "score"):
        for ours, theirs in (("focal", "mask"), ("dice", "dice")):
            assert relative(terms[f"{path}_{ours}"], h[f"loss.{path}.{theirs}"]) < 2e-3
    assert relative(terms["loss"], h["loss.total"]) < 2e-3
    terms["loss"].backward()
    assert relative(visual.grad, h["grad.visual"]) < 2e-2
    assert relative(model.head.descriptor.linear.weight.grad, h["grad.q_proj.weight"]) < 2e-2
    assert relative(model.head.decoder.layers[0].attention.q.weight.grad, h["grad.layer0.q.weight"]) < 2e-2


def test_pseudo_labels(golden):
    meta, model, _, h = golden
    with torch.no_grad(): out = run_head(meta, model, h)
    assert torch.equal(pseudo_labels(out, h["pseudo.labels_in"], seen=meta["seen"]), h["pseudo.labels_out"])
    assert torch.equal(pseudo_labels(out, h["pseudo.labels_in"], unseen=meta["unseen"]), h["pseudo.labels_out"])


def test_dead_parameters_are_dropped(golden):
    meta, model, _, _ = golden
    dropped = model.import_report["dropped"]
    assert any(".self_attn." in k for k in dropped) and any(".norm1." in k for k in dropped)
    assert model.import_report["ignored"] == []
