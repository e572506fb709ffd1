"""Tests of the records of tensors: their shapes are validated."""

import numpy as np
import pytest
import torch

from retinanet.types import AnchorTargets, ArrayDetections, HeadOutputs, ImageDetections, Target, concatenate


def make_detections(count: int, first: int = 0) -> ArrayDetections:
    numbers = np.arange(first, first + count)
    return ArrayDetections(
        boxes_D4=np.repeat(numbers[:, None], 4, axis=1).astype(np.float32),
        scores_D=(numbers / 10).astype(np.float32),
        labels_D=numbers.astype(np.int64),
    )


def test_a_target_with_wrong_shapes_is_refused():
    boxes_G4, flags_G = torch.zeros(2, 4), torch.zeros(2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"expected labels_G of shape \(2,\), found \(3,\)"):
        Target(boxes_G4=boxes_G4, labels_G=torch.zeros(3, dtype=torch.int64), crowd_G=flags_G)
    with pytest.raises(ValueError, match=r"expected boxes_G4 of shape \(G, 4\), found \(2, 5\)"):
        Target(boxes_G4=torch.zeros(2, 5), labels_G=torch.zeros(2, dtype=torch.int64), crowd_G=flags_G)


def test_anchors_per_level_must_add_up():
    parts = {
        "logits_NAK": torch.zeros(1, 6, 3),
        "deltas_NA4": torch.zeros(1, 6, 4),
        "anchors_A4": torch.zeros(6, 4),
    }
    HeadOutputs(**parts, anchors_per_level=(4, 2))
    with pytest.raises(ValueError, match=r"anchors_per_level that add up to 6, found \(4, 1\)"):
        HeadOutputs(**parts, anchors_per_level=(4, 1))
    with pytest.raises(ValueError, match="expected deltas_NA4"):
        HeadOutputs(**{**parts, "deltas_NA4": torch.zeros(1, 5, 4)}, anchors_per_level=(4, 2))


def test_anchor_targets_with_wrong_shapes_are_refused():
    flags_NA, ids_NA = torch.zeros(1, 5, dtype=torch.bool), torch.zeros(1, 5, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"expected boxes_NA4 of shape \(1, 5, 4\)"):
        AnchorTargets(
            positive_NA=flags_NA,
            ignored_NA=flags_NA,
            labels_NA=ids_NA,
            boxes_NA4=torch.zeros(1, 4, 4),
            matched_NA=ids_NA,
        )


def test_detections_become_arrays():
    found = ImageDetections(
        boxes_D4=torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=torch.float64),
        scores_D=torch.tensor([0.5], dtype=torch.bfloat16),
        labels_D=torch.tensor([7]),
    ).numpy()
    assert (found.boxes_D4.dtype, found.scores_D.dtype, found.labels_D.dtype) == (np.float32, np.float32, np.int64)
    assert found.boxes_D4.tolist() == [[1, 2, 3, 4]]
    assert (found.scores_D.tolist(), found.labels_D.tolist()) == ([0.5], [7])


def test_detections_are_indexed_and_concatenated():
    whole = concatenate([make_detections(2), make_detections(0), make_detections(1, first=5)])
    assert len(whole) == 3
    assert whole.labels_D.tolist() == [0, 1, 5]
    assert whole[np.array([False, True, True])].boxes_D4.tolist() == [[1] * 4, [5] * 4]
    assert whole[np.array([2, 0])].labels_D.tolist() == [5, 0]
    assert whole[:1].labels_D.tolist() == [0]
