"What a data set is and which files belong to it, in the folders, lists and tables that people have"
import builtins
import json
import os
import shutil
import unicodedata
from pathlib import Path

import pytest
from given.layouts import lines, mask, picture
from hypothesis import given
from hypothesis import strategies as st

from otseg.core import IGNORE
from otseg.data.layouts import Item, MaskSource, data_identity, identity_changes
from otseg.data.reading import SegmentationDataset, ToyDataset, load_dataset, source_table
from otseg.model.vocab import Vocab, load_vocab

NAMES = ['road', 'sky', 'sofa', 'chair']


def described(root, **more):
    root.mkdir(parents=True, exist_ok=True)
    (root/'dataset.json').write_text(json.dumps(dict(names=NAMES) | more), encoding='utf-8')


@pytest.fixture
def world(tmp_path):
    "Four pictures to train on, two of them in a sub-folder, and one to score"
    root = tmp_path/'data'
    for split, names in dict(train=('a', 'b', 'day/a', 'day/c'), val=('v',)).items():
        for i, name in enumerate(names):
            picture(root/f'images/{split}/{name}.jpg', size=(30 + i, 20))
            mask(root/f'masks/{split}/{name}.png', [0, 1, 2, 3], size=(30 + i, 20), palette=False)
    described(root, unseen=['sofa'])
    return root


# the identity

def test_identity_of_a_folder_is_that_of_its_copy(world, tmp_path, monkeypatch):
    there = load_dataset('folder', world).identity()
    assert there == json.loads(json.dumps(there))
    assert (there['dataset'], there['split'], there['names'], there['unseen']) == ('folder', 'train', NAMES, ['sofa'])
    assert (there['ignore'], there['map'], there['reduce_zero_label'], there['pictures']) == ([], {}, False, 4)
    assert str(tmp_path) not in json.dumps(there)
    shutil.copytree(world, tmp_path/'elsewhere/copy')
    assert load_dataset('folder', tmp_path/'elsewhere/copy').identity() == there
    monkeypatch.chdir(world)
    assert load_dataset('folder', '.').identity() == there
    lines(world/'train.txt', ['day/c', 'b', 'day/a', 'a'])                     # the same pictures, in another order
    assert load_dataset('folder', world).identity() == there


CHANGES = {
    'unseen': (lambda r: described(r, unseen=['chair']), '`unseen` was sofa, now chair'),
    'seen instead': (lambda r: described(r, seen=['road']), '`unseen` was sofa, now sky, sofa, chair'),
    'none unseen': (lambda r: described(r), '`unseen` was sofa, now nothing'),
    'ignore': (lambda r: described(r, unseen=['sofa'], ignore=[3, 9]), '`ignore` was nothing, now 3, 9'),
    'zero': (lambda r: described(r, unseen=['sofa'], reduce_zero_label=True), '`reduce_zero_label` was false, now true'),
    'a name': (lambda r: described(r, names=['road', 'sky', 'sofa', 'seat'], unseen=['sofa']),
               '`names`: class 3 was chair, now seat'),
    'a class more': (lambda r: described(r, names=[*NAMES, 'cow'], unseen=['sofa']), '`names` were 4 classes, now 5'),
    'order': (lambda r: described(r, names=['sky', 'road', 'sofa', 'chair'], unseen=['sofa']),
              '`names`: class 0 was road, now sky (and 1 more)'),
    'a picture more': (lambda r: [shutil.copy(r/f'{k}/train/a{e}', r/f'{k}/train/new{e}') for k, e in
                                  (('images', '.jpg'), ('masks', '.png'))], '`pictures` were 4, now 5'),
    'another picture': (lambda r: picture(r/'images/train/a.jpg', size=(30, 20), quality=20),
                        'the pictures have other names or other sizes in bytes than before'),
    'renamed': (lambda r: [(r/f'{k}/train/a{e}').rename(r/f'{k}/train/z{e}') for k, e in (('images', '.jpg'), ('masks', '.png'))],
                'the pictures have other names or other sizes in bytes than before'),
    'palette': (lambda r: described(r, unseen=['sofa'], palette=[[i, 0, 0] for i in range(4)]),
                '`palette` was nothing, now [0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]'),
    'map': (lambda r: described(r, unseen=['sofa'], map={'0': 1, '1': 'road', '2': 2, '3': 3, '4': 3}),
            '`map` was nothing, now 0 -> 1, 1 -> 0, 4 -> 3'),
    'orientation': (lambda r: described(r, unseen=['sofa'], orientation='stored'), '`orientation` was nothing, now stored'),
    'a list': (lambda r: lines(r/'train.txt', ['a', 'b']), '`pictures` were 4, now 2')}


@pytest.mark.parametrize('kind', CHANGES)
def test_every_change_is_told(world, kind):
    before = load_dataset('folder', world).identity()
    change, says = CHANGES[kind]
    change(world)
    assert identity_changes(json.loads(json.dumps(before)), load_dataset('folder', world).identity()) == [says]


@pytest.mark.parametrize('more', [dict(unseen=[2]), dict(seen=['road', 'sky', 'chair']), dict(unseen=['sofa'], ignore=255),
                                  dict(unseen=['sofa'], templates='8', name='other')])
def test_the_same_said_otherwise_is_no_change(world, more):
    before = load_dataset('folder', world).identity()
    described(world, **more)
    assert identity_changes(before, load_dataset('folder', world).identity()) == []


def test_other_splits_are_told(world):
    before, toy = load_dataset('folder', world).identity(), ToyDataset('val', 20)
    assert identity_changes(before, load_dataset('folder', world, 'val').identity()) == [
        '`split` was train, now val', '`pictures` were 4, now 1']
    other = load_dataset('folder', world, vocab=Vocab('mine', NAMES, unseen=(0, 3))).identity()
    assert identity_changes(before, other) == ['`unseen` was sofa, now road, chair']
    assert toy.identity()['dataset'] == 'toy' and toy.identity() == ToyDataset('val', 20).identity()
    assert identity_changes(toy.identity(), load_dataset('toy', split='val', n=21).identity()) == ['`pictures` were 20, now 21']
    assert identity_changes(toy.identity(), ToyDataset('val', 20, size=64).identity()) == [
        'the pictures have other names or other sizes in bytes than before']
    assert len(identity_changes(before, toy.identity())) >= 4


def test_what_an_old_record_lacks_is_unknown(world):
    now = load_dataset('folder', world).identity()
    for key in now:
        assert identity_changes({k: v for k, v in now.items() if k != key}, now) == []
        assert identity_changes(now | {key: None}, now) == []
    assert identity_changes({}, now) == []
    assert identity_changes(dict(unseen=[], colour='red'), now) == ['`unseen` was nothing, now sofa']


def test_a_picture_that_has_gone_is_a_change(world):
    data = load_dataset('folder', world)
    before = data.identity()
    data.items[0].image.unlink()
    assert identity_changes(before, data.identity()) == ['the pictures have other names or other sizes in bytes than before']


def test_published_masks_have_rules_too(tmp_path):
    picture(tmp_path/'train/a.png')
    mask(tmp_path/'trainannot/a.png', [0, 11])
    lines(tmp_path/'train.txt', ['a'])
    found = load_dataset('camvid', tmp_path).identity()
    assert found['ignore'] == [11] and found['names'] == list(load_vocab('camvid11').names)


keys = st.text(st.characters(exclude_categories=['Cs', 'Cc']), min_size=1, max_size=8)
pictures = st.dictionaries(keys.map(lambda k: unicodedata.normalize('NFC', k)), st.integers(0, 10**9), min_size=1, max_size=6)


@given(pictures, pictures, st.randoms())
def test_identities_are_equal_for_equal_pictures_alone(one, other, random):
    street = Vocab('street', NAMES)
    identity = lambda files: data_identity('folder', 'train', street, [MaskSource()], files)
    mixed = [*one.items()]
    random.shuffle(mixed)
    decomposed = [(unicodedata.normalize('NFD', key), size) for key, size in mixed]     # as some file systems hand names out
    assert identity(one.items()) == identity(mixed) == identity(decomposed)
    assert (identity_changes(identity(one.items()), identity(other.items())) == []) == (one == other)


@given(st.booleans(), st.dictionaries(st.integers(0, 255), st.sampled_from([0, 1, 2, 3, IGNORE]), max_size=5))
def test_rules_are_compared_by_what_they_mean(reduce, table):
    "Two kinds of masks have one identity exactly where every value means the same"
    street, plain = Vocab('street', NAMES), MaskSource(reduce_zero_label=reduce)
    source = MaskSource(reduce_zero_label=reduce, label_map=table)
    identity = lambda s: data_identity('folder', 'train', street, [s], [('a', 1)])
    same = bool((source_table(source, 4) == source_table(plain, 4)).all())
    assert (identity_changes(identity(plain), identity(source)) == []) == same


def test_files_are_not_opened(tmp_path, monkeypatch):
    "A hundred thousand pictures cost one look at the size of each"
    (tmp_path/'x.jpg').write_bytes(b'no picture')
    items = [Item(tmp_path/'x.jpg', tmp_path/'none.png', f'{i:06}') for i in range(100_000)]
    data = SegmentationDataset(items, Vocab('street', NAMES))
    looks, stat = [], os.stat
    monkeypatch.setattr(os, 'stat', lambda *args, **kwargs: looks.append(args) or stat(*args, **kwargs))
    monkeypatch.setattr(Path, 'open', None)
    monkeypatch.setattr(builtins, 'open', None)
    found = data.identity()
    monkeypatch.undo()
    assert found['pictures'] == len(looks) == 100_000
