"Families of open_clip: which train and segment, and why others do not; each cell on a small tower of its kind"
import re
import sys

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from given.models import pictures, stripes
from given.towers import shrunken, small_timm  # noqa: F401
from open_clip.modified_resnet import ModifiedResNet
from safetensors.torch import save_file

from otseg.core import InputError, seed_everything
from otseg.model.checkpoint import load_checkpoint, save_checkpoint
from otseg.model.clip import ImageEncoder, build_visual, get_tokenizer, load_clip, text_embeddings
from otseg.model.config import OTSegConfig, clip_config
from otseg.model.dense import DENSE, TrainingFree
from otseg.model.losses import otseg_loss
from otseg.model.otseg import OTSeg
from otseg.predict import Segmenter
from otseg.study.backbones import FAMILIES, why_not

pytestmark = pytest.mark.filterwarnings('ignore:.*meaningless.*')
# family -> what it is refused with; others work
NO_VIT = 'of timm, which is no plain ViT under a pool by attention'
REFUSED = {'EVA': 'Eva of timm', 'PE': r'rotary positions\), which is not written here', 'MobileCLIP': NO_VIT, 'ViTamin': NO_VIT,
           'CoCa': r'mixes the patches before they are projected \(CoCa\)', 'ConvNeXt': NO_VIT, 'ResNet': 'got a ResNet'}
LARGE = 'MobileCLIP', 'ViTamin'  # which cannot be made small
WORKING = [f.clip for f in FAMILIES if f.name not in REFUSED]
# those that are the same when they are small are tried once
DIFFERENT = {str({k: v for k, v in shrunken(c)['model_cfg'].items() if k != 'text_cfg'}): c for c in WORKING[::-1]}.values()
ONE_OF_EACH = 'ViT-L-14-quickgelu', 'ViT-L-14-CLIPA', 'ViT-B-16-SigLIP'  # class token, mean, pool by attention


def picture_of(clip, grid, b=2):
    patch = clip['model_cfg']['vision_cfg'].get('patch_size', 16)
    return pictures(b, (grid[0] * patch, grid[1] * patch))


@pytest.mark.parametrize('clip', DIFFERENT)
def test_a_family_that_works(clip, small_timm):  # noqa: F811
    "Every rule on a grid of odd sides, and a gradient for all that is trained"
    small, text = shrunken(clip), F.normalize(torch.randn(3, 2, 24), dim=-1)
    visual = build_visual(small)
    patch = TrainingFree(small, 'random', visual=visual).image_encoder.patch
    image = pictures(2, (3 * patch, 5 * patch - 1))
    for dense in DENSE:
        with torch.no_grad(): out = TrainingFree(small, 'random', dense=dense, visual=visual).eval()(image, text)
        assert out.score_map.shape == (2, 3, 3, 5) and out.score_map.isfinite().all() and out.score_map.abs().max() <= 1 + 1e-5
    model = OTSeg(OTSegConfig(small, 'embedded', vpt_tokens=2, image_size=5 * patch), build_visual(small))
    otseg_loss(model(image, text), stripes(2, image.shape[-2:], 3))['loss'].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize('family', [pytest.param(f, id=f.clip, marks=[pytest.mark.slow] if f.name in LARGE else [])
                                    for f in FAMILIES if f.name in REFUSED])
def test_a_family_that_does_not(family, small_timm):  # noqa: F811
    "The same reason for training and without"
    clip = family.clip if family.name in (*LARGE, 'ResNet') else shrunken(family.clip)
    said = [why_not(clip), why_not(clip, 'naclip')]
    do = r'Choose an architecture such as ViT-B-16-quickgelu\.'
    assert said[0] == said[1] and re.fullmatch(rf'.* should .*, got .*\. {do}', said[0])
    with pytest.raises(InputError, match=REFUSED[family.name]): TrainingFree(clip, 'random')


RESNETS = [m for m in open_clip.list_models() if m.startswith('RN')]


@pytest.mark.parametrize('clip', RESNETS)
def test_a_resnet_is_told_by_its_description(clip):
    "What should be, what came, what to do, before a tower is built; by every way in"
    says = (f'the description of {clip} should have a vision transformer as its image tower, got a ResNet, which has no '
            'attention for every patch. Choose an architecture such as ViT-B-16-quickgelu.')
    for ask in (lambda: clip_config(clip), lambda: Segmenter.from_clip(clip, weights='random'), lambda: OTSegConfig(clip)):
        with pytest.raises(InputError) as told: ask()
        assert str(told.value) == says


def test_a_resnet_that_somebody_built_is_told_too():
    "OpenAI's ModifiedResNet, and whatever else is a module: each with its name and what is missing"
    cfg = open_clip.get_model_config('RN50')
    with torch.device('meta'):
        resnet = ModifiedResNet(cfg['vision_cfg']['layers'], cfg['embed_dim'], heads=32, image_size=224, width=64)
    do = 'Choose an architecture such as ViT-B-16-quickgelu.'
    for tower, got in ((resnet, r'a ResNet \(ModifiedResNet of open_clip [0-9.]+\), which has no attention for every patch'),
                       (torch.nn.Linear(1, 1), 'Linear of open_clip [0-9.]+ without conv1, class_embedding, .*pool_type')):
        for build in (ImageEncoder, lambda v: TrainingFree('ViT-B-32', 'random', visual=v),
                      lambda v: OTSeg(OTSegConfig('ViT-B-32', 'embedded'), v)):
            with pytest.raises(InputError, match=f'^the image tower should be a plain ViT of open_clip .*, got {got}. {do}$'):
                build(tower)


@pytest.mark.slow
@pytest.mark.parametrize('family', FAMILIES, ids=lambda f: f.clip)
def test_every_family_at_its_size(family):
    for dense in (None, 'naclip'): assert (why_not(family.clip, dense) is None) == (family.name not in REFUSED)


@pytest.mark.parametrize('clip', ONE_OF_EACH)
def test_the_picture_is_the_clips_own(clip, small_timm):  # noqa: F811
    small = shrunken(clip)
    model, image = load_clip(small, 'random:1'), picture_of(small, (4, 4))
    vanilla = TrainingFree(small, 'random', dense='vanilla', visual=model.visual).eval()
    with torch.no_grad(): want = F.normalize(model.encode_image(image), dim=-1)
    torch.testing.assert_close(vanilla.encode_image(image)[1].detach(), want)


@pytest.mark.parametrize('clip', ONE_OF_EACH)
def test_a_patch_is_what_the_tower_gives_for_it_alone(clip, small_timm):  # noqa: F811
    "By the tower's own pool of one token; the mean of one, and one class token, are that token"
    small = shrunken(clip)
    visual, image = load_clip(small, 'random:1').visual, picture_of(small, (3, 5), 1)
    free = TrainingFree(small, 'random', dense='vanilla', visual=visual).eval()
    with torch.no_grad():
        x, grid = free.image_encoder.embed(image)
        for block in free.image_encoder.blocks: x = block(x)
        for i in (0, 7, 14):
            token = x[:, i + free.image_encoder.tower.extra, None]
            if hasattr(visual, 'trunk'): alone = visual.trunk.forward_head(visual.trunk.norm(token))
            else: alone = visual.ln_post(token[:, 0]) @ visual.proj
            torch.testing.assert_close(free.tokens(image)[..., i // 5, i % 5], F.normalize(alone, dim=-1))


@pytest.mark.parametrize('clip', ONE_OF_EACH)
def test_twenty_steps(clip, small_timm):  # noqa: F811
    seed_everything(0)
    small = shrunken(clip)
    config = OTSegConfig(small, 'embedded', vpt_tokens=2, image_size=48, decoder_layers=1, init='aligned', dropout=0.)
    model = OTSeg(config, build_visual(small)).train()
    image, text = pictures(2, (48, 32)), F.normalize(torch.randn(3, 2, 24), dim=-1)
    optimizer, losses = torch.optim.AdamW(model.parameter_groups(3e-3)), []
    for _ in range(20):
        loss = otseg_loss(model(image, text, maps=False), stripes(2, (48, 32), 3))['loss']
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        losses.append(loss.item())
    assert all(map(torch.isfinite, torch.tensor(losses))) and sum(losses[-3:]) / 3 < .7 * losses[0]


# weights, words, pictures

def save(state, path): save_file({k: v.contiguous() for k, v in state.items()}, path)


def test_siglip_from_a_file(small_timm, tmp_path, monkeypatch):  # noqa: F811
    "Text tower under its own name, other positions, another directory: as the CLIP that was saved"
    small = shrunken('ViT-B-16-SigLIP')
    clip = load_clip(small, 'random:1')
    assert {k.split('.')[0] for k in clip.state_dict()} == {'visual', 'text', 'logit_scale'}  # as published, but for the bias
    save(clip.state_dict() | dict(logit_bias=torch.tensor(-10.)), tmp_path/'siglip.safetensors')
    texts, weights = ['a cat', 'a photo of a dog'], str(tmp_path/'siglip.safetensors')
    want = F.normalize(clip.encode_text(get_tokenizer(small)(texts)), dim=-1)
    torch.testing.assert_close(text_embeddings([[t] for t in texts], small, weights, cache=False)[:, 0], want)
    seg = Segmenter.from_clip(small, weights=weights, templates=['a {}'], side=64, window=64)
    assert seg.predict(np.zeros((64, 80, 3), np.uint8), ['cat', 'dog']).labels.shape == (64, 80)
    model = OTSeg(OTSegConfig(small, weights, vpt_tokens=2, image_size=80)).eval()
    save_checkpoint(model, tmp_path/'kept')
    monkeypatch.chdir(tmp_path/'kept')
    again, image, text = load_checkpoint('.').model.eval(), pictures(1, (48, 64)), F.normalize(torch.randn(2, 2, 24), dim=-1)
    with torch.no_grad(): torch.testing.assert_close(again(image, text).score_map, model(image, text).score_map)
    save(load_clip(small, 'random:2').state_dict(), tmp_path/'siglip.safetensors')
    with pytest.raises(InputError, match='should sit on the CLIP weights'): load_checkpoint('.')


def test_another_grid_in_the_file(small_timm, tmp_path):  # noqa: F811
    "As SigLIP's towers of 256 and 384 pixels differ"
    from otseg.model.clip import resize_positions
    small = shrunken('ViT-B-16-SigLIP')
    wide = torch.randn(1, 36, 24)
    save(load_clip(small, 'random:1').state_dict() | {'visual.trunk.pos_embed': wide}, tmp_path/'wide.safetensors')
    got = load_clip(small, tmp_path/'wide.safetensors').visual.trunk.pos_embed[0]
    torch.testing.assert_close(got, resize_positions(wide[0], (4, 4), extra=0))


def test_words_of_siglip_need_transformers(monkeypatch):
    monkeypatch.setitem(sys.modules, 'transformers', None)
    with pytest.raises(InputError, match='tokenizer of ViT-B-16-SigLIP .*pip install transformers'):
        get_tokenizer('ViT-B-16-SigLIP')


def test_statistics_and_activation_are_those_of_open_clip():
    "For every tag of a family that works: mean, deviation, and QuickGELU or the error that names the other architecture"
    from otseg.model.clip import _check_tag
    seen = 0
    for clip, tag in open_clip.list_pretrained():
        if clip.startswith('RN') or 'hf_model_name' in clip_config(clip)['model_cfg']['text_cfg']: continue
        if 'timm_model_name' in clip_config(clip)['model_cfg']['vision_cfg'] and 'SigLIP' not in clip: continue
        cfg, config, seen = open_clip.get_pretrained_cfg(clip, tag), OTSegConfig(clip, tag), seen + 1
        assert (config.image_mean, config.image_std) == (tuple(cfg['mean']), tuple(cfg['std'])), (clip, tag)
        quick = bool(clip_config(clip)['model_cfg'].get('quick_gelu'))
        other = clip.removesuffix('-quickgelu') if quick else f'{clip}-quickgelu'
        if quick == bool(cfg.get('quick_gelu')) or other not in open_clip.list_models(): _check_tag(clip, tag, cfg)
        else:
            with pytest.raises(InputError, match=f'Use the architecture {other}'): _check_tag(clip, tag, cfg)
    assert seen > 80
