"CLIP weights in every kind of file: the same scores, from another working directory, without a network"
import json
import socket
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from given.shell import data_set, shell
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import save_file

from otseg.core import InputError, seed_everything
from otseg.model import clip as room
from otseg.model.checkpoint import load_checkpoint, save_checkpoint
from otseg.model.clip import load_clip, text_embeddings, weights_file, weights_id, weights_kind
from otseg.model.config import OTSegConfig, clip_config
from otseg.model.otseg import OTSeg
from otseg.predict import Segmenter

IGNORED = ':.*meaningless.*', ':.*is a program', '::FutureWarning', '::DeprecationWarning', '::torch.jit.TracerWarning'
pytestmark = [pytest.mark.filterwarnings(f'ignore{x}') for x in IGNORED]
SMALL = dict(model_cfg=dict(embed_dim=16, quick_gelu=True,
                            vision_cfg=dict(image_size=32, patch_size=8, width=24, head_width=12, layers=1),
                            text_cfg=dict(context_length=8, vocab_size=9, width=24, heads=2, layers=1)),
             words=['a', 'cat', 'dog', 'of', 'photo', 'red'])
B16 = 'ViT-B-16-quickgelu'


def as_torchscript(clip, folder, described):
    "As OpenAI's: a traced program with three numbers beside the weights"
    text, size = described['model_cfg']['text_cfg'], described['model_cfg']['vision_cfg']['image_size']
    for name, value in dict(input_resolution=size, **{k: text[k] for k in ('context_length', 'vocab_size')}).items():
        if hasattr(clip, name): delattr(clip, name)
        clip.register_buffer(name, torch.tensor(value))
    tokens = torch.ones(1, text['context_length'], dtype=torch.long)
    torch.jit.trace(clip, (torch.zeros(1, 3, size, size), tokens), check_trace=False).save(folder/'scripted.pt')
    return 'scripted.pt'


def as_state_dict(clip, folder, described):
    torch.save(clip.state_dict(), folder/'random_plain.pt')
    return 'random_plain.pt'


def as_training_checkpoint(clip, folder, described):
    state = {f'module.{k}': v for k, v in clip.state_dict().items()}
    torch.save(dict(epoch=3, name='run', state_dict=state, optimizer=dict(state={}, param_groups=[])), folder/'epoch_3.pt')
    return 'epoch_3.pt'


def as_safetensors(clip, folder, described):
    save_file(clip.state_dict(), folder/'clip.safetensors')
    return 'clip.safetensors'


def as_bin(clip, folder, described):
    torch.save(clip.state_dict(), folder/'open_clip_pytorch_model.bin')
    return 'open_clip_pytorch_model.bin'


def as_folder(clip, folder, described):
    (folder/'published').mkdir()
    save_file(clip.state_dict(), folder/'published/open_clip_model.safetensors')
    (folder/'published/open_clip_config.json').write_text(json.dumps(dict(model_cfg=described['model_cfg'])), encoding='utf-8')
    return 'local-dir:published'


def as_hub(clip, folder, described):
    "In the cache of the Hub's client, where a download leaves it"
    kept = folder/'hub/models--org--clip'
    (kept/'refs').mkdir(parents=True)
    (kept/'refs/main').write_text('0' * 40, encoding='utf-8')
    snapshot = kept/'snapshots'/('0' * 40)
    snapshot.mkdir(parents=True)
    save_file(clip.state_dict(), snapshot/'open_clip_model.safetensors')
    return 'hf-hub:org/clip'


KINDS = [as_state_dict, as_torchscript, as_training_checkpoint, as_safetensors, as_bin, as_folder, as_hub]


@pytest.fixture
def offline(monkeypatch, tmp_path):
    def refuse(*args, **kwargs): raise AssertionError('the network is asked')
    for name in ('connect', 'connect_ex'): monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path/'hub'))
    monkeypatch.setenv('OTSEG_CACHE', str(tmp_path/'cache'))


def model_on(clip, weights, size):
    seed_everything(0)
    return OTSeg(OTSegConfig(clip=clip, weights=weights, vpt_tokens=2, image_size=size)).eval()


@pytest.mark.parametrize('clip, names, size', [
    pytest.param(SMALL, ['cat', 'dog', 'red cat'], 32, id='small'),
    pytest.param(B16, ['cat', 'dog', 'street lamp'], 224, id='b16', marks=pytest.mark.slow)])
@pytest.mark.parametrize('kind', KINDS, ids=lambda k: k.__name__[3:])
def test_the_same_scores_from_every_kind_of_file(kind, clip, names, size, tmp_path, monkeypatch, offline):
    "Asked of a checkpoint that was written in another working directory"
    picture = np.random.default_rng(0).integers(0, 256, (size, size + 8, 3), dtype=np.uint8)
    templates = ['a photo of a {}.', 'a {}']
    want = Segmenter(model_on(clip, 'random:1', size)).predict(picture, names, templates).probs
    home, away = tmp_path/'home', tmp_path/'away'
    home.mkdir(), away.mkdir()
    weights = kind(load_clip(clip, 'random:1'), tmp_path if kind is as_hub else home, clip_config(clip))
    monkeypatch.chdir(home)
    save_checkpoint(model_on(clip, weights, size), 'kept')
    monkeypatch.chdir(away)
    got = Segmenter.from_pretrained(str(home/'kept')).predict(picture, names, templates).probs
    torch.testing.assert_close(got, want, atol=1e-6, rtol=0)
    assert (want.amax(0) - want.amin(0)).max() > 1e-4  # scores that weights can change


@pytest.mark.parametrize('kind', KINDS, ids=lambda k: k.__name__[3:])
def test_what_the_name_of_weights_says(kind, tmp_path, monkeypatch, offline):
    "A file is known by its content; a program is opened with a word, other files without"
    weights = kind(load_clip(SMALL, 'random:1'), tmp_path, clip_config(SMALL))
    monkeypatch.chdir(tmp_path)
    assert weights_kind(SMALL, weights) == ('hub' if kind is as_hub else 'file')
    assert weights_id(SMALL, weights) == f'sha256:{room.file_sha256(weights_file(SMALL, weights))}'
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always', UserWarning)
        load_clip(SMALL, weights)
    assert [str(w.message).split(' is a program')[0] for w in told] == (['scripted.pt'] if kind is as_torchscript else [])


def test_plain_tensors_are_no_program(tmp_path, monkeypatch):
    "`torch.load` with weights_only reads what is no TorchScript archive; nothing else opens it"
    as_state_dict(load_clip(SMALL, 'random:1'), tmp_path, None)
    monkeypatch.setattr(torch.jit, 'load', None)
    load_clip(SMALL, tmp_path/'random_plain.pt')


def test_a_program_in_a_pickle_is_refused(tmp_path):
    class Evil:
        def __reduce__(self): return (Path.touch, (tmp_path/'was_here',))
    torch.save(dict(load_clip(SMALL, 'random:1').state_dict(), more=Evil()), tmp_path/'evil.pt')
    with pytest.raises(InputError, match='should hold tensors and plain values alone'): load_clip(SMALL, tmp_path/'evil.pt')
    assert not (tmp_path/'was_here').exists()


@pytest.mark.parametrize('trained', [True, False])
def test_the_activation_of_a_published_folder_counts(trained, tmp_path):
    described = dict(SMALL['model_cfg'], quick_gelu=trained)
    as_folder(load_clip(SMALL, 'random:1'), tmp_path, dict(model_cfg=described))
    def ask(): return text_embeddings([['a cat']], SMALL, f'local-dir:{tmp_path/"published"}', tmp_path/'cache')
    if trained: ask()
    else:
        with pytest.raises(InputError, match='should run as open_clip_config.json beside it says'): ask()


OTHER = 'should be CLIP weights, in a file that torch.save wrote, got a file of another kind. Check'
NO_WEIGHTS = {
    'a picture': (b'\xff\xd8\xff\xe0 JFIF', OTHER),
    'text': (b'hello', OTHER),
    'nothing': (b'', 'should be CLIP weights, in a file that torch.save wrote, got an empty file. Check'),
    'half an archive': (b'PK\x03\x04' + 99 * b'x', 'cannot be read as CLIP weights ('),
    'half a pickle': (b'\x80\x02}q', 'cannot be read as CLIP weights (')}


@pytest.mark.parametrize('what', NO_WEIGHTS)
def test_what_is_no_file_of_weights(what, tmp_path):
    "Told by what it is; nobody is advised to run what it holds"
    content, says = NO_WEIGHTS[what]
    (tmp_path/'w.pt').write_bytes(content)
    with pytest.raises(InputError) as told: load_clip(SMALL, tmp_path/'w.pt')
    assert str(told.value).startswith(f'{tmp_path}/w.pt {says}') and 'weights_only' not in str(told.value)


def test_a_folder_of_weights_is_named_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('mine').mkdir()
    with pytest.raises(InputError, match="should be named by its path, got 'mine'. Write \"./mine\""): load_clip(B16, 'mine')
    with pytest.raises(InputError, match='got an empty folder. Name the file itself'): load_clip(B16, './mine')


# the statistics that are written beside weights

HALF = dict(preprocess_cfg=dict(mean=[.5, .5, .5], std=[.5, .25, .5], interpolation='bicubic', resize_mode='shortest'))


def stating(kind, folder, facts=HALF):
    "Weights in a folder or in the cache of the Hub, with the file beside them as open_clip writes it"
    weights = kind(load_clip(SMALL, 'random:1'), folder, SMALL)
    (file,) = folder.rglob('open_clip_model.safetensors')
    beside = dict(model_cfg=SMALL['model_cfg'], **facts)
    file.with_name('open_clip_config.json').write_text(json.dumps(beside, indent=2), encoding='utf-8')
    return weights


def cosines(seg, picture, names=('cat', 'dog')):
    s = seg.predict(picture, list(names), ['a {}'])
    return s.output.mask_probs(0.)


@pytest.mark.parametrize('kind', [as_folder, as_hub], ids=lambda k: k.__name__[3:])
def test_a_clip_is_fed_as_the_file_beside_its_weights_says(kind, tmp_path, monkeypatch, offline):
    "Without training, in a model that is made on it, and in a checkpoint of that, whatever the file says later"
    monkeypatch.chdir(tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    own = ((.5,) * 3, (.5, .25, .5))
    assumed = Segmenter.from_clip(SMALL, weights='random:1', side=32, window=32)
    described = SMALL | dict(image_mean=[.5, .5, .5], image_std=[.5, .25, .5])
    want = cosines(Segmenter.from_clip(described, weights='random:1', side=32, window=32), picture)
    weights = stating(kind, tmp_path)
    free = Segmenter.from_clip(SMALL, weights=weights, side=32, window=32)
    assert (free.preprocess.mean, free.preprocess.std) == own
    torch.testing.assert_close(cosines(free, picture), want)
    assert (cosines(assumed, picture) - want).abs().max() > 1e-3
    model = model_on(SMALL, weights, 32)
    assert (model.config.image_mean, model.config.image_std) == own and Segmenter(model).preprocess.mean == own[0]
    save_checkpoint(model, 'kept')
    (file,) = tmp_path.rglob('open_clip_config.json')
    file.write_text(json.dumps(dict(model_cfg=SMALL['model_cfg'])), encoding='utf-8')
    assert load_checkpoint('kept').model.config.image_std == own[1]
    assert Segmenter.from_clip(SMALL, weights=weights).preprocess == Segmenter.from_clip(SMALL, weights='random').preprocess
    given = model_on(SMALL, 'random:1', 32).config
    stating_again = OTSegConfig(clip=SMALL, weights=weights, image_mean=(.1, .2, .3), image_std=given.image_std)
    assert OTSeg(stating_again).config.image_mean == (.1, .2, .3)      # what is asked for counts


def test_statistics_of_the_hub_are_fetched_before_the_weights(tmp_path, monkeypatch):
    asked, weights = [], stating(as_folder, tmp_path)
    def download(repo, name):
        asked.append((repo, name))
        path = tmp_path/'published'/name
        if not path.is_file(): raise EntryNotFoundError(name)
        return str(path)
    monkeypatch.setattr(room, 'hub_reachable', lambda: True)
    monkeypatch.setattr(room, 'hf_hub_download', download)
    seg = Segmenter.from_clip(SMALL, weights='hf-hub:org/clip')
    assert seg.preprocess.mean == (.5,) * 3 and asked[0] == ('org/clip', 'open_clip_config.json')
    assert {name for _, name in asked} == {'open_clip_config.json', 'open_clip_model.safetensors'}
    torch.testing.assert_close(seg.model.image_encoder.clip.proj, load_clip(SMALL, f'{tmp_path}/{weights[10:]}').visual.proj)


@pytest.mark.parametrize('kind', [as_folder, as_hub], ids=lambda k: k.__name__[3:])
def test_a_training_feeds_its_clip_as_the_file_says(kind, tmp_path, monkeypatch, offline):
    "Its recipe says so too, and it goes on with that; a recipe that states other statistics keeps them"
    monkeypatch.chdir(tmp_path)
    weights = stating(kind, tmp_path)
    data_set(tmp_path/'data', ['cat', 'dog'], ['dog'], train=2)
    Path('small.json').write_text(json.dumps(SMALL), encoding='utf-8')
    how = '--image_size 32 --batch_size 2 --workers 0 --vpt_tokens 2 --save_every 1 --clip small.json'.split()
    how += ['--weights', weights, '--data', 'data', '--templates', '1']
    def recipe(run): return json.loads(Path(run, 'recipe.json').read_text(encoding='utf-8'))['model']
    for more in ([], ['--resume']):
        code, out, err = shell('otseg-train', 'folder-inductive', *how, '--steps', 1, '--output', 'run', *more)
        assert code == 0, err
        assert (recipe('run')['image_mean'], recipe('run')['image_std']) == ([.5] * 3, [.5, .25, .5])
    assert Segmenter.from_pretrained('run').preprocess.mean == (.5,) * 3
    more = '--steps 1 --output other --image_mean (.1,.2,.3)'.split()
    code, out, err = shell('otseg-train', 'folder-inductive', *how, *more)
    assert code == 0 and recipe('other')['image_mean'] == [.1, .2, .3] and recipe('other')['image_std'] == [.5, .25, .5], err


@pytest.mark.parametrize('facts, says', [
    (dict(preprocess_cfg=dict(mean=.5)), 'three numbers for preprocess_cfg.mean, got 0.5'),
    (dict(preprocess_cfg=dict(std=[1, 0, 1])), r'three positive numbers for preprocess_cfg.std, got \[1, 0, 1\]'),
    (dict(preprocess_cfg='half'), "an object as its preprocess_cfg, got 'half'")])
def test_statistics_that_are_none(facts, says, tmp_path):
    stating(as_folder, tmp_path, facts)
    with pytest.raises(InputError, match=f'open_clip_config.json should have {says}'):
        Segmenter.from_clip(SMALL, weights=f'local-dir:{tmp_path}/published')


# weights that have moved

def moved(tmp_path, record=True):
    "A checkpoint in old/run/kept on old/clip.safetensors, both then in new/"
    old = tmp_path/'old'
    old.mkdir()
    as_safetensors(load_clip(SMALL, 'random:1'), old, None)
    folder = save_checkpoint(model_on(SMALL, str(old/'clip.safetensors'), 32), old/'run/kept')
    if not record:
        config = json.loads((folder/'config.json').read_text(encoding='utf-8'))
        del config['clip_files']
        (folder/'config.json').write_text(json.dumps(config), encoding='utf-8')
    old.rename(tmp_path/'new')
    return tmp_path/'new'


@pytest.mark.parametrize('record', [True, False], ids=['recorded', 'older'])
@pytest.mark.parametrize('where', ['.', 'run', 'run/kept'])
def test_weights_are_found_from_the_checkpoint(where, record, tmp_path):
    "By place or by name, also for a checkpoint that does not say what the content was: there its fingerprint tells"
    new = moved(tmp_path, record)
    (new/'clip.safetensors').rename(new/where/'clip.safetensors')
    assert Path(load_checkpoint(new/'run/kept').model.config.weights) == new/where/'clip.safetensors'


@pytest.mark.parametrize('record', [True, False], ids=['recorded', 'older'])
def test_other_weights_of_the_name_are_refused(record, tmp_path):
    new = moved(tmp_path, record)
    save_file(load_clip(SMALL, 'random:2').state_dict(), new/'clip.safetensors')
    with pytest.raises(InputError, match='should sit on the CLIP weights.*--weights FILE'): load_checkpoint(new/'run/kept')


def test_weights_that_are_gone_are_told_with_the_option(tmp_path):
    new = moved(tmp_path)
    (new/'clip.safetensors').rename(tmp_path/'elsewhere.safetensors')
    with pytest.raises(InputError, match='no such file, and none of its name beside the checkpoint.*--weights FILE'):
        load_checkpoint(new/'run/kept')
    load_checkpoint(new/'run/kept', weights=str(tmp_path/'elsewhere.safetensors'))
    with pytest.raises(InputError, match='no such file'):  # what the user names is not looked for
        load_checkpoint(new/'run/kept', weights=str(tmp_path/'typo.safetensors'))


def test_the_text_tower_is_found_by_its_content_alone(tmp_path):
    "No fingerprint tells another text tower; so a name is not enough"
    old = tmp_path/'old'
    old.mkdir()
    as_safetensors(load_clip(SMALL, 'random:1'), old, None)
    model = model_on(SMALL, 'random:1', 32)
    model.config.weights, model.config.text_weights = 'embedded', str(old/'clip.safetensors')
    save_checkpoint(model, old/'kept')
    old.rename(tmp_path/'new')
    assert load_checkpoint(tmp_path/'new/kept').model.config.text_weights == str(tmp_path/'new/clip.safetensors')
    save_file(load_clip(SMALL, 'random:2').state_dict(), tmp_path/'new/clip.safetensors')
    seg = Segmenter.from_pretrained(str(tmp_path/'new/kept'))
    with pytest.raises(InputError, match='no such file. Name one with --weights FILE'): seg.question('cat,dog', ['a {}'])
