"""The README and the table of the studies say what the records say; a number that changes shows, a verdict that no longer holds
is an error."""
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from statistics import median

import pytest

from otseg.core import METRICS
from otseg.study.compare import complete_runs
from otseg.study.questions import STUDIES

PLACES = 'scripts', 'studies', 'otseg', 'nbs/experiments'


@pytest.fixture(scope='module')
def whole(root, tmp_path_factory):
    "What the README is made from"
    folder = tmp_path_factory.mktemp('readme')
    for place in PLACES:
        shutil.copytree(root/place, folder/place, ignore=shutil.ignore_patterns('__pycache__'))
    for file in 'README.md', 'nbs/index.ipynb': shutil.copy(root/file, folder/file)
    return folder


@pytest.fixture
def tree(whole, tmp_path):
    "The same, to be changed"
    return shutil.copytree(whole, tmp_path/'tree')


def readme(tree, *args):
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'}
    done = subprocess.run([sys.executable, tree/'scripts/readme.py', *args], cwd=tree, env=env, capture_output=True, text=True,
                          encoding='utf-8')
    return done.returncode, done.stderr


def change(path, edit):
    value = json.loads(path.read_text(encoding='utf-8'))
    edit(value)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')


def raised(points, variant):
    "Edit the records of a variant of the study of attention: all scores of OTSeg+ on test, higher by some points"
    def edit(tree):
        for path in (tree/'studies/attention').glob(f'{variant}-*.json'):
            change(path, lambda r: r['test'][0].update({m: r['test'][0][m] + points / 100 for m in METRICS}))
    return edit


def table(notebook, old, new):
    "Edit a stored table of a notebook of an experiment"
    def edit(tree):
        path = tree/f'nbs/experiments/{notebook}.ipynb'
        text = path.read_text(encoding='utf-8')
        assert text.count(old) == 1, f'{notebook} has another table now: bring this test in line'
        path.write_text(text.replace(old, new), encoding='utf-8')
    return edit


def checkpoint(tree):
    change(tree/'otseg/assets/otseg_toy/config.json', lambda c: next(iter(c['info']['scores'].values())).update(hiou=.1234))


def paper(tree):
    change(tree/'otseg/assets/paper.json', lambda p: p['tables']['1']['inductive']['OTSeg+'].update(voc12=[1.2, 12.3, 2.1]))


CHANGES = {
    'a study': (raised(.2, 'mpsa-6'), 'no difference found: mIoU(U) +0.1 ± 0.2'),
    'the checkpoint': (checkpoint, '| 12.3 |'),
    'the paper': (paper, '1.2 / 12.3 / 2.1'),
    'the bench': (table('efficiency', '| POT | 125 (120.5-134.1)', '| POT | 250 (120.5-134.1)'), '15.0x'),
    'a stored table': (table('train_toy', '67.2 | 68.5 | +1.3 |', '67.2 | 68.5 | +1.9 |'), '1.9 (0.5'),
}


def test_a_text_that_is_made_again_is_the_same(whole): assert readme(whole, '--check') == (0, '')


@pytest.mark.parametrize('what', CHANGES)
def test_a_changed_record_changes_the_readme(tree, what):
    edit, shown = CHANGES[what]
    assert shown not in (tree/'README.md').read_text(encoding='utf-8')
    edit(tree)
    code, says = readme(tree, '--check')
    assert code == 1 and 'make readme' in says, says
    assert shown not in (tree/'README.md').read_text(encoding='utf-8'), '--check writes nothing'
    assert readme(tree) == (0, '') and shown in (tree/'README.md').read_text(encoding='utf-8')
    assert readme(tree, '--check') == (0, '')


def test_a_verdict_that_no_longer_holds_is_an_error(tree):
    raised(2., 'mpsa-6')(tree)
    before = (tree/'README.md').read_text(encoding='utf-8')
    for args in ('--check',), ():
        code, says = readme(tree, *args)
        assert code == 1 and re.search(r'attention: mpsa-6 - softmax-6 should be no difference.*got mIoU\(U\) \+1\.9', says), says
    assert (tree/'README.md').read_text(encoding='utf-8') == before


def test_a_study_with_a_run_missing_is_an_error(tree):
    (tree/'studies/start/mpsa-aligned-2.json').unlink()
    code, says = readme(tree)
    assert code == 1 and 'should be over the same seeds' in says, says


def test_it_is_made_without_pytorch(root):
    code = 'import runpy, sys; sys.argv = ["readme.py", "--check"]\n' \
           'try: runpy.run_path("scripts/readme.py", run_name="__main__")\n' \
           'except SystemExit as e: assert not e.code, e.code\n' \
           'assert not {"torch", "matplotlib", "open_clip"} & sys.modules.keys()'
    done = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True, encoding='utf-8')
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('study', STUDIES)
def test_records_are_of_the_studies_as_they_are_now(root, study):
    "The README reads records as they lie there; that they are whole and of these settings is asked here"
    if (root/'studies'/study).is_dir(): assert complete_runs(STUDIES[study], root/'studies')


def test_every_answer_is_short_and_leads_to_its_study(root):
    cells = json.loads((root/'nbs/experiments/answers.ipynb').read_text(encoding='utf-8'))['cells']
    lines = ''.join(cells[-1]['outputs'][0]['data']['text/markdown']).strip().splitlines()[2:]
    led = [re.findall(r'\]\((\w+)\.ipynb\)', line) for line in lines]
    assert all(len(x) == 1 for x in led)
    answered = {p.stem for p in (root/'nbs/experiments').glob('study_*.ipynb') if (root/'studies'/p.stem[6:]).is_dir()}
    assert len(answered) > 8 and answered <= {x[0] for x in led}, 'a study has no line in nbs/experiments/answers.ipynb'
    assert max(map(len, lines)) < 420
    shown = (root/'README.md').read_text(encoding='utf-8')
    assert 5 <= sum(line.replace('](', '](nbs/experiments/') in shown for line in lines) <= 12


def test_scores_stand_in_one_order(root):
    "Seen, unseen, hIoU, in every heading of a table"
    patterns = 'README.md', 'nbs/**/*.ipynb', 'otseg/**/*.py', 'otseg/assets/*.json'
    places = [p for pattern in patterns for p in root.glob(pattern)]
    unseen_first = re.compile(r'mIoU\(U\) ?[,/|] ?mIoU\(S\)')
    assert not [p.name for p in places if unseen_first.search(p.read_text(encoding='utf-8'))]
    assert [*METRICS.values()] == ['mIoU(S)', 'mIoU(U)', 'hIoU']


def test_the_citation_is_of_this_project_and_of_the_paper(root):
    text = (root/'CITATION.cff').read_text(encoding='utf-8')
    facts = dict(re.findall(r'^ *([\w-]+): "?(.*?)"?$', text, re.M))  # of a key that stands there twice, the paper's
    project = (root/'pyproject.toml').read_text(encoding='utf-8')
    assert f'Repository = "{facts["repository-code"]}"' in project and f'license = "{facts["license"]}"' in project
    assert facts['title'] in (root/'README.md').read_text(encoding='utf-8')
    assert facts['url'] in (root/'README.md').read_text(encoding='utf-8')


def test_durations_are_those_that_were_measured(root):
    "Beside the commands of the README: by scripts/durations.py, and of trainings by the records of studies"
    script = runpy.run_path(str(root/'scripts/durations.py'))
    measured, told = json.loads((root/'nbs/durations.json').read_text(encoding='utf-8')), script['told']
    assert measured['seconds'].keys() == script['COMMANDS'].keys()

    def seconds(study, key):
        return [json.loads(p.read_text(encoding='utf-8'))['seconds'][key] for p in (root/'studies'/study).glob('*.json')]
    wanted = measured['seconds'] | {'otseg-train toy --output runs/toy': median(seconds('areas', 'train')),
                                    'otseg-study attention --jobs 2': sum(seconds('attention', 'all')) / 2}
    text = (root/'README.md').read_text(encoding='utf-8')
    for command, took in wanted.items():
        lines = [line for line in text.splitlines() if line.startswith(command)]
        assert len(lines) == 1 and lines[0].endswith(f': {told(took)}'), (command, told(took), lines)
    assert measured['machine'] in text


def test_what_pip_is_told_can_be_installed(root):
    "The repository's address and extras that exist, every one of them named"
    text, project = ((root/f).read_text(encoding='utf-8') for f in ('README.md', 'settings.ini'))
    asked = re.findall(r'pip install "otseg(?:\[([\w,]+)\])? @ git\+(\S+)"', text)
    extras = {*re.findall(r'^(\w+)_requirements', project, re.M)}
    address = re.search(r'^Repository = "(.*)"$', (root/'pyproject.toml').read_text(encoding='utf-8'), re.M)[1]
    assert len(asked) > 1 and {url for _, url in asked} == {address}
    assert {e for some, _ in asked for e in some.split(',') if e} <= extras
    assert extras <= {*re.findall(r'`(\w+)` \(', text)}


def test_badges(root):
    "They stand under the title, and what they say is so"
    tomllib = pytest.importorskip('tomllib', reason='Python 3.11 reads pyproject.toml')
    facts = tomllib.loads((root/'pyproject.toml').read_text(encoding='utf-8'))
    line = (root/'README.md').read_text(encoding='utf-8').split('\n\n')[2]
    assert line.count('[![') == 4
    workflows = re.findall(r'actions/workflows/([\w.]+)/badge', line)
    assert workflows == ['test.yaml', 'docs.yaml'] and all((root/'.github/workflows'/w).exists() for w in workflows)
    assert all(u.startswith(facts['project']['urls']['Repository']) for u in re.findall(r'https://github[^)]+', line))
    versions = [c.rpartition(' ')[2] for c in facts['project']['classifiers'] if re.search(r':: 3[.]', c)]
    assert f'[Python {versions[0]} to {versions[-1]}]' in line and f'Python-{versions[0]}_to_{versions[-1]}-' in line
    assert f'[licence {facts["project"]["license"]}]' in line
