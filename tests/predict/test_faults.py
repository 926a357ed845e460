"What people bring and what machines do: one picture's fault never stops the others, and what is written is whole"
import contextlib
import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from otseg.core import InputError, asset_path, locked_folder
from otseg.predict.command import main
from otseg.predict.segmentation import Segmentation
from otseg.predict.words import RESULTS, result_path
from otseg.predict.segmenter import Segmenter

pytestmark = [pytest.mark.filterwarnings('ignore:.*meaningless.*'),
              pytest.mark.filterwarnings('ignore:Glyph')]


@pytest.fixture
def photos(folder):
    "Three pictures"
    for i, name in enumerate(('a.png', 'b.png', 'c.png')):
        picture(folder/'in'/name, seed=i)
    return folder/'in'


def picture(path, size=(40, 56), seed=0, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)).save(path, **options)


def ask(*words, classes='boat,sky', output='out'):
    "Exit code, stdout and stderr"
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try: main([*map(str, words), '--checkpoint', 'toy', '--output', output, '--workers', '0', '--classes', classes])
        except SystemExit as e: code = e.code
    return code, out.getvalue(), err.getvalue()


def names(folder='out'): return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob('*') if p.is_file())


def process(*words, **variables):
    env = os.environ | dict(OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='', MPLBACKEND='Agg') | variables
    return subprocess.run([sys.executable, '-m', 'otseg.predict', '--checkpoint', 'toy', *map(str, words)], capture_output=True,
                          env=env, timeout=300)


def fails_for(monkeypatch, name, error, where=Segmenter, what='segment'):
    "Raise an error where a picture of this name comes by"
    before = getattr(where, what)
    def broken(self, *args, **kwargs):
        if kwargs.get('name', getattr(self, 'name', None)) == name: raise error
        return before(self, *args, **kwargs)
    monkeypatch.setattr(where, what, broken)


# words

def test_names_are_drawn_as_they_are_written(photos):
    "What means something to matplotlib, to formats, to a page or to a shell is a letter here"
    odd = ['$x_2^$ costs $5', r'50% {} {0} \frac{a}{b}', '<b>&amp;</b> "a" #', '船 é $\\']
    Path('classes.json').write_text(json.dumps(dict(zip(odd, (['boat'], ['sky'], ['star'], ['sand'])))), encoding='utf-8')
    code, out, err = ask('in', classes='classes.json')
    assert (code, err.count('note:')) == (0, 0), err
    assert names() == sorted(['predict.json', *(f'{p}.png{end}' for p in 'abc' for end in RESULTS.values())])
    assert json.loads(Path('out/a.png.json').read_text(encoding='utf-8'))['classes'] == odd
    assert ask('in', classes='classes.json')[1].startswith('3 pictures: 0 done now, 3 done earlier')


@pytest.mark.parametrize('content, name', [('boat\nsky\n', 'classes.txt'), ('["boat", "sky"]', 'classes.json'),
                                           ('\ufeffboat,\nsky,', 'names.TXT'), ('{"names": ["boat", "sky"]}', 'dataset.json')])
def test_classes_in_a_file(photos, content, name):
    Path(name).write_text(content, encoding='utf-8')
    assert ask('in/a.png', '--results', 'json', classes=name)[0] == 0
    assert json.loads(Path('out/a.png.json').read_text(encoding='utf-8'))['classes'] == ['boat', 'sky']


@pytest.mark.parametrize('classes', ['absent.txt', 'absent.json', '["boat", "sky"]', 'boat;sky', 'boat, ./absent.txt', 'list.csv',
                                     "'boat','sky'", 'boat\x1b[1m'])
def test_what_looks_like_something_else_is_no_class(photos, classes):
    code, out, err = ask('in', classes=classes)
    assert code == 2 and err.startswith('error: ') and err.count('\n') == 1 and not Path('out').exists(), err


@pytest.mark.parametrize('encoding', ['ascii', 'cp1252'])
def test_a_console_without_the_letters(photos, encoding):
    "What cannot be shown is escaped; all is written"
    Path('classes.json').write_text('{"船": ["boat"], "é": ["sky"]}', encoding='utf-8')
    got = process('in', '--output', 'out', '--classes', 'classes.json', '--workers', 0, '--results', 'mask',
                  PYTHONIOENCODING=encoding, PYTHONUTF8='0')
    assert got.returncode == 0 and b'\\u8239' in got.stdout and b'3 done now' in got.stdout, got.stderr
    assert len(names()) == 4


@pytest.mark.skipif(os.name == 'nt', reason='pipes of POSIX')
def test_a_reader_that_leaves(photos):
    read, write = os.pipe()
    os.close(read)
    words = 'in --output out --checkpoint toy --classes boat,sky --workers 0 --results mask'.split()
    got = subprocess.run([sys.executable, '-m', 'otseg.predict', *words], stdout=write, stderr=subprocess.PIPE, timeout=300,
                         env=os.environ | dict(CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1'))
    os.close(write)
    assert got.returncode == 0 and b'Traceback' not in got.stderr and len(names()) == 4, got.stderr


# files

def test_names_at_the_limit_of_the_system(photos):
    long = ['x' * 251 + '.png', '船' * 83 + 'a.png', 'x' * 250 + 'y.png']
    for i, name in enumerate(long): picture(Path('in', name), seed=i)
    code, out, err = ask('in', '--results', 'mask,json')
    assert code == 0 and '6 done now' in out, err
    for name in long: assert result_path('out', name).is_file() and len(result_path('out', name).name.encode()) <= 255
    assert ask('in', '--results', 'mask,json')[1].startswith('6 pictures: 0 done now, 6 done earlier')


@pytest.mark.skipif(os.name == 'nt', reason='links need rights on Windows')
def test_links_are_followed(photos):
    picture(Path('away/d.png'))
    Path('in/link').symlink_to(Path('away').resolve(), target_is_directory=True)
    Path('in/round').symlink_to(Path('in').resolve(), target_is_directory=True)
    Path('in/e.png').symlink_to(Path('away/d.png').resolve())
    code, out, err = ask('in', '--results', 'mask')
    assert code == 0 and '5 done now' in out and Path('out/link/d.png.mask.png').is_file() and not Path('out/round').exists(), err


@pytest.mark.skipif(os.name == 'nt', reason='links need rights on Windows')
def test_what_is_no_picture_is_told(photos):
    "What the walker of the data sets takes is taken, and what it leaves out is told with its reason"
    for name in ('x.HEIC', 'y.heics', 'notes.docx', '._a.png'): Path('in', name).write_bytes(b'x')
    Path('in/again').symlink_to(Path('in').resolve(), target_is_directory=True)
    picture(Path('in/icon.ico'), size=(32, 32))
    code, out, err = ask('in', '--results', 'mask')
    assert code == 0 and '4 done now' in out, out + err
    assert ('note: left out: 1 hidden (._a.png); 2 in a format that is not read (x.HEIC, y.heics): convert to JPEG or PNG; '
            '1 linked to a folder that is listed already (again/); 1 without the ending of a picture (notes.docx)') in err, err


def test_a_foreign_exif_chunk(photos):
    "It says nothing of a turn; the picture is done"
    picture(Path('in/d.png'), exif=b'Exif\0\0no such thing')
    picture(Path('in/e.jpg'), exif=b'Exif\0\0no such thing')
    code, out, err = ask('in', '--results', 'mask')
    assert code == 0 and '5 done now' in out, err


DAMAGE = dict(empty=b'', text=b'no picture', head=b'\x89PNG\r\n\x1a\n' + bytes(40))


@pytest.mark.parametrize('kind', [*DAMAGE, 'cut', 'folder'])
def test_a_picture_that_does_not_decode(photos, kind):
    if kind == 'folder': Path('in/b.png').unlink(); Path('in/b.png').symlink_to('nowhere')
    else: Path('in/b.png').write_bytes(DAMAGE.get(kind, Path('in/b.png').read_bytes()[:90]))
    code, out, err = ask('in', '--results', 'mask')
    assert code == 1 and 'in/b.png' in err.splitlines()[-1] and 'Traceback' not in err, err
    assert names() == ['a.png.mask.png', 'c.png.mask.png', 'predict.json', 'skipped.json']
    picture(Path('other.png'))
    Path('in/b.png').unlink()
    Path('other.png').rename('in/b.png')
    out = ask('in', '--results', 'mask')[1]
    assert out.splitlines()[-1].startswith('3 pictures: 1 done now, 2 done earlier') and 'skipped.json' not in names()


# faults while it is at work

@pytest.mark.parametrize('error, says', [(MemoryError('no 3 GB'), 'there should be enough memory'),
                                         (KeyError('lost'), 'KeyError')])
def test_an_error_of_one_picture(photos, monkeypatch, error, says):
    "The others are done; of an error that nobody has foreseen, the place is told as well"
    fails_for(monkeypatch, 'b.png', error)
    code, out, err = ask('in', '--results', 'mask')
    assert code == 1 and says in err and 'All others are done.' in err, err
    assert ('Traceback' in err) == isinstance(error, KeyError)
    assert json.loads(Path('out/skipped.json').read_text(encoding='utf-8')).keys() == {'b.png'}
    assert [n for n in names() if 'mask' in n] == ['a.png.mask.png', 'c.png.mask.png']


@pytest.mark.parametrize('what', ['show_prompts', 'overlay'])
def test_a_figure_that_cannot_be_drawn(photos, monkeypatch, what):
    fails_for(monkeypatch, 'b.png', RuntimeError('no such font'), Segmentation, what)
    kind = dict(show_prompts='prompts', overlay='overlay')[what]
    code, out, err = ask('in')
    assert code == 0 and f'note: out/b.png.{kind}.png could not be drawn: RuntimeError (no such font)' in err, err
    assert '3 done now' in out and f'b.png.{kind}.png' not in names() and 'b.png.mask.png' in names()
    assert len([n for n in names() if n.endswith('.png')]) == 8


def test_a_full_disk_ends_the_call_in_one_line(photos, monkeypatch):
    "It is no picture's fault; what was done before is whole, and the next call goes on"
    fails_for(monkeypatch, 'b.png', OSError(errno.ENOSPC, 'No space left on device', 'out'), Segmentation, 'save_mask')
    code, out, err = ask('in', '--results', 'mask')
    assert code == 2 and 'there should be room' in err and 'Traceback' not in err and 'a.png.mask.png' in names(), err
    monkeypatch.undo()
    os.chdir(photos.parent)
    assert ask('in', '--results', 'mask')[0] == 0 and not any('otseg_' in n for n in names())


def test_a_folder_that_another_call_holds(photos):
    with locked_folder(Path('out')):
        code, out, err = ask('in', '--results', 'mask')
        assert code == 2 and 'should be written by one process at a time' in err and str(os.getpid()) in err, err
    assert ask('in', '--results', 'mask')[0] == 0


def test_again(photos):
    "With --overwrite earlier results stay until new ones are there"
    assert ask('in', '--results', 'mask')[0] == 0
    out = ask('in', '--results', 'mask', '--overwrite', classes='star,sky,sand')[1]
    assert out.splitlines()[-1].startswith('3 pictures: 3 done now')
    assert ask('in', '--results', 'mask', classes='star,sky,sand')[1].startswith('3 pictures: 0 done now, 3 done earlier')
    Path('out/other.png.mask.png').touch()
    code, out, err = ask('in', '--results', 'mask', '--overwrite')
    assert code == 2 and "should hold results of these pictures alone, to ask anew" in err and 'other.png.mask.png' in err


def test_done_again_whatever_the_clock_says(photos):
    "Results of a time to come are no reason to leave a picture as it is"
    assert ask('in', '--results', 'mask')[0] == 0
    for path in Path('out').iterdir(): os.utime(path, (4e9, 4e9))
    before = Path('out/a.png.mask.png').read_bytes()
    Path('out/a.png.mask.png').write_bytes(b'earlier')
    os.utime('out/a.png.mask.png', (4e9, 4e9))
    code, out, err = ask('in', '--results', 'mask', '--overwrite')
    assert code == 0 and '3 done now' in out and Path('out/a.png.mask.png').read_bytes() == before, err
    assert '3 done earlier' in ask('in', '--results', 'mask')[1]


def test_a_folder_in_the_place_of_a_result(photos):
    Path('out/b.png.mask.png').mkdir(parents=True)
    code, out, err = ask('in', '--results', 'mask')
    assert code == 1 and '2 done now' in out and 'b.png.mask.png should be a file' in err and 'Traceback' not in err, err


def test_two_pictures_of_one_name_are_not_taken_for_one(photos):
    picture(Path('away/a.png'), seed=7)
    assert ask('in/a.png', '--results', 'mask')[0] == 0
    code, out, err = ask('away/a.png', '--results', 'mask')
    assert code == 2 and 'pictures of one name should be one picture in out' in err
    assert ask('in/b.png', '--results', 'mask')[1].splitlines()[-1].startswith('1 picture: 1 done now')
    assert ask('in/a.png', '--results', 'mask')[1].startswith('1 picture: 0 done now, 1 done earlier')


# checkpoints

def test_settings_of_any_run_without_the_wing_of_training(folder):
    "A recipe with settings that this version does not know; nothing of training is imported"
    import shutil
    shutil.copytree(asset_path('otseg_toy'), 'mine')
    path = Path('mine/config.json')
    config = json.loads(path.read_text(encoding='utf-8'))
    config['info']['recipe'] |= dict(sharpness=3., blend=.25, stride=48, setting='supervised')
    path.write_text(json.dumps(config), encoding='utf-8')
    picture(Path('a.png'))
    code = '''
import sys
from otseg.predict.segmenter import Segmenter
from otseg.predict.folder import predict_folder
s = Segmenter.from_pretrained('mine', device='cpu')
assert (s.blend, s.preprocess.stride, s.preprocess.window, s.setting) == (.25, 48, 96, 'supervised'), vars(s)
assert s.class_vocab(['boat', 'heart']).unseen == ()
assert predict_folder('a.png', 'out', 'boat,sky', checkpoint='mine', progress=False).done == 1
assert not [m for m in sys.modules if m.startswith('otseg.train') or m == 'accelerate']
'''
    got = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, encoding='utf-8', timeout=300)
    assert got.returncode == 0, got.stderr
    config['info']['recipe']['stride'] = 'x'
    path.write_text(json.dumps(config), encoding='utf-8')
    with pytest.raises(InputError, match='mine/config.json.*`stride`'): Segmenter.from_pretrained('mine', device='cpu')


def test_what_a_recipe_says_is_what_predicting_reads():
    from otseg.predict.segmenter import stored_settings
    from otseg.train.recipes import RECIPES, Recipe
    for r in [*RECIPES.values(), Recipe()]:
        stored = stored_settings(dict(recipe=json.loads(json.dumps(r.to_dict()))), r.model)
        assert stored == dict(preprocess=r.preprocess(), blend=r.blend, seen_penalty=r.seen_penalty, setting=r.setting)
    short = stored_settings(dict(recipe=dict(name='old')), Recipe().model)
    assert short == dict(preprocess=Recipe().preprocess(), blend=.5, seen_penalty=.1, setting='inductive')


LARGE = '''
import torch, numpy as np
from PIL import Image
torch.set_num_threads(1)
Image.MAX_IMAGE_PIXELS = None
from otseg.predict.folder import predict_folder
def peak(): return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith('VmHWM')) / 1e6
result = predict_folder('large.jpg', 'out', 'boat,sky,star,sand', workers=0, progress=False)
print(peak(), result.done, result.notes)
'''


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='reads /proc')
def test_24_megapixels(folder):
    "All four results, and figures of a shrunken picture"
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (100, 150, 3), dtype=np.uint8))
    noise.resize((6000, 4000)).save('large.jpg')
    got = subprocess.run([sys.executable, '-c', LARGE], capture_output=True, text=True, encoding='utf-8', timeout=900)
    assert got.returncode == 0, got.stderr[-2000:]
    print(got.stdout)
    assert float(got.stdout.split()[0]) < 1.5 and len(names()) == 5
    assert max(Image.open('out/large.jpg.prompts.png').size) < 3000
