"The eight columns of the open-vocabulary benchmarks: published numbers, ours from stored results, empty where nothing was run"
import json

import pytest
import torch
from given.layouts import BENCHMARKS

from otseg.core import InputError, ignore_label
from otseg.data.layouts import LAYOUTS
from otseg.data.reading import load_dataset
from otseg.evaluate.metrics import ConfusionMatrix, segmentation_scores
from otseg.evaluate.paper import KIND, read_results
from otseg.evaluate.protocol import benchmarks, protocol_cells, protocol_of, protocol_table, protocol_vocab
from otseg.evaluate.refine import class_scores, pixel_labels

COLUMNS = ['VOC21', 'Context60', 'COCO-Object', 'VOC20', 'Cityscapes', 'Context59', 'ADE20K', 'COCO-Stuff']


def result(dataset, miou, **more):
    scores = dict(miou=miou, miou_seen=miou, miou_unseen=None, hiou=None)
    return dict(kind=KIND, split='val', dataset=dataset, trained_on=None, setting='training-free', method='CLIP (sclip)',
                checkpoint='ViT-B-16-quickgelu', sha256='0', pictures=LAYOUTS[dataset].published['val'][0], cross=False,
                seen_penalty=0, options=[dict(blend=1., seen_penalty=0, **scores)]) | more


def rows(table): return [[c.strip() for c in line.split('|')[1:-1]] for line in table.splitlines() if line.startswith('|')]


def store(folder, *results):
    folder.mkdir(exist_ok=True)
    for i, r in enumerate(results): (folder/f'{i}.json').write_text(json.dumps(r), encoding='utf-8')
    return read_results(folder)


def test_nothing_was_run():
    head, _, *published = rows(protocol_table())
    assert head == ['mIoU', *COLUMNS] and [row[0] for row in published] == ['SCLIP', 'NACLIP with PAMR']
    assert published[0][1:] == ['59.63', '31.74', '33.52', '81.54', '32.34', '34.46', '16.45', '22.77']
    assert published[1][1:] == ['64.07', '34.99', '36.19', '83.03', '38.27', '38.35', '19.05', '25.69']
    assert sum(map(float, published[1][1:])) / 8 == pytest.approx(42.46, abs=.005)              # the mean that NACLIP prints
    assert 'github.com/wangf3014/SCLIP' in protocol_table() and 'Ours' not in protocol_table()


def test_ours_beside_them(tmp_path):
    results = store(tmp_path/'r', result('voc21', .5), result('cityscapes', .3), result('cityscapes', .32),
                    result('voc21', .6, method='CLIP (naclip)'), result('ade150', .2, pictures=3), result('camvid', .9))
    table = protocol_table(results)
    assert rows(table)[4:] == [['ours: CLIP (sclip), ViT-B-16-quickgelu', '50.00', '', '', '', '31.00 (2 runs)', '', '20.00', ''],
                               ['ours: CLIP (naclip), ViT-B-16-quickgelu', '60.00', *[''] * 7]]
    assert '4.json: CLIP (sclip), ViT-B-16-quickgelu, ade150, 3 pictures (of 2000)' in table
    assert 'voc21, 1449 pictures\n' in table and 'camvid' not in table


@pytest.mark.parametrize('more', [dict(split='train'), dict(trained_on='cocostuff171', setting='inductive'),
                                  dict(options=[]), dict(options=[dict(blend=1, seen_penalty=0, miou=None)])])
def test_what_does_not_belong_there(more):
    assert protocol_cells([result('cocostuff171', .4) | more]) == {}


def test_a_trained_model_on_other_classes():
    cells = protocol_cells([result('context59', .4, method='OTSeg', trained_on='cocostuff171', setting='inductive', cross=True)])
    assert cells == {('OTSeg, cocostuff171, inductive', 'context59'): [pytest.approx(40)]}


def test_the_large_ones_have_a_table_of_their_own():
    table = protocol_table([result('pc459', .1), result('voc20', .8)])
    assert rows(table)[4] == ['ours: CLIP (sclip), ViT-B-16-quickgelu', '', '', '', '80.00', '', '', '', '']
    assert rows(table)[5:] == [['mIoU', 'PC-459', 'A-847'], ['---'] * 3, ['ours: CLIP (sclip), ViT-B-16-quickgelu', '10.00', '']]


def test_settings_of_the_repositories():
    "Spot checks by hand, one for each kind of setting"
    of = lambda *a: (p := protocol_of(*a)) and (p.size, p.window, p.stride, p.logit_scale, p.background, p.area, p.refine)
    assert of('voc21', 'sclip') == (336, 224, 112, 65, .1, .1, 0) and of('ade150', 'sclip') == (336, 224, 112, 40, None, None, 0)
    assert of('coco_object', 'sclip') == (336, 224, 112, 50, .1, None, 0)
    assert of('cocostuff171', 'sclip')[0] == of('cocostuff171', 'naclip')[0] == 448 and of('cityscapes', 'naclip')[0] == 560
    assert of('voc20', 'naclip')[1] is None and of('context60', 'naclip') == (336, 224, 112, 40, .1, None, 10)
    assert of('context60', 'clearclip') == (448, 448, 224, 50, .15, None, 0) and of('cityscapes', 'clearclip')[:2] == (448, 224)
    for method in ('sclip', 'naclip', 'clearclip'):
        assert all(protocol_of(d, method).preprocess().window >= 224 for d in benchmarks() | benchmarks(large=True))
    with pytest.raises(InputError, match='published settings'): protocol_of('voc21', 'vanilla')
    with pytest.raises(InputError, match='unknown benchmark'): protocol_of('camvid')


@pytest.mark.data
def test_words_are_the_published_ones(shared):
    "Line by line, but for bed, which is a class of COCO-Object and no background"
    files = dict(voc21='voc21', voc20='voc20', context60='context60', context59='context59', coco_object='coco_object',
                 cityscapes='city_scapes', ade150='ade20k', cocostuff171='coco_stuff')
    for dataset, name in files.items():
        text = (shared/f'data/protocols/cls_{name}.txt').read_text(encoding='utf-8')
        published = [tuple(w.strip() for w in line.split(', ')) for line in text.splitlines() if line.strip()]
        if dataset == 'coco_object': published[0] = tuple(w for w in published[0] if w != 'bed')
        assert [*protocol_vocab(dataset).class_words.values()] == published, dataset


@pytest.mark.parametrize('name', BENCHMARKS)
def test_words_answer_for_their_classes(name, tmp_path):
    "A tree, its labels as the scores of one word of each class, and all of it comes back: mIoU 1"
    BENCHMARKS[name][0](tmp_path)
    labels, vocab = load_dataset(name, tmp_path, 'val')[0]['labels'], protocol_vocab(name)
    query, k = torch.tensor(vocab.query_class), len(vocab)
    last = torch.tensor([max(q for q, c in enumerate(vocab.query_class) if c == i) for i in range(k)])
    scores = torch.zeros(len(query), *labels.shape).scatter_(0, last[labels.clamp(max=k - 1)][None], 1.)
    predicted = pixel_labels(class_scores(scores[None], query))
    counts = ConfusionMatrix(k).update(predicted, labels[None])
    scores = segmentation_scores(counts, vocab.seen, vocab.unseen)
    assert scores.miou == 1 and not vocab.unseen and int(counts.counts.sum()) == int((labels != ignore_label(k)).sum())
    assert int((~scores.iou.isnan()).sum()) == len({*labels.unique().tolist()} - {ignore_label(k)})
