"""Find the places of an image whose examples have the largest gradients: objects, and boxes predicted on background.

A place of background is a group of overlapping predicted boxes: non-maximum suppression by logit chooses its box, and
every candidate belongs to the chosen box that it overlaps most. Candidates are the `CANDIDATES` background examples of
the image with the highest logits. The other background examples of an image belong to no place.

Boxes are xyxy. Shape suffixes: A anchors, K classes, P positive anchors, C background candidates, R places, G objects,
S settings.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torchvision.ops import batched_nms

from retinanet.analysis.gradient_place import Place, PlaceKind, best_places
from retinanet.analysis.hard_examples import NEAR, SAME
from retinanet.analysis.loss_settings import GAMMAS, example_terms
from retinanet.boxes import clip, decode, iou
from retinanet.evaluate.per_image import probably_unlabelled

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
    from torch import Tensor

    from retinanet.images import Frame
    from retinanet.types import AnchorTargets, HeadOutputs, Target

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

CANDIDATES: Final = 1000
"""Number of background examples of an image, by highest logit, that form places."""
DECIMALS: Final = 4
"""Decimals of the logits of places."""
MOST_KEPT: Final = 2000
"""Number of places above which a pool drops those that cannot be among the best."""


class PlacePool:
    """Keeps the places that are among the best `PLACES` for one of `GAMMAS`, of any number of images."""

    def __init__(self) -> None:
        self._places: list[Place] = []
        self._gradients: list[Floats] = []

    def add(self, found: tuple[list[Place], Floats]) -> None:
        """Add places and their gradients for each of `GAMMAS`, (R, S)."""
        places, gradient_RS = found
        self._places += places
        self._gradients += list(gradient_RS)
        if len(self._places) > MOST_KEPT:
            self._prune()

    def places(self) -> tuple[Place, ...]:
        """Return the best places of all images that were added."""
        self._prune()
        return tuple(self._places)

    def _prune(self) -> None:
        if self._places:
            kept = best_places(np.stack(self._gradients))
            self._places = [self._places[i] for i in kept]
            self._gradients = [self._gradients[i] for i in kept]


def object_places(
    number: int, outputs: HeadOutputs, targets: AnchorTargets, image: Target, frame: Frame
) -> tuple[list[Place], Floats]:
    """Return the objects of an image with the largest gradients, and their gradients for each of `GAMMAS`, (R, S).

    Args:
        number: index of the image in the data.
        outputs: outputs of the network for this image alone.
        targets: targets of its anchors.
        image: its objects.
        frame: its size before and after resizing.
    """
    a = torch.nonzero(targets.positive_NA[0]).squeeze(1)
    labels_P, matched_P = targets.labels_NA[0, a], targets.matched_NA[0, a].cpu().numpy()
    wrong_P = _rounded(-outputs.logits_NAK[0, a, labels_P])
    chosen, logits, gradient_RS = _best_groups(wrong_P, matched_P)
    places = [
        Place(
            kind="object",
            image=number,
            box=_original(image.boxes_G4[g], frame),
            label=int(image.labels_G[g]),
            object_label=int(image.labels_G[g]),
            logits=tuple(values.tolist()),
        )
        for g, values in zip(chosen.tolist(), logits, strict=True)
    ]
    return places, gradient_RS


def background_places(
    number: int, outputs: HeadOutputs, targets: AnchorTargets, image: Target, frame: Frame
) -> tuple[list[Place], Floats]:
    """Return the background places of an image with the largest gradients. Arguments and result: `object_places`."""
    logits_AK = outputs.logits_NAK[0].masked_fill(targets.ignored_NA[0, :, None], -torch.inf)
    K = logits_AK.shape[1]
    a = torch.nonzero(targets.positive_NA[0]).squeeze(1)
    logits_AK[a, targets.labels_NA[0, a]] = -torch.inf
    wrong_C, index_C = logits_AK.flatten().topk(min(CANDIDATES, logits_AK.numel()))
    index_C, wrong_C = index_C[~wrong_C.isneginf()], wrong_C[~wrong_C.isneginf()]
    anchor_C, label_C = index_C // K, index_C % K
    boxes_C4 = decode(outputs.deltas_NA4[0, anchor_C].float(), outputs.anchors_A4[anchor_C])
    boxes_C4 = clip(boxes_C4, width=frame.resized_width, height=frame.resized_height)
    visible_C = ((boxes_C4[:, 2:] - boxes_C4[:, :2]) > 1).all(dim=1)
    wrong_C, label_C, boxes_C4 = wrong_C[visible_C], label_C[visible_C], boxes_C4[visible_C]
    if not len(wrong_C):
        return [], np.zeros((0, len(GAMMAS)))
    kept_R = batched_nms(boxes_C4, wrong_C, torch.zeros_like(label_C), NEAR)
    nearest_C = iou(boxes_C4[:, None], boxes_C4[kept_R][None]).argmax(dim=1)
    nearest_C[kept_R] = torch.arange(len(kept_R), device=kept_R.device)
    chosen, logits, gradient_RS = _best_groups(_rounded(wrong_C), nearest_C.cpu().numpy())
    places = []
    for r, values in zip(chosen.tolist(), logits, strict=True):
        c = int(kept_R[r])
        kind, object_label = _background_kind(boxes_C4[c], int(label_C[c]), float(wrong_C[c]), image)
        places.append(
            Place(
                kind=kind,
                image=number,
                box=_original(boxes_C4[c], frame),
                label=int(label_C[c]),
                object_label=object_label,
                logits=tuple(values.tolist()),
            )
        )
    return places, gradient_RS


def _best_groups(wrong_E: Floats, group_E: Ints) -> tuple[Ints, Sequence[Floats], Floats]:
    """Return the groups of examples with the largest gradients, their wrong logits, and their gradients, (R, S)."""
    if not len(wrong_E):
        return np.zeros(0, dtype=np.int64), [], np.zeros((0, len(GAMMAS)))
    group_R, place_E = np.unique(group_E, return_inverse=True)
    gradient_RS = np.zeros((len(group_R), len(GAMMAS)))
    for s, gamma in enumerate(GAMMAS):
        gradient_RS[:, s] = np.bincount(place_E, weights=example_terms(wrong_E, gamma)[1], minlength=len(group_R))
    chosen = best_places(gradient_RS)
    return group_R[chosen], [wrong_E[place_E == r] for r in chosen], gradient_RS[chosen]


def _background_kind(box_4: Tensor, label: int, logit: float, image: Target) -> tuple[PlaceKind, int | None]:
    """Return the kind of a background place and the class id of the object under its box."""
    overlap_G = iou(box_4[None], image.boxes_G4.to(box_4.dtype)).where(~image.crowd_G, 0.0)
    if len(overlap_G) and float(overlap_G.max()) >= SAME:
        same_G = (overlap_G >= SAME) & (image.labels_G == label)
        if bool(same_G.any()):
            return "distant anchor", label
        return "wrong class?", int(image.labels_G[overlap_G.argmax()])
    score = 1 / (1 + math.exp(-logit))
    truth = (values.cpu().numpy() for values in (image.boxes_G4, image.labels_G, image.crowd_G))
    unlabelled = probably_unlabelled(box_4[None].cpu().numpy(), np.array([label]), np.array([score]), *truth)
    return ("unlabelled?" if unlabelled[0] else "background"), None


def _rounded(values: Tensor) -> Floats:
    rounded: Floats = np.round(values.double().cpu().numpy(), DECIMALS)
    return rounded


def _original(box_4: Tensor, frame: Frame) -> tuple[float, float, float, float]:
    """Convert a box from input pixels to original pixels (xyxy)."""
    x, y = frame.width / frame.resized_width, frame.height / frame.resized_height
    x1, y1, x2, y2 = box_4.tolist()
    return x1 * x, y1 * y, x2 * x, y2 * y
