"The table of mutants fits the package, and its runner can tell; `make mutants` runs it"
from collections import Counter

import pytest

from mutants.run import mutated, run, wrong_tests
from mutants.table import MUTANTS, Mutant


def test_the_table_fits(root):
    "Each old text is found exactly once, each new text is Python, each test exists, and no mutant is there twice"
    for m in MUTANTS:
        mutated(root, m)
        assert not wrong_tests(root, m) and m.why, (m.name, wrong_tests(root, m))
    assert max(Counter(m.name for m in MUTANTS).values()) == max(Counter((m.module, m.old, m.new) for m in MUTANTS).values()) == 1


@pytest.fixture
def project(tmp_path):
    (tmp_path/'otseg').mkdir(); (tmp_path/'tests').mkdir()
    (tmp_path/'otseg/__init__.py').write_text('', encoding='utf-8')
    (tmp_path/'otseg/it.py').write_text('def double(x): return 2 * x\ndef same(x): return x\n', encoding='utf-8')
    (tmp_path/'tests/test_it.py').write_text('from otseg.it import double, same\ndef test_double(): assert double(3) == 6\n'
                                             'def test_same(): assert same(0) == 0\n', encoding='utf-8')
    return tmp_path


def test_the_runner_counts(project):
    "A fault that its test sees is killed, one that it does not see survives, and the project is as it was"
    before, said = (project/'otseg/it.py').read_bytes(), []
    table = [Mutant('thrice', 'it', '2 * x', '3 * x', ['test_it.py::test_double'], 'why'),
             Mutant('negative', 'it', 'return x', 'return -x', ['test_it.py::test_same'], 'why'),
             Mutant('half seen', 'it', '2 * x', '6', ['test_it.py::test_double'], 'why')]
    assert run(project, table, 2, said.append) == 2 and said[-1] == '1 killed, 2 survived'
    assert (project/'otseg/it.py').read_bytes() == before
    assert sum('passed all the same: test_it.py::test_same' in line for line in said) == 1


@pytest.mark.parametrize('change, says', [
    (dict(old='x'), 'times instead of once'), (dict(old='3 * x'), '0 times'), (dict(new='2 *'), 'no Python'),
    (dict(new='2 *  x'), 'changes nothing'), (dict(tests=['test_it.py::test_no']), 'no test'), (dict(tests=[]), 'none is named'),
    (dict(module='no'), 'no module')])
def test_a_table_that_does_not_fit_is_refused(project, change, says):
    m = Mutant('thrice', 'it', '2 * x', '3 * x', ['test_it.py::test_double'], 'why')
    with pytest.raises(SystemExit, match=says): run(project, [m._replace(**change)], 1, lambda *_: None)


def test_tests_that_fail_by_themselves_kill_nothing(project):
    (project/'tests/test_it.py').write_text('def test_double(): assert 0\n', encoding='utf-8')
    m = Mutant('thrice', 'it', '2 * x', '3 * x', ['test_it.py::test_double'], 'why')
    with pytest.raises(SystemExit, match='should pass without a mutant'): run(project, [m], 1, lambda *_: None)
