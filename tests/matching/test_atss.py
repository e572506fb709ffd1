"""Tests of the assigner ATSS: hand-worked cases."""

import statistics

import pytest
import torch

from retinanet.config import MatchConfig
from retinanet.errors import ConfigError
from retinanet.matching import ATSSAssigner, make_assigner
from retinanet.types import HeadOutputs
from tests.matching.test_iou import make_target


def grid(*sides):
    """Return the anchors of 4 x 4 positions with a stride of 8 pixels: squares with these sides at each position."""
    rows = []
    for y in range(0, 32, 8):
        for x in range(0, 32, 8):
            rows += [[x - side / 2, y - side / 2, x + side / 2, y + side / 2] for side in sides]
    return torch.tensor(rows, dtype=torch.float32)


def positives(result, image=0):
    return {int(a): int(result.matched_NA[image, a]) for a in torch.nonzero(result.positive_NA[image])}


def test_the_threshold_is_the_mean_plus_the_standard_deviation_of_the_candidates():
    """The box has its centre at position 5, (8, 8). The five closest positions are 5, and 1, 4, 6 and 9 around it.

    The IoU of the anchor at position 5 is 64 / 144. The anchors around it share 8 x 2 pixels: 16 / (64 + 144 - 16).
    """
    ious = [64 / 144] + [16 / 192] * 4
    threshold = statistics.mean(ious) + statistics.stdev(ious)
    assert threshold == pytest.approx(0.317, abs=0.001)
    found = ATSSAssigner(atss_candidates=5)(
        grid(8), [make_target([[2, 2, 14, 14]], labels=[7])], anchors_per_level=(16,)
    )
    assert positives(found) == {5: 0}
    assert not found.ignored_NA.any(), "all other anchors are negative"
    assert found.labels_NA[0, 5] == 7
    assert found.boxes_NA4[0, 5].tolist() == [2, 2, 14, 14]


def test_equal_ious_are_all_positive():
    """The centre of the box, (4, 4), is equally far from positions 0, 1, 4 and 5, with an IoU of 16 / 112 each."""
    assign = ATSSAssigner(atss_candidates=4)
    assert positives(assign(grid(8), [make_target([[-1, -1, 9, 9]])], anchors_per_level=(16,))) == {
        0: 0,
        1: 0,
        4: 0,
        5: 0,
    }


def test_the_first_of_equally_far_positions_is_a_candidate():
    found = ATSSAssigner(atss_candidates=1)(grid(8), [make_target([[-1, -1, 9, 9]])], anchors_per_level=(16,))
    assert positives(found) == {0: 0}


def test_all_anchors_of_a_position_are_candidates():
    """Two anchors at one position, with IoUs of 64 / 144 and 1, have a threshold of 1.115. None is positive.

    With a third anchor of 16 x 16 pixels, IoU 144 / 256, the threshold is 0.962, and the anchor of 12 x 12 reaches it.
    """
    box = [make_target([[2, 2, 14, 14]])]
    assert positives(ATSSAssigner(atss_candidates=1)(grid(8, 12), box, anchors_per_level=(32,))) == {}
    ious = [64 / 144, 1, 144 / 256]
    assert statistics.mean(ious) + statistics.stdev(ious) == pytest.approx(0.962, abs=0.001)
    assert positives(ATSSAssigner(atss_candidates=1)(grid(8, 12, 16), box, anchors_per_level=(48,))) == {3 * 5 + 1: 0}


def test_each_level_has_its_own_candidates():
    """Two levels with equal positions. The candidates are position 5 of both, with IoUs of 64 / 144 and 1."""
    anchors = torch.cat([grid(8), grid(12)])
    found = ATSSAssigner(atss_candidates=1)(anchors, [make_target([[2, 2, 14, 14]])], anchors_per_level=(16, 16))
    assert positives(found) == {}, "mean 0.722 plus standard deviation 0.393"
    found = ATSSAssigner(atss_candidates=9)(anchors, [make_target([[2, 2, 14, 14]])], anchors_per_level=(16, 16))
    assert positives(found) == {16 + 5: 0, 5: 0}


@pytest.mark.parametrize("box", [[9, 9, 15, 15], [8, 9, 15, 15]])
def test_an_object_without_a_centre_inside_gets_an_anchor_only_with_low_quality_matches(box):
    """Position (8, 8) lies outside of the box, or on its border."""
    target = make_target([box])
    assert positives(ATSSAssigner()(grid(8), [target], anchors_per_level=(16,))) == {}
    found = ATSSAssigner(low_quality_matches=True)(grid(8), [target], anchors_per_level=(16,))
    assert found.positive_NA.sum() == 1


def test_low_quality_matches_take_no_anchor_of_another_object():
    """Two equal boxes: the first gets position 5. The second gets the first of the free candidates of equal IoU."""
    targets = [make_target([[2, 2, 14, 14], [2, 2, 14, 14]])]
    assert positives(ATSSAssigner()(grid(8), targets, anchors_per_level=(16,))) == {5: 0}
    found = ATSSAssigner(low_quality_matches=True)(grid(8), targets, anchors_per_level=(16,))
    assert positives(found) == {5: 0, 1: 1}
    outside = [make_target([[200, 200, 210, 210]])]
    assert positives(ATSSAssigner(low_quality_matches=True)(grid(8), outside, anchors_per_level=(16,))) == {}


def test_an_anchor_belongs_to_the_object_of_highest_iou():
    """Both boxes have their only positive at position 5, with IoUs of 64 / 144 and 64 / 100."""
    found = ATSSAssigner()(grid(8), [make_target([[2, 2, 14, 14], [3, 3, 13, 13]])], anchors_per_level=(16,))
    assert positives(found) == {5: 1}


def test_crowd_regions_get_no_positives_and_ignore_negatives():
    """The region covers the anchors 11 and 15, half of the anchors 7, 10 and 14, and a quarter of the anchor 6."""
    target = make_target([[16, 8, 40, 40], [2, 2, 14, 14]], labels=[1, 2], crowd=[True, False])
    found = ATSSAssigner()(grid(8), [target, make_target([])], anchors_per_level=(16,))
    assert positives(found) == {5: 1}
    assert torch.nonzero(found.ignored_NA[0]).flatten().tolist() == [7, 10, 11, 14, 15]
    assert not found.positive_NA[1].any()
    assert not found.ignored_NA[1].any()
    found = ATSSAssigner(positive_iou=0.2)(grid(8), [target], anchors_per_level=(16,))
    assert torch.nonzero(found.ignored_NA[0]).flatten().tolist() == [6, 7, 10, 11, 14, 15]


def test_the_options_reach_the_assigner():
    assigner = make_assigner(MatchConfig(assigner="atss", atss_candidates=3, low_quality_matches=True))
    assert assigner == ATSSAssigner(atss_candidates=3, low_quality_matches=True)
    with pytest.raises(ConfigError, match="atss_candidates"):
        MatchConfig(atss_candidates=0)


def test_assign_takes_the_anchors_of_the_outputs():
    anchors = grid(8)
    outputs = HeadOutputs(
        logits_NAK=torch.zeros(1, 16, 2), deltas_NA4=torch.zeros(1, 16, 4), anchors_A4=anchors, anchors_per_level=(16,)
    )
    assert positives(ATSSAssigner().assign(outputs, [make_target([[2, 2, 14, 14]])])) == {5: 0}
