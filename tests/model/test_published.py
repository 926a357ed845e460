"What the published model does and a test of the whole would not notice: order of layers, dropout, statistics, whose weights"
import shutil

import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file

from given.authors import official
from given.models import TINY, WORDS, make, pictures
from otseg.core import IMAGENET_MEAN, IMAGENET_STD, InputError, l2_normalize
from otseg.model import checkpoint, clip
from otseg.model.checkpoint import load_official
from otseg.model.clip import load_clip, text_embeddings, weights_id
from otseg.model.decoder import DecoderLayer
from otseg.model.losses import pseudo_labels
from otseg.model.otseg import OTSegOutput
from otseg.transport.mpsa import MPSA

pytestmark = pytest.mark.filterwarnings('ignore:.*starts from random weights')


def random(*shape, seed=0): return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_decoder_layer_drops_out_in_three_places():
    "What the attention gives, the hidden units, and what the feed-forward net gives, as PyTorch's own decoder layer"
    layer, found = DecoderLayer(8, MPSA(8), 20), []
    layer.dropout.register_forward_hook(lambda module, inputs, output: found.append(inputs[0]))
    tokens, memory = random(1, 2, 3, 8), random(1, 5, 8, seed=1)
    with torch.no_grad():
        out = layer.eval()(tokens, memory)
        x = layer.norm1(tokens + layer.attention(tokens, memory).tokens)
        hidden = layer.linear1(x).relu()
        want = layer.attention(tokens, memory).tokens, hidden, layer.linear2(hidden)
        assert len(found) == 3
        for got, w in zip(found, want): torch.testing.assert_close(got, w)
        torch.testing.assert_close(out.tokens, layer.norm2(x + want[2]))


@pytest.mark.parametrize('depth', [1, 2, None])
def test_visual_prompts_are_replaced_and_leave(depth):
    "Each block has its own prompts in the place of the last one's; from the depth on, there are none"
    model, lengths = make(vpt_depth=depth).eval(), []
    for block in model.image_encoder.clip.transformer.resblocks:
        block.register_forward_pre_hook(lambda module, inputs: lengths.append(inputs[0].shape[1]))
    with torch.no_grad(): model.image_encoder(pictures(1))
    plain = 1 + 6 * 5  # the class token, and 48 x 40 pixels in patches of 8
    assert lengths == [plain + 3] * (depth or 3) + [plain] * (3 - (depth or 3))


def test_the_norm_of_the_prompts_comes_before_the_last_norm():
    "With a norm that gives one vector v whatever comes, each token is ln_post(v) in the joint space"
    model, v = make().eval(), random(48)
    encoder = model.image_encoder
    with torch.no_grad():
        encoder.prompt_norm.weight.zero_(); encoder.prompt_norm.bias.copy_(v)
        encoder.clip.ln_post.weight.copy_(random(48, seed=1)); encoder.clip.ln_post.bias.copy_(random(48, seed=2))
        visual, cls = encoder(pictures(1))
        want = l2_normalize(encoder.clip.ln_post(v) @ encoder.clip.proj)
    torch.testing.assert_close(cls[0], want)
    torch.testing.assert_close(visual[0, :, 2, 3], want)


def test_the_class_embedding_counts_twice_as_published():
    "The class token that enters is twice the embedding plus its position, once where a configuration says so"
    for double, times in ((True, 2), (False, 1)):
        encoder = make(double_class_embedding=double).eval().image_encoder
        with torch.no_grad():
            x, _ = encoder.embed(pictures(1))
            want = encoder.clip.ln_pre(times * encoder.clip.class_embedding + encoder.clip.positional_embedding[0])
        torch.testing.assert_close(x[0, 0], want)


def test_norms_may_have_a_decay_of_their_own():
    "Norms, biases and visual prompts in one group, matrices in the other; without a decay of their own they have the same"
    model = make()
    names = {p: n for n, p in model.named_parameters()}
    matrices, rest = model.parameter_groups(1e-3, .05, 0.)
    assert (matrices['weight_decay'], rest['weight_decay']) == (.05, 0.)
    assert {g['weight_decay'] for g in model.parameter_groups(1e-3, .05)} == {.05}
    assert all(names[p].endswith('.weight') and p.ndim == 2 for p in matrices['params'])
    assert {names[p] for p in rest['params']} >= {'image_encoder.prompts', 'image_encoder.prompt_norm.weight',
                                                   'head.decoder.layers.0.norm1.weight', 'head.decoder.last.q.bias'}
    assert {*map(names.get, matrices['params'] + rest['params'])} == {n for n, p in model.named_parameters() if p.requires_grad}


def two_paths():
    "Maps of one row of three pixels over a seen class and two unseen ones: the decoder says class 1, the score map class 2"
    decoder = torch.tensor([9., 2., 0.]).expand(3, 3).T[None, :, None].clone()
    score = torch.tensor([9., 0., 1.]).expand(3, 3).T[None, :, None].clone()
    return OTSegOutput(decoder, score, (), None, (1, 3))


def test_pseudo_labels_blend_as_told():
    labels = torch.tensor([[[-1, 0, 255]]])
    for blend, unseen in ((1., 1), (0., 2), (.5, 1)):
        assert pseudo_labels(two_paths(), labels, [0], blend=blend).tolist() == [[[unseen, 0, 255]]]


def test_the_threshold_of_pseudo_labels_is_a_probability():
    "A logit of 2 is a probability of .88: sure enough for .8, and not for .9, nor is it 2"
    labels = torch.tensor([[[-1, 0, 255]]])
    for threshold, filled in ((.8, 1), (.9, 255), (None, 1)):
        assert pseudo_labels(two_paths(), labels, [0], blend=1., threshold=threshold).tolist() == [[[filled, 0, 255]]]


@pytest.fixture
def authors(tmp_path):
    "A file in the authors' layout, with a tensor that the model has no place for"
    state = official(make(vpt_depth=2))
    state['decode_head.extra.weight'] = torch.ones(2)
    torch.save(dict(state_dict=state), tmp_path/'official.pth')
    return tmp_path/'official.pth'


def test_published_models_see_imagenet_statistics(authors):
    config = load_official(authors, heads=4).config
    assert (config.image_mean, config.image_std) == (IMAGENET_MEAN, IMAGENET_STD)


def test_tensors_without_a_place_are_told(authors):
    "What never takes part is dropped, what is unknown is named; neither is in the model"
    report = load_official(authors, heads=4).import_report
    assert report['ignored'] == ['decode_head.extra.weight']
    assert report['dropped'] == ['decode_head.decoder_1.layers.0.self_attn.in_proj_weight'] and report['dropped_parameters'] == 9


def test_the_published_model_is_asked_in_the_words_of_openai(tmp_path, monkeypatch):
    "Of the size of ViT-B/16, the text tower is OpenAI's; no such tower is known for another size"
    class Told(Exception): pass
    def tell(config, *more): raise Told(config)
    def t(*shape): return torch.zeros(1).expand(shape)  # a file of no size
    state = {'backbone.conv1.weight': t(768, 3, 16, 16), 'backbone.proj': t(768, 512),
             'backbone.positional_embedding': t(1025, 768), 'backbone.prompt_embeddings': t(1, 10, 768),
             'decode_head.q_proj.weight': t(512, 1024),
             'backbone.transformer.resblocks.0.mlp.c_fc.weight': t(3072, 768),
             'decode_head.decoder_1.layers.2.norm2.bias': t(512), 'decode_head.decoder_1.layers.0.linear1.weight': t(2048, 512),
             'backbone.transformer.resblocks.11.ln_1.bias': t(768)}
    torch.save(dict(state_dict=state), tmp_path/'b16.pth')
    monkeypatch.setattr(checkpoint, 'OTSeg', tell)
    with pytest.raises(Exception) as found: load_official(tmp_path/'b16.pth')
    error = found.value
    while not isinstance(error, Told): error = error.__cause__
    config = error.args[0]
    assert (config.clip, config.text_weights) == ('ViT-B-16-quickgelu', 'openai')
    assert (config.image_size, config.decoder_layers) == (512, 3)


def clip_file(path, seed):
    torch.manual_seed(seed)
    known = {k: TINY['model_cfg'][k] for k in ('embed_dim', 'vision_cfg', 'text_cfg', 'quick_gelu')}
    save_file({k: v.contiguous() for k, v in CLIP(**known).state_dict().items()}, path)


def test_weights_are_known_by_their_content(tmp_path):
    "Another content under a name is another one, and a copy under another name is the same"
    one, two = tmp_path/'one.safetensors', tmp_path/'two.safetensors'
    clip_file(one, 0); shutil.copy(one, two)
    first = weights_id(TINY, one)
    assert weights_id(TINY, two) == first
    clip_file(one, 1)
    assert weights_id(TINY, one) != first == weights_id(TINY, two)


def test_the_text_cache_tells_weights_apart(tmp_path):
    "Embeddings of other weights under the same name are not those of before; neither are those of another file"
    texts, file = [['a cat'], ['a dog']], tmp_path/'clip.safetensors'
    clip_file(file, 0)
    first = text_embeddings(texts, TINY, file, tmp_path/'cache')
    assert torch.equal(first, text_embeddings(texts, TINY, file, tmp_path/'cache'))
    clip_file(file, 1)
    second = text_embeddings(texts, TINY, file, tmp_path/'cache')
    assert (first - second).abs().max() > .01
    torch.testing.assert_close(second, text_embeddings(texts, TINY, file, False))


def test_the_text_cache_tells_words_apart(tmp_path):
    "The same weights with the words in another order read another sentence"
    texts, file = [['a cat'], ['a dog']], tmp_path/'clip.safetensors'
    clip_file(file, 0)
    first = text_embeddings(texts, TINY, file, tmp_path/'cache')
    turned = text_embeddings(texts, TINY | dict(words=WORDS[::-1]), file, tmp_path/'cache')
    assert (first - turned).abs().max() > .01


def test_weights_of_openai_run_with_quickgelu(monkeypatch):
    "By tag as by archive: with another activation they would give plausible, worse features"
    def loaded(name, **kwargs):
        cfg = {k: TINY['model_cfg'][k] for k in ('embed_dim', 'vision_cfg', 'text_cfg')}
        return CLIP(**cfg, quick_gelu=name.endswith('quickgelu'))
    monkeypatch.setattr(clip.open_clip, 'create_model', loaded)
    monkeypatch.setattr(clip, 'hub_reachable', lambda: True)
    with pytest.raises(InputError, match='QuickGELU.*Use the architecture ViT-B-16-quickgelu'): load_clip('ViT-B-16', 'openai')
    load_clip('ViT-B-16-quickgelu', 'openai')
