"Image towers of every family of open_clip, made small: the parts of each stay as they are"
import copy
import functools

import pytest
import timm
from given.models import WORDS

from otseg.model.config import clip_config

# name of timm's tower, in part -> what makes it small; others are built without weights, or are slow
SMALL = {'_siglip_': dict(embed_dim=24, depth=2, num_heads=2), 'eva': dict(embed_dim=24, depth=2, num_heads=2),
         '_pe_core_': dict(embed_dim=24, depth=2, num_heads=2), 'convnext': dict(depths=(1, 1, 1, 1), dims=(8, 8, 16, 24))}


def shrunken(clip: str, words=WORDS) -> dict:
    "The description of an architecture with two blocks of 24 dimensions on a grid of 4 x 4 patches, and a small text tower"
    cfg = copy.deepcopy(clip_config(clip))
    model, vision = cfg['model_cfg'], cfg['model_cfg']['vision_cfg']
    model['embed_dim'] = 24
    if 'timm_model_name' not in vision:
        vision |= dict(width=24, layers=2, head_width=12, mlp_ratio=2., image_size=4 * vision['patch_size'])
    text = model['text_cfg']
    for name in ('hf_tokenizer_name', 'tokenizer_kwargs'): text.pop(name, None)
    model['text_cfg'] = text | dict(context_length=8, vocab_size=len(words) + 3, width=24, heads=2, layers=1, mlp_ratio=2.,
                                    eos_id=len(words) + 2)
    return cfg | dict(words=list(words))


@pytest.fixture
def small_timm(monkeypatch):
    "`timm.create_model` gives small towers"
    make = timm.create_model
    @functools.wraps(make)
    def small(name, **kwargs):
        few = next((v for k, v in SMALL.items() if k in name), {})
        if '_siglip_' in name: few = few | dict(img_size=4 * int(name.partition('patch')[2][:2]))
        return make(name, **few | kwargs)
    monkeypatch.setattr(timm, 'create_model', small)
