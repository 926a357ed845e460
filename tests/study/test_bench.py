"The command otseg-bench as a user runs it, at its smallest size: what it leaves, and every mistake on the way there"
import json
import shutil
from pathlib import Path

import pytest
import torch

from given.shell import misused, refused, shell, tree
from otseg.core import InputError
from otseg.study.bench import QUESTIONS, QUICK, Bench, run_bench, textbook, with_solver
from otseg.transport import mpsa

RUN = ['otseg-bench', '--quick', '--output', 'new']


@pytest.fixture(scope='module')
def result(tmp_path_factory):
    "What a whole run leaves and says"
    with pytest.MonkeyPatch.context() as m:
        m.chdir(tmp_path_factory.mktemp('bench'))
        code, out, err = shell(*RUN, '--device', 'cpu', '--threads', '1,2', '--seed', '3')
        assert code == 0, err
        return out, json.loads(Path('new/bench.json').read_text(encoding='utf-8')), tree('new')


@pytest.mark.slow
def test_files(result):
    out, record, files = result
    assert sorted(files) == ['bench.json', 'bench.png'] and files['bench.png'].startswith(b'\x89PNG')
    assert 'numbers: new/bench.json' in out and 'figure: new/bench.png' in out


@pytest.mark.slow
def test_record(result):
    "Machine, settings, and a row per case and number of threads, in which every number can be found again"
    out, record, _ = result
    assert set(record) == {'machine', 'settings', 'rows'}
    assert record['machine']['device'] == 'CPU' and record['machine']['torch'] == torch.__version__
    assert {'otseg', 'commit', 'python', 'cpu', 'cores', 'pot', 'geomloss'} < set(record['machine'])
    assert record['settings']['seed'] == 3 and record['settings']['threads'] == [1, 2]
    timed = [r for r in record['rows'] if 'ms' in r]
    for r in timed:
        assert 0 < r['min_ms'] <= r['ms'] <= r['max_ms'] and r['peak_mb'] >= 0
        base, = (o for o in timed if all(o[k] == r[k] for k in ('question', 'threads')) and o['case'] == r['base'])
        assert r['vs'] == pytest.approx(r['ms'] / base['ms'])
    for question in {r['question'] for r in timed}:
        assert question in out
        cases = [(r['case'], r['threads']) for r in timed if r['question'] == question]
        waited = question.startswith(('Start', 'One more', 'Folder', 'Loader'))  # by people
        assert len(set(cases)) == len(cases)
        if not question.startswith(('Start', 'Loader')): assert {c for c, t in cases if t == 1} == {c for c, t in cases if t == 2}
        if not waited: assert {'otseg', 'textbook loop', 'softmax'} <= {c for c, _ in cases}


@pytest.mark.slow
def test_solvers_are_compared_at_the_same_error(result):
    _, record, _ = result
    tol = record['settings']['tol']
    rows = {r['case']: r for r in record['rows'] if r['question'] == 'Sinkhorn, forward' and r.get('threads') == 1}
    assert rows['otseg']['error'] <= tol
    for case in ('POT', 'POT, log domain'):
        if case in rows: assert rows[case]['error'] <= 1.5 * tol and rows[case]['n_iter'] > 1


@pytest.mark.slow
def test_the_twin_differs_in_nothing_but_the_transport(result):
    _, record, _ = result
    for name in QUICK['vocabularies']:
        ours, twin = (next(r for r in record['rows'] if r['question'] == f'Picture, {name}' and r['case'] == c)
                      for c in ('otseg', 'softmax'))
        assert (ours['trained_m'], ours['total_m']) == (twin['trained_m'], twin['total_m'])
        assert twin['gflops'] < ours['gflops'] <= 1.1 * twin['gflops']  # the solver's own products
        assert ours['base'] == 'softmax' and twin['vs'] == 1


def test_overwrite(folder):
    assert shell(*RUN, '--only', 'head', '--threads', '1')[0] == 0
    refused(*RUN, '--only', 'head', says=['new/bench.json should not exist yet', '--overwrite'])
    first = tree('new')
    assert shell(*RUN, '--only', 'head', '--threads', '1', '--overwrite')[0] == 0
    assert sorted(tree('new')) == sorted(first) and tree('new') != first


@pytest.mark.parametrize('more, says', [
    ('--only sinkhorm', "unknown question 'sinkhorm'. Did you mean 'sinkhorn'"),
    ('--only head,', "unknown question ''"),
    ('--threads two', '--threads should be numbers of threads, as in 1,2, got two'),
    ('--threads 1,0', '`threads` should be positive'),
    ('--repeats 0', '`repeats` should be positive'),
    ('--image-size 0', '`image_size` should be positive'),
    ('--clip ViT-B-17', "unknown CLIP architecture 'ViT-B-17'"),
    ('--device tpu', '`device` should be cpu, or cuda where there is a GPU'),
    ('--device cuda:99', '`device` should be cpu, or cuda where there is a GPU')])
def test_options(folder, more, says): refused(*RUN, *more.split(), says=says)


def test_words_that_are_no_options(folder):
    misused(*RUN, '--colour', 'red', says='--colour')
    misused(*RUN, '--repeats', '1.5', says='1.5')


def test_output_that_is_a_file(folder):
    Path('notes.txt').write_text('mine', encoding='utf-8')
    refused('otseg-bench', '--quick', '--output', 'notes.txt', says='notes.txt should be a folder')
    refused('otseg-bench', '--quick', '--output', 'notes.txt/new', says='notes.txt')


@pytest.mark.slow
def test_nothing_is_left_changed(folder):
    "Threads, random numbers and the solver of the model are what they were"
    from otseg.transport import mpsa
    before = torch.get_num_threads(), torch.get_rng_state(), mpsa.sinkhorn, torch.backends.mha.get_fastpath_enabled()
    run_bench(Bench(threads=(2, 1), **QUICK), list(QUESTIONS))
    after = torch.get_num_threads(), torch.get_rng_state(), mpsa.sinkhorn, torch.backends.mha.get_fastpath_enabled()
    assert torch.equal(before[1], after[1]) and before[::2] == after[::2] and before[3] == after[3]
    shutil.rmtree(folder / 'cache', ignore_errors=True)
    assert tree() == {}, 'a bench leaves nothing but its output'


@pytest.mark.gpu
def test_on_a_gpu(folder):
    assert shell(*RUN, '--device', 'cuda')[0] == 0
    record = json.loads(Path('new/bench.json').read_text(encoding='utf-8'))
    assert record['machine']['device'] == torch.cuda.get_device_name()
    assert {r['threads'] for r in record['rows'] if 'ms' in r} == {None}


def test_the_solver_is_restored_after_an_error():
    seen, own = [], mpsa.sinkhorn

    def fails():
        seen.append(mpsa.sinkhorn)
        raise InputError('no')
    with pytest.raises(InputError): with_solver(textbook, fails)()
    assert seen == [textbook] and mpsa.sinkhorn is own
