"The whole protocol on real photographs: check the data, train inductively and transductively, score, lay out the tables"
import json
import re

import pytest

from otseg.core import read_json
from otseg.commands.evaluate import evaluate
from otseg.evaluate.paper import paper_table, read_results
from otseg.data.check import check_dataset
from otseg.train.command import main as train
from otseg.model.vocab import load_vocab

pytestmark = [pytest.mark.data, pytest.mark.filterwarnings('ignore')]
OPTIONS = ('--weights random --image_size 64 --steps 4 --batch_size 4 --workers 0 --save_every 2 --keep 1 '
           '--vpt_tokens 2').split()


def tiny_clip(path, vocab):
    "A CLIP of two small layers that knows the words of a vocabulary; its weights are random"
    words = sorted({w for row in vocab.texts() for text in row for w in re.findall(r'[a-z]+', text.lower())})
    vision = dict(image_size=64, patch_size=8, width=24, head_width=12, layers=2)
    text = dict(context_length=16, vocab_size=len(words) + 3, width=24, heads=2, layers=1)
    path.write_text(json.dumps(dict(model_cfg=dict(embed_dim=16, quick_gelu=True, vision_cfg=vision, text_cfg=text),
                                    words=words)), encoding='utf-8')
    return path


def protocol(stem, data, vocab):
    "An inductive run, a transductive one from half of it, both scored; the two results"
    clip = ['--clip', str(tiny_clip(data.parent/'tiny.json', vocab))]
    train([f'{stem}-inductive', *OPTIONS, *clip, '--data', str(data), '--output', 'inductive'])
    train([f'{stem}-transductive', *OPTIONS, *clip, '--data', str(data), '--output', 'transductive',
           '--start', 'inductive/checkpoints/step_000002'])
    for run in ('inductive', 'transductive'): evaluate(run, data=str(data), output=f'results/{run}.json')
    assert read_json('transductive/recipe.json')['start'] == 'inductive/checkpoints/step_000002'
    return [read_json(f'results/{run}.json') for run in ('inductive', 'transductive')]


def linked(shared, folder, name):
    "The data set in a folder of the test, so that nothing can be written beside it"
    (folder/'data').symlink_to(shared/'data'/name)
    return folder/'data'


def test_voc(shared, folder, capsys):
    data = linked(shared, folder, 'voc2012_mini')
    assert check_dataset('voc12', data, subset=True).problems == 0
    results = protocol('voc12', data, load_vocab('voc12'))
    assert [(r['setting'], r['pictures'], r['seen_penalty']) for r in results] == [
        ('inductive', 20, .1), ('transductive', 20, 0.)]
    for r in results:
        present = {c['name'] for c in r['classes'] if c['pixels']}
        assert {'sheep', 'sofa', 'bus', 'person'} <= present and 'pottedplant' not in present
        assert [o['blend'] for o in r['options']] == [.5, 1., 0.] and 0 <= r['miou_seen'] <= 1
    table = paper_table(1, read_results('results'))
    ours = f'{100 * results[0]["miou_seen"]:.1f} / {100 * results[0]["miou_unseen"]:.1f} / {100 * results[0]["hiou"]:.1f}'
    row = table[table.index('*inductive*'):table.index('*transductive*')].partition('| OTSeg+ |')[2].splitlines()[0]
    assert row.split('|')[1].strip() == ours and [c.strip() for c in row.split('|')[3:6:2]] == ['', '']
    assert '20 pictures (of 1449)' in table
    evaluate(table=4, results='results')
    assert ours in capsys.readouterr().out


def test_camvid(shared, folder):
    data = linked(shared, folder, 'camvid')
    assert check_dataset('camvid', data).problems == 0
    results = protocol('camvid', data, load_vocab('camvid11'))
    assert [r['pictures'] for r in results] == [101, 101]
    assert sum(c['pixels'] for c in results[0]['classes']) > .9 * 101 * 480 * 360
    assert '101' not in paper_table(1, read_results('results'))                  # no column of the paper


def test_ade_by_description(shared, folder):
    "Three pictures; half of the classes that they hold are unseen"
    ade, data = shared/'data/ade_sceneparsing3/sampleData', folder/'data'
    data.mkdir()
    keys = sorted(p.stem for p in (ade/'images').iterdir())
    for split in ('train', 'val'):
        rows = ''.join(f'{ade}/images/{k}.jpg,{ade}/annotations/{k}.png\n' for k in keys)
        (data/f'{split}.csv').write_text('image,mask\n' + rows, encoding='utf-8')
    names, unseen = load_vocab('ade150').names, ['sky', 'tree', 'car']
    (data/'dataset.json').write_text(json.dumps(dict(names=names, reduce_zero_label=True, unseen=unseen)), encoding='utf-8')
    report = check_dataset('folder', data)
    # the same pictures in both splits, and seen classes that none of three pictures shows: both are said
    assert {p for s in report.splits for p in s.problems} == {'shared', 'classes'}
    results = protocol('folder', data, load_vocab('ade150'))
    for r in results:
        scored = {c['name']: c['iou'] for c in r['classes'] if c['pixels']}
        assert {'sky', 'tree', 'building', 'wall'} <= {*scored} and None not in scored.values()
        assert {c['name'] for c in r['classes'] if c['unseen']} == {*unseen}
