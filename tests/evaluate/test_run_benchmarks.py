"otseg-eval --protocol on the ten benchmarks as their archives have them: published settings, results that are kept, the table"
import json
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from given.layouts import BENCHMARKS, WRONG
from given.shell import data_set, inside, shell

from otseg.data.layouts import LAYOUTS
from otseg.data.reading import load_dataset
from otseg.evaluate.metrics import ConfusionMatrix, segmentation_scores
from otseg.evaluate.protocol import benchmarks, protocol_of, protocol_table, protocol_vocab
from otseg.evaluate.windows import window_starts
from otseg.model.clip import encode_words
from otseg.model.config import OTSegConfig
from otseg.model.dense import TrainingFree
from otseg.evaluate.refine import class_scores, drop_small, pixel_labels, refine_mask
from otseg.model.vocab import load_templates

pytestmark = [pytest.mark.filterwarnings('ignore:.*meaningless.*')]
# share of the pixels that have a class, by hand: stripes of so many
LABELLED = dict(voc21=3/4, voc20=2/4, context59=2/5, context60=1, pc459=1, coco_object=1, cocostuff171=5/6, ade150=2/3,
                cityscapes=4/5, ade847=3/5)


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    "A CLIP of two small layers that reads the words of all benchmarks, its weights random; and a place for results"
    folder = tmp_path_factory.mktemp('benchmarks')
    vocabs = [protocol_vocab(d).with_(templates=['{}']) for d in BENCHMARKS]
    texts = [text.lower() for v in vocabs for row in v.texts() for text in row] + [t.format('') for t in load_templates('6')]
    words = sorted({w for text in texts for w in re.findall(r"[^\W_](?:[^\W_]|['-])*", text)})
    vision = dict(image_size=32, patch_size=16, width=24, head_width=12, layers=2)
    text = dict(context_length=20, vocab_size=len(words) + 3, width=16, heads=2, layers=1)
    clip = dict(model_cfg=dict(embed_dim=12, quick_gelu=True, vision_cfg=vision, text_cfg=text), words=words)
    (folder/'clip.json').write_text(json.dumps(clip), encoding='utf-8')
    return folder


@pytest.fixture(autouse=True)
def here(world, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('OTSEG_CACHE', str(tmp_path/'cache'))


def score(world, data, *more, results='results'):
    given = ['--clip', world/'clip.json', '--weights', 'random', '--templates', '{}']
    return shell('otseg-eval', '--protocol', '--data', data, '--results', results, *given, *more)


def only(folder='results') -> dict:
    (path,) = Path(folder).glob('*.json')
    return json.loads(path.read_text(encoding='utf-8'))


def by_hand(world, dataset, folder, rule='naclip', method=None, **own):
    "The scores of a benchmark by the definition: windows, mean, enlarge, refine, softmax, best word, area, level"
    p, clip = protocol_of(dataset, method or rule).changed(**own)[0], str(world/'clip.json')
    model = TrainingFree(clip, 'random', dense=rule).eval()
    vocab = protocol_vocab(dataset).with_(templates=['{}'])
    text = F.normalize(encode_words(OTSegConfig(clip=clip, weights='random'), vocab).mean(1), dim=-1)
    data = load_dataset(dataset, folder, 'val', p.preprocess().eval_transform())
    counts = ConfusionMatrix(len(vocab))
    for sample in data:
        x, truth = sample['image'][None], sample['labels'][None]
        H, W = x.shape[-2:]
        side = p.window or max(H, W)
        total, count = torch.zeros(1, len(text), H, W), torch.zeros(H, W)
        for r in window_starts(H, side, p.stride if p.window else side):
            for c in window_starts(W, side, p.stride if p.window else side):
                part = x[..., r:r + side, c:c + side]
                with torch.no_grad(): cosines = torch.einsum('bdhw,qd->bqhw', model.tokens(part), text)
                size = [-(-s // 16) * 16 for s in part.shape[-2:]]                # windows are completed to whole patches
                maps = F.interpolate(cosines, size=size, mode='bilinear')[..., :part.shape[-2], :part.shape[-1]]
                total[..., r:r + side, c:c + side] += maps
                count[r:r + side, c:c + side] += 1
        rows = F.interpolate(total / count, size=truth.shape[-2:], mode='bilinear')
        if p.refine: rows = refine_mask(F.interpolate(x, size=truth.shape[-2:], mode='bilinear'), rows, p.refine)
        scores = class_scores(rows, vocab.query_class, p.logit_scale)
        if p.area is not None: scores = drop_small(scores, p.area)
        counts.update(pixel_labels(scores, p.background), truth)
    return counts, segmentation_scores(counts, vocab.seen, ())


@pytest.mark.parametrize('name', BENCHMARKS)
def test_a_benchmark(name, world, tmp_path):
    "As published, most with smaller pictures and windows; the score is that of the definition, but for rounding"
    BENCHMARKS[name][0](tmp_path/'data')
    title = (benchmarks() | benchmarks(large=True))[name]
    own = {} if name in ('voc21', 'context60') else dict(size=48, window=32, stride=16)
    code, out, err = score(world, f'{title}=data', *(w for k, v in own.items() for w in (f'--{k}', v)))
    assert code == 0, err
    r, p = only(), protocol_of(name)
    assert r['dataset'] == name and r['pictures'] == 2 and r['protocol']['changed'] == own | dict(templates='{}')
    assert r['protocol']['settings'] | dict(templates='80') == dict(
        size=p.size, window=p.window, stride=p.stride, logit_scale=p.logit_scale, background=p.background, area=p.area,
        refine=p.refine, templates='80', synonyms='max') | own
    assert sum(c['pixels'] for c in r['classes']) == pytest.approx(2 * 40 * 60 * LABELLED[name])
    _, scores = by_hand(world, name, tmp_path/'data', **own)
    assert [r['miou'], r['pixel_accuracy']] == pytest.approx([scores.miou, scores.pixel_accuracy], abs=2e-3)
    row = next(line for line in out.splitlines() if line.startswith('| ours'))
    told = ''.join(f', {k} {v}' for k, v in own.items())
    assert row.split('|')[1].strip() == f'ours: CLIP (naclip), custom with PAMR{told}, templates {{}}'
    assert f'{100 * r["miou"]:.2f}' in row
    full = ' or '.join(map(str, LAYOUTS[name].published['val']))
    assert f'{name}, 2 pictures (of {full})' in out and f'{name}: mIoU {100 * r["miou"]:.2f}, 2 pictures' in out


@pytest.mark.parametrize('name', BENCHMARKS)
def test_a_wrong_tree_is_named(name, world, tmp_path):
    BENCHMARKS[name][0](tmp_path/'data')
    change, file = WRONG[name]
    change(tmp_path/'data')
    code, out, err = score(world, f'{name}=data', '--refine', '0', '--size', '48')
    assert code == 2 and file in err and err.splitlines()[-1].startswith('error: '), (code, err)
    assert 'Traceback' not in err and not [*Path('results').glob('*')]


@pytest.mark.parametrize('rule,method', dict(sclip='sclip', clearclip='clearclip', vanilla='sclip', maskclip='sclip').items())
def test_rules_in_their_own_settings(rule, method, world, tmp_path):
    BENCHMARKS['voc21'][0](tmp_path/'data')
    code, out, err = score(world, 'voc21=data', '--dense', rule, '--size', '96')
    assert code == 0, err
    r, (_, scores) = only(), by_hand(world, 'voc21', tmp_path/'data', rule, method, size=96)
    assert r['protocol']['method'] == method and r['method'] == f'CLIP ({rule})'
    assert r['miou'] == pytest.approx(scores.miou, abs=2e-3)
    assert 'with PAMR, size' not in out


def test_the_same_command_goes_on(world, tmp_path):
    for name in ('voc21', 'cityscapes'): BENCHMARKS[name][0](tmp_path/name)
    code, out, err = score(world, 'VOC20=voc21', '--refine', '0')
    (first,) = Path('results').glob('*.json')
    before = first.read_bytes(), first.stat().st_mtime_ns
    code, out, err = score(world, 'VOC20=voc21,Cityscapes=cityscapes', '--refine', '0', '--output', 'table.md')
    assert code == 0 and f'voc20: scored before, {first}' in out and (first.read_bytes(), first.stat().st_mtime_ns) == before
    made = {p.name.split('-')[0]: p for p in Path('results').glob('*.json')}
    assert {*made} == {'voc20', 'cityscapes'} and {p.with_suffix('.csv').is_file() for p in made.values()} == {True}
    table = Path('table.md').read_text(encoding='utf-8')
    assert out.endswith(table)
    (row,) = [[c.strip() for c in line.split('|')[1:-1]] for line in table.splitlines() if line.startswith('| ours')]
    assert row[0] == 'ours: CLIP (naclip), custom, templates {}' and [bool(c) for c in row[1:]] == [0, 0, 0, 1, 1, 0, 0, 0]
    assert [c for c in row[1:] if c] == [f'{100 * json.loads(made[k].read_bytes())["miou"]:.2f}' for k in ('voc20', 'cityscapes')]
    code, out, err = shell('otseg-eval', '--protocol', '--results', 'results')                     # without data the table alone
    assert code == 0 and out == table
    code, out, err = score(world, 'VOC20=voc21', '--refine', '0', '--overwrite')
    assert code == 0 and first.stat().st_mtime_ns > before[1]
    code, out, err = score(world, 'VOC20=voc21', '--refine', '2', '--area', '0.2', '--precision', 'bf16')
    assert code == 0 and 'ours: CLIP (naclip), custom with PAMR, area 0.2, templates {}, bf16' in out
    assert len([*Path('results').glob('voc20*.json')]) == 2


def test_one_data_set_by_its_name_and_a_background_of_ones_own(world, tmp_path):
    BENCHMARKS['voc21'][0](tmp_path/'data')
    code, out, err = score(world, 'data', '--dataset', 'VOC21', '--refine', '0', '--background', '0.3,sky,wall')
    assert code == 0 and 'voc21: mIoU' in out, err
    r = only()
    assert r['words']['background'] == ['sky', 'wall'] and r['background'] == .3
    assert r['protocol']['changed'] == dict(background=.3, refine=0, templates='{}', words='sky | wall')
    code, out, err = score(world, 'data', '--dataset', 'VOC20', '--background', '0.3')
    assert code == 2 and 'a class called background, got voc20, which has none' in err


def test_a_trained_model_needs_the_words(world, tmp_path):
    "Its CLIP has to know the words: that of the toy world does not, and says so"
    BENCHMARKS['voc20'][0](tmp_path/'data')
    code, out, err = shell('otseg-eval', 'toy', '--protocol', '--data', 'VOC20=data')
    assert code == 2 and 'should use words that this CLIP learned' in err and not Path('results').exists()


@pytest.fixture(scope='module')
def run(world):
    "A training of two steps on that CLIP, on four classes with one template, two of which have several words"
    names = ['cat', 'dog', 'sky', 'road']
    data_set(world/'own', names, ['dog'])
    data_set(world/'other', ['water', 'sky', 'tree'], ['water'])
    for name, words in dict(own=dict(cat=['cat', 'animal'], sky=['sky', 'cloud', 'sun']),
                            other=dict(water=['water', 'river', 'lake'], tree=['tree', 'plant'])).items():
        told = json.loads((world/name/'dataset.json').read_text(encoding='utf-8')) | dict(words=words, templates=['{}'])
        (world/name/'dataset.json').write_text(json.dumps(told), encoding='utf-8')
    how = '--image_size 32 --steps 2 --batch_size 2 --workers 0 --save_every 2 --vpt_tokens 2'.split()
    how += ['--clip', 'clip.json', '--weights', 'random:5', '--init', 'aligned', '--data', 'own', '--output', 'run']
    with inside(world): code, out, err = shell('otseg-train', 'folder-inductive', *how)
    assert code == 0, err
    return world/'run'


def test_a_trained_model_stands_in_the_table(run, tmp_path):
    "With the scores that it has when it is asked for each data set alone, by the same words, of which a class may have several"
    asked = dict(voc21='VOC21', voc20='VOC20', cityscapes='Cityscapes')
    for name in asked: BENCHMARKS[name][0](tmp_path/name)
    data = ','.join(f'{title}={name}' for name, title in asked.items())
    code, out, err = shell('otseg-eval', run, '--protocol', '--data', data, '--output', 'table.md', '--blend', '0')
    assert code == 0, err
    kept = {p.name.split('-')[0]: json.loads(p.read_text(encoding='utf-8')) for p in Path('results').glob('*.json')}
    alone = {}
    for name in asked:
        code, told, err = shell('otseg-eval', run, '--cross', name, '--data', name, '--output', f'{name}.json', '--blend', '0')
        assert code == 0, err
        alone[name] = json.loads(Path(f'{name}.json').read_text(encoding='utf-8'))
    for r in (*kept.values(), *alone.values()):
        r['iou'] = [(c['name'], c['iou'], c['accuracy'], c['pixels']) for c in r['classes']]
    same = 'miou', 'pixel_accuracy', 'iou', 'window', 'stride', 'blend', 'seen_penalty', 'sha256', 'templates', 'pictures'
    for name in asked: assert [kept[name][k] for k in same] == [alone[name][k] for k in same], name
    assert kept['voc21']['synonyms'] == alone['voc21']['synonyms'] == 'max'
    assert kept['voc21']['words'] == alone['voc21']['words'] and len(alone['voc21']['words']['background']) > 5
    assert len({r['miou'] for r in kept.values()}) == 3
    for name in ('voc20', 'voc21'): assert any(0 < (accuracy or 0) < 1 for _, _, accuracy, _ in kept[name]['iou'])
    table = Path('table.md').read_text(encoding='utf-8')
    (row,) = [[c.strip() for c in line.split('|')[1:-1]] for line in table.splitlines() if line.startswith('| ours')]
    head = next([c.strip() for c in line.split('|')[1:-1]] for line in table.splitlines() if 'Cityscapes' in line)
    assert row[0].startswith('ours: OTSeg') and out.endswith(table)
    cells = {title: row[i] for i, title in enumerate(head) if i and row[i]}
    assert cells == {title: f'{100 * kept[name]["miou"]:.2f}' for name, title in asked.items()}


def test_the_best_word_counts_unless_another_way_is_asked_for(world, run):
    "Of CLIP alone and of classes that were not trained on; classes of a training are scored by the mean that they had"
    def scored(*words):
        code, out, err = shell('otseg-eval', *words, '--output', 'new.json', '--overwrite')
        assert code == 0, err
        r = json.loads(Path('new.json').read_text(encoding='utf-8'))
        return r['synonyms'], [c['accuracy'] for c in r['classes']]
    free = ['folder-inductive', '--training-free', '--clip', world/'clip.json', '--weights', 'random:5', '--data', world/'other']
    crossed, own = [run, '--cross', 'folder', '--data', world/'other'], [run, '--data', world/'own']
    for ask, usual in ((crossed, 'max'), (free, 'max'), (own, 'mean')):
        best, mean = (scored(*ask, '--synonyms', how) for how in ('max', 'mean'))
        assert best[0] == 'max' and mean[0] == 'mean' and best[1] != mean[1]
        assert scored(*ask) == (best if usual == 'max' else mean)


REFUSED = {
    '--data VOC20=none': 'none should be the folder of voc20', '--data .': 'Write it like --data VOC20=/data/voc',
    '--data VOC12=.': "unknown benchmark 'VOC12'", '--dataset VOC20': '--data should be the folder of voc20',
    '--data VOC20=. --dense naklip': "Did you mean 'naclip'",
    'toy --data VOC20=. --dense sclip': '--dense should be given with CLIP alone',
    'clip': 'the data of a benchmark should be named', '--data VOC20=. --cross ade150 --sweep': '--cross, --sweep',
    '--data VOC20=. --precision fp8': 'unknown precision', '--data VOC20=. --weights none.pt': 'none.pt',
    '--data VOC20=.,VOC20=.': 'voc20 twice', '--data VOC20=. --background 0.1,0.2': 'should have one level'}


@pytest.mark.parametrize('words', REFUSED)
def test_what_is_refused(words):
    code, out, err = shell('otseg-eval', *words.split(), '--protocol')
    assert code == 2 and REFUSED[words] in err and 'Traceback' not in err and not out, (out, err)


def test_nothing_is_there():
    code, out, err = shell('otseg-eval', '--protocol', '--results', 'none')
    assert code == 0 and out == protocol_table() + '\n' and '| SCLIP | 59.63 |' in out and 'ours' not in out
