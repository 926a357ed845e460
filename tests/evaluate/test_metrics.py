"Scores against torchmetrics, hand-worked matrices and counts that must add up"
import json, math, statistics, time

import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassJaccardIndex

from otseg.core import InputError
from otseg.evaluate.metrics import ConfusionMatrix, harmonic_mean, segmentation_scores
from otseg.evaluate.metrics import pairwise_diversity, prompt_diversity, text_cosine


def maps(k, seed=0, shape=(3, 20, 30), void=.1):
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, k, shape, generator=g)
    prediction = torch.where(torch.rand(shape, generator=g) < .6, labels, torch.randint(0, k, shape, generator=g))
    return prediction, labels.masked_fill(torch.rand(shape, generator=g) < void, 255)


@pytest.mark.parametrize('k', [1, 2, 7, 171])
def test_equals_torchmetrics(k):
    prediction, labels = maps(k)
    confusion = ConfusionMatrix(k).update(prediction, labels)
    if k == 1:
        return torch.testing.assert_close(confusion.counts, (labels != 255).sum().view(1, 1))
    reference = MulticlassConfusionMatrix(k, ignore_index=255)(prediction, labels)
    torch.testing.assert_close(confusion.counts, reference, check_dtype=False)
    scores = segmentation_scores(confusion, range(k), [])
    jaccard = MulticlassJaccardIndex(k, ignore_index=255)(prediction, labels)
    assert scores.miou == pytest.approx(float(jaccard), abs=1e-6)
    each = MulticlassJaccardIndex(k, ignore_index=255, average='none')(prediction, labels)
    torch.testing.assert_close(scores.iou.float(), each)
    accuracy = MulticlassAccuracy(k, average='micro', ignore_index=255)(prediction, labels)
    assert scores.pixel_accuracy == pytest.approx(float(accuracy), abs=1e-6)


def test_hand_worked_three_classes():
    counts = torch.tensor([[6, 2, 0], [1, 3, 0], [0, 4, 0]])  # class 2 is in the truth and never predicted
    scores = segmentation_scores(counts, seen=[0, 1], unseen=[2])
    assert scores.iou.tolist() == pytest.approx([6/9, 3/10, 0])
    assert scores.accuracy.tolist() == pytest.approx([6/8, 3/4, 0])
    assert scores.pixels.tolist() == [8, 4, 4]
    assert (scores.miou_seen, scores.miou_unseen, scores.hiou) == pytest.approx(((6/9 + .3) / 2, 0, 0))
    assert (scores.miou, scores.pixel_accuracy) == pytest.approx(((6/9 + .3) / 3, 9/16))


def test_three_classes_by_hand_from_maps():
    """Nine pixels, one of them void. Class 1 is absent from the truth and predicted twice, class 2 is there and never
    predicted; a second picture is void altogether"""
    labels = torch.tensor([[[0, 0, 0], [0, 2, 2], [0, 2, 255]], [[255] * 3] * 3])
    prediction = torch.tensor([[[0, 0, 1], [0, 0, 1], [0, 0, 2]], [[0, 1, 2]] * 3])
    confusion = ConfusionMatrix(3).update(prediction, labels)
    assert confusion.counts.tolist() == [[4, 1, 0], [0, 0, 0], [2, 1, 0]]
    scores = segmentation_scores(confusion, seen=[0, 1], unseen=[2])
    assert scores.iou.tolist() == pytest.approx([4/7, 0, 0]) and scores.accuracy[1].isnan()
    assert (scores.miou_seen, scores.miou_unseen, scores.hiou, scores.miou) == pytest.approx((2/7, 0, 0, 4/21))
    each = MulticlassJaccardIndex(3, ignore_index=255, average='none')(prediction, labels)
    torch.testing.assert_close(scores.iou.float(), each)
    inside = labels != 255
    assert torch.equal(ConfusionMatrix(3).update(prediction[inside], labels[inside]).counts, confusion.counts)


def test_absent_class_is_left_out_and_invented_class_counts():
    scores = segmentation_scores(torch.tensor([[3, 1, 0], [0, 0, 0], [0, 0, 0]]), seen=[0, 2], unseen=[1])
    assert scores.iou[:2].tolist() == pytest.approx([.75, 0]) and scores.iou[2].isnan()
    assert (scores.miou_seen, scores.miou_unseen, scores.miou) == pytest.approx((.75, 0, .375))
    gone = segmentation_scores(torch.tensor([[3, 1, 0], [0, 0, 0], [0, 0, 0]]), seen=[0, 1], unseen=[2])
    assert math.isnan(gone.miou_unseen) and math.isnan(gone.hiou) and gone.miou_seen == pytest.approx(.375)


def test_all_ignored_pictures_count_nothing():
    prediction, labels = maps(4)
    confusion = ConfusionMatrix(4).update(prediction, labels)
    before = confusion.counts.clone()
    confusion.update(prediction, torch.full_like(labels, 255))
    assert torch.equal(confusion.counts, before)
    empty = segmentation_scores(ConfusionMatrix(4).update(prediction, torch.full_like(labels, 255)), [0, 1], [2, 3])
    values = empty.miou, empty.miou_seen, empty.miou_unseen, empty.hiou, empty.pixel_accuracy
    assert all(math.isnan(x) for x in values)
    assert 'nan' not in str(empty) + empty.table()
    json.dumps(empty.to_dict(), allow_nan=False)


def test_counts_add_up_in_any_split():
    prediction, labels = maps(5, shape=(6, 10, 10))
    whole = ConfusionMatrix(5).update(prediction, labels)
    parts = [ConfusionMatrix(5).update(prediction[i:j], labels[i:j]) for i, j in ((0, 1), (1, 4), (4, 6))]
    assert torch.equal((parts[0] + parts[1] + parts[2]).counts, whole.counts)
    assert torch.equal(ConfusionMatrix(5, parts[0].counts).counts, parts[0].counts)


def test_harmonic_mean():
    assert harmonic_mean(.784, .562) == pytest.approx(.655, abs=5e-4)          # Table 4, supervised, Context
    assert harmonic_mean(0, 0) == 0 and harmonic_mean(0, .5) == 0
    assert math.isnan(harmonic_mean(math.nan, 0)) and math.isnan(harmonic_mean(0, math.nan))


@pytest.mark.parametrize('prediction, labels, words', [
    (torch.zeros(1, 4, 4), torch.zeros(1, 4, 5), 'shape of `labels` (1, 4, 5), got (1, 4, 4)'),
    (torch.zeros(1, 4, 4), torch.full((1, 4, 4), 3), '`labels` should hold classes 0 to 2, got a pixel of value 3'),
    (torch.zeros(1, 4, 4), torch.full((1, 4, 4), -1), '`labels` should hold classes 0 to 2, got a pixel of value -1'),
    (torch.full((1, 4, 4), 255), torch.zeros(1, 4, 4), '`prediction` should hold classes 0 to 2'),
])
def test_wrong_maps_are_named(prediction, labels, words):
    with pytest.raises(InputError) as error: ConfusionMatrix(3).update(prediction.long(), labels.long())
    assert words in str(error.value)


@pytest.mark.parametrize('k', [0, -2])
def test_no_classes(k):
    with pytest.raises(InputError): ConfusionMatrix(k)


def test_wrong_groups_are_named():
    for seen, unseen in (([0, 1], [1, 2]), ([0, 0], [1]), ([0], [3]), ([-1], [0])):
        with pytest.raises(InputError): segmentation_scores(torch.eye(3), seen, unseen)


def test_table_marks_unseen_classes():
    scores = segmentation_scores(torch.eye(3), [0, 1], [2])
    lines = scores.table(['cat', 'dog', 'pottedplant']).splitlines()
    assert [line.endswith('unseen') for line in lines] == [False, False, False, True]
    assert scores.table(['cat', 'dog', 'sofa'], unseen=[0]).splitlines()[1].endswith('unseen')
    assert [row['unseen'] for row in scores.to_dict()['classes']] == [False, False, True]


def counting(rounds=10):
    "Median seconds of processor time to check and count a picture, and to count it alone"
    (prediction, labels), counter, seconds = maps(20, shape=(1, 375, 500)), ConfusionMatrix(20), []
    for _ in range(rounds):
        times = [time.process_time()]
        counter.update(prediction, labels)
        times.append(time.process_time())
        torch.bincount((labels * 20 + prediction).flatten())
        times.append(time.process_time())
        seconds.append((times[1] - times[0], times[2] - times[1]))
    return [*map(statistics.median, zip(*seconds))]


def test_checking_costs_little_beside_counting():
    ours, bare = counting()
    assert ours < 50 * bare


@pytest.mark.timing
def test_counting_is_fast_enough_for_a_validation_set():
    assert counting()[0] < .04  # 1,449 pictures in a minute


def test_prompt_diversity_is_invariant_and_bounded():
    x = torch.randn(3, 4, 9, 7, generator=torch.Generator().manual_seed(1))
    one = prompt_diversity(x)
    scaled = prompt_diversity(5 * x - 2)
    shuffled = prompt_diversity(x[:, torch.tensor([2, 0, 3, 1])])
    for other in (scaled, shuffled):
        torch.testing.assert_close(one.correlation, other.correlation, atol=1e-4, rtol=0)
        torch.testing.assert_close(one.js_distance, other.js_distance, atol=1e-4, rtol=0)
    pair = torch.corrcoef(x[0].flatten(1))
    assert float(one.correlation[0]) == pytest.approx(float(pair[tuple(torch.triu_indices(4, 4, 1))].mean()), abs=1e-5)
    assert ((0 <= one.js_distance) & (one.js_distance <= 1)).all()


def test_js_distance_equals_scipy():
    distance = pytest.importorskip('scipy.spatial.distance').jensenshannon
    x = torch.rand(2, 6, 6, generator=torch.Generator().manual_seed(2))
    p, q = ((m - m.min()) for m in x.double())
    assert float(prompt_diversity(x).js_distance) == pytest.approx(distance(p.flatten(), q.flatten(), base=2), abs=1e-5)


def pixels(*rows): return torch.tensor(rows).float()[:, None]


def test_every_measure_by_hand():
    """Twenty pixels, so that the largest two count. One map has its mass on pixels 0 to 3, the other on 2 to 5 with twice
    as much on 2 and 3: mass 1/4 each, and 1/3, 1/3, 1/6, 1/6"""
    a, b = torch.zeros(20), torch.zeros(20)
    a[:4], b[2:6] = 1, pixels([2, 2, 1, 1]).flatten()
    found = prompt_diversity(pixels(a.tolist(), b.tolist()))
    h = lambda *p: -sum(x * math.log2(x) for x in p)
    mean, own = h(1/8, 1/8, 7/24, 7/24, 1/12, 1/12), (h(*[1/4] * 4) + h(1/3, 1/3, 1/6, 1/6)) / 2
    assert float(found.js_distance) == pytest.approx(math.sqrt(mean - own), abs=1e-6)
    assert float(found.entropy) == pytest.approx(own / math.log2(20), abs=1e-6)
    assert float(found.split_entropy) == pytest.approx(1 - (mean - own), abs=1e-6)
    assert float(found.overlap) == pytest.approx(2 / 4)  # of equals all: pixels 0 to 3, and 2 and 3
    covariance, spread = 4 / 20 - (4 / 20) * (6 / 20), ((4 / 20 - (4 / 20)**2) * (10 / 20 - (6 / 20)**2))**.5
    assert float(found.correlation) == pytest.approx(covariance / spread, abs=1e-6)


def test_split_entropy_is_the_mean_over_pixels():
    x = torch.randn(5, 6, 7, generator=torch.Generator().manual_seed(3))
    p = (x - x.amin((1, 2), keepdim=True)).flatten(1).double()
    p = p / p.sum(1, keepdim=True)
    share = p / p.sum(0)
    pixel = -torch.special.xlogy(share, share).sum(0) / math.log(5)
    assert float(prompt_diversity(x).split_entropy) == pytest.approx(float((p.mean(0) * pixel).sum()), abs=1e-6)


def test_measures_of_mass_and_ranks_are_invariant_and_bounded():
    x = torch.randn(3, 4, 9, 7, generator=torch.Generator().manual_seed(1))
    one, scaled, shuffled = (prompt_diversity(y) for y in (x, 5 * x - 2, x[:, torch.tensor([2, 0, 3, 1])]))
    moved = prompt_diversity(x.flatten(-2)[..., torch.randperm(63)].unflatten(-1, (9, 7)))
    for key in ('overlap', 'entropy', 'split_entropy'):
        value = getattr(one, key)
        assert ((0 <= value) & (value <= 1)).all()
        for other in (scaled, shuffled, moved): torch.testing.assert_close(value, getattr(other, key), atol=1e-4, rtol=0)
    torch.testing.assert_close(prompt_diversity(x.exp()).overlap, one.overlap)  # ranks alone
    assert (prompt_diversity(x.exp()).js_distance - one.js_distance).abs().min() > .01


def test_overlap_by_chance():
    found = prompt_diversity(torch.rand(40, 6, 40, 40, generator=torch.Generator().manual_seed(0))).overlap
    assert float(found.mean()) == pytest.approx(.1 / 1.9, abs=.003)


@pytest.mark.parametrize('shape', [(2, 1, 1), (1, 1, 1), (3, 2, 2)])
def test_tiny_maps_give_numbers_or_none(shape):
    found = prompt_diversity(torch.ones(shape)).to_dict()
    json.dumps(found, allow_nan=False)
    assert found['entropy'] == (None if shape[1] == 1 else 1) and found['correlation'] is found['overlap'] is None


def test_pairs_are_symmetric_and_average_to_the_means():
    x = torch.randn(3, 4, 9, 7, generator=torch.Generator().manual_seed(1))
    means, (i, j) = prompt_diversity(x), torch.triu_indices(4, 4, 1)
    for key, matrix in pairwise_diversity(x).items():
        assert matrix.shape == (3, 4, 4) and torch.equal(matrix, matrix.mT)
        own = matrix.diagonal(dim1=-2, dim2=-1)
        torch.testing.assert_close(own, torch.full_like(own, key != 'js_distance'), atol=1e-6, rtol=0)
        torch.testing.assert_close(matrix[:, i, j].mean(-1), getattr(means, key))
    x[0, 2] = .3
    flat = pairwise_diversity(x)
    assert flat['correlation'][0, 2].isnan().all() and flat['overlap'][0, :, 2].isnan().all()
    assert not flat['js_distance'].isnan().any() and not flat['correlation'][1:].isnan().any()


def test_cosine_of_texts():
    text = torch.randn(5, 4, 16, generator=torch.Generator().manual_seed(0))
    unit = text / text.norm(dim=-1, keepdim=True)
    expected = ((unit @ unit.mT).sum((1, 2)) - 4) / 12
    torch.testing.assert_close(text_cosine(text), expected)
    torch.testing.assert_close(text_cosine(text * torch.rand(5, 4, 1).add(.1)), expected)
