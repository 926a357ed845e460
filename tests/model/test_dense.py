"The training-free CLIPs against numbers that the published implementations produced; rules of the last block at any size"
import json

import pytest
import torch
import torch.nn.functional as F
from given.models import TINY, pictures, prompts
from safetensors.torch import load_file

from otseg.core import InputError
from otseg.data.reading import ToyDataset
from otseg.evaluate.metrics import ConfusionMatrix, segmentation_scores
from otseg.model.clip import encode_vocab
from otseg.model.config import PACKAGED
from otseg.model.dense import DENSE, TrainingFree
from otseg.model.vocab import load_vocab
from otseg.train.recipes import get_recipe, override
from otseg.evaluate.refine import class_scores, pixel_labels, refine_mask

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


# the rules once more, written from their words: a head and a token at a time, in double precision

def normed(x, weight, bias):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() * weight + bias


def cubic(t):
    "Keys' kernel with a = -3/4"
    t, a = abs(t), -.75
    if t <= 1: return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.


def stretched(row, n, kernel, reach, scale):
    "A list of vectors at n places, corners not aligned, edges continued"
    found = []
    for i in range(n):
        at = (i + .5) / scale - .5
        if reach == 1: at = max(at, 0.)
        near = [int(at // 1) + j for j in range(1 - reach, reach + 1)]
        found.append(sum(kernel(at - j) * row[min(max(j, 0), len(row) - 1)] for j in near))
    return found


def positions_at(table, grid, mode):
    side = round((len(table) - 1)**.5)
    if grid == (side, side): return table
    rows = [[table[1 + r * side + c] for c in range(side)] for r in range(side)]
    kernel, reach, more = (cubic, 2, .1) if mode == 'bicubic' else (lambda t: max(0., 1 - abs(t)), 1, 0.)
    rows = [stretched(row, grid[1], kernel, reach, (grid[1] + more) / side) for row in rows]
    columns = [stretched([row[c] for row in rows], grid[0], kernel, reach, (grid[0] + more) / side) for c in range(grid[1])]
    return torch.stack([table[0], *(column[r] for r in range(grid[0]) for column in columns)])


def attended(name, q, k, grid):
    "Shares of one head, (t, t)"
    t, scale = len(q), q.shape[1]**-.5
    def soft(a, b, more=lambda i, j: 0.):
        rows = []
        for i in range(t):
            e = torch.stack([(scale * (a[i] @ b[j]) + more(i, j)).exp() for j in range(t)])
            rows.append(e / e.sum())
        return torch.stack(rows)
    def near(i, j):
        if i == 0 or j == 0: return 0.
        (r, c), (u, v) = divmod(i - 1, grid[1]), divmod(j - 1, grid[1])
        return torch.exp(torch.tensor(-((r - u)**2 + (c - v)**2) / 50., dtype=q.dtype))
    return dict(vanilla=lambda: soft(q, k), maskclip=lambda: torch.eye(t, dtype=q.dtype), sclip=lambda: soft(q, q) + soft(k, k),
                kk=lambda: soft(k, k), naclip=lambda: soft(k, k, near), clearclip=lambda: soft(q, q))[name]()


def by_its_words(w, image, name, residual, heads, quick, mode):
    "Tokens (d, h, w) of one picture by the state dict of a tower"
    w = {k: v.double() for k, v in w.items()}
    patch, layers = w['conv1.weight'].shape[-1], 1 + max(int(k.split('.')[2]) for k in w if 'resblocks' in k)
    grid = tuple(s // patch for s in image.shape[1:])
    patches = image.double().unfold(1, patch, patch).unfold(2, patch, patch).flatten(1, 2)
    x = torch.stack([w['class_embedding'], *(w['conv1.weight'].flatten(1) @ p.flatten() for p in patches.unbind(1))])
    x = normed(x + positions_at(w['positional_embedding'], grid, mode), w['ln_pre.weight'], w['ln_pre.bias'])
    for i in range(layers):
        b = {k.removeprefix(f'transformer.resblocks.{i}.'): v for k, v in w.items() if f'resblocks.{i}.' in k}
        last, mixed = i == layers - 1, []
        y = normed(x, b['ln_1.weight'], b['ln_1.bias']) @ b['attn.in_proj_weight'].T + b['attn.in_proj_bias']
        q, k, v = y.chunk(3, -1)
        for a in range(heads):
            part = slice(a * q.shape[1] // heads, (a + 1) * q.shape[1] // heads)
            mixed.append(attended(name if last else 'vanilla', q[:, part], k[:, part], grid) @ v[:, part])
        mixed = torch.cat(mixed, -1) @ b['attn.out_proj.weight'].T + b['attn.out_proj.bias']
        if last and not residual:
            x = mixed
            continue
        x = x + mixed
        h = normed(x, b['ln_2.weight'], b['ln_2.bias']) @ b['mlp.c_fc.weight'].T + b['mlp.c_fc.bias']
        h = h / (1 + (-1.702 * h).exp()) if quick else h * (1 + torch.erf(h / 2**.5)) / 2
        x = x + h @ b['mlp.c_proj.weight'].T + b['mlp.c_proj.bias']
    x = normed(x, w['ln_post.weight'], w['ln_post.bias']) @ w['proj']
    return (x / x.norm(dim=-1, keepdim=True))[1:].T.unflatten(1, grid)


@pytest.mark.parametrize('dense', DENSE)
@pytest.mark.parametrize('layers, heads, quick, mode, grid', [
    (1, 2, False, 'bicubic', (3, 5)), (2, 3, True, 'bilinear', (5, 3)), (2, 1, True, 'bicubic', (4, 4)),
    (2, 2, True, 'bicubic', (2, 8))], ids=['gelu', 'bilinear', 'native', 'as-many'])
def test_rules_by_their_words(dense, layers, heads, quick, mode, grid):
    "Patches of 14 pixels, with and without the residual; as many tokens as in training on another grid are another grid"
    from otseg.model.clip import build_visual
    torch.manual_seed(3)
    vision = dict(image_size=56, patch_size=14, width=12, head_width=12 // heads, layers=layers, mlp_ratio=2.)
    clip = dict(model_cfg=dict(embed_dim=8, quick_gelu=quick, vision_cfg=vision))
    visual = build_visual(clip)
    for p in visual.parameters(): p.data = p + .2 * torch.randn_like(p)  # biases and norms that are not 0 and 1
    image = torch.randn(1, 3, 14 * grid[0], 14 * grid[1])
    for residual in (True, False):
        model = TrainingFree(clip, 'embedded', dense=dense, residual=residual, positions=mode, visual=visual).eval()
        with torch.no_grad(): got = model.tokens(image)[0]
        assert relative(got, by_its_words(visual.state_dict(), image[0], dense, residual, heads, quick, mode).float()) < 1e-4


@pytest.mark.parametrize('clip', PACKAGED)
def test_every_packaged_clip_segments_the_drawn_world(clip):
    "Its weights are those that its description tells of, and its words are those of the vocabulary"
    vocab, recipe = load_vocab('toy'), override(get_recipe('toy'), clip=clip)
    model, data = TrainingFree(clip, 'packaged', dense='vanilla').eval(), ToyDataset('val', 40, vocab, recipe.eval_transform())
    found, text = ConfusionMatrix(len(vocab)), encode_vocab(model.config, vocab).mean(1)
    for x in data:
        with torch.no_grad(): tokens, _ = model.encode_image(x['image'][None])
        maps = torch.einsum('bdhw,kd->bkhw', tokens, text)
        large = F.interpolate(maps, size=x['labels'].shape, mode='bilinear', align_corners=False)
        found.update(large.argmax(1), x['labels'][None])
    assert segmentation_scores(found, vocab.seen, vocab.unseen).hiou > .5
