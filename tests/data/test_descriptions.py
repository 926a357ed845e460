"What people write into dataset.json, lists and tables: it is read as they mean it, or one line says what is the matter"
import json

import numpy as np
import pytest
from PIL import Image

from otseg.core import InputError, read_json
from otseg.data.check import check_dataset
from otseg.data.layouts import read_description
from otseg.data.reading import load_dataset


@pytest.fixture
def root(tmp_path):
    "Three pictures, the second mask another one than the first"
    for part in ('images', 'masks'): (tmp_path/part/'train').mkdir(parents=True)
    for i, name in enumerate(('one', 'two', 'three')):
        Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)).save(tmp_path/f'images/train/{name}.png')
        Image.fromarray(np.full((8, 8), i % 2, np.uint8)).save(tmp_path/f'masks/train/{name}.png')
    (tmp_path/'dataset.json').write_text('{"names": ["road", "sky"]}', encoding='utf-8')
    return tmp_path


def say(root, text):
    content = text if isinstance(text, bytes) else ('{"names": ["road", "sky"], ' + text + '}').encode()
    (root/'dataset.json').write_bytes(content)
    return read_description(root/'dataset.json')


def keys(root): return [i.key for i in load_dataset('folder', root).items]


@pytest.mark.parametrize('text, says', [
    ('"unseen": ["sky"], "unseen": []', "should give each key once, got 'unseen' twice"),
    ('"map": {"0": 0, "0": 1}', "should give each key once, got '0' twice"),
    ('"map": {"0": 0, "00": 1}', 'each value once, got 0 twice'), ('"map": {"7": 0, " 7": 1}', 'each value once, got 7 twice'),
    ('"palette": [[9, 9, 9], [9, 9, 9]]', r'a colour of its own, got \[9, 9, 9\] twice'),
    ('"palette": [[1, 2, 3], [9, 9, 9]], "ignore": [[9, 9, 9]]', r'a colour of its own, got \[9, 9, 9\] twice'),
    ('"palette": [[1, 2, 3], [9, 9, 9]], "ignore": [0, 0, 0]', r'brackets of its own: "ignore": \[\[0, 0, 0\]\]'),
    ('"palette": [[1, 2, 3], [9, 9, 9]], "ignore": [7, 8, 200]', r'brackets of its own: "ignore": \[\[7, 8, 200\]\]'),
    ('"ignore": [255, 255]', 'each once'), ('"profile": "Adobe RGB"', '"srgb" or "ignore"'),
    ('"unsen": ["sky"]', "Did you mean 'unseen'"), ('"unseen": [],', 'is not valid JSON'),
    ('"unseen": [] // none', 'is not valid JSON'),
    ('{"names": ["road", "caf\xe9"]}'.encode('cp1252'), 'other bytes than UTF-8.*Save it as UTF-8'),
    (b'{"names": ["road", "\\ud83d"]}', r"the name of class 1 should be text, got '\\ud83d'"),
    (b'{"names": ["road", "sky\\u001b[31m"]}', 'the name of class 1 should be text')])
def test_what_could_mean_two_things_is_asked(root, text, says):
    with pytest.raises(InputError, match=says): say(root, text)


@pytest.mark.parametrize('text', ['"ignore": [7, 8]', '"ignore": [7, 8, 9]', '"ignore": [300]',
                                  '"map": {"0": 0, "1": 1, "7": null}',
                                  '"palette": [[1, 2, 3], [9, 9, 9]], "ignore": [[0, 0, 0], [5, 5, 5]]',
                                  '"palette": [[1, 2, 3], [9, 9, 9]], "ignore": [300, 301, 302]'])
def test_what_means_one_thing_is_taken(root, text): say(root, text)


def test_marks_of_editors(root):
    for code in ('utf-8-sig', 'utf-16', 'utf-16-le', 'utf-32'):
        assert say(root, '{"names": ["Straße", "空"]}'.encode(code))[0].names == ('Straße', '空')


def test_a_key_twice_anywhere(tmp_path):
    (tmp_path/'a.json').write_text('[{"a": 1}, {"b": {"c": 1, "d": 2, "c": 3}}]', encoding='utf-8')
    with pytest.raises(InputError, match=r"a\.json should give each key once, got 'c' twice"): read_json(tmp_path/'a.json')


def test_names_that_a_list_holds_twice(root):
    "They count twice: the first lines of a training say so, and the report"
    (root/'train.txt').write_text('one\ntwo\none.png\nthree\n./two\n', encoding='utf-8')
    data = load_dataset('folder', root)
    assert len(data) == 5 and '5 pictures by' in data.summary and 'named more than once: 2 (one, two)' in data.summary
    assert check_dataset('folder', root).splits[0].problems['twice'] == ['one', 'two']
    (root/'train.txt').write_text('one\ntwo\n', encoding='utf-8')
    assert 'more than once' not in load_dataset('folder', root).summary


@pytest.mark.parametrize('file, mark, head', [('train.csv', ',', 'image,mask\n'), ('train.txt', ' ', '')])
def test_two_masks_of_one_picture(root, file, mark, head):
    rows = [f'images/train/one.png{mark}masks/train/{n}.png' for n in ('one', 'two')]
    (root/file).write_text(head + '\n'.join(rows), encoding='utf-8')
    with pytest.raises(InputError, match=r'should name one mask for .*one, got .*one\.png and .*two\.png'): keys(root)


@pytest.mark.parametrize('mark', [',', ';', '\t', ', '])
def test_tables_of_spreadsheets(root, mark):
    splits = dict(one='train', two='Train', three='val')
    rows = ['Image', 'Mask', 'split'], *((f'images/train/{n}.png', f'"masks/train/{n}.png"', s) for n, s in splits.items())
    (root/'dataset.csv').write_bytes('\r\n'.join(map(mark.join, rows)).encode('utf-8-sig'))
    assert keys(root) == ['images/train/one', 'images/train/two']  # Train is train


@pytest.mark.parametrize('text', ['', 'images/train/one.png,masks/train/one.png\n', 'image,mask,mask\na,b,c\n',
                                  'picture,mask\na,b\n', '# mine\nimage,mask\na,b\n', 'image,mask,split,split\na,b,train,val\n'])
def test_tables_without_clear_columns(root, text):
    (root/'train.csv').write_text(text, encoding='utf-8')
    with pytest.raises(InputError, match=r'csv should begin with the names of its columns, each once: image,mask'): keys(root)


def test_a_mask_in_another_container(root):
    "The remedy is that of masks"
    np.savez(root/'masks/train/four.npz', np.zeros((8, 8), np.uint8))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(root/'images/train/four.png')
    with pytest.raises(InputError, match=r'There is train/four\.npz\. Save it as PNG, one number per pixel'): keys(root)


@pytest.mark.parametrize('mode, says', [('F', 'not shares or scores'), ('LA', 'without transparency'),
                                        ('CMYK', 'A mask of colours')])
def test_masks_of_other_modes(root, mode, says):
    path = root/f'masks/train/one.{"tif" if mode != "LA" else "png"}'
    (root/'masks/train/one.png').unlink()
    image = Image.new(mode, (8, 8), 0)
    if mode == 'LA': image.putpixel((3, 3), (1, 100))
    image.save(path)
    (root/'train.txt').write_text('one\n', encoding='utf-8')
    with pytest.raises(InputError, match=f'mode {mode}.*{says}'): load_dataset('folder', root)[0]
    assert says in json.dumps(check_dataset('folder', root).to_dict())
