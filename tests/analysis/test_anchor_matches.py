"""The numpy form of the IoU rule equals the assigner of training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retinanet.analysis.anchor_matches import AnchorMatches
from retinanet.boxes import iou
from retinanet.config import MatchConfig
from retinanet.matching import match
from retinanet.types import Target


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corner = rng.integers(0, 60, (count, 2))
    return np.concatenate([corner, corner + rng.integers(5, 40, (count, 2))], axis=1).astype(np.float32)


@pytest.mark.parametrize("low_quality_matches", [False, True])
def test_the_iou_rule_is_that_of_training(low_quality_matches: bool) -> None:
    """Boxes of whole pixels, so that equal IoUs occur."""
    rng = np.random.default_rng(0)
    config = MatchConfig(low_quality_matches=low_quality_matches)
    for _ in range(50):
        anchors_A4, boxes_G4 = (torch.from_numpy(random_boxes(rng, count)) for count in (80, int(rng.integers(1, 6))))
        G = len(boxes_G4)
        target = Target(boxes_G4=boxes_G4, labels_G=torch.zeros(G).long(), crowd_G=torch.zeros(G).bool())
        targets = match(anchors_A4, [target], config)
        expected_A = targets.matched_NA[0].masked_fill(~targets.positive_NA[0], -1).numpy()
        found = AnchorMatches.by_iou(iou(anchors_A4[:, None], boxes_G4[None]).numpy(), config)
        assert found.object_A.tolist() == expected_A.tolist()
