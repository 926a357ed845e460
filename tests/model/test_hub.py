"A model goes to the Hub and comes back; the Hub itself is a folder here"
import shutil

import pytest
import torch
from huggingface_hub import HfApi

import otseg.model.checkpoint
from otseg.predict.segmenter import Segmenter
from otseg.data.toy import toy_scene


@pytest.fixture
def hub(tmp_path, monkeypatch):
    "What the Hub was asked for, by name of the repository"
    def create(self, repo_id, **kwargs): return type('Repo', (), dict(repo_id=repo_id))
    def upload(self, *, repo_id, folder_path, **kwargs): shutil.copytree(folder_path, tmp_path/repo_id)
    def download(repo_id, **kwargs): return str(tmp_path/repo_id)
    monkeypatch.setattr(HfApi, 'create_repo', create)
    monkeypatch.setattr(HfApi, 'upload_folder', upload)
    monkeypatch.setattr(otseg.model.checkpoint, 'snapshot_download', download)
    return tmp_path


def test_there_and_back(hub):
    mine = Segmenter.from_pretrained('toy', device='cpu')
    mine.push_to_hub('me/toy-world', model_card_kwargs=dict(title='Toy world', repo='me/toy-world'))
    files = sorted(p.name for p in (hub/'me/toy-world').iterdir())
    assert files == ['README.md', 'config.json', 'model.safetensors']
    card = (hub/'me/toy-world/README.md').read_text(encoding='utf-8')
    assert 'from_pretrained("me/toy-world")' in card and 'pipeline_tag: image-segmentation' in card
    yours = Segmenter.from_pretrained('me/toy-world', device='cpu')
    scene = toy_scene(1).image
    a, b = (s.predict(scene, ['sky', 'donut']) for s in (mine, yours))
    assert (a.labels == b.labels).all() and torch.equal(a.probs, b.probs)
