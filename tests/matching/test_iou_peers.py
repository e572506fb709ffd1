"""Tests of matching against torchvision's Matcher and Detectron2's rules on up to 10,000 images with many ties.

The three differ only for a box that overlaps no anchor. Detectron2 cannot be installed here, so `detectron2_rules`
implements its rules. Shape suffixes: A anchors, G ground-truth boxes.
"""

import pytest
import torch
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from retinanet.config import MatchConfig, ModelConfig
from retinanet.matching import match
from retinanet.model import AnchorGenerator
from retinanet.types import Target


def make_target(boxes_G4):
    G = len(boxes_G4)
    return Target(
        boxes_G4=boxes_G4, labels_G=torch.zeros(G, dtype=torch.int64), crowd_G=torch.zeros(G, dtype=torch.bool)
    )


def detectron2_rules(iou_GA, *, low_quality):
    """Return each anchor's best box, the first of equals, and its label.

    The label is 1 (positive) from an IoU of 0.5, 0 (negative) below 0.4 and -1 (ignored) between. With `low_quality`,
    it is also 1 for each anchor with the highest IoU of some box, whatever that IoU is.
    """
    best_A, index_A = iou_GA.max(dim=0)
    label_A = torch.zeros_like(index_A)
    label_A[best_A >= 0.4] = -1
    label_A[best_A >= 0.5] = 1
    if low_quality:
        label_A[(iou_GA == iou_GA.amax(1, keepdim=True)).any(0)] = 1
    return index_A, label_A


def random_cases(generator, count):
    """Return `count` cases of up to 16 anchors and 4 boxes, concatenated.

    Coordinates are integers from 0 to 12, so that IoUs often tie or equal 0.4 or 0.5. The cases lie too far apart to
    overlap, so one call of `match` evaluates all of them.
    """
    all_anchors, all_boxes = [], []
    for i in range(count):
        A, G = (int(torch.randint(1, limit, (), generator=generator)) for limit in (17, 5))
        corner = torch.randint(0, 8, (A + G, 2), generator=generator) + torch.tensor([i * 100, 0])
        boxes = torch.cat([corner, corner + torch.randint(1, 6, (A + G, 2), generator=generator)], 1).float()
        boxes[-1] = boxes[A]  # repeats a box, if the case has at least two
        all_anchors.append(boxes[:A])
        all_boxes.append(boxes[A:])
    return torch.cat(all_anchors), torch.cat(all_boxes)


@pytest.mark.parametrize("calls", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_matching_equals_torchvision_and_detectron2(calls):
    """Compare every anchor of 1,000 cases, in the slow run 10,000. The peers get no boxes without overlap."""
    generator = torch.Generator().manual_seed(2)
    ties = exactly_half = exactly_low = forced = without = 0
    for _ in range(calls):
        anchors_A4, boxes_G4 = random_cases(generator, 100)
        iou_GA = box_iou(boxes_G4, anchors_A4)
        overlaps_G = torch.nonzero(iou_GA.amax(1) > 0).squeeze(1)
        without += len(boxes_G4) - len(overlaps_G)
        iou_GA = iou_GA[overlaps_G]
        best_A = iou_GA.amax(0)
        for low_quality in (False, True):
            ours = match(anchors_A4, [make_target(boxes_G4)], MatchConfig(low_quality_matches=low_quality))
            positive_A, ignored_A, matched_A = ours.positive_NA[0], ours.ignored_NA[0], ours.matched_NA[0]
            theirs = Matcher(0.5, 0.4, allow_low_quality_matches=low_quality)(iou_GA.clone())
            index_A, label_A = detectron2_rules(iou_GA, low_quality=low_quality)
            assert torch.equal(positive_A, theirs >= 0)
            assert torch.equal(ignored_A, theirs == Matcher.BETWEEN_THRESHOLDS)
            assert torch.equal(matched_A[positive_A], overlaps_G[theirs[positive_A]])
            assert torch.equal(positive_A, label_A == 1)
            assert torch.equal(ignored_A, label_A == -1)
            assert torch.equal(matched_A[positive_A], overlaps_G[index_A[positive_A]])
        forced += int((positive_A & (best_A < 0.5)).sum())
        ties += int(((iou_GA == best_A).sum(0)[positive_A] > 1).sum())
        exactly_half += int((best_A == 0.5).sum())
        exactly_low += int((best_A == 0.4).sum())
    assert min(ties, forced, without) > 10 * calls, "too few ties, low-quality matches or boxes without overlap"
    assert min(exactly_half, exactly_low) > calls


def test_a_box_that_overlaps_no_anchor_gives_no_positives():
    """torchvision and Detectron2 make all 76,725 anchors of 640 x 640 pixels positive because of such a box."""
    sizes = [(640 // stride,) * 2 for stride in (8, 16, 32, 64, 128)]
    anchors_A4, _ = AnchorGenerator(config=ModelConfig())(sizes, like=torch.zeros(1))
    assert len(anchors_A4) == 76_725
    boxes_G4 = torch.tensor([[200.0, 200, 320, 300], [3000, 3000, 3050, 3050]])
    iou_GA = box_iou(boxes_G4, anchors_A4)
    ours = match(anchors_A4, [make_target(boxes_G4)], MatchConfig(low_quality_matches=True))
    theirs = Matcher(0.5, 0.4, allow_low_quality_matches=True)(iou_GA)
    _, detectron2 = detectron2_rules(iou_GA, low_quality=True)
    assert (theirs >= 0).sum() == (detectron2 == 1).sum() == 76_725
    without_the_box = Matcher(0.5, 0.4, allow_low_quality_matches=True)(iou_GA[:1])
    assert torch.equal(ours.positive_NA[0], without_the_box >= 0)
    assert ours.positive_NA.sum() == 36
