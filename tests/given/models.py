"Small models and what goes into them"
import pytest
import torch
import torch.nn.functional as F

from otseg.model.losses import otseg_loss
from otseg.model.otseg import OTSeg
from otseg.model.config import OTSegConfig
from otseg.evaluate.windows import window_starts

WORDS = ['a', 'cat', 'dog', 'medium', 'of', 'part', 'photo', 'portrait', 'road', 'segment', 'sky', 'small']
TINY = dict(model_cfg=dict(embed_dim=32, quick_gelu=True,
                           vision_cfg=dict(image_size=32, patch_size=8, width=48, head_width=12, layers=3),
                           text_cfg=dict(context_length=8, vocab_size=len(WORDS) + 3, width=24, heads=2, layers=1)),
            words=WORDS)
DEVICES = ['cpu', pytest.param('cuda', marks=pytest.mark.gpu)]


def make(device='cpu', seed=0, **config):
    torch.manual_seed(seed)
    config = dict(clip=TINY, weights='random', vpt_tokens=3, image_size=48) | config
    return OTSeg(OTSegConfig(**config)).to(device)


def pictures(b, size=(48, 40), seed=1, device='cpu'):
    return torch.randn(b, 3, *size, generator=torch.Generator().manual_seed(seed)).to(device)


def prompts(k=4, n=6, seed=2, device='cpu', spread=1.):
    "Unit vectors around one per class; `spread` says how far the prompts of a class lie apart"
    g = torch.Generator().manual_seed(seed)
    centre, around = torch.randn(k, 1, 32, generator=g), torch.randn(k, n, 32, generator=g)
    return F.normalize(centre + spread * around, dim=-1).to(device)


def stripes(b, size, k, device='cpu'):
    "Labels of upright stripes, with 255 between them and the rest"
    columns = torch.arange(size[1]) * (k + 1) // size[1]
    return torch.where(columns == k, 255, columns).expand(b, *size).to(device)


def outputs(out): return dict(decoder=out.decoder_logits, score=out.score_logits, blend=out.mask_probs(),
                              prompts=out.score_prompt_maps, layers=torch.stack(out.decoder_prompt_maps))


def apart(a, b): return float((a.double() - b.double()).abs().max() / b.double().abs().max())


def trained(model): return {n: p for n, p in model.named_parameters() if p.requires_grad}


def gradients(model): return torch.cat([p.grad.double().flatten().cpu() for p in trained(model).values()])


def step(model, autocast=None, size=(48, 40), **config):
    "Output, loss and gradients of one forward and backward pass"
    device = next(model.parameters()).device.type
    text, dtype = prompts(device=device), next(model.head.parameters()).dtype
    model.zero_grad()
    with torch.autocast(device, dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        out = model(pictures(2, size, device=device).to(dtype), text.to(dtype))
        loss = otseg_loss(out, stripes(2, size, len(text), device))['loss']
    loss.backward()
    return out, loss


def at_once(model, image, text, size, window, stride, blend, seen, penalty):
    "Scores of every class at picture size, window by window, then the winner: the definition"
    (b, _, H, W), k = image.shape, len(text)
    h, w = min(H, window), min(W, window)
    total, count = torch.zeros(b, k, H, W), torch.zeros(H, W)
    for r in window_starts(H, window, stride):
        for c in window_starts(W, window, stride):
            with torch.no_grad(): out = model(image[..., r:r + h, c:c + w], text)
            total[..., r:r + h, c:c + w] += out.mask_probs(blend, seen, penalty)
            count[r:r + h, c:c + w] += 1
    scores = F.interpolate(total / count, size=size, mode='bilinear', align_corners=False)
    return scores.argmax(1), scores
