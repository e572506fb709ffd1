"""The dense outputs of each feature level."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from retinanet.config import ModelConfig
from retinanet.images import Frame
from retinanet.model.anchors import AnchorGenerator
from retinanet.predict.dense import DenseOutputs, level_outputs
from retinanet.runtime.description import Description
from tests.export.made import described


def anchors(description: Description, H: int, W: int) -> tuple[torch.Tensor, tuple[int, ...]]:
    generator = AnchorGenerator(config=ModelConfig(levels=description.levels, anchor_style=description.anchor_style))  # type: ignore[arg-type]
    generator.cells = [torch.tensor(cells) for cells in description.cells]
    sizes = [(-(-H // s), -(-W // s)) for s in generator.strides]
    return generator(sizes, like=torch.zeros(1), input_size=(H, W))


@pytest.mark.parametrize("style", ["exact", "torchvision"])
def test_dense_outputs_contain_the_anchors_of_the_network(style: str) -> None:
    """The anchor styles differ, because the sides are not multiples of the strides. The original is twice as large."""
    description = described(2, anchor_style=style)
    H, W = 100, 164
    anchors_A4, per_level = anchors(description, H, W)
    frame, first = Frame(2 * W, 2 * H, W, H), 0
    for level, cells, count in zip(description.levels, description.cells, per_level, strict=True):
        zeros = (np.zeros((count, 2), np.float32), np.zeros((count, 4), np.float32))
        outputs = level_outputs(level, np.array(cells, np.float32), *zeros, (H, W), frame, style=style)
        expected = anchors_A4[first : first + count].numpy()
        np.testing.assert_allclose(outputs.anchors_HWC4.reshape(-1, 4), expected * 2, atol=1e-4)
        np.testing.assert_allclose(outputs.boxes_HWC4.reshape(-1, 4), np.clip(expected, 0, [W, H, W, H]) * 2, atol=1e-4)
        first += count


def test_a_level_computed_by_hand():
    """An input of 16 x 8 pixels has positions (0, 0) and (8, 0) at stride 8. The original image is twice as large."""
    frame = Frame(width=32, height=16, resized_width=16, resized_height=8)
    cells_C4 = np.array([[-2, -2, 2, 2], [-4, -2, 4, 2]], np.float32)
    logits_AK = np.array([[0], [-100], [np.log(3)], [0]], np.float32)
    deltas_A4 = np.zeros((4, 4), np.float32)
    deltas_A4[2] = [0.5, 0.25, np.log(2), 0]  # the centre moves from (8, 0) to (10, 1); the width doubles to 8
    level = level_outputs(3, cells_C4, logits_AK, deltas_A4, (8, 16), frame)
    assert (level.level, level.stride) == (3, 8)
    assert level.anchors_HWC4[0].tolist() == [
        [[-4, -4, 4, 4], [-8, -4, 8, 4]],
        [[12, -4, 20, 4], [8, -4, 24, 4]],
    ]
    np.testing.assert_allclose(level.scores_HWCK[0, :, :, 0], [[0.5, 0], [0.75, 0.5]], atol=1e-6)
    np.testing.assert_allclose(level.boxes_HWC4[0, 1, 0], [12, 0, 28, 6], atol=1e-4)  # clipped at the upper border
    assert level.boxes_HWC4[0, 0, 1].tolist() == [0, 0, 8, 4]
    dense = DenseOutputs(frame=frame, levels=(level,))
    assert [(row, column) for _, row, column in dense.at(7.9, 15)] == [(0, 0)]
    assert [(row, column) for _, row, column in dense.at(8.1, 0)] == [(0, 1)]
