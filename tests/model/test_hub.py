"A model goes to the Hub and comes back; the Hub itself is a folder here"
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import HfApi

import otseg.model.checkpoint
from otseg.commands.score import Asked, clip_case
from otseg.core import InputError
from otseg.data.toy import toy_scene
from otseg.model.checkpoint import load_checkpoint
from otseg.predict.segmenter import Segmenter


@pytest.fixture
def hub(tmp_path, monkeypatch):
    "A folder in the place of the Hub, by name of the repository; what it was asked for stands in `.asked`"
    def create(self, repo_id, **kwargs): return type('Repo', (), dict(repo_id=repo_id))
    def upload(self, *, repo_id, folder_path, **kwargs): shutil.copytree(folder_path, tmp_path/repo_id)
    def download(repo_id, **kwargs):
        asked.append((repo_id, kwargs))
        return str(tmp_path/repo_id)
    asked = []
    monkeypatch.setattr(HfApi, 'create_repo', create)
    monkeypatch.setattr(HfApi, 'upload_folder', upload)
    monkeypatch.setattr(otseg.model.checkpoint, 'snapshot_download', download)
    monkeypatch.setattr(otseg.model.checkpoint, 'hub_reachable', lambda: True)
    return SimpleNamespace(folder=tmp_path, asked=asked)


@pytest.fixture
def published(hub):
    "The toy checkpoint on the Hub, and its config.json"
    Segmenter.from_pretrained('toy', device='cpu').push_to_hub('me/toy')
    return hub.folder/'me/toy/config.json'


def test_there_and_back(hub):
    mine = Segmenter.from_pretrained('toy', device='cpu')
    mine.push_to_hub('me/toy-world', model_card_kwargs=dict(title='Toy world', repo='me/toy-world'))
    files = sorted(p.name for p in (hub.folder/'me/toy-world').iterdir())
    assert files == ['README.md', 'config.json', 'model.safetensors']
    card = (hub.folder/'me/toy-world/README.md').read_text(encoding='utf-8')
    assert 'from_pretrained("me/toy-world")' in card and 'pipeline_tag: image-segmentation' in card
    yours = Segmenter.from_pretrained('me/toy-world', device='cpu')
    scene = toy_scene(1).image
    a, b = (s.predict(scene, ['sky', 'donut']) for s in (mine, yours))
    assert (a.labels == b.labels).all() and torch.equal(a.probs, b.probs)


ASKED = {}, dict(revision='v2'), dict(token='hf_secret'), dict(revision='a' * 40, token='hf_secret')


@pytest.mark.parametrize('given', ASKED, ids=str)
def test_revision_and_token_reach_the_hub(given, hub, published):
    "As they were given, from the front door and from the room behind it; nothing in their place where they were not"
    for load in (Segmenter.from_pretrained, load_checkpoint):
        hub.asked.clear()
        load('me/toy', **given)
        [(repo, how)] = hub.asked
        assert repo == 'me/toy' and (how['revision'], how['token']) == (given.get('revision'), given.get('token'))
        assert how['local_files_only'] is False


def test_a_revision_is_of_the_hub(hub):
    for name in ('toy', 'clip', hub.folder):
        with pytest.raises(InputError, match='`revision` should be asked of a checkpoint on the Hub'):
            Segmenter.from_pretrained(str(name), revision='v2')
    assert not hub.asked


HERE = '/home/me/clip.pt', 'clip.safetensors', './clip', '../clip', '~/clip', 'local-dir:clip', 'C:\\clip.bin'


@pytest.mark.parametrize('where', [('model', 'weights'), ('model', 'text_weights'), ('model', 'clip'), ('recipe', 'clip'),
                                   ('recipe', 'weights')], ids='.'.join)
def test_a_config_of_the_hub_names_no_place_of_this_machine(where, published, tmp_path, monkeypatch):
    "Whatever of its settings names it, be it there or not, no file is read; as it was published it loads"
    (tmp_path/'away').mkdir()
    monkeypatch.chdir(tmp_path/'away')
    for name in ('clip.json', 'clip.safetensors', 'clip'): Path(name).write_text('{}', encoding='utf-8')
    whole = json.loads(published.read_text(encoding='utf-8'))
    part, field = where
    for place in ('clip.json', './clip.json') if field == 'clip' else HERE:
        config = json.loads(json.dumps(whole))
        (config['model'] if part == 'model' else config['info']['recipe']['model'])[field] = place
        published.write_text(json.dumps(config), encoding='utf-8')
        says = 'should name its CLIP by architecture' if field == 'clip' else 'should name CLIP weights that everybody has'
        with pytest.raises(InputError, match=f"'me/toy' {says}, got the file"):
            if where == ('recipe', 'weights'): clip_case('me/toy', asked=Asked(n=1))  # which alone takes them from there
            else: Segmenter.from_pretrained('me/toy')
    published.write_text(json.dumps(whole), encoding='utf-8')
    Segmenter.from_pretrained('me/toy'), clip_case('me/toy', asked=Asked(n=1))
