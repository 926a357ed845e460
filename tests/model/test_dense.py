"The training-free CLIPs against numbers that the published implementations produced; rules of the last block at any size"
import json

import pytest
import torch
import torch.nn.functional as F
from given.models import TINY, pictures, prompts
from safetensors.torch import load_file

from otseg.core import InputError
from otseg.model.dense import DENSE, TrainingFree
from otseg.model.refine import class_scores, pixel_labels, refine_mask

# key of the published numbers -> rule, and whether residual and feed-forward stay (None: as the rule has it)
PUBLISHED = {
    'vanilla': ('vanilla', None), 'sclip': ('sclip', None), 'naclip_reduced_naclip': ('naclip', None),
    'naclip_vanilla_naclip': ('naclip', True), 'naclip_reduced_kk': ('kk', None), 'naclip_reduced_vanilla': ('vanilla', False),
    'clearclip_vanilla_noresidual': ('vanilla', False), 'clearclip_vanilla_residual': ('vanilla', True),
    'clearclip_clearclip_noresidual': ('clearclip', None), 'clearclip_clearclip_residual': ('clearclip', True),
    'clearclip_maskclip_residual': ('maskclip', None), 'clearclip_maskclip_noresidual': ('maskclip', False),
    'clearclip_sclip_residual': ('sclip', True), 'clearclip_sclip_noresidual': ('sclip', False)}


def relative(a, b): return float((a - b).abs().max() / b.abs().max())


@pytest.fixture(scope='module')
def published(shared):
    folder = shared/'golden/dense_a'
    if not folder.is_dir(): pytest.skip('no golden numbers of training-free CLIPs')
    return (json.loads((folder/'meta.json').read_text(encoding='utf-8')), load_file(folder/'visual.safetensors'),
            load_file(folder/'dense.safetensors'))


def tower(meta, weights):
    from open_clip.transformer import QuickGELU, VisionTransformer
    visual = VisionTransformer(image_size=meta['image_size'], patch_size=meta['patch'], width=meta['width'],
                               layers=meta['layers'], heads=meta['heads'], mlp_ratio=4.,
                               output_dim=meta['embed_dim'], act_layer=QuickGELU)
    assert not visual.load_state_dict({k.removeprefix('visual.'): v for k, v in weights.items()}, strict=False).missing_keys
    return visual.eval()


@pytest.mark.parametrize('size', ['', '_rect'])
@pytest.mark.parametrize('key', PUBLISHED)
def test_tokens(published, key, size):
    meta, weights, numbers = published
    dense, residual = PUBLISHED[key]
    model = TrainingFree(dense=dense, residual=residual, visual=tower(meta, weights)).eval()
    with torch.no_grad(): tokens = model.tokens(numbers[f'image{size}'])
    assert tokens.shape[-2:] == tuple(s // meta['patch'] for s in meta['sizes'][size or 'native'])
    assert relative(tokens.flatten(2).mT, F.normalize(numbers[key + size], dim=-1)) < 1e-4


def test_every_number_is_compared(published):
    left_out = {k.removesuffix('_rect') for k in published[2]} - {*PUBLISHED, 'image'}
    assert {k.split('.')[0] for k in left_out} == {'post', 'pamr'}


def test_after_the_scores(published):
    meta, weights, numbers = published
    with torch.no_grad(): tokens = TrainingFree(dense='sclip', visual=tower(meta, weights)).eval().tokens(numbers['image'])
    cosines = torch.einsum('bdhw,qd->bqhw', tokens, numbers['post.queries'])
    logits = F.interpolate(cosines, size=numbers['image'].shape[-2:], mode='bilinear', align_corners=False)
    assert relative(logits, numbers['post.logits']) < 1e-4
    scores = class_scores(logits, numbers['post.query_class'], meta['logit_scale'])
    assert relative(scores, numbers['post.class_scores']) < 1e-4
    assert torch.equal(pixel_labels(class_scores(numbers['post.logits'], numbers['post.query_class']), .3),
                       numbers['post.labels_thd_0.3'])


@pytest.mark.parametrize('rows', [None, 1, 7, 40])
def test_refinement(published, rows):
    meta, _, numbers = published
    refined = refine_mask(numbers['pamr.image'], numbers['pamr.mask_in'], meta['pamr']['steps'], tuple(meta['pamr']['dilations']),
                          rows=rows)
    assert relative(refined, numbers['pamr.mask_out']) < 1e-4


@pytest.mark.parametrize('dense', DENSE)
@pytest.mark.parametrize('size', [(48, 40), (8, 8), (31, 97)])
def test_any_size(dense, size):
    model = TrainingFree(TINY, 'random', dense=dense).eval()
    for text_prompts in ('mean', 'mps'):
        model.text_prompts = text_prompts
        with torch.no_grad(): out = model(pictures(2, size), prompts(5))
        assert out.mask_probs().shape == (2, 5, *size) and out.score_map.isfinite().all()
        assert float(out.score_map.abs().max()) <= 1 + 1e-4


def test_what_is_no_rule():
    for name, value in dict(dense='nacl', text_prompts='max', positions='nearest', eps=0., solver='magic').items():
        with pytest.raises(InputError): TrainingFree(TINY, 'random', **{name: value})(pictures(1, (16, 40)), prompts(2))
