"""Tests of matching anchors with ground truth: hand-worked cases and torchvision's matcher."""

import pytest
import torch
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from retinanet.config import MatchConfig
from retinanet.matching import match
from retinanet.types import Target


def make_target(boxes, labels=None, crowd=None):
    G = len(boxes)
    return Target(
        boxes_G4=torch.tensor(boxes, dtype=torch.float32).reshape(G, 4),
        labels_G=torch.tensor(labels if labels is not None else [0] * G, dtype=torch.int64),
        crowd_G=torch.tensor(crowd if crowd is not None else [False] * G, dtype=torch.bool),
    )


# IoU with the box (0, 0, 10, 10): 1; 9/10; 1/2; 45/100; 39/100; 0
ANCHORS = torch.tensor(
    [[0.0, 0, 10, 10], [0, 0, 9, 10], [0, 0, 5, 10], [0, 0, 4.5, 10], [0, 0, 3.9, 10], [50, 50, 60, 60]]
)


def test_thresholds_of_hand_worked_ious():
    """IoU >= 0.5 is positive, [0.4, 0.5) is ignored, below is negative."""
    result = match(ANCHORS, [make_target([[0, 0, 10, 10]], labels=[7])], MatchConfig())
    assert result.positive_NA.tolist() == [[True, True, True, False, False, False]]
    assert result.ignored_NA.tolist() == [[False, False, False, True, False, False]]
    assert result.labels_NA.tolist() == [[7, 7, 7, 0, 0, 0]]
    assert result.boxes_NA4[0, 0].tolist() == [0, 0, 10, 10]
    assert (result.boxes_NA4[0, 3:] == 0).all()


def test_an_anchor_is_matched_to_the_box_of_highest_iou_and_the_first_of_equals():
    boxes = [[0, 0, 8, 10], [0, 0, 10, 10], [0, 0, 10, 10]]
    result = match(ANCHORS[:2], [make_target(boxes, labels=[1, 2, 3])], MatchConfig())
    assert result.matched_NA.tolist() == [[1, 1]], "IoU 1 against 0.8, and 0.9 against 8/9; box 2 equals box 1"
    assert result.labels_NA.tolist() == [[2, 2]]


def test_all_anchors_of_an_image_without_objects_are_negative():
    result = match(ANCHORS, [make_target([]), make_target([[0, 0, 10, 10]])], MatchConfig())
    assert not result.positive_NA[0].any()
    assert not result.ignored_NA[0].any(), "every anchor is background"
    assert result.positive_NA[1].sum() == 3


def test_anchors_in_crowd_regions_are_ignored():
    """An anchor with half of its area in a crowd region is ignored, unless it is positive for an object."""
    anchors = torch.tensor([[0.0, 0, 10, 10], [95, 0, 105, 10], [94, 0, 104, 10], [96, 0, 106, 10], [200, 0, 210, 10]])
    result = match(anchors, [make_target([[0, 0, 100, 100], [0, 0, 10, 10]], [1, 2], [True, False])], MatchConfig())
    assert result.positive_NA.tolist() == [[True, False, False, False, False]]
    assert result.matched_NA[0, 0] == 1, "the index counts all boxes of the target, including crowd regions"
    assert result.labels_NA[0, 0] == 2
    assert result.ignored_NA.tolist() == [[False, True, True, False, False]]


def test_low_quality_matches_make_the_best_anchors_of_an_object_positive():
    """No anchor reaches the positive threshold with the first box."""
    small = make_target([[0, 0, 2, 2], [52, 52, 60, 60]], labels=[4, 5])
    assert match(ANCHORS, [small], MatchConfig()).positive_NA.sum() == 1
    result = match(ANCHORS, [small], MatchConfig(low_quality_matches=True))
    assert result.positive_NA.tolist() == [[False, False, False, False, True, True]]
    assert result.labels_NA[0, 4:].tolist() == [4, 5]


def test_low_quality_matches_need_an_overlap():
    """A box without overlap has the IoU 0 with every anchor. torchvision then makes every anchor positive."""
    outside = make_target([[500, 500, 510, 510]])
    result = match(ANCHORS, [outside], MatchConfig(low_quality_matches=True))
    assert not result.positive_NA.any()
    theirs = Matcher(0.5, 0.4, allow_low_quality_matches=True)(box_iou(outside.boxes_G4, ANCHORS))
    assert (theirs >= 0).all()


@pytest.mark.parametrize("low_quality", [False, True])
def test_matching_equals_torchvisions_matcher(low_quality):
    """300 random images on an integer grid, which gives many ties. Boxes that overlap no anchor are left out."""
    generator = torch.Generator().manual_seed(3)
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=low_quality)
    config = MatchConfig(low_quality_matches=low_quality)
    images_with_positives = 0
    for _ in range(300):
        corner = torch.randint(0, 40, (80, 2), generator=generator)
        anchors = torch.cat([corner, corner + torch.randint(1, 30, (80, 2), generator=generator)], 1).float()
        corner = torch.randint(0, 40, (int(torch.randint(1, 9, (), generator=generator)), 2), generator=generator)
        boxes = torch.cat([corner, corner + torch.randint(1, 30, corner.shape, generator=generator)], 1).float()
        overlap = box_iou(boxes, anchors)
        boxes, overlap = boxes[overlap.amax(1) > 0], overlap[overlap.amax(1) > 0]
        if not len(boxes):
            continue
        theirs = matcher(overlap)
        ours = match(anchors, [make_target(boxes.tolist())], config)
        assert torch.equal(ours.positive_NA[0], theirs >= 0)
        assert torch.equal(ours.ignored_NA[0], theirs == Matcher.BETWEEN_THRESHOLDS)
        assert torch.equal(ours.matched_NA[0][theirs >= 0], theirs[theirs >= 0])
        images_with_positives += int((theirs >= 0).any())
    assert images_with_positives > 200


def test_a_degenerate_box_matches_no_anchor_and_gives_no_nan():
    result = match(ANCHORS, [make_target([[5, 5, 5, 5], [8, 8, 2, 2]])], MatchConfig(low_quality_matches=True))
    assert not result.positive_NA.any()
    assert not result.boxes_NA4.isnan().any()
