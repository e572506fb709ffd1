"""Matching of anchors and ground-truth boxes in torch, batched over images and boxes, on any device, in any float type.

Every box is compared with every anchor. The shapes of all tensors follow from the shapes of the inputs, so the CPU
never waits for a GPU. The pairs of a box and an anchor are compared in chunks. On a GPU, all pairs of a usual batch are
one chunk, and the number of operations does not depend on the number of images, boxes and anchors.

Shape suffixes: N batch, A anchors, G boxes of an image after padding, M images of a chunk, U anchors of a chunk.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import torch

from retinanet.boxes import area
from retinanet.types import AnchorTargets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from retinanet.types import Target

PAIRS: Final = 2**24
"""Largest number of pairs in a chunk on a GPU. A pair of float32 boxes needs 17 bytes, so a chunk needs 272 MiB.

Each chunk after the first launches 24 kernels more, or up to 42 with low-quality matches.
"""
PAIRS_PER_THREAD: Final = 2**16
"""Largest number of pairs in a chunk on the CPU, per thread: 1.1 MiB of float32 boxes, about a cache of a core."""


def match_torch(
    anchors_A4: Tensor,
    targets: Sequence[Target],
    *,
    positive_iou: float,
    negative_iou: float,
    low_quality_matches: bool,
) -> AnchorTargets:
    """Match in torch. Arguments and result are those of `retinanet.ops.matching.match`.

    Memory in addition to the result is that of a chunk, see `PAIRS`. Time grows with the number of images times the
    largest number of boxes of an image.
    """
    N, A = len(targets), len(anchors_A4)
    G = max(1, *(len(target.boxes_G4) for target in targets))
    # Boxes of padding have no area and overlap nothing. Each image has at least one, at index G.
    boxes_NG4 = padded([target.boxes_G4.detach() for target in targets], G + 1).to(anchors_A4.dtype)
    labels_NG = padded([target.labels_G for target in targets], G + 1).to(torch.int64)
    crowd_NG = padded([target.crowd_G for target in targets], G + 1).to(torch.bool)[:, :G]
    pairs = _Pairs(anchors_A4.detach(), boxes_NG4[:, :G])
    pairs.area_NG.masked_fill_(crowd_NG, torch.nan)  # The IoU of a crowd region counts as 0.
    # A GPU compares also without crowd regions, because the CPU would wait for the result of any().
    with_crowd = anchors_A4.device.type != "cpu" or bool(crowd_NG.any())
    # Smallest common area with a crowd region at which an anchor is ignored. A common area of 0 is not enough.
    crowd_area_A = (positive_iou * pairs.area_A).clamp_(min=torch.finfo(anchors_A4.dtype).tiny)
    positive_NA = anchors_A4.new_empty((N, A), dtype=torch.bool)
    ignored_NA = torch.empty_like(positive_NA)
    matched_NA = anchors_A4.new_empty((N, A), dtype=torch.int64)
    for rows, chunks in pairs.chunks():
        highest_MG = pairs.highest(rows, chunks) if low_quality_matches and len(chunks) > 1 else None
        for columns in chunks:
            common_MGU, iou_MGU = pairs.compare(rows, columns)
            best_MU, box_MU = iou_MGU.max(dim=1)  # the first of equal IoUs
            ignored_MU = best_MU >= negative_iou
            if with_crowd:
                ignored_MU |= (common_MGU >= crowd_area_A[columns]).bitwise_and_(crowd_NG[rows, :, None]).any(dim=1)
            positive_MU = best_MU >= positive_iou
            if low_quality_matches:
                highest_MG = iou_MGU.amax(dim=2) if highest_MG is None else highest_MG
                positive_MU |= (iou_MGU == highest_MG.masked_fill(highest_MG == 0, torch.nan)[:, :, None]).any(dim=1)
            positive_MU &= best_MU > 0  # With a threshold of 0, an anchor that overlaps no object is not positive.
            other_MU = ~positive_MU
            positive_NA[rows, columns] = positive_MU
            ignored_NA[rows, columns] = ignored_MU & other_MU
            matched_NA[rows, columns] = box_MU.masked_fill_(other_MU, G)
    labels_NA = labels_NG.gather(1, matched_NA)
    boxes_NA4 = boxes_NG4.gather(1, matched_NA[:, :, None].expand(N, A, 4))
    matched_NA.masked_fill_(matched_NA == G, 0)
    return AnchorTargets(
        positive_NA=positive_NA, ignored_NA=ignored_NA, labels_NA=labels_NA, boxes_NA4=boxes_NA4, matched_NA=matched_NA
    )


def best_anchors(anchors_A4: Tensor, boxes_G4: Tensor) -> tuple[Tensor, Tensor]:
    """Return the highest IoU of each box with any anchor, and the index of the first anchor with that IoU.

    An IoU of NaN, from a NaN coordinate, counts as 0. A box that overlaps no anchor has IoU 0 and index 0.

    Args:
        anchors_A4: anchors, xyxy, input pixels, any float type.
        boxes_G4: xyxy, input pixels; G may be 0.
    """
    pairs = _Pairs(anchors_A4.detach(), boxes_G4.detach().to(anchors_A4.dtype)[None])
    best_G = torch.zeros_like(pairs.area_NG[0])
    anchor_G = torch.zeros_like(best_G, dtype=torch.int64)
    for rows, chunks in pairs.chunks():
        for columns in chunks:
            highest_G, index_G = pairs.compare(rows, columns)[1][0].max(dim=1)
            better_G = highest_G > best_G
            best_G = torch.where(better_G, highest_G, best_G)
            anchor_G = torch.where(better_G, index_G + columns.start, anchor_G)
    return best_G, anchor_G


def padded(parts: Sequence[Tensor], size: int) -> Tensor:
    """Return tensors as rows of one tensor, (len(parts), size, ...), with zeros after the elements of each."""
    zeros = parts[0].new_zeros((size, *parts[0].shape[1:]))
    pieces = [piece for part in parts for piece in (part, zeros[len(part) :])]
    return torch.cat(pieces).view(len(parts), *zeros.shape)


class _Pairs:
    """The pairs of a box of an image and an anchor.

    Args:
        anchors_A4: anchors, xyxy.
        boxes_NG4: boxes of each image, xyxy, in the type of the anchors.
    """

    def __init__(self, anchors_A4: Tensor, boxes_NG4: Tensor) -> None:
        (N, G, _), A = boxes_NG4.shape, len(anchors_A4)
        limit = PAIRS if anchors_A4.device.type != "cpu" else PAIRS_PER_THREAD * torch.get_num_threads()
        self.images_per_chunk = max(1, min(N, limit // max(1, A * G)))
        self.anchors_per_chunk = max(1, min(A, limit // max(1, self.images_per_chunk * G)))
        self.anchors_4A = anchors_A4.T.contiguous()
        self.boxes_4NG = boxes_NG4.movedim(2, 0)
        self.area_A, self.area_NG = area(anchors_A4), area(boxes_NG4)
        # The memory of a chunk. All chunks use it, because new memory is slow on the CPU.
        self.memory = anchors_A4.new_empty((2, 2 * self.images_per_chunk * G * self.anchors_per_chunk))

    def chunks(self) -> list[tuple[slice, list[slice]]]:
        """Return slices of the images, each with the slices of the anchors that form chunks with these images.

        A chunk consists of whole images, or of a part of one image.
        """
        N, A = self.area_NG.shape[0], len(self.area_A)
        images, anchors = self.images_per_chunk, self.anchors_per_chunk
        columns = [slice(first, min(A, first + anchors)) for first in range(0, A, anchors)]
        return [(slice(first, min(N, first + images)), columns) for first in range(0, N, images)]

    def compare(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor]:
        """Return common area and IoU of the pairs of a chunk, (M, G, U). An IoU of NaN becomes 0.

        The float operations and their order are those of `boxes.iou`. The next call overwrites the results.
        """
        boxes_4MG1, anchors_411U = self.boxes_4NG[:, rows, :, None], self.anchors_4A[:, None, None, columns]
        shape = (2, *boxes_4MG1.shape[1:3], anchors_411U.shape[3])
        low_2MGU, sides_2MGU = (part[: math.prod(shape)].view(shape) for part in self.memory)
        torch.maximum(anchors_411U[:2], boxes_4MG1[:2], out=low_2MGU)
        torch.minimum(anchors_411U[2:], boxes_4MG1[2:], out=sides_2MGU).sub_(low_2MGU).clamp_(min=0)
        common_MGU, iou_MGU = sides_2MGU[0].mul_(sides_2MGU[1]), low_2MGU[0]
        torch.add(self.area_A[columns], self.area_NG[rows, :, None], out=iou_MGU).sub_(common_MGU)  # the union
        return common_MGU, torch.div(common_MGU, iou_MGU, out=iou_MGU).nan_to_num_(nan=0.0)

    def highest(self, rows: slice, chunks: list[slice]) -> Tensor:
        """Return the highest IoU of each box of some images with any anchor, (M, G)."""
        return torch.stack([self.compare(rows, columns)[1].amax(dim=2) for columns in chunks]).amax(dim=0)
