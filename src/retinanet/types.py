"""Records of tensors that the parts exchange, with validated shapes. Importing this module does not import torch.

Shape suffixes: N batch, A anchors (all levels, P3 first), K classes, G ground-truth boxes.
A box is xyxy in input pixels (pixels of the resized, padded image), unless its field states another frame.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch
    from torch import Tensor


MAX_LOG_SCALE: Final = math.log(1000.0 / 16)
"""Upper bound of dw and dh in decoding: a box is at most 62.5 times its anchor. Keeps exp finite before training."""


def _expect(condition: bool, expected: str, found: object) -> None:
    if not condition:
        raise ValueError(f"expected {expected}, found {found}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Ground truth of one image.

    Args:
        boxes_G4: float, xyxy, input pixels. G may be 0.
        labels_G: int64, 0-based class ids; there is no background id.
        crowd_G: bool, true for a crowd region or difficult object: ignored, neither a target nor a false positive.
    """

    boxes_G4: Tensor
    labels_G: Tensor
    crowd_G: Tensor

    def __post_init__(self) -> None:
        G = len(self.boxes_G4)
        _expect(tuple(self.boxes_G4.shape) == (G, 4), "boxes_G4 of shape (G, 4)", tuple(self.boxes_G4.shape))
        _expect(tuple(self.labels_G.shape) == (G,), f"labels_G of shape ({G},)", tuple(self.labels_G.shape))
        _expect(tuple(self.crowd_G.shape) == (G,), f"crowd_G of shape ({G},)", tuple(self.crowd_G.shape))

    def to(self, device: torch.device | str) -> Target:
        """Return the target on another device."""
        return Target(
            boxes_G4=self.boxes_G4.to(device), labels_G=self.labels_G.to(device), crowd_G=self.crowd_G.to(device)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadOutputs:
    """Outputs of the network for a batch: a score per class and four offsets at every anchor.

    Args:
        logits_NAK: class scores, before the sigmoid.
        deltas_NA4: offsets (dx, dy, dw, dh) from the anchor, see `boxes.decode`.
        anchors_A4: xyxy, input pixels, shared by all images of the batch.
        anchors_per_level: number of anchors of each feature level, finest level first.
    """

    logits_NAK: Tensor
    deltas_NA4: Tensor
    anchors_A4: Tensor
    anchors_per_level: tuple[int, ...]

    def __post_init__(self) -> None:
        N, A = self.logits_NAK.shape[:2]
        _expect(self.logits_NAK.ndim == 3, "logits_NAK of three dimensions", tuple(self.logits_NAK.shape))
        _expect(tuple(self.deltas_NA4.shape) == (N, A, 4), f"deltas_NA4 ({N}, {A}, 4)", tuple(self.deltas_NA4.shape))
        _expect(tuple(self.anchors_A4.shape) == (A, 4), f"anchors_A4 ({A}, 4)", tuple(self.anchors_A4.shape))
        _expect(sum(self.anchors_per_level) == A, f"anchors_per_level that add up to {A}", self.anchors_per_level)


@dataclass(frozen=True, kw_only=True, slots=True)
class AnchorTargets:
    """Targets of every anchor. An anchor is positive, ignored, or otherwise negative.

    Args:
        positive_NA: bool, the anchor is assigned to a ground-truth box.
        ignored_NA: bool, the anchor contributes to no loss. Never true where `positive_NA` is true.
        labels_NA: int64 class id of the matched box; 0 where the anchor is not positive.
        boxes_NA4: matched ground-truth box, xyxy, input pixels; 0 where the anchor is not positive.
        matched_NA: int64 index of the matched box in its image's `Target`; 0 where the anchor is not positive.
    """

    positive_NA: Tensor
    ignored_NA: Tensor
    labels_NA: Tensor
    boxes_NA4: Tensor
    matched_NA: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.positive_NA.shape)
        _expect(len(shape) == 2, "positive_NA of shape (N, A)", shape)
        for name in ("ignored_NA", "labels_NA", "matched_NA"):
            found = tuple(getattr(self, name).shape)
            _expect(found == shape, f"{name} of shape {shape}", found)
        _expect(tuple(self.boxes_NA4.shape) == (*shape, 4), f"boxes_NA4 of shape {(*shape, 4)}", self.boxes_NA4.shape)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageDetections:
    """Detections of one image, highest score first.

    Args:
        boxes_D4: float, xyxy, original pixels, clipped to the image.
        scores_D: float in (0, 1).
        labels_D: int64, 0-based class ids.
    """

    boxes_D4: Tensor
    scores_D: Tensor
    labels_D: Tensor

    def __post_init__(self) -> None:
        D = len(self.boxes_D4)
        _expect(tuple(self.boxes_D4.shape) == (D, 4), "boxes_D4 of shape (D, 4)", tuple(self.boxes_D4.shape))
        _expect(tuple(self.scores_D.shape) == (D,), f"scores_D of shape ({D},)", tuple(self.scores_D.shape))
        _expect(tuple(self.labels_D.shape) == (D,), f"labels_D of shape ({D},)", tuple(self.labels_D.shape))

    def to(self, device: torch.device | str) -> ImageDetections:
        """Return the detections on another device."""
        return ImageDetections(
            boxes_D4=self.boxes_D4.to(device), scores_D=self.scores_D.to(device), labels_D=self.labels_D.to(device)
        )

    def numpy(self) -> ArrayDetections:
        """Return the detections as NumPy arrays."""
        return ArrayDetections(
            boxes_D4=self.boxes_D4.float().cpu().numpy(),
            scores_D=self.scores_D.float().cpu().numpy(),
            labels_D=self.labels_D.cpu().numpy().astype(np.int64),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayDetections:
    """Detections of one image as NumPy arrays, highest score first.

    Args:
        boxes_D4: float32, xyxy, original pixels, clipped to the image.
        scores_D: float32 in (0, 1).
        labels_D: int64, 0-based class ids.
    """

    boxes_D4: npt.NDArray[np.float32]
    scores_D: npt.NDArray[np.float32]
    labels_D: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        D = len(self.boxes_D4)
        _expect(self.boxes_D4.shape == (D, 4), "boxes_D4 of shape (D, 4)", self.boxes_D4.shape)
        _expect(self.scores_D.shape == (D,), f"scores_D of shape ({D},)", self.scores_D.shape)
        _expect(self.labels_D.shape == (D,), f"labels_D of shape ({D},)", self.labels_D.shape)

    def __getitem__(self, index: npt.NDArray[np.bool_] | npt.NDArray[np.int64] | slice) -> ArrayDetections:
        """Return the detections at the given indices, in a slice, or where a mask is true."""
        return ArrayDetections(
            boxes_D4=self.boxes_D4[index], scores_D=self.scores_D[index], labels_D=self.labels_D[index]
        )

    def __len__(self) -> int:
        return len(self.scores_D)


def concatenate(parts: Sequence[ArrayDetections]) -> ArrayDetections:
    """Return the detections of all parts in order. At least one part is required."""
    return ArrayDetections(
        boxes_D4=np.concatenate([part.boxes_D4 for part in parts]),
        scores_D=np.concatenate([part.scores_D for part in parts]),
        labels_D=np.concatenate([part.labels_D for part in parts]),
    )
