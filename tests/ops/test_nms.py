"""NMS in C and in torch against the reference and torchvision."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torchvision.ops import batched_nms
from torchvision.ops import nms as torchvision_nms

from retinanet.ops.nms import nms, nms_torch
from tests.ops import reference
from tests.shared import num_examples


@pytest.fixture(params=["c", "torch"])
def form(request):
    if request.param == "torch":
        return nms_torch
    request.getfixturevalue("native")
    return nms


def random_boxes(rng, count, classes, *, grid=False, room=60):
    corner = torch.rand(count, 2, generator=rng) * room
    side = torch.rand(count, 2, generator=rng) * 30 + 1
    scores = torch.rand(count, generator=rng)
    if grid:
        corner, side, scores = corner.round(), side.round(), (scores * 5).round() / 5
    return torch.cat([corner, corner + side], 1), scores, torch.randint(-2, classes, (count,), generator=rng)


@pytest.mark.parametrize("grid", [False, True])
def test_results_equal_the_reference(form, grid):
    """Boxes on a grid have many equal scores and IoUs exactly at the threshold."""
    rng = torch.Generator().manual_seed(10)
    dropped = 0
    cases = num_examples(240)  # enough for all combinations below, in the fast run, too
    for case in range(cases):
        boxes, scores, labels = random_boxes(
            rng, (0, 1, 2, 15, 16, 17, 33, 80)[case % 8], (-1, 1, 4)[case % 3], grid=grid
        )
        threshold = (0.5, 0.0, 0.3, 1.0, 1 / 3, 0.6)[case % 6]
        limit = (None, 1, 5, 1000)[case % 4]
        expected = reference.nms(boxes, scores, labels, threshold=threshold, limit=limit)
        assert form(boxes, scores, labels, threshold=threshold, limit=limit).tolist() == expected
        dropped += len(boxes) - len(expected)
    assert dropped > 3 * cases


def test_without_labels_all_boxes_have_one_class(form):
    boxes, scores, _ = random_boxes(torch.Generator().manual_seed(11), 300, 1)
    expected = reference.nms(boxes, scores, torch.zeros(300), threshold=0.4)
    assert 10 < len(expected) < 300
    assert form(boxes, scores, threshold=0.4).tolist() == expected


def test_nms_keeps_the_hand_worked_boxes(form):
    """Boxes 0 and 1 have the IoU 1/2, which is not above 1/2. Boxes 0 and 2 have 9/11. Box 3 has another class."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 5, 10], [0, 1, 10, 11], [0, 1, 10, 11], [90, 0, 99, 9]])
    scores, labels = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.95]), torch.tensor([0, 0, 0, 1, 0])
    assert form(boxes, scores, labels, threshold=0.5).tolist() == [4, 0, 1, 3]
    assert form(boxes, scores, labels, threshold=0.5, limit=2).tolist() == [4, 0]
    assert form(boxes, scores, labels, threshold=0.499).tolist() == [4, 0, 3]


def test_invalid_boxes_and_scores_are_treated_as_in_torchvision(form):
    """Some boxes have no area, inverted sides, NaN or infinite coordinates; some scores are NaN or -inf."""
    rng = torch.Generator().manual_seed(12)
    for _ in range(100):
        boxes, scores, labels = random_boxes(rng, 60, 2, grid=True)
        boxes[:5, 2:] = boxes[:5, :2]
        boxes[5:9] = boxes[5:9].flip(1)
        boxes[9, 0], boxes[10, 3], boxes[11], boxes[12, 2] = torch.nan, torch.nan, torch.nan, torch.inf
        scores[13], scores[14] = torch.nan, -torch.inf
        shuffle = torch.randperm(60, generator=rng)
        boxes, scores, labels = boxes[shuffle], scores[shuffle], labels[shuffle]
        kept = form(boxes, scores, labels, threshold=0.5)
        assert kept.tolist() == nms_torch(boxes, scores, labels, threshold=0.5).tolist()
        for label in labels.unique():
            own = torch.nonzero(labels == label).squeeze(1)
            expected = own[torchvision_nms(boxes[own], scores[own], 0.5)]
            assert kept[labels[kept] == label].tolist() == expected.tolist()


@pytest.mark.parametrize("count", [900, 3000])
def test_results_equal_torchvision_for_different_scores(form, count):
    """torchvision shifts the boxes of each class for up to 1,000 boxes, and runs each class alone for more."""
    boxes, scores, labels = random_boxes(torch.Generator().manual_seed(13), count, 20, room=500)
    scores = torch.linspace(0.1, 1, count)[scores.argsort()]
    expected = batched_nms(boxes, scores, labels, 0.5)
    assert len(expected) < count
    assert torch.equal(form(boxes, scores, labels, threshold=0.5), expected)
    assert torch.equal(form(boxes, scores, labels, threshold=0.5, limit=100), expected[:100])


def test_iou_is_exact_for_large_class_ids(form):
    """torchvision shifts class 80 by about 80,000 pixels: float32 steps are then 1/128 pixel, and some IoUs wrong."""
    rng = torch.Generator().manual_seed(14)
    wrong = 0
    for _ in range(40):
        corner = torch.rand(20, 2, generator=rng) * 900
        side = torch.rand(20, 1, generator=rng) * 3 + 0.5
        boxes = torch.cat([corner, corner + side], 1)
        # A square and its copy, shifted in x and y by 1 - sqrt(2/3) of its side, have an IoU of 1/2.
        boxes[1::2] = boxes[::2] + (0.1835 + 0.01 * (torch.rand(10, 1, generator=rng) - 0.5)) * side[::2]
        scores, labels = torch.rand(20, generator=rng), torch.full((20,), 80)
        exact = reference.nms(boxes, scores, labels, threshold=0.5)
        assert form(boxes, scores, labels, threshold=0.5).tolist() == exact
        wrong += batched_nms(boxes, scores, labels, 0.5).tolist() != exact
    assert wrong > 0


def test_strided_boxes_and_other_types_give_equal_results(form):
    boxes, scores, labels = random_boxes(torch.Generator().manual_seed(16), 200, 3, grid=True)
    expected = reference.nms(boxes, scores, labels, threshold=0.5)
    strided = boxes.T.contiguous().T
    assert form(strided, scores, labels.int(), threshold=0.5).tolist() == expected
    assert form(boxes.double(), scores.double(), labels, threshold=0.5).tolist() == expected
    assert form(boxes.half(), scores, labels, threshold=0.5).tolist() == expected  # the grid's numbers are exact


def test_every_instruction_set_and_concurrent_calls(native):
    boxes, scores, labels = random_boxes(torch.Generator().manual_seed(17), 3000, 3, room=300)
    expected = nms_torch(boxes, scores, labels, threshold=0.5).tolist()
    assert 200 < len(expected) < 2900
    for name in native.instruction_sets():
        with native.use_instruction_set(name):
            assert nms(boxes, scores, labels, threshold=0.5).tolist() == expected
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda _: nms(boxes, scores, labels, threshold=0.5).tolist(), range(12)))
    assert runs == [expected] * 12


def test_wrong_shapes_raise_errors(native):
    with pytest.raises(ValueError, match="scores: expected shape"):
        nms(torch.zeros(3, 4), torch.zeros(2), threshold=0.5)
    with pytest.raises(ValueError, match="labels: expected shape"):
        nms(torch.zeros(3, 4), torch.zeros(3), torch.zeros(4, dtype=torch.int64), threshold=0.5)
