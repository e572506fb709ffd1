"""Anchors and ground truth to the target of every anchor.

An assigner of your own is a subclass of `Assigner` in any importable module, named by `--assigner
package.module:Class`. Its constructor takes an option of `MatchConfig` by declaring a keyword parameter of the option's
name, for example `positive_iou`; every other parameter needs a default.

Shape suffixes: N batch, A anchors, G ground-truth boxes of one picture, T tiles of anchors, S those of
them that touch a box, U anchors of a tile.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from retinanet.boxes import area, intersection
from retinanet.config import ASSIGNERS, MatchConfig
from retinanet.ops import matching as native
from retinanet.plugins import find_class, make_part
from retinanet.types import AnchorTargets, Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

TILE: Final = 256
"""Anchors that share a bounding box: only tiles that touch a ground-truth box are looked at."""
BOXES: Final = 256
"""Ground-truth boxes that are compared with the tiles at once."""


class Assigner(ABC):
    """Base class of the rules that make anchors positive, negative or ignored."""

    @abstractmethod
    def __call__(
        self, anchors_A4: Tensor, targets: Sequence[Target], *, anchors_per_level: Sequence[int]
    ) -> AnchorTargets:
        """Return the target of every anchor of every image.

        An assigner gets no predictions, so that `retinanet check` measures anchor coverage without a network.

        Args:
            anchors_A4: xyxy, input pixels.
            targets: ground truth of each image; crowd regions are objects that no anchor may be positive for.
            anchors_per_level: number of anchors of each feature level, finest first.
        """


@dataclass(frozen=True, kw_only=True)
class IoUAssigner(Assigner):
    """`match`: two thresholds on the IoU with the ground truth (arXiv 1708.02002, section 4)."""

    positive_iou: float = MatchConfig.positive_iou
    negative_iou: float = MatchConfig.negative_iou
    low_quality_matches: bool = MatchConfig.low_quality_matches

    def __call__(
        self, anchors_A4: Tensor, targets: Sequence[Target], *, anchors_per_level: Sequence[int]
    ) -> AnchorTargets:
        """Return the target of every anchor of every image; the levels make no difference."""
        return match(anchors_A4, targets, self)


def make_assigner(config: MatchConfig) -> Assigner:
    """Return the assigner that a config names, with its options. Raises `ConfigError`."""
    assigner: Assigner = make_part("assigner", find_class("assigner", config.assigner, ASSIGNERS, Assigner), config)
    return assigner


def match(anchors_A4: Tensor, targets: Sequence[Target], config: MatchConfig | IoUAssigner) -> AnchorTargets:
    """Assign every anchor of every picture to an object, to the background, or to neither.

    An anchor is positive where its highest IoU with an object is at least `positive_iou`, and answers for that object
    (of several with the same IoU, the first); negative where it is below `negative_iou`; ignored between the two.
    An anchor that is not positive and lies within a crowd region by at least `positive_iou` of its own area is ignored,
    as COCO evaluation does with detections. Source: arXiv 1708.02002, section 4.

    With `low_quality_matches`, the anchors that overlap an object most are positive too, whatever that IoU is (but it
    must be above 0), each for the object that it overlaps most, as in torchvision and Detectron2.

    Args:
        anchors_A4: xyxy, input pixels.
        targets: one for each picture.
        config: the thresholds.
    """
    if native.can_match(anchors_A4, targets):
        return native.match(
            anchors_A4,
            targets,
            positive_iou=config.positive_iou,
            negative_iou=config.negative_iou,
            low_quality_matches=config.low_quality_matches,
        )
    return match_torch(anchors_A4, targets, config)


def match_torch(anchors_A4: Tensor, targets: Sequence[Target], config: MatchConfig | IoUAssigner) -> AnchorTargets:
    """Return the same without the library, on any device and of any float type."""
    rows = [_match_one(anchors_A4, target, config) for target in targets]
    positive_NA, ignored_NA, matched_NA = (torch.stack(column) for column in zip(*rows, strict=True))
    labels_NA = torch.zeros_like(matched_NA)
    boxes_NA4 = anchors_A4.new_zeros(*matched_NA.shape, 4)
    for n, target in enumerate(targets):
        positive_A = positive_NA[n]
        matched_P = matched_NA[n][positive_A]
        labels_NA[n, positive_A] = target.labels_G[matched_P].to(labels_NA.dtype)
        boxes_NA4[n, positive_A] = target.boxes_G4[matched_P].to(boxes_NA4.dtype)
    return AnchorTargets(
        positive_NA=positive_NA, ignored_NA=ignored_NA, labels_NA=labels_NA, boxes_NA4=boxes_NA4, matched_NA=matched_NA
    )


def best_overlaps(anchors_A4: Tensor, boxes_G4: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return each anchor's highest IoU and the box it has it with, and whether the anchor is some box's best.

    One box at a time and a running maximum over the tiles of anchors that it touches: memory grows with the anchors
    alone, never with anchors times boxes. An IoU that is NaN (of a box or an anchor that has one) counts as 0.

    Returns:
        best_iou_A: highest IoU with any box; 0 where there is none.
        best_box_A: int64 index of that box, the first of equals; 0 where there is none.
        is_best_A: bool, no anchor overlaps some box more than this one does, and it does overlap.
    """
    A = len(anchors_A4)
    T = -(-A // TILE)
    # Columns, and the last tile filled up with what overlaps nothing.
    columns_4TU = anchors_A4.new_full((4, T * TILE), -torch.inf)
    columns_4TU[:2] = torch.inf
    columns_4TU[:, :A] = anchors_A4.T
    columns_4TU = columns_4TU.view(4, T, TILE)
    sides_2TU = (columns_4TU[2:] - columns_4TU[:2]).clamp_(min=0)
    area_TU = sides_2TU[0] * sides_2TU[1]
    low_2T, high_2T = columns_4TU[:2].amin(dim=2), columns_4TU[2:].amax(dim=2)
    best_iou_TU = torch.zeros_like(area_TU)
    best_box_TU = torch.zeros_like(area_TU, dtype=torch.int64)
    is_best_TU = torch.zeros_like(area_TU, dtype=torch.bool)
    boxes_G4 = boxes_G4.to(anchors_A4.dtype)
    area_G = area(boxes_G4)
    for first in range(0, len(boxes_G4), BOXES):
        some_G4 = boxes_G4[first : first + BOXES]
        apart_G2T = (some_G4[:, :2, None] >= high_2T) | (some_G4[:, 2:, None] <= low_2T)
        box, tile = torch.nonzero(~apart_G2T.any(dim=1), as_tuple=True)
        touched = torch.split(tile, torch.bincount(box, minlength=len(some_G4)).tolist())
        for g, tile_S in enumerate(touched, first):
            if not len(tile_S):
                continue
            anchors_4SU = columns_4TU[:, tile_S]
            low_2SU = torch.maximum(anchors_4SU[:2], boxes_G4[g, :2, None, None])
            sides_2SU = torch.minimum(anchors_4SU[2:], boxes_G4[g, 2:, None, None]).sub_(low_2SU).clamp_(min=0)
            common_SU = sides_2SU[0] * sides_2SU[1]
            iou_SU = common_SU / (area_TU[tile_S] + area_G[g] - common_SU)
            iou_SU = torch.where(iou_SU > 0, iou_SU, 0)
            before_SU = best_iou_TU[tile_S]
            better_SU = iou_SU > before_SU
            best_iou_TU[tile_S] = torch.where(better_SU, iou_SU, before_SU)
            best_box_TU[tile_S] = best_box_TU[tile_S].masked_fill_(better_SU, g)
            is_best_TU[tile_S] |= (iou_SU == iou_SU.max()) & (iou_SU > 0)
    return best_iou_TU.view(-1)[:A], best_box_TU.view(-1)[:A], is_best_TU.view(-1)[:A]


def _match_one(anchors_A4: Tensor, target: Target, config: MatchConfig | IoUAssigner) -> tuple[Tensor, Tensor, Tensor]:
    object_index_O = torch.nonzero(~target.crowd_G).squeeze(1)
    best_iou_A, best_object_A, is_best_A = best_overlaps(anchors_A4, target.boxes_G4[object_index_O])
    positive_A = best_iou_A >= config.positive_iou
    if config.low_quality_matches:
        positive_A = positive_A | is_best_A
    # A threshold of 0 must not make anchors positive for nothing.
    positive_A &= best_iou_A > 0
    ignored_A = (best_iou_A >= config.negative_iou) & ~positive_A
    area_A = area(anchors_A4)
    for box_4 in target.boxes_G4[target.crowd_G].to(anchors_A4.dtype):
        common_A = intersection(anchors_A4, box_4)
        ignored_A |= (common_A >= config.positive_iou * area_A) & (common_A > 0) & ~positive_A
    if len(object_index_O):
        matched_A = torch.where(positive_A, object_index_O[best_object_A], 0)
    else:
        matched_A = torch.zeros_like(best_object_A)
    return positive_A, ignored_A, matched_A
