"What a run of a study may look at: it chooses by val, is scored on test, and mIoU(U) counts the same classes in every variant"
from types import SimpleNamespace

import pytest
import torch

from otseg.data.reading import ToyDataset
from otseg.model.vocab import load_vocab
from otseg.study import runs
from otseg.study.runs import run_variant
from otseg.study.questions import Study, get_study

OWN = load_vocab('toy')


@pytest.fixture
def record(monkeypatch):
    "What `run_variant` writes where training and measuring are left out, and a penalty of .05 is best on val, of .1 on test"
    looked, scored = [], []

    def sweep(model, data, text, vocab, options):
        split = data[0]['key'].split('-')[1]
        looked.append((split, [*options]))
        counts = {}
        for blend, penalty in options:
            good = 90 if penalty == dict(val=.05, test=.1)[split] else 10
            counts[blend, penalty] = torch.eye(len(OWN)).long() * good + 1
        return counts

    real = runs.score_rows
    def score_rows(counts, seen, unseen, **more):
        scored.append((tuple(seen), tuple(unseen)))
        return real(counts, seen, unseen, **more)

    for name, stub in dict(sweep=sweep, score_rows=score_rows, step_cost=lambda *a, **k: {}, map_diversity=lambda *a, **k: {},
                           measure_ceiling=lambda *a, **k: {},
                           initial_weights=lambda *a: {}, toy_scenes=lambda split, transform, vocab, n=2: ToyDataset(
                               split, n, vocab, transform),
                           train_variant=lambda *a: SimpleNamespace(model=None, losses=[2., 1.])).items():
        monkeypatch.setattr(runs, name, stub)
    return lambda study, variant: (run_variant(study, variant, 0), looked, scored)


def test_the_penalty_is_chosen_on_val(record):
    "All penalties are tried on val, the best of them alone on test"
    study = Study('choice', 'Which penalty?', dict(a={}), 'a', steps=1, scenes=2)
    found, looked, _ = record(study, 'a')
    assert [split for split, _ in looked] == ['val', 'test']
    assert {p for _, p in looked[0][1]} == {*study.penalties} and {b for b, _ in looked[0][1]} == {*study.blends}
    assert looked[1][1] == [(b, .05) for b in study.blends]
    assert {r['seen_penalty'] for r in found['test']} == {.05} and len(found['val']) == len(study.blends) * len(study.penalties)


@pytest.mark.parametrize('variant, seen', [('seen-5', 5), ('seen-21', len(OWN.seen)), ('supervised', len(OWN.seen))])
def test_unseen_classes_are_the_same_for_every_variant(record, variant, seen):
    "Those without labels are more where fewer have some; those that mIoU(U) counts are the toy world's own"
    _, _, scored = record(get_study('seen'), variant)
    for classes, unseen in scored: assert len(classes) == seen and unseen == OWN.unseen and {*classes} <= {*OWN.seen}
    assert len(scored) == 2
