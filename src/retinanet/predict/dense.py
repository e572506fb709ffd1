"""Predictions at every anchor of an image, before thresholds and NMS. Boxes are xyxy in original pixels.

Shape suffixes: H, W of a level, A anchors of a level, C anchors of a position, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from retinanet.config import ModelConfig
from retinanet.images import Frame
from retinanet.types import MAX_LOG_SCALE


class LevelOutputs(NamedTuple):
    """Predictions of one feature level at all its positions."""

    level: int
    stride: int
    """Declared distance of neighbouring positions, input pixels: see `ModelConfig.anchor_style`."""
    scores_HWCK: npt.NDArray[np.float32]
    """Probability of each class for each anchor."""
    boxes_HWC4: npt.NDArray[np.float32]
    """Predicted box of each anchor: xyxy, original pixels, clipped to the image."""
    anchors_HWC4: npt.NDArray[np.float32]
    """Anchors: xyxy, original pixels, not clipped."""
    deltas_HWC4: npt.NDArray[np.float32] | None = None
    """Offsets of each predicted box from its anchor, as by `boxes.encode`; None for outputs without a network."""


@dataclass(frozen=True, kw_only=True)
class DenseOutputs:
    """Predictions of all feature levels for one image, before thresholds and non-maximum suppression.

    Args:
        frame: size of the image before and after resizing.
        levels: predictions of each level, finest level first.
    """

    frame: Frame
    levels: tuple[LevelOutputs, ...]

    def at(self, x: float, y: float) -> list[tuple[LevelOutputs, int, int]]:
        """Return each level with the row and column of its position nearest to (x, y), original pixels."""
        out = []
        for level in self.levels:
            centers_HW2 = (level.anchors_HWC4[:, :, 0, :2] + level.anchors_HWC4[:, :, 0, 2:]) / 2
            row = int(np.abs(centers_HW2[:, 0, 1] - y).argmin())
            out.append((level, row, int(np.abs(centers_HW2[0, :, 0] - x).argmin())))
        return out


def level_outputs(
    level: int,
    cells_C4: npt.NDArray[np.float32],
    logits_AK: npt.NDArray[np.float32],
    deltas_A4: npt.NDArray[np.float32],
    input_size: tuple[int, ...],
    frame: Frame,
    *,
    style: str = ModelConfig.anchor_style,
) -> LevelOutputs:
    """Return the predictions of one level for one image, with boxes decoded as by `boxes.decode`.

    Args:
        level: number of the level; its stride is 2^level.
        cells_C4: anchors around (0, 0), xyxy, input pixels.
        logits_AK: logits of all anchors, position by position, row by row.
        deltas_A4: offsets of all anchors, in the order of `logits_AK`.
        input_size: height and width of the padded input, pixels.
        frame: size of the image before and after resizing.
        style: anchor style, see `ModelConfig.anchor_style`.
    """
    stride, C = 2**level, len(cells_C4)
    H, W = (-(-side // stride) for side in input_size)
    steps_2 = (input_size[1] // W, input_size[0] // H) if style == "torchvision" else (stride, stride)
    centers_HW2 = (np.stack(np.meshgrid(np.arange(W), np.arange(H)), axis=-1) * steps_2).astype(np.float32)
    anchors_HWC4 = np.tile(centers_HW2, 2)[:, :, None] + cells_C4
    deltas_HWC4 = deltas_A4.reshape(H, W, C, 4)
    sides = anchors_HWC4[..., 2:] - anchors_HWC4[..., :2]
    middle = (anchors_HWC4[..., 2:] + anchors_HWC4[..., :2]) / 2 + deltas_HWC4[..., :2] * sides
    half = sides * np.exp(np.minimum(deltas_HWC4[..., 2:], np.float32(MAX_LOG_SCALE))) / 2
    limit = np.array([frame.resized_width, frame.resized_height] * 2, np.float32)
    boxes_HWC4 = np.clip(np.concatenate([middle - half, middle + half], axis=-1), 0, limit)
    factor = np.array([frame.width / frame.resized_width, frame.height / frame.resized_height] * 2, np.float32)
    with np.errstate(over="ignore"):  # exp of a logit of -100 or less: the probability is 0
        scores_HWCK = (1 / (1 + np.exp(-logits_AK.reshape(H, W, C, -1)))).astype(np.float32)
    return LevelOutputs(level, stride, scores_HWCK, boxes_HWC4 * factor, anchors_HWC4 * factor, deltas_HWC4)
