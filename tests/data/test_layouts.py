"What a data set is and which files belong to it, in the folders, lists and tables that people have"
import builtins
import json
import os
import shutil
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from given.layouts import lines, mask, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL import Image as PILImage

import otseg.data.check
from otseg.core import IGNORE, InputError
from otseg.data.check import check_dataset, training_faults
from otseg.data.files import walk_files
from otseg.data.layouts import Item, MaskSource, data_identity, folder_layout, identity_changes
from otseg.data.listing import list_split
from otseg.data.masks import open_mask
from otseg.data.reading import SegmentationDataset, ToyDataset, load_dataset, source_table
from otseg.model.vocab import Vocab, load_vocab

SIZE = (60, 40)
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


def values(sample): return sample['labels'].unique().tolist()


def problems(report) -> dict:
    return {s.split: {kind: len(files) for kind, files in s.problems.items()} for s in report.splits}


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
    'profile': (lambda r: described(r, unseen=['sofa'], profile='ignore'), '`profile` was nothing, now ignore'),
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


@settings(deadline=None, max_examples=50)
@given(pictures, pictures, st.randoms())
def test_identities_are_equal_for_equal_pictures_alone(one, other, random):
    street = Vocab('street', NAMES)
    identity = lambda files: data_identity('folder', 'train', street, [MaskSource()], files)
    mixed = [*one.items()]
    random.shuffle(mixed)
    decomposed = [(unicodedata.normalize('NFD', key), size) for key, size in mixed]     # as some file systems hand names out
    assert identity(one.items()) == identity(mixed) == identity(decomposed)
    assert (identity_changes(identity(one.items()), identity(other.items())) == []) == (one == other)


@settings(deadline=None, max_examples=50)
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


# the walker

def taken(root, split='train'): return [i.key for i in load_dataset('folder', root, split).items]


def linked(path, to):
    try: path.symlink_to(to, target_is_directory=True)
    except OSError: pytest.skip('no symbolic links here')


def pair(root, name, values=(0, 1, 2, 3), folder='train', size=(30, 20), end='.jpg'):
    picture(root/f'images/{folder}/{name}{end}', size=size)
    mask(root/f'masks/{folder}/{name}.png', values, size=size, palette=False)


def test_linked_folders_are_followed_once(world, tmp_path):
    pair(tmp_path/'disk', 'x', folder='deep')
    for kind in ('images', 'masks'):
        linked(world/kind/'train/night', tmp_path/'disk'/kind/'deep')          # somewhere else
        linked(tmp_path/'disk'/kind/'deep/back', world/kind/'train')           # and from there back: a loop
        linked(world/kind/'train/self', world/kind/'train/self')               # to itself
        linked(world/kind/'train/again', world/kind/'train/day')               # to what is listed already
    data = load_dataset('folder', world)
    assert [i.key for i in data.items] == ['a', 'b', 'day/a', 'day/c', 'night/x']
    assert 'train/again/' in data.summary and 'train/night/back/' in data.summary and 'train/self' in data.summary
    lines(world/'train.txt', ['again/a', 'night/x'])                           # what a list names is found under that name too
    assert taken(world) == ['again/a', 'night/x']


def test_a_whole_split_may_be_linked(world, tmp_path):
    for kind in ('images', 'masks'):
        (world/kind/'train').rename(tmp_path/kind)
        linked(world/kind/'train', tmp_path/kind)
    assert taken(world) == ['a', 'b', 'day/a', 'day/c']


def test_links_that_lead_nowhere_are_missing_files(world, tmp_path):
    for kind, end in (('images', '.jpg'), ('masks', '.png')): linked(world/f'{kind}/train/gone{end}', tmp_path/'nothing')
    assert list_split(world, folder_layout(world, 'train')[0], 'train').no_image
    says = 'names .gone., so .*gone.jpg should exist.*There is gone.jpg. Restore what this link'
    with pytest.raises(InputError, match=says): taken(world)


HIDDEN = ['.ipynb_checkpoints/a-checkpoint', '._a', '.hidden', '__MACOSX/._a', '__MACOSX/a', '@eaDir/a.jpg/THUMB',
          '.Trash-1/files/a', 'day/.ipynb_checkpoints/a-checkpoint', 'day/._a', '$RECYCLE.BIN/a', '.git/a']


@pytest.mark.parametrize('name', HIDDEN)
def test_hidden_files_are_left_out(world, name):
    pair(world, name)
    data = load_dataset('folder', world)
    assert [i.key for i in data.items] == ['a', 'b', 'day/a', 'day/c'] and 'hidden' in data.summary
    assert check_dataset('folder', world).problems == 0


def test_a_data_set_may_lie_in_a_hidden_folder(world, tmp_path):
    shutil.move(world, tmp_path/'.cache')
    assert taken(tmp_path/'.cache') == ['a', 'b', 'day/a', 'day/c']


@pytest.mark.parametrize('end', ['.jfif', '.JFIF', '.gif', '.jpe', '.JPG', '.Jpeg', '.PNG', '.bmp', '.webp', '.TIFF',
                                 '.ppm', '.tga'])
def test_what_pillow_reads_is_taken(world, end):
    pair(world, 'new', end=end)
    data = load_dataset('folder', world)
    assert [i.key for i in data.items][-1] == 'new' and values(data[4]) == [0, 1, 2, 3]
    assert tuple(data[4]['image'].shape) == (3, 20, 30)


@pytest.mark.parametrize('end', ['.heic', '.HEIC', '.jxl', '.cr2', '.svg', '.dng'])
def test_what_pillow_does_not_read_is_named(world, end):
    pair(world, 'new')
    (world/'images/train/new.jpg').rename(world/f'images/train/new{end}')
    data, report = load_dataset('folder', world), check_dataset('folder', world)
    assert len(data) == 4 and f'train/new{end}' in data.summary and 'convert to JPEG or PNG' in data.summary
    assert report.splits[0].problems == dict(format=[f'train/new{end}'])
    lines(world/'train.txt', ['a', 'new'])
    with pytest.raises(InputError, match=f'There is new{end}. Convert it'): load_dataset('folder', world)


def test_what_a_plug_in_reads_is_taken(world, monkeypatch):
    PILImage.init()
    monkeypatch.setitem(PILImage.EXTENSION, '.heic', 'PNG')
    picture(world/'images/train/new.png')
    (world/'images/train/new.png').rename(world/'images/train/new.HEIC')
    mask(world/'masks/train/new.png', [0, 1], size=SIZE, palette=False)
    assert taken(world)[-1] == 'new'


def test_other_files_and_pipes_are_not_opened(world):
    (world/'images/train/notes.txt').write_text('x', encoding='utf-8')
    (world/'images/train/noending').write_bytes(b'x')
    if hasattr(os, 'mkfifo'): os.mkfifo(world/'images/train/pipe.jpg')         # opening it would wait for ever
    data = load_dataset('folder', world)
    assert len(data) == 4 and 'without the ending of a picture' in data.summary and 'notes.txt' in data.summary


def test_masks_of_another_ending(world):
    shutil.copy(world/'masks/train/a.png', world/'masks/train/a.PNG2')
    (world/'masks/train/a.png').rename(world/'masks/train/a.PNG')
    Image.open(world/'masks/train/b.png').save(world/'masks/train/b.tif')
    (world/'masks/train/b.png').unlink()
    np.save(world/'masks/train/day/a.npy', np.asarray(Image.open(world/'masks/train/day/a.png')))
    data = load_dataset('folder', world)
    assert all(values(s) == [0, 1, 2, 3] for s in data) and data.items[2].mask.suffix == '.png'        # PNG goes first
    (world/'masks/train/day/a.png').unlink()
    assert values(load_dataset('folder', world)[2]) == [0, 1, 2, 3]


def test_spare_masks_are_named(world):
    mask(world/'masks/train/old.png', [0], size=(30, 20), palette=False)
    data = load_dataset('folder', world)
    assert data.summary.endswith('left out: 1 masks without a picture (train/old.png)')


names = st.lists(st.text('abäß01-_', min_size=1, max_size=3).map(str.casefold), min_size=1, max_size=3).map('/'.join)


endings = st.sampled_from(['.jpg', '.JPG', '.Png', '.jfif', '.gif', '.txt', '.heic', ''])


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(names, endings, min_size=1, max_size=8),
       st.sets(st.sampled_from(['.', '._', '.ipynb_checkpoints/', '']), max_size=3))
def test_the_walker_takes_what_a_list_by_hand_would(files, hidden):
    "Every file with an ending that Pillow reads, and no name that begins with a dot: the same for every order and depth"
    with tempfile.TemporaryDirectory() as folder:
        expected, made = set(), set()
        for name, end in files.items():
            for before in hidden | {''}:
                path = Path(folder)/Path(name).parent/f'{before}{Path(name).name}{end}'
                if any(p in made for p in path.parents) or path.is_dir(): continue
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
                made.add(path)
                relative = path.relative_to(folder).as_posix()
                if end.lower() in ('.jpg', '.png', '.jfif', '.gif') and not any(p.startswith('.') for p in relative.split('/')):
                    expected.add(relative)
        survey = walk_files(folder)
        assert set(survey.taken) == expected and list(survey.taken) == sorted(survey.taken)
        assert len({*survey.taken} & {n for group in survey.left_out.values() for n in group}) == 0


# lists

A = ['day/a', 'day/a.jpg', 'day/a.JPG', './day/a.jpg', 'day\\a', 'day\\a.jpg', '/day/a', 'train/day/a.jpg',
     'images/train/day/a.jpg', '/images/train/day/a.jpg', 'images\\train\\day\\a.jpg', '/home/me/data/images/train/day/a.jpg',
     'C:\\data\\images\\train\\day\\a.jpg',
     '"day/a.jpg"', 'day//a', 'day/../day/a.jpg', '  day/a  ', 'day/a\t']


@pytest.mark.parametrize('line', A)
def test_a_picture_in_a_list(world, line):
    (world/'train.txt').write_text(f'a\n{line}\n', encoding='utf-8')
    data = load_dataset('folder', world)
    assert [i.key for i in data.items] == ['a', 'day/a']
    assert data.items[1].mask == world/'masks/train/day/a.png' and data[1]['size'] == (20, 32)


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le-bom'])
@pytest.mark.parametrize('end', ['\n', '\r\n', '\r', '\n\n \n'])
def test_lists_of_every_system(world, encoding, end):
    pair(world, 'café 1')
    text = end.join(['day/a.jpg', 'b', 'café 1', ''])
    data = '\ufeff'.encode('utf-16-le') + text.encode('utf-16-le') if encoding.endswith('bom') else text.encode(encoding)
    (world/'train.txt').write_bytes(data)
    assert taken(world) == ['day/a', 'b', 'café 1']
    described_as = (world/'dataset.json').read_text(encoding='utf-8')
    (world/'dataset.json').write_bytes(described_as.encode('utf-16' if encoding.endswith('bom') else encoding))
    assert load_dataset('folder', world).vocab.unseen_names == ('sofa',)


def test_composed_letters(world):
    pair(world, unicodedata.normalize('NFD', 'café'))
    lines(world/'train.txt', [unicodedata.normalize('NFC', 'café')])
    assert taken(world) == [unicodedata.normalize('NFC', 'café')]


def test_equal_names_in_two_cities(tmp_path):
    for city, v in (('aachen', 0), ('bremen', 1)): pair(tmp_path, f'{city}/1', [v])
    described(tmp_path)
    for style in ('{}/1', '{}/1.jpg', 'images/train/{}/1.jpg', 'images/train/{}/1.jpg masks/train/{}/1.png', '{}\\1.jpg'):
        lines(tmp_path/'train.txt', [style.format(*[c] * style.count('{}')) for c in ('bremen', 'aachen')])
        data = load_dataset('folder', tmp_path)
        assert [i.key for i in data.items] == ['bremen/1', 'aachen/1'] and [values(s) for s in data] == [[1], [0]]
    lines(tmp_path/'train.txt', ['1', 'cologne/1'])                            # never the picture of another folder
    assert [*list_split(tmp_path, folder_layout(tmp_path, 'train')[0], 'train').no_image] == ['1', 'cologne/1']
    with pytest.raises(InputError, match='2 of 2 are missing'): load_dataset('folder', tmp_path)


def test_a_list_that_tells_two_files_apart(world):
    picture(world/'images/train/a.png', size=(30, 20))
    for end in ('.jpg', '.png'):
        lines(world/'train.txt', [f'a{end}'])
        assert load_dataset('folder', world).items[0].image.suffix == end
    lines(world/'train.txt', ['b'])
    assert taken(world) == ['b']                                               # what is not asked for is no error
    lines(world/'train.txt', ['a'])
    with pytest.raises(InputError, match='one file called .a.*Remove one'): taken(world)


@pytest.mark.parametrize('gap', [' ', '\t', ',', ', ', ';', '   '])
@pytest.mark.parametrize('style', ['{}', './{}', '/{}', '/somewhere/else/{}'])
def test_the_mask_that_a_list_names_is_read(world, gap, style):
    mask(world/'masks/train/other one.png', [3], size=(30, 20), palette=False)
    line = style.format('images/train/a.jpg') + gap + style.format('masks/train/other one.png')
    (world/'train.txt').write_text(f'{line}\r\nb\n', encoding='utf-8')
    data = load_dataset('folder', world)
    assert [i.key for i in data.items] == ['a', 'b'] and values(data[0]) == [3] and values(data[1]) == [0, 1, 2, 3]


def test_a_mask_that_a_list_names_and_that_is_not_there(world):
    (world/'train.txt').write_text('images/train/a.jpg masks/train/none.png\n', encoding='utf-8')
    says = 'none.png should exist.*Restore the masks that train.txt names, or leave the masks out'
    with pytest.raises(InputError, match=says): taken(world)
    assert problems(check_dataset('folder', world))['train']['no_mask'] == 1
    mask(world/'drawn/by hand/none.png', [2], size=(30, 20), palette=False)    # elsewhere, by its path
    (world/'train.txt').write_text('images/train/a.jpg drawn/by hand/none.png\n', encoding='utf-8')
    assert values(load_dataset('folder', world)[0]) == [2]
    (world/'train.txt').write_text('a.jpg a.png b.png\n', encoding='utf-8')
    with pytest.raises(InputError, match='a picture and its mask'): taken(world)


@pytest.mark.parametrize('gap', [' ', ',', ';'])
def test_pairs_are_not_taken_for_one_file(world, gap):
    "Pictures and masks with the same endings, names and folders' names"
    for name in 'pq': pair(world, name, [0], end='.png')
    lines(world/'train.txt', [f'images/train/q.png{gap}masks/train/p.png', f'images/train/p.png{gap}masks/train/q.png'])
    assert [(i.key, i.mask.name) for i in load_dataset('folder', world).items] == [('q', 'p.png'), ('p', 'q.png')]
    pair(world, f'q.png{gap}p', [1], end='.png')                               # a file that is called so goes first
    lines(world/'train.txt', [f'q.png{gap}p.png', f'images/train/q.png{gap}p.png'])
    data = load_dataset('folder', world)
    assert [i.key for i in data.items] == [f'q.png{gap}p'] * 2 and values(data[0]) == [1]


@pytest.mark.parametrize('line', ['a 1', 'a -1', 'a,0', 'a b', 'a\tb'])
def test_columns_that_are_no_mask(world, line):
    "As in the lists of VOC for one class, or pairs without endings"
    lines(world/'train.txt', [line])
    with pytest.raises(InputError, match="There is 'a'. A list holds one name per line: leave further"): taken(world)


def test_a_named_mask_of_unknown_meaning(tmp_path):
    "COCO-Stuff has masks of two meanings: one that lies elsewhere may be either"
    picture(tmp_path/'JPEGImages/a.jpg')
    for folder in ('SegmentationClassContext', 'drawn'): mask(tmp_path/folder/'a.png', [1, 2])
    (tmp_path/'trainval').mkdir()
    lines(tmp_path/'labels.txt', [f'{i}: {n}' for i, n in enumerate(load_vocab('context59').names, 1)])
    lines(tmp_path/'ImageSets/Main/val.txt', ['JPEGImages/a.jpg SegmentationClassContext/a.png'])
    assert values(load_dataset('context59', tmp_path, 'val')[0]) == [0, 1]
    lines(tmp_path/'ImageSets/Main/val.txt', ['JPEGImages/a.jpg drawn/a.mat'])
    with pytest.raises(InputError, match='drawn/a.mat should exist'): load_dataset('context59', tmp_path, 'val')


STYLES = ['{}', '{}.jpg', '{}.JPG', './{}', '/{}.jpg', 'images/train/{}.jpg', 'X:\\images\\train\\{}.jpg', '"{}.jpg"']


row = st.tuples(st.sampled_from(['a', 'b', 'day/a', 'day/c d', 'e.jpg (1)']), st.sampled_from(STYLES), st.booleans())


@settings(deadline=None, max_examples=50)
@given(st.lists(row, min_size=1, max_size=6),
       st.sampled_from(['\n', '\r\n', '\r', '\n \n']), st.sampled_from(['utf-8', 'utf-8-sig', 'utf-16']))
def test_any_list_names_the_same_pictures(tree_of_four, rows, end, encoding):
    root, expected = tree_of_four, [key for key, _, _ in rows]
    text = end.join(style.format(key).replace('/', '\\') if back else style.format(key) for key, style, back in rows)
    (root/'train.txt').write_bytes(text.encode(encoding))
    listing = list_split(root, folder_layout(root, 'train')[0], 'train')
    assert listing.names == expected == [i.key for i in listing.items] and not listing.no_image and not listing.no_mask
    assert [(i.image.stem, i.mask.stem) for i in listing.items] == [(k.split('/')[-1],) * 2 for k in expected]


@pytest.fixture(scope='module')
def tree_of_four(tmp_path_factory):
    root = tmp_path_factory.mktemp('four')
    for key in ('a', 'b', 'day/a', 'day/c d', 'e.jpg (1)'): pair(root, key)
    described(root)
    return root


# tables

@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_tables_of_every_system(world, encoding):
    rows = ['Image , MASK,Split', '', 'images\\train\\a.jpg,masks\\train\\a.png,train', ',,',
            './images/train/day/a.jpg, masks/train/day/a.png,train', '']
    (world/'dataset.csv').write_bytes('\r\n'.join(rows).encode(encoding))
    assert taken(world) == ['images/train/a', 'images/train/day/a']


def test_table_keys_hold_no_absolute_path(world, tmp_path):
    pair(tmp_path/'disk', '1', folder='x')
    pair(tmp_path/'disk', '2', folder='y')
    rows = [f'{tmp_path}/disk/images/{f}/{n}.jpg,{tmp_path}/disk/masks/{f}/{n}.png' for f, n in (('x', 1), ('y', 2))]
    lines(world/'train.csv', ['image,mask', *rows, f'{world}/images/train/a.jpg,masks/train/a.png'])
    assert taken(world) == ['x/1', 'y/2', 'images/train/a']


def test_table_keys_tell_endings_apart(world):
    for end in ('.jpg', '.png'): picture(world/f'raw/1{end}', size=(30, 20))
    rows = ['raw/1.jpg,masks/train/a.png', 'raw/1.png,masks/train/b.png', 'raw/1.jpg,masks/train/a.png']
    lines(world/'train.csv', ['image,mask', *rows])
    listing = list_split(world, folder_layout(world, 'train')[0], 'train')
    assert listing.names == ['raw/1.jpg', 'raw/1.png', 'raw/1.jpg']


def test_a_table_with_another_word_for_a_split(world):
    rows = ['images/train/a.jpg,masks/train/a.png,train', 'images/val/v.jpg,masks/val/v.png,valid']
    lines(world/'dataset.csv', ['image,mask,split', *rows])
    with pytest.raises(InputError, match=r"none \(1 of train, 1 of valid\). Write val for valid"): taken(world, 'val')
    assert check_dataset('folder', world).misnamed == {'dataset.csv: valid': 'val'}


# remedies

def remedy(root, kind='no_mask'): return list_split(root, folder_layout(root, 'train')[0], 'train').remedy.get(kind, '')


def test_unpack_again_only_where_that_is_the_remedy(world):
    for name in ('a', 'b', 'day/a', 'day/c'): (world/f'masks/train/{name}.png').rename(world/f'masks/train/{name}_mask.png')
    assert 'There are masks that no picture uses, such as train/a_mask.png' in remedy(world)
    for name in ('a', 'b', 'day/a', 'day/c'): (world/f'masks/train/{name}_mask.png').unlink()
    assert remedy(world) == 'Add the masks, or remove the pictures that have none.'
    lines(world/'train.txt', ['a', 'b'])
    assert remedy(world) == 'Unpack the masks again, or take the names off the list.'
    mask(world/'masks/train/A.png', [0], palette=False)
    if not (world/'masks/train/a.png').exists(): assert 'There is train/A.png. Give both the same name' in remedy(world)
    lines(world/'train.txt', ['img_1', 'img_2'])
    assert remedy(world, 'no_image') == 'The folder holds others, such as a.jpg. Correct the names in train.txt.'
    for name in ('a', 'b', 'day/a', 'day/c'): (world/f'images/train/{name}.jpg').unlink()
    assert remedy(world, 'no_image') == 'Unpack the pictures again, or take the names off the list.'


@pytest.mark.parametrize('word', ['valid', 'validation', 'Val', 'VAL', 'dev', 'Validation'])
def test_a_split_under_another_name(world, word):
    for kind in ('images', 'masks'): (world/kind/'val').rename(world/kind/f'{word}_')  # two steps where case does not count
    for kind in ('images', 'masks'): (world/kind/f'{word}_').rename(world/kind/word)
    if (world/'images/val').exists(): pytest.skip('a file system without case')
    with pytest.raises(InputError, match=f"Rename images/{word} .*to val, or ask for the split '{word}'"): taken(world, 'val')
    assert taken(world, word) == ['v']
    report = check_dataset('folder', world)
    assert report.misnamed == {f'images/{word}': 'val'} and report.problems == 1
    assert check_dataset('folder', world, ['train', word]).problems == 0
    for kind in ('images', 'masks'): (world/kind/word).rename(world/kind/'val')
    assert check_dataset('folder', world).problems == 0


def test_splits_of_published_data_sets_under_other_names(tmp_path):
    for name, tree, found in [
            ('camvid', ['train', 'trainannot', 'valid', 'validannot'], {'valid': 'val'}),
            ('ade150', ['images/training', 'annotations/training', 'images/val', 'annotations/val'], {'images/val': 'val'}),
            ('cocostuff171', ['images/train2017', 'annotations/train2017', 'images/val'], {'images/val': 'val'})]:
        root = tmp_path/name
        for folder in tree: (root/folder).mkdir(parents=True)
        lines(root/'train.txt', [])
        assert check_dataset(name, root).misnamed == found


def test_other_folders_are_named_and_no_problem(world):
    pair(world, 'x', folder='extra')
    report = check_dataset('folder', world)
    assert report.unread == ['images/extra'] and report.problems == 0 and [s.split for s in report.splits] == ['train', 'val']


# before a training

def faults(root, vocab=None, **options):
    load = lambda split: load_dataset('folder', root, split, vocab=vocab)
    return training_faults(load('train'), load('val'), **options)


def test_sound_data_has_no_faults(world):
    assert faults(world) == ([], [])
    assert training_faults(ToyDataset('train'), ToyDataset('val')) == ([], [])
    assert training_faults(load_dataset('folder', world)) == ([], [])


@pytest.mark.parametrize('more', [dict(ignore=[0, 1, 2, 3]), dict(reduce_zero_label=True, ignore=[1, 2, 3]),
                                  dict(map={'0': None, '1': None, '2': None, '3': None}),
                                  dict(unseen=['road', 'sky', 'sofa'], ignore=3)])
def test_all_masks_ignored(world, more):
    described(world, **more)
    found = faults(world)
    assert len(found.errors) == 1 and 'none of the 4 masks has a pixel of a class that is trained on' in found.errors[0]
    report = check_dataset('folder', world)
    assert report.problems >= 1 and ('unseen' in more or report.splits[0].problems['void'] == ['4 of 4 classes in 4 masks'])


def test_all_classes_unseen(world):
    described(world, unseen=NAMES)
    assert faults(world).errors[0].startswith('every class is unseen, so nothing can be learned')
    assert faults(world, classes=range(4)).errors == []                        # supervised: labels of all classes are used


def test_classes_without_a_pixel(world):
    described(world, names=[*NAMES, 'cow', 'hen'], unseen=['hen'])
    told = faults(world).warnings
    assert told[0].startswith('without a pixel in training: cow. ')
    assert told[1].startswith('no unseen class has a pixel in what is scored')
    assert check_dataset('folder', world).splits[0].problems == dict(classes=['cow'])
    assert check_dataset('folder', world, subset=True).problems == 0
    described(world, names=[*NAMES, 'cow', 'hen'], unseen=['hen', 'cow'])
    assert faults(world).warnings and check_dataset('folder', world).problems == 0


def test_pictures_that_are_trained_on_and_scored(world):
    lines(world/'val.csv', ['image,mask', 'images/train/a.jpg,masks/train/a.png'])
    assert faults(world).warnings == ['1 pictures are trained on and scored: the scores say nothing about new pictures.']


def test_few_masks_are_enough(tmp_path, monkeypatch):
    "Every class in every mask: one mask of each split is opened, however many there are"
    for i in range(30): pair(tmp_path, str(i))
    pair(tmp_path, 'v', folder='val')
    described(tmp_path, unseen=['sofa'])
    data, scored, opened = load_dataset('folder', tmp_path), load_dataset('folder', tmp_path, 'val'), []
    monkeypatch.setattr(otseg.data.check, 'open_mask', lambda *a: opened.append(a) or open_mask(*a))
    assert training_faults(data, scored) == ([], []) and len(opened) == 3
    opened.clear()
    for i in range(30): mask(tmp_path/f'masks/train/{i}.png', [255] if i else [1], size=(30, 20), palette=False)
    assert training_faults(load_dataset('folder', tmp_path), most=5).errors == []   # goes on until one class is found


def test_data_sets_of_other_kinds(world):
    class Pairs:
        vocab = Vocab('street', NAMES)
        def __len__(self): return 3
        def __getitem__(self, i): return dict(image=torch.zeros(3, 4, 4), labels=torch.full((4, 4), 255))
    assert 'none of the 3 masks' in training_faults(Pairs()).errors[0]
    (world/'masks/train/a.png').write_bytes(b'no mask')                        # that one is told when it is its turn
    assert training_faults(load_dataset('folder', world)).errors == []
