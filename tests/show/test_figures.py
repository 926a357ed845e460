"Figures: headless, leaving nothing behind, legible, apart for colour-blind readers; widgets redraw"
import io, os, subprocess, sys, tracemalloc, warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.text import Text
from PIL import Image

from otseg import show as viz
from otseg.core import IGNORE, InputError
from otseg.explore.panels import explore_prompts, panels_figure, title_line
from otseg.show.charts import LINES, SCORES, SEEN, UNSEEN, StyledFigure, edge_marks, plain
from otseg.show.figures import LONGEST, decoration, shrink_for_figure
from otseg.study.measure import plot_times

NAMES = ['sky', 'sand', 'rock', 'kelp']
PALETTE = np.array([[0, 114, 178], [230, 159, 0], [204, 121, 167], [0, 158, 115]], np.uint8)
TEMPLATES = ['a photo of a {}.', 'a very long and rather blurry photo of one single {} in the middle distance.', '{}']
rng = np.random.default_rng(0)

def scene(height=60, width=80):
    labels = np.repeat(np.repeat(rng.integers(0, 4, (3, 4)), -(-height // 3), 0), -(-width // 4), 1)[:height, :width]
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8), labels

def maps(n=3): return rng.normal(size=(n, 6, 8)).astype(np.float32)

def run_folder(path, steps=60, scored=3):
    "A run in progress: the last line of its log is being written"
    log = ''.join(f'{i},{9 / (i + 1):g},{1e-3:g},{50 / (i + 1):g}\n' for i in range(1, steps))
    (path / 'log.csv').write_text('step,loss,lr,norm\n' + log + f'{steps},0.1', encoding='utf-8')
    scores = ''.join(f'{20 * i},.6,{.4 + .1 * (i == 2)},{.5 + .1 * (i == 2)},.5,.9,{.5 + .1 * (i > 1)}\n'
                     for i in range(1, scored + 1))
    (path / 'scores.csv').write_text('step,miou_seen,miou_unseen,hiou,miou,pixel_accuracy,best\n' + scores, encoding='utf-8')
    return path

def plot_written_run(**kwargs):
    with TemporaryDirectory() as folder: return viz.plot_run(run_folder(Path(folder)), **kwargs)

def every_figure():
    (x, y), note = scene(), 'Random numbers, seed 0.'
    pairs, layers = np.corrcoef(maps().reshape(3, -1)), {'score map': maps(), 'decoder layer 1': maps()}
    sample = dict(image=x, truth=y, prediction=y[::-1])
    class_map = dict(image=x, prompt_maps=maps(), text_prompts=TEMPLATES, class_name='kelp', unseen=True)
    return dict(
        segmentation=lambda: viz.plot_segmentation(x, y, NAMES, PALETTE, y, (3,), 'title', note=note),
        prompt_maps=lambda: viz.plot_prompt_maps(x, maps(), TEMPLATES, 'kelp', True, outline=y == 1, note=note),
        demo=lambda: viz.plot_demo([sample] * 2, NAMES, PALETTE, (3,), [class_map], note=note),
        plan=lambda: viz.plot_plan(np.full((48, 3), 1 / 144), (6, 8), note=note),
        convergence=lambda: viz.plot_convergence({'a': [.1, .01, 0.], 'b': torch.tensor([.1, .02])}, 1e-3, note=note),
        class_iou=lambda: viz.plot_class_iou([.5, np.nan, .2, 1.], NAMES, (3,), note=note),
        comparison=lambda: viz.plot_comparison([x, x], dict(truth=[y, y], CLIP=[y[::-1], y]), NAMES, PALETTE, (3,), note=note),
        twins=lambda: viz.plot_twins(x, dict(MPSA=maps(), softmax=maps()), TEMPLATES, 'kelp', True, outline=y == 1, note=note),
        layers=lambda: viz.plot_layers(x, layers, TEMPLATES, 'kelp', outline=y == 1, note=note),
        diversity=lambda: viz.plot_diversity(dict(MPSA=pairs, softmax=pairs**2), TEMPLATES, note=note),
        run=lambda: plot_written_run(note=note),
        losses=lambda: viz.plot_losses([dict(step=i, loss=1 / (i + 1), lr=.1) for i in range(50)], note=note))

# What a class, a method, a prompt or a file may be called
AWKWARD = ['$x$', 'costs $5', '$\\frac{', '\\ {} {0} %s',
           '_a_b^c', 'n' * 300, 'many words ' * 40, '天空' * 60,
           '\N{WOMAN}\N{ZERO WIDTH JOINER}\N{MICROSCOPE}', 'e\u0301' * 9, 'two\nlines\t\r\x00\x1b[31m', '\ud800',
           '', '<b>&amp;', 'עברית', '$\\alpha$ \\textbf{x}']

def named(names):
    "Every figure, with four names wherever it takes some, and all of them in a row where it takes one"
    (x, y), (first, other, third, _), text = scene(), names, ' '.join(names)
    prompts = [first, f'{other} {{}}', third]
    pairs = np.corrcoef(maps().reshape(3, -1))
    sample, kind = dict(image=x, truth=y, prediction=y[::-1]), dict(class_name=text, unseen=True)
    one = dict(image=x, prompt_maps=maps(), text_prompts=prompts, **kind)
    yield viz.plot_segmentation(x, y, names, PALETTE, y, (3,), title=text, note=first)
    yield viz.plot_prompt_maps(x, maps(), prompts, text, True, note=text)
    yield viz.plot_demo([sample], names, PALETTE, (3,), [one], note=text)
    yield viz.plot_plan(np.full((48, 3), 1 / 144), (6, 8), prompts, note=text)
    yield viz.plot_convergence({n: [.1, .01] for n in names}, note=text)
    yield viz.plot_class_iou([.5, np.nan, .2, 1.], names, (3,), note=text)
    yield viz.plot_comparison([x], {n: [y] for n in names}, names, PALETTE, (3,), note=text)
    yield viz.plot_twins(x, {n: maps() for n in names[:2]}, prompts, text, note=text)
    yield viz.plot_layers(x, {n: maps() for n in names[2:]}, prompts, text, note=text)
    yield viz.plot_diversity({n: pairs for n in names[1:3]}, prompts, note=text)
    yield viz.plot_losses([{'step': i, 'loss': 1 / (i + 1), f'decoder_{text}': .1} for i in range(50)], note=text)
    yield plot_times([dict(question=text, case=c, threads=1, ms=m, min_ms=m, max_ms=m, vs=1., base=text)
                      for c, m in zip(names, (1., 9., 99., 5.))], note=text)
    yield panels_figure([(title_line(text), x, title_line(text))] * 2, 2, note=text)

def png(fig):
    fig.savefig(f := io.BytesIO(), format='png', dpi=60)
    return np.array(Image.open(f).convert('RGB'))

# Figure -> its axes with something in them
PANELS = dict(segmentation=3, prompt_maps=6, demo=12, plan=7, convergence=1, class_iou=1, comparison=6, twins=11, layers=11,
              diversity=3, run=4, losses=2)

def filled(fig):
    "Axes of a figure that show something; the name and the numbers beside a row of maps are text alone"
    axes = [a for part in [fig, *fig.findobj(SubFigure)] for a in part.axes]
    return [a for a in dict.fromkeys(axes) if a.axison and a.has_data()]

def test_an_empty_figure_is_seen():
    fig = StyledFigure(3, 2)
    fig.text(.5, .5, 'Random numbers, seed 0.')
    fig.subplots()
    assert png(fig).std() > 5 and filled(fig) == []   # frames and text are a picture too

@pytest.mark.parametrize('name', every_figure())
def test_figure_draws_quietly_and_leaves_nothing(name):
    import matplotlib.pyplot as plt
    before = dict(plt.rcParams)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for kind in (DeprecationWarning, PendingDeprecationWarning): warnings.simplefilter('ignore', kind)  # of other libraries
        fig = every_figure()[name]()
        picture = png(fig)
    assert isinstance(fig, Figure) and len(filled(fig)) == PANELS[name]
    shown = np.array(Image.open(io.BytesIO(fig._repr_png_())).convert('RGB'))
    assert shown.std() == pytest.approx(picture.std(), rel=.2)
    assert plt.get_fignums() == [] and dict(plt.rcParams) == before

@pytest.mark.parametrize('name', every_figure())
def test_text_is_legible_and_fonts_are_embedded(name):
    fig = every_figure()[name]()
    texts = [t for t in fig.findobj(Text) if t.get_text()]
    assert min(t.get_fontsize() for t in texts) >= 6
    assert any('Random numbers' in t.get_text() for t in texts)
    fig.savefig(f := io.BytesIO(), format='pdf')
    assert b'/Type3' not in f.getvalue()

@pytest.mark.parametrize('name', every_figure())
def test_every_figure_is_saved_for_screen_and_print(name, tmp_path):
    "As PNG of the resolution asked for, and as PDF whose fonts are embedded and whose text is text"
    fig = every_figure()[name]()
    small, large = (Image.open(viz.save_figure(fig, tmp_path/f'{dpi}.png', dpi)).size for dpi in (50, 100))
    assert np.allclose(np.divide(large, small), 2, atol=.05)
    data = viz.save_figure(fig, tmp_path/'a.pdf').read_bytes()
    assert data.startswith(b'%PDF') and b'/FontFile2' in data and b'/Type3' not in data and b'CreationDate' not in data
    width, height = map(float, data.split(b'/MediaBox [')[1].split(b']')[0].split()[2:])
    assert width / height == pytest.approx(large[0] / large[1], rel=.03)
    with pytest.raises(InputError, match='ends in .png, .pdf, .svg, got a.jpeg'): viz.save_figure(fig, tmp_path/'a.jpeg')
    assert len([*tmp_path.iterdir()]) == 3

def overlap(fig, texts):
    fig.draw_without_rendering()
    boxes = [t.get_bbox_patch().get_window_extent() for t in texts]
    return [(a.get_text(), b.get_text()) for i, a in enumerate(texts) for j, b in enumerate(texts[:i])
            if boxes[i].overlaps(boxes[j])]

@pytest.mark.parametrize('size', [(60, 80), (96, 96), (30, 120)])
def test_names_in_a_label_map_do_not_collide(size):
    "Stripes so narrow that names beside each other have no room"
    x, _ = scene(*size)
    names = ['umbrella', 'mushroom', 'house', 'kite', 'sky', 'water', 'snow', 'grass']
    y = np.arange(size[1])[None].repeat(size[0], 0) * 8 // size[1]
    palette = np.arange(24).reshape(8, 3) * 10
    rows = np.arange(size[0])[:, None].repeat(size[1], 1) * 8 // size[0]
    fig = viz.plot_comparison([x], dict(truth=[y], other=[rows]), names, palette, (1,))
    texts = [[*ax.texts] for ax in fig.subfigs[0].axes[1:3]]
    assert len(texts[0]) >= 3 and [overlap(fig, t) for t in texts] == [[], []]

def test_points_beyond_an_axis_are_told():
    ax = StyledFigure(3, 2).subplots()
    ax.set(xlim=(0, 10), ylim=(50, 80))
    edge_marks(ax, [1, 2, 3, 12], [60, 22, .5, 70], LINES[0])
    assert [t.get_text() for t in ax.texts] == ['22', '0.5', '12']
    assert [(line.get_marker(), *line.get_xydata()[0]) for line in ax.lines] == [('v', 2, 50), ('v', 3, 50), ('>', 10, 70)]
    ax.set_ylim(80, 50)   # counted from above
    edge_marks(ax, [5], [22], LINES[0], told=False)
    assert len(ax.texts) == 3 and (ax.lines[-1].get_marker(), *ax.lines[-1].get_xydata()[0]) == ('^', 5, 50)

def test_a_slow_round_does_not_set_the_axis():
    rows = [dict(question='q', case=c, threads=1, ms=m, min_ms=m, max_ms=top, vs=1., base='a')
            for c, m, top in (('a', 1., 90.), ('b', 3., 3.2))]
    ax = plot_times(rows).subfigs[0].axes[0]
    assert ax.get_xlim() == pytest.approx((0, 3.6)) and [line.get_marker() for line in ax.lines].count('>') == 1

@pytest.mark.parametrize('name', every_figure())
def test_note_stands_clear_of_everything(name):
    fig = every_figure()[name]()
    fig.draw_without_rendering()
    note = next(t for t in fig.texts if 'Random numbers' in t.get_text()).get_window_extent()
    others = [a for part in [fig, *fig.subfigs] for a in part.axes + part.legends]
    assert others and not any(note.overlaps(a.get_tightbbox()) for a in others)

@pytest.mark.parametrize('size', [(40, 120), (120, 40), (17, 33), (300, 301)])
@pytest.mark.parametrize('n', [1, 3, 8])
def test_any_aspect_and_number_of_prompts(size, n):
    x, y = scene(*size)
    prompts = [f'prompt {j} of {{}}' for j in range(n)]
    alone = viz.plot_prompt_maps(x, maps(n), prompts, 'sand')
    demo = viz.plot_demo([dict(image=x, truth=y, prediction=y)], NAMES, PALETTE, (), [dict(image=x, prompt_maps=maps(n),
                         text_prompts=prompts, class_name='sand', unseen=False)])
    for fig, more in ((alone, 0), (demo, 3)):
        png(fig)
        assert len(filled(fig)) == n + 3 + more   # the picture, each map, their mean, the scale
        for a in filled(fig):                     # none squeezed away, none of another shape
            if a.images and a.images[0].get_array().shape[:2] == size: assert min(a.bbox.width, a.bbox.height) > 4

def test_arrays_and_tensors_give_the_same_picture():
    x, y = scene()
    a = png(viz.plot_segmentation(x, y, NAMES, PALETTE, y, (1,)))
    tx, ty = torch.tensor(x), torch.tensor(y)
    b = png(viz.plot_segmentation(tx, ty, NAMES, torch.tensor(PALETTE), ty, torch.tensor([1])))
    c = png(viz.plot_segmentation(x, y.astype(np.uint8), tuple(NAMES), [tuple(c) for c in PALETTE.tolist()], y, [1]))
    assert (a == b).all() and (a == c).all()
    m = torch.tensor(maps()).requires_grad_()
    plain = viz.plot_prompt_maps(x, m.detach().numpy(), TEMPLATES, 'a')
    assert (png(viz.plot_prompt_maps(x, m, TEMPLATES, 'a')) == png(plain)).all()

def test_ignored_pixels_and_inputs_stay_as_they_are():
    x, y = scene()
    y[:, :40] = IGNORE
    kept = x.copy(), y.copy()
    out = viz.overlay(x, y, PALETTE)
    assert (out[:, :40] == x[:, :40]).all() and (out[:, 40:] != x[:, 40:]).any() and out.dtype == np.uint8
    assert (viz.colorize(np.full((2, 2), IGNORE), PALETTE) == 225).all()
    fig = viz.plot_segmentation(x, np.full_like(y, IGNORE), NAMES, PALETTE)
    png(fig)
    assert [t.get_text() for t in fig.subfigs[0].legends[0].get_texts()] == []
    grey = np.asarray(fig.subfigs[0].axes[1].images[0].get_array())
    assert (grey == grey[..., :1]).all()   # no colour where there is no label
    assert (x == kept[0]).all() and (y == kept[1]).all()

def test_legend_holds_present_classes_and_tags_unseen_ones():
    x, _ = scene()
    y = np.zeros(x.shape[:2], int)
    y[:, 40:] = 3
    fig = viz.plot_segmentation(x, y, NAMES, PALETTE, None, (3,))
    texts = [t.get_text() for t in fig.findobj(Text)]
    assert 'kelp (unseen)' in texts and 'sand' not in texts and texts.count('sky') == 2   # in the legend and in its region

def test_scale_is_shared_and_can_be_given():
    x, _ = scene()
    for given, expected in (({}, None), (dict(vmin=-1, vmax=2), (-1, 2))):
        m = maps()
        fig = viz.plot_prompt_maps(x, m, TEMPLATES, 'a', **given)
        limits = {ax.images[1].get_clim() for ax in fig.axes if len(ax.images) > 1}
        assert limits == {expected or (float(m.min()), float(m.max()))}
    flat = viz.plot_prompt_maps(x, np.zeros((3, 6, 8)), TEMPLATES, 'constant')
    png(flat)
    (low, high), = {ax.images[1].get_clim() for ax in flat.axes if len(ax.images) > 1}
    assert low < 0 < high   # one scale, of a width that can be drawn

@pytest.fixture(scope='module')
def usual(): return [fig.get_figwidth() for fig in named(NAMES)]

@pytest.mark.parametrize('names', [AWKWARD[i:i + 4] for i in range(0, len(AWKWARD), 4)], ids=['math', 'long', 'letters', 'empty'])
def test_any_text_can_be_drawn(names, usual, tmp_path):
    "Quietly, never as mathtext, and without the figure growing by it"
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        for kind in (DeprecationWarning, PendingDeprecationWarning): warnings.simplefilter('ignore', kind)  # of other libraries
        for i, (fig, width) in enumerate(zip(named(names), usual)):
            assert not [t.get_text() for t in fig.findobj(Text) if t.get_text() and t.get_parse_math()]
            small = Image.open(io.BytesIO(fig._repr_png_(50)))
            assert small.width < 50 * 1.5 * max(width, fig.get_figwidth()), i
            assert small.height < 50 * (fig.get_figheight() + 6), i  # with the note
            if i < 2: fig.savefig(tmp_path/'a.pdf'), fig.savefig(tmp_path/'a.svg')

def test_names_stay_apart():
    "Two names are two on the page too, whatever their alphabet, and none is lost from the legend"
    x, y = scene()
    y[:4, :4] = np.arange(4)
    names = ['船', '天空', '_hidden', '$x$']
    legend = viz.plot_segmentation(x, y, names, PALETTE).subfigs[0].legends[0]
    told = [t.get_text().strip('\N{ZERO WIDTH SPACE}') for t in legend.get_texts()]
    assert told == ['[U+8239]', '[U+5929][U+7A7A]', '_hidden', '$x$']
    assert plain('n' * 300, 20) == 'n' * 19 + '…'
    assert not plain('_hidden').startswith('_')   # earlier versions of matplotlib leave such a label out of a legend

def test_a_font_for_other_scripts_is_taken_where_it_is_named():
    import matplotlib
    seen = '\N{LONG DIVISION}'   # not in DejaVu Sans
    assert plain(seen) == '[U+27CC]'
    with matplotlib.rc_context({'font.family': ['STIXGeneral']}):
        assert plain(seen) == seen
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            png(viz.plot_convergence({seen: [.1, .01]}))

def photograph(height, width):
    x = np.zeros((height, width, 3), np.uint8)
    x[:, ::2] = 90
    y = np.zeros((height, width), np.uint8)
    y[:, width // 2:] = 3
    return x, y

def of_photograph(height, width):
    x, y = photograph(height, width)
    sample = dict(image=x, truth=y, prediction=y)
    kind = dict(image=x, prompt_maps=maps(), text_prompts=TEMPLATES, class_name='kelp', unseen=True)
    yield lambda: viz.plot_segmentation(x, y, NAMES, PALETTE, y)
    yield lambda: viz.plot_comparison([x], dict(truth=[y]), NAMES, PALETTE)
    yield lambda: viz.plot_prompt_maps(**kind, outline=y == 3)
    yield lambda: viz.plot_demo([sample], NAMES, PALETTE, (), [kind])
    yield lambda: viz.plot_twins(x, dict(a=maps()), TEMPLATES, 'kelp', outline=y == 3)
    yield lambda: viz.plot_layers(x, dict(a=maps()), TEMPLATES, 'kelp', outline=y == 3)

def largest(fig): return max(max(i.get_array().shape[:2]) for a in filled(fig) for i in a.images)

@pytest.mark.parametrize('i', range(6))
def test_a_photograph_is_drawn_as_large_as_a_figure_can_show(i):
    "24 megapixels: no array of a figure is larger than it can show, nor is what it is made from"
    plot = [*of_photograph(4000, 6000)][i]
    tracemalloc.start()
    fig = plot()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert largest(fig) == LONGEST and peak < 200e6, f'{peak / 1e6:.0f} MB'  # in floats, it alone has 576

@pytest.mark.parametrize('i', range(6))
def test_a_small_picture_is_drawn_as_it_is(i): assert largest([*of_photograph(300, 400)][i]()) == 400

@pytest.mark.parametrize('shape', [(1, 9000), (9000, 1), (5000, 3), (1025, 1024)])
def test_any_shape_shrinks(shape):
    x, y = np.full((*shape, 3), 7, np.uint8), np.full(shape, 2)
    small, labels = shrink_for_figure(x, y)
    assert small.shape[:2] == labels.shape and max(labels.shape) == LONGEST and min(labels.shape) >= 1
    assert (small == 7).all() and (labels == 2).all()

def test_labels_are_shrunk_by_nearest_neighbours_and_pictures_by_means():
    x, y = photograph(3000, 3000)
    small, labels = shrink_for_figure(x, y, longest=500)
    assert np.unique(labels).tolist() == [0, 3] and (labels == 3).mean() == .5
    assert np.unique(small).tolist() == [45]   # the mean of 0 and 90, not one of them

MEMORY = '''
import resource, sys, numpy as np
from otseg.show.figures import plot_segmentation, save_figure
x = np.zeros((8000, 12000, 3), np.uint8); y = np.zeros((8000, 12000), np.uint8); y[:, 6000:] = 1
save_figure(plot_segmentation(x, y, ['sky', 'sand'], [(0, 0, 255), (255, 200, 0)]), sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)'''

@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='counts memory in kilobytes, as Linux does')
def test_96_megapixels_take_less_than_a_gigabyte_and_a_half(tmp_path):
    "All of it, Python and libraries too"
    got = subprocess.run([sys.executable, '-c', MEMORY, str(tmp_path/'a.png')], capture_output=True, text=True, check=True,
                         encoding='utf-8', env=os.environ | dict(OMP_NUM_THREADS='1'))
    assert int(got.stdout) < 1.5e6, got.stdout
    assert Image.open(tmp_path/'a.png').width > 600

def test_labels_out_of_range_are_told_of_a_photograph_too():
    x, y = photograph(3000, 3000)
    y[2999, 2999] = 77   # one pixel, which the figure would not show
    with pytest.raises(InputError, match=r'also \[77\]'): viz.plot_segmentation(x, y, NAMES, PALETTE)

def no_space(*args, **kwargs): raise OSError(28, 'No space left on device')

@pytest.mark.parametrize('fault', [OSError(28, 'No space left on device'), PermissionError(13, 'Permission denied'),
                                   RuntimeError('broken font'), MemoryError(), ValueError('mathtext\nsays no')])
def test_a_fault_in_a_decoration_is_a_warning(fault):
    def draw(): raise fault
    done = []
    with pytest.warns(RuntimeWarning, match='the figure of step 3 could not be made .*Everything else goes on') as told:
        with decoration('the figure of step 3'): draw()
        done.append(True)
    assert done and type(fault).__name__ in str(told[0].message) and '\n' not in str(told[0].message)
    assert told[0].filename == __file__

@pytest.mark.parametrize('stop', [KeyboardInterrupt, SystemExit])
def test_a_decoration_can_be_interrupted(stop):
    with pytest.raises(stop), decoration('a figure'): raise stop

def test_a_full_disk_leaves_no_figure_and_no_rest(tmp_path, monkeypatch):
    viz.save_figure(StyledFigure(1, 1), tmp_path/'a.png')
    before = (tmp_path/'a.png').read_bytes()
    monkeypatch.setattr(StyledFigure, 'savefig', no_space)
    with pytest.warns(RuntimeWarning, match='No space left'), decoration('a figure'):
        viz.save_figure(StyledFigure(2, 2), tmp_path/'a.png')
    assert [p.name for p in tmp_path.iterdir()] == ['a.png'] and (tmp_path/'a.png').read_bytes() == before

def extents(fig, texts):
    fig.draw_without_rendering()
    return [(t.get_text(), t.get_window_extent()) for t in texts if t.get_text() and t.get_visible()]

@pytest.mark.parametrize('size, n', [((60, 80), 1), ((60, 80), 6), ((60, 80), 12), ((120, 40), 8), ((40, 120), 3),
                                     *(pytest.param(s, n, marks=pytest.mark.slow) for s in ((60, 80), (120, 40), (40, 120))
                                       for n in (1, 3, 6, 8, 12))])
def test_rows_of_maps_hold_any_number_of_prompts_without_overlap(n, size):
    x, y = scene(*size)
    prompts = [f'a photo of number {j} of a {{}}.' for j in range(n)]
    for fig in (viz.plot_twins(x, dict(MPSA=maps(n), softmax=maps(n)), prompts, 'sand', True, outline=y == 1),
                viz.plot_layers(x, {f'decoder layer {l}': maps(n) for l in (1, 2, 3)}, prompts, 'sand')):
        png(fig)
        axes = [a for part in fig.subfigs for a in part.axes if a.axison]
        found = extents(fig, [a.title for a in axes] + [t for part in fig.subfigs for a in part.axes for t in a.texts])
        for i, (a, one) in enumerate(found):
            assert not [b for b, other in found[:i] if one.overlaps(other)], (a, n, size)
        assert fig.get_figwidth() < 7.3

def test_a_row_has_its_own_scale_unless_asked():
    x, _ = scene()
    twins = dict(MPSA=maps(), softmax=5 * maps())
    ends = [(float(m.min()), float(m.max())) for m in twins.values()]
    for one, expected in ((False, [*{*ends}]), (True, [ends[1]])):
        fig = viz.plot_twins(x, twins, TEMPLATES, 'a', one_scale=one)
        found = {ax.images[1].get_clim() for ax in fig.subfigs[1].axes if len(ax.images) > 1}
        assert np.allclose(sorted(found), sorted(expected))

def test_numbers_beside_twins_are_those_of_the_metric():
    x, _ = scene()
    one = maps(1)[0]
    fig = viz.plot_twins(x, dict(same=np.stack([one, 2 * one + 1]), opposite=np.stack([one, -one])), TEMPLATES[:2], 'a')
    told = [t.get_text() for a in fig.subfigs[1].axes for t in a.texts]
    assert told[1] == 'correlation 1.00\nJS distance 0.00\noverlap 1.00'
    assert told[3].startswith('correlation -1.00\nJS distance 0.') and told[3].endswith('overlap 0.00')

def test_matrix_tells_every_pair_and_its_mean():
    m = np.array([[1, .5, -.2], [.5, 1, .1], [-.2, .1, 1]])
    fig = viz.plot_diversity(dict(a=m, b=abs(m)), TEMPLATES)
    cells = [[t.get_text() for t in ax.texts] for ax in fig.axes[:2]]
    assert cells[0] == ['0.50', '-0.20', '0.50', '0.10', '-0.20', '0.10'] and cells[1][1] == '0.20'
    assert [ax.get_title() for ax in fig.axes[:2]] == ['a, mean 0.13', 'b, mean 0.27']
    assert fig.axes[0].images[0].get_clim() == fig.axes[1].images[0].get_clim() == (-1, 1)

def test_run_in_progress_and_damaged_rows(tmp_path):
    fig = viz.plot_run(run_folder(tmp_path))
    loss, scores = fig.subfigs[0].axes[0].lines[0].get_xdata(), fig.subfigs[1].legends[0].get_texts()
    assert loss[-1] == 59 and len(loss) == 59 and scores[-1].get_text() == 'best, step 40: 60.0, 50.0, 60.0'
    text = (tmp_path / 'log.csv').read_bytes().split(b'\n')
    text[3], text[5], text[7] = b'\x00\xff,1,1,1', b'6,1.5', b'8,9,9,9,9'
    (tmp_path / 'log.csv').write_bytes(b'\n'.join(text))
    fig = viz.plot_run(tmp_path)
    assert len(fig.subfigs[0].axes[0].lines[0].get_xdata()) == 56
    assert fig.subfigs[0].get_suptitle() == '3 damaged rows left out'
    (tmp_path / 'scores.csv').unlink()
    assert len(viz.plot_run(tmp_path).subfigs) == 1
    (tmp_path / 'log.csv').write_bytes(b'')
    with pytest.raises(InputError, match='log.csv should have the columns loss, step'): viz.plot_run(tmp_path)

def test_run_without_unseen_classes_shows_the_mean(tmp_path):
    run_folder(tmp_path)
    head = 'step,miou_seen,miou_unseen,hiou,miou,pixel_accuracy,best\n'
    (tmp_path / 'scores.csv').write_text(head + '20,.6,nan,nan,.6,.9,.6\n40,.7,nan,nan,.7,.9,.7\n', encoding='utf-8')
    names = [t.get_text() for t in viz.plot_run(tmp_path).subfigs[1].legends[0].get_texts()]
    assert names == ['mIoU', 'best, step 40: 70.0']

def test_comparison_takes_pictures_of_any_size():
    shapes = [(60, 80), (90, 40), (30, 100)]
    pictures, truths = zip(*(scene(*s) for s in shapes))
    fig = viz.plot_comparison([*pictures], {'truth': truths, 'a': truths, 'b': truths}, NAMES, PALETTE, (3,))
    assert len(fig.subfigs[0].axes) == 12 and png(fig).std() > 5
    assert [ax.get_title() for ax in fig.subfigs[0].axes[:4]] == ['image', 'truth', 'a', 'b']

def test_means_of_class_iou_leave_absent_classes_out():
    fig = viz.plot_class_iou([.5, np.nan, .2, 1.], NAMES, (3,))
    assert [t.get_text() for t in fig.legends[0].get_texts()] == ['seen, mIoU(S) = 35.0', 'unseen, mIoU(U) = 100.0']
    none = viz.plot_class_iou([np.nan] * 4, NAMES, (3,))
    png(none)
    assert none.legends == [] and [t.get_text() for t in none.axes[0].texts] == ['absent'] * 4
    assert len(viz.plot_class_iou(rng.random(171), list(map(str, range(171))), range(15)).axes) == 4

@pytest.mark.parametrize('wrong, message', [
    (lambda x, y: viz.overlay(x / 255., y, PALETTE), r'uint8 \(H, W, 3\), got float64 .*\. A PIL'),
    (lambda x, y: viz.overlay(x, y.T, PALETTE), r'size of the image, \(60, 80\), got \(80, 60\)\. Resize'),
    (lambda x, y: viz.overlay(x, y, PALETTE[:2]), r'should hold 0\.\.1 or 255 \(ignored\), got also \[2, 3\]\. Give'),
    (lambda x, y: viz.overlay(x, y, PALETTE, 3), r'`alpha` should be in 0\.\.1, got 3'),
    (lambda x, y: viz.plot_segmentation(x, y, NAMES[:3], PALETTE), '`names` should hold 4 names, got 3'),
    (lambda x, y: viz.plot_segmentation(x, y, NAMES, PALETTE, y[1:]), '`truth` should have the size'),
    (lambda x, y: viz.plot_segmentation(x, y, NAMES, PALETTE, y, (4,)), '`unseen` should hold class indices'),
    (lambda x, y: viz.plot_prompt_maps(x, maps(4), TEMPLATES, 'a'), r'with n = 3, one per text prompt, got \(4, 6, 8\)'),
    (lambda x, y: viz.plot_prompt_maps(x, maps(), TEMPLATES, 'a', alpha=2), '`alpha`'),
    (lambda x, y: viz.plot_plan(np.ones((1, 4, 2))), r'`plan` should be \(m, n\), got \(1, 4, 2\)\. Take one'),
    (lambda x, y: viz.plot_class_iou([50.], ['a']), r'in 0\.\.1, got up to 50\. Divide percentages'),
    (lambda x, y: viz.plot_comparison([x], dict(a=[y, y]), NAMES, PALETTE), r"columns\['a'\]` should hold 1 label maps"),
    (lambda x, y: viz.plot_comparison([x], dict(a=[y[1:]]), NAMES, PALETTE), '`a` should have the size'),
    (lambda x, y: viz.plot_twins(x, dict(a=maps(4)), TEMPLATES, 'a'), r'with n = 3, one per text prompt, got \(4, 6, 8\)'),
    (lambda x, y: viz.plot_layers(x, {}, TEMPLATES, 'a'), 'at least one row of maps'),
    (lambda x, y: viz.plot_diversity(dict(a=np.eye(2)), TEMPLATES), r'should be \(3, 3\), one line per text prompt'),
    (lambda x, y: viz.plot_diversity(dict(a=np.eye(3)), TEMPLATES, 'cosine'), 'cosine'),
    (lambda x, y: viz.plot_run('nowhere'), 'nowhere should be the folder of a run, with log.csv'),
    (lambda x, y: viz.plot_losses([]), '`rows` should be dicts')])
def test_wrong_input_is_told(wrong, message):
    with pytest.raises(InputError, match=message): wrong(*scene())

def segmentation():
    x, y = scene()
    return SimpleNamespace(image=x, labels=y, classes=NAMES, probs=rng.random((4, 60, 80)), text_prompts=TEMPLATES,
                           prompt_maps=torch.tensor(rng.normal(size=(4, 3, 6, 8))))

def test_explorer_redraws_without_a_kernel():
    explorer = explore_prompts(segmentation(), (3,))
    (menu, path, opacity), panels = explorer.children[0].children, explorer.children[1]
    def now(): return tuple(bytes(cell.children[1].value) for cell in panels.children)
    shown = [now()]
    for handle, value in ((menu, (menu.value + 1) % 4), (opacity, .3), (opacity, 0.), (menu, (menu.value + 2) % 4)):
        handle.value = value
        shown.append(now())
    assert len(set(shown)) == len(shown) and len(shown[0]) == 2 + 3 + 1 and path.options == ('score map',)
    assert all(p.startswith(b'\xff\xd8') for p in shown[0])

def test_import_opens_no_window_toolkit():
    code = "import sys, otseg.show.figures; print([m for m in ('matplotlib.pyplot', 'tkinter', 'PyQt5') if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, encoding='utf-8').stdout.strip() == '[]'

# Simulated colour vision, severity 1 (Machado, Oliveira and Fernandes 2009), on linear RGB
CVD = dict(normal=np.eye(3),
           protan=np.array([[.152286, 1.052583, -.204868], [.114503, .786281, .099216], [-.003882, -.048116, 1.051998]]),
           deutan=np.array([[.367322, .860646, -.227968], [.280085, .672501, .047413], [-.011820, .042940, .968881]]))

def lab(colour, matrix):
    c = np.array(to_rgb(colour))
    linear = np.clip(matrix @ np.where(c <= .04045, c / 12.92, ((c + .055) / 1.055) ** 2.4), 0, 1)
    xyz = np.array([[.4124, .3576, .1805], [.2126, .7152, .0722], [.0193, .1192, .9505]]) @ linear / [.9505, 1, 1.089]
    f = np.where(xyz > .008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])

@pytest.mark.parametrize('vision', CVD)
def test_colours_stay_apart(vision):
    distance = lambda a, b: np.linalg.norm(lab(a, CVD[vision]) - lab(b, CVD[vision]))
    lines = LINES
    assert min(distance(a, b) for i, a in enumerate(lines) for b in lines[:i]) > 10
    assert distance(SEEN, UNSEEN) > 25 and distance(UNSEEN, 'white') > 45
    lightness = [lab(SCORES(t), CVD[vision])[0] for t in np.linspace(0, 1, 33)]
    assert (np.diff(lightness) > 0).all()
