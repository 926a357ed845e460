"A folder of pictures loses none and does none twice: spread over processes, killed at any moment, with bad files in it"
import contextlib
import io
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from given.training import fork_server
from otseg.predict.folder import predict_folder
from otseg.predict.command import main
from otseg.predict.segmentation import decode_rle, encode_rle
from otseg.predict.segmenter import Segmenter

pytestmark = [pytest.mark.filterwarnings('ignore:.*meaningless.*'),
              pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')]  # of pycocotools
SHAPES = {'a.jpg': (60, 90, 3), 'a.png': (50, 50), 'B.JPEG': (97, 33, 3), 'c.webp': (40, 41, 3), 'x/a.jpg': (130, 60, 3),
          'x/d.tif': (1, 1), 'x/y z/e.bmp': (96, 96, 3), 'x/y z/f.PNG': (30, 200, 4), 'ü/g.jpg': (64, 300, 3)}
RESULTS = sorted(f'{name}.mask.png' for name in SHAPES)
CLASSES = 'boat,star|heart,sky'


@pytest.fixture
def photos(folder):
    "Nine pictures of odd sizes in sub-folders, and what is none"
    rng = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        path = folder/'in'/name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, shape, dtype=np.uint8)
        if shape[2:] == (4,): pixels[..., 3] = np.linspace(0, 255, shape[1])  # transparency is smooth
        Image.fromarray(pixels).save(path)
    (folder/'in/notes.txt').write_text('none', encoding='utf-8')
    (folder/'in/.a.jpg').write_bytes(b'none')
    return folder/'in'


def files(folder): return {p.relative_to(folder).as_posix(): p for p in sorted(Path(folder).rglob('*'))
            if p.is_file() and 'cache' not in p.relative_to(folder).parts}  # of text embeddings


def masks(folder):
    "Bytes of every result"
    return {name: path.read_bytes() for name, path in files(folder).items() if name.endswith('.png') and '/.' not in f'/{name}'}


def marks(folder):
    "What would change if a result were written again"
    return {name: (path.stat().st_ino, path.stat().st_mtime_ns) for name, path in files(folder).items()}


# processes of their own

@pytest.fixture(scope='module')
def server():
    "Processes that start in a moment: forked from one that has imported the module and done nothing else"
    return fork_server('otseg.predict.folder')


def one_of(rank, processes, port, argv, slow, said):
    "One process of a launcher: torchrun sets these variables"
    torch.set_num_threads(1)
    warnings.simplefilter('ignore')
    os.environ |= dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes), MASTER_ADDR='127.0.0.1',
                       MASTER_PORT=str(port), CUDA_VISIBLE_DEVICES='')
    if slow: delay(slow)
    with open(said, 'w', encoding='utf-8') as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out): main(argv)


def delay(seconds):
    "A model that takes its time"
    windows = Segmenter.windows
    def slowly(*args, **kwargs):
        time.sleep(seconds)
        return windows(*args, **kwargs)
    Segmenter.windows = slowly


def start(server, processes, argv, slow=0):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    made = [server.Process(target=one_of, args=(i, processes, port, [str(a) for a in argv], slow, f'said{i}'))
            for i in range(processes)]
    for p in made: p.start()
    return made


def together(server, processes, *argv, codes=(0,)):
    "Run to the end; returns what each process said"
    made = start(server, processes, argv)
    for p in made: p.join(240)
    said = [Path(f'said{i}').read_text(encoding='utf-8') for i in range(processes)]
    assert {p.exitcode for p in made} == {*codes}, said
    return said


def ask(*more, output='out', classes=CLASSES, results='mask'):
    return ['in', '--output', output, '--checkpoint', 'toy', '--classes', classes, '--workers', 0, '--results', results, *more]


def alone(*more, **kwargs):
    "The same in this process: exit code and what it says"
    out, code = io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try: main([str(a) for a in ask(*more, **kwargs)])
        except SystemExit as e: code = e.code
    return code, out.getvalue()


BOTH = 'mask,overlay'


def refused(*more, says, **kwargs):
    before = marks('.')
    code, out = alone(*more, **kwargs)
    assert code == 2 and 'Traceback' not in out, out
    for word in [says] if isinstance(says, str) else says: assert word in out, out
    assert marks('.') == before


def test_two_processes_write_what_one_writes(photos, server):
    said = together(server, 2, *ask('--background', 'wood', '--workers', 1, output='two', results=BOTH))
    assert '9 pictures: 9 done now, 0 done earlier, 0 skipped' in said[0] and 'done' not in said[1]
    code, out = alone('--background', 'wood', output='one', results=BOTH)
    assert code == 0, out
    one, two = masks('one'), masks('two')
    assert sorted(one) == sorted(RESULTS + [f'{n}.overlay.png' for n in SHAPES]) and one == two
    assert sorted(files('two')) == sorted([*two, 'predict.json'])
    assert {Path('one', r).stat().st_mode & 0o777 for r in RESULTS} == {0o644}
    seg, record = Segmenter.from_pretrained('toy', device='cpu'), json.loads(Path('one/predict.json').read_text(encoding='utf-8'))
    assert record['classes'] == ['boat', 'star', 'sky', 'background'] and record['words'] == dict(star=['star', 'heart'])
    for name in SHAPES:
        found = Image.open(f'two/{name}.mask.png')
        assert np.array_equal(np.array(found), seg.predict(f'in/{name}', CLASSES, background='wood').labels)
    assert record['environment'].keys() >= {'commit', 'torch', 'device'} and len(record['sha256']) == 71


def test_a_complete_folder_is_left_alone(photos, server):
    assert alone()[0] == 0
    before = marks('out')
    said = together(server, 2, *ask())
    assert '9 pictures: 0 done now, 9 done earlier, 0 skipped' in said[0] and marks('out') == before


@pytest.mark.parametrize('processes', [1, 2])
def test_killed_in_the_middle(photos, server, processes):
    "What was done stays as it was, to the inode; what was not is done; nothing else is left"
    made = start(server, processes, ask(results=BOTH), slow=.3)
    end = time.time() + 120
    while len([n for n in files('out') if n in RESULTS]) < 3:
        assert time.time() < end and any(p.is_alive() for p in made)
        time.sleep(.02)
    for p in made: os.kill(p.pid, signal.SIGKILL)
    for p in made: p.join()
    Path('out/x').mkdir(exist_ok=True)
    old = 2 * 3600
    for name, age in {'.a.jpg.otseg_01234567.png': old, 'x/.d.tif.otseg_0123abcd.png': 0, '.d.12345678.png': old}.items():
        name = f'out/{name}'
        Path(name).write_bytes(b'half')
        os.utime(name, (time.time() - age,) * 2)
    done = {n: m for n, m in marks('out').items() if n in RESULTS}
    assert 3 <= len(done) < 9
    half = {n for n in files('out') if '.otseg_' in n} - {'.a.jpg.otseg_01234567.png'}
    said = together(server, 2, *ask(results=BOTH))
    assert f'9 pictures: {9 - len(done)} done now, {len(done)} done earlier' in said[0]
    after = marks('out')
    assert {n: after[n] for n in done} == done
    # what is young or another program's stays
    assert {'x/.d.tif.otseg_0123abcd.png'} <= half
    assert sorted(after) == sorted([*RESULTS, *(f'{n}.overlay.png' for n in SHAPES), 'predict.json', '.d.12345678.png', *half])
    assert alone(output='whole', results=BOTH)[0] == 0 and masks('whole') == masks('out')


def test_new_pictures_are_added(photos):
    assert alone()[0] == 0
    before = marks('out')
    (photos/'a.jpg').rename(photos/'a.jpg.bmp')          # another name is another picture
    code, out = alone()
    assert code == 0 and '1 done now, 8 done earlier' in out
    assert {n: marks('out')[n] for n in before} == before and Path('out/a.jpg.bmp.mask.png').is_file()


def killed_again_and_again(server, rounds, seed):
    "Two calls, each of one process, together on one folder, until a moment at random, and then to the end"
    g, seen = random.Random(seed), {}
    for _ in range(rounds):
        made = [p for _ in range(2) for p in start(server, 1, ask(results=BOTH), slow=.1)]
        end = time.time() + g.choice([3, 60])                             # also before anything is there
        while time.time() < end and any(p.is_alive() for p in made) and len(marks('out').keys() & {*RESULTS}) <= len(seen):
            time.sleep(.02)
        time.sleep(g.uniform(0, .5))
        for p in made:
            if p.is_alive(): os.kill(p.pid, signal.SIGKILL)
        for p in made: p.join(60)
        assert {p.exitcode for p in made} <= {0, 2, -signal.SIGKILL}
        now = {n: m for n, m in marks('out').items() if n in RESULTS}
        assert {n: now[n] for n in seen} == seen                          # what was done was not done again
        for name in now: Image.open(f'out/{name}').load()                 # and is whole
        seen = now
    return seen


def two_calls_together(server, rounds):
    done = killed_again_and_again(server, rounds, seed=rounds)
    if not done: assert alone(results=BOTH)[0] == 0                       # killed before anything was noted
    Path('out/mine').mkdir()
    for name in ('out/.foreign.12345678.png', 'out/mine/.a.png.part'): Path(name).write_bytes(b'mine')
    assert alone(results=BOTH)[0] == 0
    after = marks('out')
    assert {n: after[n] for n in done} == done
    assert Path('out/.foreign.12345678.png').read_bytes() == Path('out/mine/.a.png.part').read_bytes() == b'mine'
    assert alone(output='whole', results=BOTH)[0] == 0
    assert masks('whole') == {n: b for n, b in masks('out').items() if b != b'mine'}
    assert [n for n in after if '.otseg.lock' in n] == []


def test_two_calls_on_one_folder_killed_at_random(photos, server): two_calls_together(server, 2)


@pytest.mark.slow
def test_two_calls_on_one_folder_killed_ten_times(photos, server): two_calls_together(server, 10)


@pytest.mark.parametrize('lost', [0, 1])
def test_a_process_that_is_lost(photos, server, lost):
    "The others do not wait for days: they say so and end, and the same call again does what is left"
    made = start(server, 2, ask(), slow=.3)
    end = time.time() + 120
    while len(masks('out')) < 2:
        assert time.time() < end and any(p.is_alive() for p in made)
        time.sleep(.02)
    os.kill(made[lost].pid, signal.SIGKILL)
    began = time.time()
    for p in made: p.join(120)
    assert time.time() - began < 100 and made[1 - lost].exitcode == 2
    said = Path(f'said{1 - lost}').read_text(encoding='utf-8')
    assert 'all processes should go on, got one that is lost' in said and 'Traceback' not in said, said
    done = {n: m for n, m in marks('out').items() if n in RESULTS}
    assert len(done) >= (8 if lost else 2)             # the main process took over all but what the other had in hand
    assert alone()[0] == 0 and {n: m for n, m in marks('out').items() if n in done} == done and sorted(masks('out')) == RESULTS


# bad pictures

@pytest.fixture
def bad(photos):
    cut = (photos/'B.JPEG').read_bytes()
    for name in ('0.jpg', 'd.png', 'x/b.jpg'): (photos/name).write_bytes(cut[:200])
    return photos


def test_bad_pictures_are_an_error_when_the_others_are_done(bad):
    code, out = alone()
    assert code == 1 and 'Traceback' not in out and sorted(masks('out')) == RESULTS, out
    assert 'every picture should be whole, got 3 that are not, listed in out/skipped.json' in out.splitlines()[-1]
    assert '--skip_bad 3 goes on without' in out
    assert 'in/0.jpg should be a whole picture, got one that does not decode' in out and 'All others are done.' in out
    assert '12 pictures: 9 done now, 0 done earlier, 3 skipped' in out
    assert alone('--skip_bad', 2)[0] == 1 and alone('--skip_bad', 3)[0] == 0


@pytest.mark.parametrize('processes', [1, 2])
def test_bad_pictures_are_skipped_and_listed(bad, server, processes):
    said = together(server, processes, *ask('--skip_bad', 3))
    assert '12 pictures: 9 done now, 0 done earlier, 3 skipped' in said[0] and sorted(masks('out')) == RESULTS
    listed = json.loads(Path('out/skipped.json').read_text(encoding='utf-8'))
    assert [*listed] == ['0.jpg', 'd.png', 'x/b.jpg'] and all('does not decode' in why for why in listed.values())
    for name in listed: Image.new('RGB', (9, 9)).save(bad/name)      # restored
    assert '3 done now, 9 done earlier, 0 skipped' in together(server, processes, *ask())[0]
    assert not Path('out/skipped.json').exists() and len(masks('out')) == 12


def test_too_many_bad_pictures_over_all_processes(bad, server):
    "Two and one: neither process has more than two, both have more together. All good ones are done"
    said = together(server, 2, *ask('--skip_bad', 2), codes=(1, 2))
    assert said[0].count('error: ') == 1 and 'at most 2 pictures should be bad (--skip_bad), got 3' in said[0]
    assert 'error' not in said[1] and sorted(masks('out')) == RESULTS


# what is refused

def test_other_options_are_refused(photos):
    assert alone('--blend', '.5')[0] == 0
    assert alone()[0] == 0                                # the same, since training says so
    again = ['should be gone on with as it was begun', 'choose another --output', '--overwrite']
    refused('--size', 64, says=[*again, 'size: None before, 64 now'])
    refused('--blend', '1', '--background', '0.4', says=['blend: 0.5 before, 1.0 now', 'background: None before, 0.4 now'])
    refused('--templates', 'a {}', says='templates: ')
    refused(results=BOTH, says="results: ['mask'] before, ['overlay', 'mask'] now")
    refused('--precision', 'bf16', says='precision: no before, bf16 now')
    refused(classes='boat,star,sky', says="words: {'star': ['star', 'heart']} before, {} now")
    photos.rename('elsewhere')
    refused(says='in should be a picture or a folder of pictures')


def test_refusals_come_before_a_byte_is_written(photos):
    refused(output='in', says='in should not hold the pictures')
    refused(output='.', says='. should not hold the pictures')
    refused('--checkpoint', 'absent', says='a checkpoint should be')
    refused(classes='boat,zebra', says='zebra')
    refused(classes='boat,,sky', says='class 1 should have a name')
    refused(results='masks', says="unknown kind of result 'masks'. Did you mean 'mask'")
    refused('--show', 'sun', says="should be asked for, got 'sun'. Choose from boat, star, sky")
    refused('--size', '0', says='`size` should lie in 8..8192')
    refused('--background', '1.5', says='between 0 and 1')
    refused('--blend', '2', says='`blend` should lie in 0..1')
    refused('--precision', 'half', says="unknown precision 'half'")
    refused('--outptu', 'x', says='unrecognized arguments: --outptu x')
    refused('--skip_bad', '-1', says='`skip_bad` should not be negative')
    refused(output='in/a.jpg', says='in/a.jpg should be a folder, got a file')
    Path('mine').mkdir()
    Path('mine/thesis.txt').touch()
    refused(output='mine', says=['mine should be empty, absent, or hold earlier results', 'thesis.txt'])
    Path('mine/predict.json').write_text('{"size": ', encoding='utf-8')
    refused(output='mine', says='mine/predict.json is not valid JSON')


def test_an_error_of_all_processes_is_said_once(photos, server):
    said = together(server, 2, *ask(classes='boat,zebra'), codes=(2,))
    assert said[0].count('error: ') == 1 and said[1] == '' and not Path('out').exists()


def test_a_folder_without_a_picture_is_refused(folder, server):
    Path('in').mkdir()
    refused(says='in should hold pictures, got none. Name another folder', output='out')
    for name in ('a.heics', 'b.heics', 'c.xyz'): Path('in', name).write_bytes(b'x')
    refused(says='none (left out: 2 in a format that is not read (a.heics, b.heics): convert', output='out')
    assert 'in should hold pictures' in together(server, 2, *ask(), codes=(2,))[0] and not Path('out').exists()


def test_fewer_pictures_than_processes(photos, server):
    for name in SHAPES:
        if name != 'a.jpg': (photos/name).unlink()
    assert '1 picture: 1 done now' in together(server, 2, *ask())[0]


def test_results_in_the_folder_of_the_pictures(photos, server):
    "They are not taken for pictures, in the first call or the second"
    for line in ('9 done now, 0 done earlier', '0 done now, 9 done earlier'):
        assert line in together(server, 2, *ask(output='in/masks', results=BOTH))[0]
    assert sorted(n for n in masks('in/masks') if 'overlay' not in n) == RESULTS


def test_many_classes_need_16_bits(photos):
    things = Segmenter.from_pretrained('toy', device='cpu').vocab.names
    names = [f'{a} {b}' for a in things for b in things][:300]
    for name in list(SHAPES)[1:]: (photos/name).unlink()
    result = predict_folder('in', 'out', names, workers=0, progress=False, results=BOTH)
    assert result.done == 1 and Image.open('out/a.jpg.mask.png').mode.startswith('I')
    assert Image.open('out/a.jpg.overlay.png').size == Image.open('in/a.jpg').size


def test_usage():
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as end: main(['--help'])
    assert end.value.code == 0 and 'usage: otseg-predict' in out.getvalue()
    options = re.findall(r'^  (--[a-z-]+)(?: \(\w+\))?\s{2,}\S', out.getvalue(), re.M)
    assert {'--classes', '--skip-bad', '--results', '--overwrite', '--seen-penalty'} <= {*options}   # each with its line


def test_as_a_module(photos):
    "As a user types it"
    env = os.environ | dict(OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    argv = [sys.executable, '-m', 'otseg.predict', *map(str, ask())]
    got = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=240, encoding='utf-8')
    assert got.returncode == 0 and '9 done now' in got.stdout, got.stderr
    assert sorted(masks('out')) == RESULTS


@pytest.mark.slow
@pytest.mark.parametrize('launcher', [('torch.distributed.run', '--standalone', '--nproc_per_node', '2'),
                                      ('accelerate.commands.launch', '--multi_gpu', '--num_processes', '2', '--num_machines',
                                       '1', '--main_process_port', '0', '--mixed_precision', 'no', '--dynamo_backend', 'no')],
                         ids=['torchrun', 'accelerate'])
def test_launchers(photos, launcher):
    "Without a GPU the processes meet by gloo, whatever the launcher had in mind"
    env = os.environ | dict(OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    argv = [sys.executable, '-m', *launcher, '-m', 'otseg.predict', *map(str, ask())]
    got = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=240, encoding='utf-8')
    assert got.returncode == 0 and '9 done now' in got.stdout, got.stderr[-2000:]
    assert alone(output='one')[0] == 0 and masks('out') == masks('one')


# one picture

@pytest.fixture(scope='module')
def segmenter(): return Segmenter.from_pretrained('toy', device='cpu')


def saved(folder, name, image, **options):
    image.save(folder/name, **options)
    return folder/name


@pytest.mark.parametrize('shape', [(1, 1), (1, 500), (700, 2), (97, 33), (30, 1200)])
def test_any_aspect(segmenter, shape):
    s = segmenter.predict(np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8), 'boat,sky', background=True)
    assert s.labels.shape == shape and s.probs.shape == (3, *shape) and (s.labels == s.probs.argmax(0).numpy()).all()
    assert sum(a['area'] for a in s.to_coco()) == (s.labels < 2).sum() and 'base64' in s._repr_html_()


def test_every_kind_of_picture_is_the_same_picture(segmenter, folder):
    "Saved without loss in every way that holds its colours, it gets the same labels"
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 255, (40, 56), dtype=np.uint8).repeat(2, 0)[:, :, None].repeat(3, 2)
    image, none = Image.fromarray(grey), Image.new('L', grey.shape[1::-1])
    turned = image.getexif()
    turned[0x112] = 8                                    # shown a quarter turn to the left: 40 x 56 lies on its side
    frames = dict(save_all=True, append_images=[Image.new('RGB', image.size, 'red')])
    kinds = [grey, grey[..., 0], grey.astype(np.uint16) << 8, grey / np.float32(255), image.convert('RGBA'),
             saved(folder, 'a.png', image), saved(folder, 'l.png', image.convert('L')),
             saved(folder, 'b.tiff', Image.fromarray(grey[..., 0].astype(np.uint16) << 8)),
             saved(folder, 'c.webp', image, lossless=True), saved(folder, 'd.gif', image.convert('L'), **frames),
             saved(folder, 'e.png', image.transpose(Image.Transpose.ROTATE_270), exif=turned),
             saved(folder, 'f.tif', Image.merge('CMYK', [none, none, none, Image.fromarray(255 - grey[..., 0])]))]
    names = 'house,tree,sky,sand'
    want = segmenter.predict(grey, names).labels
    assert len(np.unique(want)) > 1
    for i, s in enumerate(segmenter.predict(kinds, names)): assert np.array_equal(s.labels, want), i


def test_run_lengths_are_those_of_coco(segmenter):
    masks = pytest.importorskip('pycocotools.mask')
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (5, 7), (300, 40), (48, 640)):
        for share in (0, .001, .1, .5, .99, 1):
            mask = rng.random(shape) < share
            got = encode_rle(mask)
            want = masks.encode(np.asfortranarray(mask.astype(np.uint8)))
            assert got['counts'] == want['counts'].decode() and got['size'] == want['size']
            assert np.array_equal(masks.decode(got), mask) and np.array_equal(decode_rle(got), mask)
    s = segmenter.predict(rng.integers(0, 255, (60, 90, 3), dtype=np.uint8), 'boat,sky,star')
    for a in s.to_coco():
        assert masks.area(a['segmentation']) == a['area'] and masks.toBbox(a['segmentation']).tolist() == a['bbox']


MEMORY = '''
import warnings
import numpy as np, torch
from otseg.predict.segmenter import Segmenter
warnings.filterwarnings('ignore')
torch.set_num_threads(1)
def peak():  # ru_maxrss would start at that of the process that started this one
    with open('/proc/self/status') as f: return next(int(line.split()[1]) for line in f if line.startswith('VmHWM')) / 1024
seg = Segmenter.from_pretrained('toy', device='cpu')
classes = seg.vocab.names
small = np.random.default_rng(0).integers(0, 255, (96, 128, 3), dtype=np.uint8)
seg.predict(small, classes)
before = peak()
large = np.tile(small, (32, 32, 1))[:3000, :4000]
s = seg.predict(large, classes, background=True)
print(before, peak(), s.labels.shape)
'''


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/status').exists(), reason='reads /proc')
def test_memory_of_a_large_picture(folder):
    "27 scores of 12 million pixels would take 1.3 GB; the picture and its labels take 0.13 GB"
    got = subprocess.run([sys.executable, '-c', MEMORY], capture_output=True, text=True, timeout=500, encoding='utf-8')
    assert got.returncode == 0, got.stderr[-2000:]
    before, after = map(float, got.stdout.split()[:2])
    print(f'{before:.0f} MB before, {after:.0f} MB at the peak')
    assert after - before < 900
