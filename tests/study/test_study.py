"The command otseg-study as a user runs it, at its smallest size: resuming, interruption, pairing, and every mistake"
import json
import math
import os
import random
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from conftest import ROOT
from given.shell import COMMANDS, misused, refused, shell, tree
from otseg.study import runs as module
from otseg.study.compare import correlation, summarise
from otseg.evaluate.gains import compare_seeds, mean_interval, paired_p, score_of
from otseg.core import InputError
from otseg.model.checkpoint import load_checkpoint
from otseg.model.otseg import OTSeg, with_areas
from otseg.model.vocab import load_vocab
from otseg.study.questions import STUDIES
from otseg.study.runs import initial_weights, run_study, shared_start, stored_runs
from otseg.study.questions import Study

RUN = 'otseg-study attention --output new --steps 2 --scenes 3 --seeds 2'.split()
ONE = [*RUN, '--only', 'softmax-6', '--jobs', '1']
PAIR = Study('pair', 'Does it run?', {'mpsa': {}, 'softmax': dict(attention='softmax')}, 'softmax', seeds=2, steps=2,
             scenes=3)


@pytest.fixture(scope='module')
def result(tmp_path_factory):
    "What a whole study with two processes leaves and says"
    with pytest.MonkeyPatch.context() as m:
        m.chdir(tmp_path_factory.mktemp('study'))
        code, out, err = process(*RUN, '--only', 'mpsa-6', '--jobs', '2')
        assert code == 0, err
        return out, {p: json.loads(b) for p, b in tree('new').items() if b is not None}


def process(name, *argv):
    "The command in a process of its own: what it starts itself has to find its way without the tests"
    script = Path(name).resolve()
    script.write_text(f'import sys\nfrom otseg.commands.use import {COMMANDS[name].partition(":")[2]} as f\n'
                      'if __name__ == "__main__": sys.exit(f())\n', encoding='utf-8')
    env = os.environ | dict(OMP_NUM_THREADS='1', MPLBACKEND='Agg')
    got = subprocess.run([sys.executable, str(script), *argv], capture_output=True, text=True, env=env, timeout=300,
                         encoding='utf-8')
    return got.returncode, got.stdout, got.stderr


def test_files(result):
    out, files = result
    assert sorted(files) == [f'attention/{v}-{s}.json' for v in ('mpsa-6', 'softmax-6') for s in (0, 1)]
    assert 'runs: new/attention' in out and 'blend 0.5 (OTSeg+)' in out and 'score map alone' in out


def test_record(result):
    _, files = result
    for record in files.values():
        assert record['machine']['threads'] == 1 and {'commit', 'cpu', 'torch'} <= set(record['machine'])
        assert [r['blend'] for r in record['test']] == [.5, 1., 0.] and len(record['val']) == 9
        assert all(len(r['iou']) == 26 and 0 <= r['miou_seen'] <= 1 for r in record['test'])
        assert record['settings']['recipe']['seed'] == record['seed'] and record['settings']['scenes']['test'] == 3
        assert set(record['diversity']) == {'score_map', 'decoder'} and record['seconds']['train'] > 0


def test_the_table_is_of_the_files(result):
    out, files = result
    runs = list(files.values())
    for row in summarise(runs, 'softmax-6'):
        own = [score_of(r, 'hiou') for r in runs if r['variant'] == row['variant']]
        assert row['hiou']['mean'] == pytest.approx(sum(own) / 2)
        assert f'| {row["variant"]} | 2 | ' in out
    assert '2 steps of 8' in out and 'at least 100% of the initial tensors' in out


def close(a, b):
    "Equal, but for the rounding of numbers: another process may multiply matrices in another order, which may move a pixel"
    if isinstance(a, dict): return a.keys() == b.keys() and all(close(a[k], b[k]) for k in a)
    if isinstance(a, list): return len(a) == len(b) and all(map(close, a, b))
    return a == pytest.approx(b, rel=1e-3, abs=1e-3, nan_ok=True) if isinstance(a, float) else a == b


@pytest.mark.slow
def test_processes_give_what_one_process_gives(result, folder):
    _, files = result
    assert shell(*ONE)[0] == 0
    for name in ('softmax-6-0', 'softmax-6-1'):
        here, there = json.loads(Path(f'new/attention/{name}.json').read_text(encoding='utf-8')), files[f'attention/{name}.json']
        timed = {'seconds', 'cost'}
        assert close(*({k: v for k, v in run.items() if k not in timed} for run in (here, there)))
        assert here['loss'] == pytest.approx(there['loss'], rel=1e-5)


def test_a_study_goes_on_where_it_stopped(folder, monkeypatch):
    "Stopped in the middle of a run: the finished ones stay as they are, nothing half-made is left, the rest is done"
    done, whole = [], module.run_variant

    def breaks(study, variant, seed):
        if len(done) == 2: raise KeyboardInterrupt
        done.append((variant, seed))
        return whole(study, variant, seed)

    monkeypatch.setattr(module, 'run_variant', breaks)
    with pytest.raises(KeyboardInterrupt): run_study(PAIR, 'new', jobs=1)
    first = {k: v for k, v in tree('new').items() if v is not None}
    assert sorted(first) == ['pair/mpsa-0.json', 'pair/softmax-0.json']
    assert len(stored_runs(PAIR, 'new')) == 2
    done.clear()
    run_study(PAIR, 'new', jobs=1)
    assert done == [('mpsa', 1), ('softmax', 1)]
    after = tree('new')
    assert len([v for v in after.values() if v is not None]) == 4 and all(after[k] == v for k, v in first.items())
    done[:] = []
    assert len(run_study(PAIR, 'new', jobs=1)) == 4 and done == []


def test_a_write_that_fails_leaves_nothing(folder, monkeypatch):
    monkeypatch.setattr(module, 'run_variant', lambda *a: dict(cannot=object()))
    with pytest.raises(TypeError): run_study(replace(PAIR, seeds=1), 'new', jobs=1)
    assert all(v is None for v in tree('new').values())


@pytest.mark.slow
def test_processes_write_where_this_one_is(folder):
    "The working directory is not the one that Python began in"
    run_study(replace(PAIR, seeds=1), 'new', jobs=2)
    assert sorted(k for k, v in tree('new').items() if v is not None) == ['pair/mpsa-0.json', 'pair/softmax-0.json']


@pytest.mark.slow
def test_an_error_in_another_process_comes_through(folder):
    "The parent checks nothing of it: the training itself refuses"
    bad = replace(PAIR, variants={'softmax': dict(batch_size=3, accumulate=2)}, seeds=2)
    with pytest.raises(InputError, match='multiple of processes x accumulate'): run_study(bad, 'new', jobs=2)
    assert all(v is None for v in tree('new').values())


@pytest.mark.parametrize('name', [s for s in STUDIES if s not in ('start', 'long', 'vpt', 'clips')])
def test_variants_of_a_seed_start_equal(name):
    s = STUDIES[name]
    base = initial_weights(s.recipe(s.baseline, 1))
    for v in s.variants: assert shared_start(base, initial_weights(s.recipe(v, 1))) == (len(base), len(base)), v


@pytest.mark.parametrize('clip', ['patch12', 'width96'])
def test_both_attentions_on_a_clip_start_equal(clip):
    s = STUDIES['clips']
    starts = [initial_weights(s.recipe(f'{a}-{clip}', 1)) for a in ('mpsa', 'softmax')]
    assert shared_start(*starts) == (len(starts[0]), len(starts[0])) and starts[0]


def test_the_start_that_is_noted_is_the_start(folder, monkeypatch):
    "The first model of a run has the tensors whose checksums its record has"
    seen, forward = [], OTSeg.forward

    def watch(self, *args, **kwargs):
        if not seen: seen.append({n: p.detach().clone() for n, p in self.named_parameters() if p.requires_grad})
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(OTSeg, 'forward', watch)
    record = module.run_variant(PAIR, 'mpsa', 1)
    with monkeypatch.context() as m:
        class Stored(torch.nn.Module):
            def __init__(self, config): super().__init__()
            def named_parameters(self):
                return ((n, torch.nn.Parameter(p)) for n, p in seen[0].items())
        m.setattr(module, 'OTSeg', Stored)
        assert initial_weights(PAIR.recipe('mpsa', 1)) == record['initial']


def test_dropout_is_paired():
    "With the transport switched off by one prompt, both variants of the score map see the same dropout of the encoder"
    one = ('a photo of a {}.',)
    s = replace(PAIR, variants={a: dict(attention=a, templates=one, decoder_layers=1) for a in ('mpsa', 'softmax')})
    losses = {a: module.train_variant(s.recipe(a, 0), s.vocab(a, 0)).losses for a in s.variants}
    assert losses['mpsa'] == pytest.approx(losses['softmax'], rel=1e-5)  # one layer, one prompt: the same function


@pytest.fixture
def untrained(monkeypatch):
    "Runs of models that nobody trains or measures, for what is done with their scores"
    def train(recipe, vocab): return SimpleNamespace(model=OTSeg(recipe.model_config()).eval(), losses=[1.])
    monkeypatch.setattr(module, 'train_variant', train)
    monkeypatch.setattr(module, 'map_diversity', lambda *args: {})
    monkeypatch.setattr(module, 'measure_ceiling', lambda *args, **kwargs: {})
    monkeypatch.setattr(module, 'step_cost', lambda *args: {})
    monkeypatch.setattr(module, '_drawn', lambda split, n: [])
    return monkeypatch


def test_parts_are_scored_for_the_same_groups(untrained):
    "Seen things are those of the variant, unseen ones always the five, as for the scores of whole things"
    groups = []
    counts = torch.eye(26, dtype=torch.long)
    untrained.setattr(module, 'sweep', lambda model, data, text, vocab, options: dict.fromkeys(options, counts))
    untrained.setattr(module, 'part_record', lambda model, data, text, eps, g, more: groups.append(g) or {})
    s = replace(STUDIES['parts'], seeds=1, steps=1, scenes=2, variants={'mpsa-six': dict(clip='toy_parts', seen=4)})
    module.run_variant(s, 'mpsa-six', 0)
    names = load_vocab('toy').names
    assert groups == [dict(seen=[names[i] for i in s.vocab('mpsa-six', 0).seen], unseen=[*load_vocab('toy').unseen_names])] * 2


@pytest.mark.parametrize('more, says', [
    ('otseg-study atention', "unknown study 'atention'. Did you mean 'attention'"),
    ('otseg-study', 'a study should be named, got none'),
    ('otseg-study eps --only eps-1', "unknown variant of eps 'eps-1'. Did you mean"),
    ('otseg-study eps --only ,', "unknown variant of eps ''"),
    ('otseg-study eps --seeds 0', '`seeds` should be positive'),
    ('otseg-study eps --steps 0', '`steps` should be positive'),
    ('otseg-study eps --scenes -1', '`scenes` should be positive'),
    ('otseg-study eps --jobs 0', '`jobs` should be at least 1')])
def test_options(folder, more, says): refused(*more.split(), says=says)


def test_words_that_are_no_options(folder):
    misused('otseg-study', 'eps', '--colour', 'red', says='--colour')
    misused('otseg-study', 'eps', '--seeds', 'five', says='five')


def test_output_that_is_a_file(folder):
    Path('notes.txt').write_text('mine', encoding='utf-8')
    refused('otseg-study', 'eps', '--output', 'notes.txt', says='notes.txt should be a folder')


@pytest.mark.slow
def test_files_that_are_no_runs_of_this_study(folder):
    assert shell(*ONE)[0] == 0
    path = Path('new/attention/softmax-6-1.json')
    refused(*ONE, '--steps', '3', says=['softmax-6-0.json should be a run of this study', 'recipe.steps: 2 there, 3 here'])
    whole = path.read_text(encoding='utf-8')
    for text, says in ((whole[:99], 'is not valid JSON'), ('[]', 'should be the record of a run'),
                       (whole.replace('sha256:', 'sha256:0'), 'clip: sha256:0')):
        path.write_text(text, encoding='utf-8')
        refused(*ONE, says=[str(path), says])


def test_list(folder):
    code, out, _ = shell('otseg-study', '--list')
    assert code == 0 and all(f'{s.name}: {s.question}' in out for s in STUDIES.values()) and tree() == {}


@pytest.mark.slow
def test_parts(folder):
    "Every run of a study of parts is scored by them, and is no run of a study without"
    s = replace(STUDIES['parts'], seeds=1, steps=2, scenes=3)
    plain = replace(s, name='plain', parts=False, variants={'mpsa-six': s.variants['mpsa-six']})
    run_study(plain, 'new', jobs=1)
    records = {r['variant']: r for r in run_study(s, 'new', jobs=1, only=['mpsa-six', 'softmax-parts'])}
    assert 'taken_from' not in records['mpsa-six'] and 'parts' not in stored_runs(plain, 'new')[0]
    for r in records.values():
        for path in ('score_map', 'decoder'):
            found = r['parts']['val'][path]
            assert {'cosine', 'centred', 'softmax', 'plan', 'product', 'plan 0.2'} <= set(found)
            assert 0 < found['plan']['seen']['miou'] < 1 and found['plan'] == found['plan 0.05']
    six, parts = (records[v]['settings'] for v in ('mpsa-six', 'softmax-parts'))
    assert parts['text_prompts'][19][0] == 'a photo of wheels of a car.' and parts['templates'] == []
    assert len(six['templates']) == 6 and 'text_prompts' not in six
    assert len(run_study(s, 'new', jobs=1, only=['mpsa-six', 'softmax-parts'])) == 2  # both are finished


@pytest.mark.parametrize('name', STUDIES)
def test_settings_have_a_key_only_where_it_is_used(name):
    s = STUDIES[name]
    for v, options in s.variants.items():
        used = {k for k in ('parts', 'areas', 'looks', 'asked') if getattr(s, k)} | {'apart'} & options.keys()
        used |= {'kind'} if s.kind != 'training' else set()
        used |= {'text_prompts'} if 'prompts' in options else set()
        always = {'recipe', 'clip', 'templates', 'unseen', 'blends', 'penalties', 'scenes'}
        assert set(module.run_settings(s, v, 0)) == always | used


def test_asked():
    "Other prompts and options are asked of the trained run; an attention without a plan has no marginals to bend"
    asked = dict(plain={}, free=dict(tau_b=0.), wrong=dict(prompts='misnamed-1'), unsure=dict(prompts='nameless-4'),
                 sure=dict(prompts='nameless-4', masses='entropy'))
    s = replace(PAIR, asked=asked, seeds=1, scenes=3)
    found = {v: module.run_variant(s, v, 0) for v in s.variants}
    assert [r['asked'] for r in found['mpsa']['asked']] == [*asked]
    assert [r['asked'] for r in found['softmax']['asked']] == [a for a in asked if a != 'free']
    for r in found.values():
        want = next(row for row in r['test'] if row['blend'] == .5)
        assert abs(r['asked'][0]['hiou'] - want['hiou']) < 1e-3 and r['asked'][0]['seen_penalty'] == want['seen_penalty']
    model, vocab, recipe = with_areas(load_checkpoint('toy').model, None), load_vocab('toy'), s.recipe('mpsa', 0)
    data = module.toy_scenes('val', recipe.eval_transform(), vocab, 32)
    rows = {r['asked']: r['hiou'] for r in module.asked_scores(model, vocab, asked, data, 0., (vocab.seen, vocab.unseen))}
    assert rows['wrong'] < rows['plain'] - .08 and rows['unsure'] < rows['plain'] - .01
    assert rows['sure'] > rows['unsure'] + .01 and abs(rows['sure'] - rows['plain']) < .015


def test_pairs():
    "Pairs of things are one class in training and in scoring"
    s = replace(STUDIES['looks'], seeds=1, steps=2, scenes=40)
    both, first = (module.run_variant(s, v, 0) for v in ('mpsa-pairs', 'mpsa-first'))
    assert len(both['test'][0]['iou']) == 17 and both['settings']['unseen'] == [8, 9, 10]
    for r in (both, first):
        assert {*r['looks']} <= {'one', 'both'} and all(0 <= row['recall'] <= 1 for row in r['looks']['one'].values())
    assert both['looks']['one']['seen']['own'] > .6  # the aligned start knows the words
    vocab = s.vocab('mpsa-pairs', 0)
    train = module.toy_scenes('train', s.recipe('mpsa-pairs', 0).eval_transform(), vocab)
    raw = torch.from_numpy(train.scenes[0].labels).long()
    assert int(train[0]['labels'].max()) < 17 and not torch.equal(train[0]['labels'], raw)


def test_the_command_tells_a_study_of_prompts_on_a_frozen_clip(folder):
    code, out, err = shell(*'otseg-study templates --output new --scenes 8 --seeds 2 --jobs 1'.split())
    assert code == 0, err
    assert '| toy | mean of 3 experts | 2 |' in out and 'frozen CLIP' in out and 'blend' not in out


@pytest.mark.parametrize('kind', ['templates', 'contexts'])
def test_prompts_on_a_frozen_clip(kind):
    s = replace(next(s for s in STUDIES.values() if s.kind == kind), seeds=1, steps=3, scenes=8)
    v = next(iter(s.variants))
    a, b = (module.run_variant(s, v, 0) for _ in range(2))
    for r in (a, b): r.pop('seconds')
    assert a == b and a['settings']['kind'] == kind and {r['way'] for r in a['test']} == {r['way'] for r in a['val']}


def t_within(t, df):
    "Probability that Student's t lies in -t..t, as a finite sum (Abramowitz and Stegun, 26.7.3 and 26.7.4)"
    theta, odd = math.atan(t / math.sqrt(df)), df % 2
    term = total = math.cos(theta) if odd else 1.
    for j in range(1, (df - odd) // 2):
        term *= math.cos(theta)**2 * ((2 * j) / (2 * j + 1) if odd else (2 * j - 1) / (2 * j))
        total += term
    if odd: return 2 / math.pi * (theta + math.sin(theta) * (total if df > 1 else 0))
    return math.sin(theta) * total


def student(x):
    "Mean, standard error and p of some differences, by hand"
    mean, error = statistics.fmean(x), statistics.stdev(x) / math.sqrt(len(x))
    return mean, error, 1 - t_within(abs(mean) / error, len(x) - 1)


def test_intervals_and_p_are_the_finite_sum():
    rng = random.Random(0)
    for n in (2, 3, 4, 5, 8, 31, 102):
        x = [rng.gauss(.2, 1) for _ in range(n)]
        mean, error, p = student(x)
        assert math.isclose(paired_p(x), p, abs_tol=1e-12)
        for level in (.5, .95, .999):
            found, half = mean_interval(x, level)
            assert found == mean and math.isclose(t_within(half / error, n - 1), level, abs_tol=1e-9)


def test_stored_studies_keep_their_numbers():
    seen = 0
    for name in ('eps', 'parts'):
        study = STUDIES[name]
        scores = {}
        for r in stored_runs(study, ROOT/'studies'): scores.setdefault(r['variant'], {})[r['seed']] = score_of(r, 'hiou')
        base = next(iter(scores))
        for own in scores.values():
            gains = [own[s] - scores[base][s] for s in own if s in scores[base]]
            if len(gains) < 2 or not any(gains): continue
            mean, error, p = student(gains)
            row = compare_seeds(own, scores[base])
            assert abs(row['p'] - p) < 1e-9 and math.isclose(row['gain'], mean, abs_tol=1e-12)
            assert math.isclose(t_within(row['gain_interval'] / error, len(gains) - 1), .95, abs_tol=1e-9)
            seen += 1
    assert seen > 5


def test_ranks_share_their_mean():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, (2, 40))
    def ranks(v): return [(v < a).sum() + ((v == a).sum() + 1) / 2 for a in v]
    assert math.isclose(correlation(x, y, ranks=True), correlation(ranks(x), ranks(y)), abs_tol=1e-12)
    a, b = x - x.mean(), y - y.mean()
    assert math.isclose(correlation(x, y), a @ b / math.sqrt((a @ a) * (b @ b)), abs_tol=1e-12)
    assert math.isnan(correlation([1, 1, 1], [1, 2, 3]))
