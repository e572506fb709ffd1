"""Anchors to objects: hand-worked cases, a brute-force rule, torchvision's matcher."""

import pytest
import torch
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from retinanet.config import MatchConfig
from retinanet.matching import match
from retinanet.types import Target


def target(boxes, labels=None, crowd=None):
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


def test_thresholds_by_hand():
    """IoU >= 0.5 positive, 0.5 itself too; [0.4, 0.5) ignored; below negative."""
    found = match(ANCHORS, [target([[0, 0, 10, 10]], labels=[7])], MatchConfig())
    assert found.positive_NA.tolist() == [[True, True, True, False, False, False]]
    assert found.ignored_NA.tolist() == [[False, False, False, True, False, False]]
    assert found.labels_NA.tolist() == [[7, 7, 7, 0, 0, 0]]
    assert found.boxes_NA4[0, 0].tolist() == [0, 0, 10, 10]
    assert (found.boxes_NA4[0, 3:] == 0).all()


def test_the_best_overlapping_object_wins_and_the_first_of_equals():
    boxes = [[0, 0, 8, 10], [0, 0, 10, 10], [0, 0, 10, 10]]
    found = match(ANCHORS[:2], [target(boxes, labels=[1, 2, 3])], MatchConfig())
    assert found.matched_NA.tolist() == [[1, 1]], "IoU 1 against 0.8, and 0.9 against 8/9; box 2 equals box 1"
    assert found.labels_NA.tolist() == [[2, 2]]


def test_a_batch_with_an_empty_image():
    found = match(ANCHORS, [target([]), target([[0, 0, 10, 10]])], MatchConfig())
    assert not found.positive_NA[0].any()
    assert not found.ignored_NA[0].any(), "without objects everything is background"
    assert found.positive_NA[1].sum() == 3


def test_crowd_regions_are_neither_object_nor_background():
    """An anchor with half of its own area in a crowd region is ignored; a real object there still counts."""
    anchors = torch.tensor([[0.0, 0, 10, 10], [95, 0, 105, 10], [94, 0, 104, 10], [96, 0, 106, 10], [200, 0, 210, 10]])
    found = match(anchors, [target([[0, 0, 100, 100], [0, 0, 10, 10]], [1, 2], [True, False])], MatchConfig())
    assert found.positive_NA.tolist() == [[True, False, False, False, False]]
    assert found.matched_NA[0, 0] == 1, "the index counts all boxes of the target, crowd ones too"
    assert found.labels_NA[0, 0] == 2
    assert found.ignored_NA.tolist() == [[False, True, True, False, False]]


def test_low_quality_matches():
    """No anchor reaches the object: its best ones answer all the same when asked to, and for it alone."""
    small = target([[0, 0, 2, 2], [52, 52, 60, 60]], labels=[4, 5])
    assert match(ANCHORS, [small], MatchConfig()).positive_NA.sum() == 1
    found = match(ANCHORS, [small], MatchConfig(low_quality_matches=True))
    assert found.positive_NA.tolist() == [[False, False, False, False, True, True]]
    assert found.labels_NA[0, 4:].tolist() == [4, 5]


def test_low_quality_needs_an_overlap():
    """torchvision makes every anchor foreground for a box that overlaps none: its best IoU, 0, equals all others."""
    nowhere = target([[500, 500, 510, 510]])
    found = match(ANCHORS, [nowhere], MatchConfig(low_quality_matches=True))
    assert not found.positive_NA.any()
    theirs = Matcher(0.5, 0.4, allow_low_quality_matches=True)(box_iou(nowhere.boxes_G4, ANCHORS))
    assert (theirs >= 0).all()


@pytest.mark.parametrize("low_quality", [False, True])
def test_equals_torchvisions_matcher(low_quality):
    """300 random images on an integer grid, so that ties abound; objects that overlap no anchor left out."""
    generator = torch.Generator().manual_seed(3)
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=low_quality)
    config = MatchConfig(low_quality_matches=low_quality)
    some_positive = 0
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
        ours = match(anchors, [target(boxes.tolist())], config)
        assert torch.equal(ours.positive_NA[0], theirs >= 0)
        assert torch.equal(ours.ignored_NA[0], theirs == Matcher.BETWEEN_THRESHOLDS)
        assert torch.equal(ours.matched_NA[0][theirs >= 0], theirs[theirs >= 0])
        some_positive += int((theirs >= 0).any())
    assert some_positive > 200


def test_a_degenerate_box_matches_nothing_and_makes_no_nan():
    found = match(ANCHORS, [target([[5, 5, 5, 5], [8, 8, 2, 2]])], MatchConfig(low_quality_matches=True))
    assert not found.positive_NA.any()
    assert not found.boxes_NA4.isnan().any()
