"""Hard example mining: the kept anchors in hand-worked cases and against a plain implementation of the definition."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from retinanet.losses import hard_negative_mining, ohem
from tests.shared import num_examples


def rows(*rows: list) -> torch.Tensor:
    return torch.tensor(rows)


def test_three_hardest_negatives_are_kept_for_one_positive():
    """The ignored anchor is not kept, although it has the highest loss."""
    loss = rows([0.1, 5.0, 3.0, 4.0, 9.0, 2.0, 1.0])
    positive = rows([True, False, False, False, False, False, False])
    ignored = rows([False, False, False, False, True, False, False])
    kept = hard_negative_mining(loss, positive, ignored)
    assert kept[0].nonzero().flatten().tolist() == [0, 1, 2, 3]


def test_an_image_without_positives_keeps_three_negatives():
    loss = torch.arange(20.0).reshape(2, 10)
    positive = torch.zeros(2, 10, dtype=torch.bool)
    positive[0, :2] = True
    kept = hard_negative_mining(loss, positive, torch.zeros_like(positive))
    assert kept.sum(dim=1).tolist() == [2 + 6, 3], "2 positives and 6 negatives; no positive and 3 negatives"
    assert kept[1].nonzero().flatten().tolist() == [7, 8, 9]


def test_all_negatives_are_kept_if_they_are_fewer_than_the_ratio_allows():
    positive = rows([True, True, False])
    kept = hard_negative_mining(rows([1.0, 1.0, 1.0]), positive, rows([False, False, False]))
    assert kept.all()


BOXES = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [21, 0, 31, 10], [40, 0, 50, 10]])


def test_ohem_keeps_the_hardest_anchors_that_do_not_overlap():
    """Two pairs of anchors have the IoU 90 / 110 = 0.82. Of each pair, the anchor with the higher loss is left."""
    loss, none = rows([3.0, 4.0, 5.0, 2.0, 1.0]), torch.zeros(1, 5, dtype=torch.bool)
    kept = ohem(loss, none, none, BOXES, examples=2, nms_threshold=0.7)
    assert kept[0].nonzero().flatten().tolist() == [1, 2]
    assert ohem(loss, none, none, BOXES, examples=9, nms_threshold=0.7).sum() == 3
    assert ohem(loss, none, none, BOXES, examples=9, nms_threshold=0.9).sum() == 5
    ignored = rows([False, False, True, False, False])
    kept = ohem(loss, none, ignored, BOXES, examples=9, nms_threshold=0.7)
    assert kept[0].nonzero().flatten().tolist() == [1, 3, 4], "an ignored anchor suppresses no other anchor"


def test_ohem_with_a_ratio_keeps_positives_with_low_losses():
    """With ratio 1 and one positive, the positive and the negative with the highest loss are kept."""
    loss = rows([0.5, 0.2, 5.0, 2.0, 1.0])
    positive = rows([True, False, False, False, False])
    none = torch.zeros_like(positive)
    kept = ohem(loss, positive, none, BOXES, examples=4, nms_threshold=0.7, ratio=1)
    assert kept[0].nonzero().flatten().tolist() == [0, 2]
    kept = ohem(loss, none, none, BOXES, examples=4, nms_threshold=0.7, ratio=2)
    assert kept[0].nonzero().flatten().tolist() == [2, 4], (
        "an image without positives keeps as many negatives as an image with one"
    )


def ohem_over_all_anchors(loss, positive, boxes, examples, threshold, ratio):
    """Return the kept anchors of an image: greedy suppression of all anchors, one at a time."""
    iou_AA, unsuppressed = box_iou(boxes, boxes), []
    for i in loss.argsort(descending=True, stable=True).tolist():
        if all(iou_AA[i, j] <= threshold for j in unsuppressed):
            unsuppressed.append(i)
    if ratio is None:
        return set(unsuppressed[:examples])
    positives = [i for i in unsuppressed if positive[i]][: max(1, int(examples / (1 + ratio)))]
    negatives = [i for i in unsuppressed if not positive[i]]
    return {*positives, *negatives[: min(examples - len(positives), int(ratio * max(1, len(positives))))]}


@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from([0.3, 0.5, 0.7]), st.sampled_from([None, 1.0, 3.0]))
@settings(max_examples=num_examples(30), deadline=None)
def test_ohem_equals_suppression_over_all_anchors(seed, examples, threshold, ratio):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(200, 2, generator=generator) * 60
    boxes = torch.cat([corners, corners + 5 + 20 * torch.rand(200, 2, generator=generator)], dim=1)
    loss = torch.rand(1, 200, generator=generator)
    positive = torch.rand(1, 200, generator=generator) < 0.05
    kept = ohem(
        loss, positive, torch.zeros_like(positive), boxes, examples=examples, nms_threshold=threshold, ratio=ratio
    )
    expected = ohem_over_all_anchors(loss[0], positive[0], boxes, examples, threshold, ratio)
    assert set(kept[0].nonzero().flatten().tolist()) == expected


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [None, 3.0])
def test_ohem_at_full_size(ratio):
    """With 100,000 anchors of an image, a prefix of the sorted anchors is enough."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(100_000, 2, generator=generator) * 1000
    boxes = torch.cat([corners, corners + 8 + 100 * torch.rand(100_000, 2, generator=generator)], dim=1)
    loss = torch.rand(2, 100_000, generator=generator)
    positive = torch.zeros(2, 100_000, dtype=torch.bool)
    positive[0, ::1000] = True
    kept = ohem(loss, positive, torch.zeros_like(positive), boxes, examples=512, ratio=ratio)
    assert kept[0].sum() == 512 if ratio is None else (kept & positive)[0].sum() * 3 >= (kept & ~positive)[0].sum()
    assert kept[1].sum() == (512 if ratio is None else 3)


def test_masks_of_another_shape_or_type_are_refused():
    loss_NA, mask_NA, anchors_A4 = torch.rand(2, 6), torch.zeros(2, 6, dtype=torch.bool), torch.rand(6, 4)
    for select in (hard_negative_mining, lambda *tensors: ohem(*tensors, anchors_A4)):
        with pytest.raises(ValueError, match=r"positive_NA: expected the shape of the losses, \(2, 6\), found \(6,\)"):
            select(loss_NA, mask_NA[0], mask_NA)
        with pytest.raises(TypeError, match="ignored_NA: expected bool, found torch.int64"):
            select(loss_NA, mask_NA, mask_NA.long())  # ~ of an integer is not its negation
