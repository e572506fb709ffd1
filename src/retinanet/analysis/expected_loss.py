"""The loss that training must start with, from the prior, the loss and the number of anchors alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from retinanet.losses import make_classification_loss

if TYPE_CHECKING:
    from retinanet.config import LossConfig

AGREE: Final = 0.25
"""Expected and found loss agree within this share: the random weights of the head move it a little."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedLoss:
    """The classification loss of the first step, divided by the positives as `DetectionLoss` does.

    Args:
        background: of the background examples.
        foreground: of the positives' own classes.
        prior: what every anchor says at the start.
        positives: positive anchors.
        negatives: negative anchors.
        loss_config: the loss.
    """

    background: float
    foreground: float
    prior: float
    positives: int
    negatives: int
    loss_config: LossConfig

    @property
    def total(self) -> float:
        """Both together."""
        return self.background + self.foreground


def expected_loss(
    *, positives: int, negatives: int, num_classes: int, prior: float, loss_config: LossConfig
) -> ExpectedLoss | None:
    """Return the loss of a network that gives every class at every anchor the probability `prior`.

    Source: arXiv 1708.02002, sections 3.3 and 4.1. The losses are the ones that training uses. A positive anchor is a
    background example of the other classes.

    Args:
        positives: positive anchors, of an image or a batch.
        negatives: negative anchors of the same.
        num_classes: K.
        prior: pi, in (0, 1).
        loss_config: the loss.

    Returns:
        None for hard example mining, which chooses among equal losses, and for a loss whose targets are IoUs, which
        depend on the untrained boxes.
    """
    loss = make_classification_loss(loss_config)
    if loss.mines or loss.target == "iou":
        return None
    logit = torch.tensor(math.log(prior / (1 - prior)), dtype=torch.float64)
    per_class = logit.repeat(num_classes)
    background_K = loss(per_class, torch.zeros_like(per_class))
    foreground_K = loss(per_class, torch.full_like(per_class, 1 - loss_config.label_smoothing))
    mean_background, mean_foreground = float(background_K.mean()), float(foreground_K.mean())
    examples = negatives * num_classes + positives * (num_classes - 1)
    divisor = max(1, positives)
    return ExpectedLoss(
        background=examples * mean_background / divisor,
        foreground=positives * mean_foreground / divisor,
        prior=prior,
        positives=positives,
        negatives=negatives,
        loss_config=loss_config,
    )


def explain(expected: ExpectedLoss, found: float) -> str:
    """Return in words how the first step's classification loss stands to the expected one, and why they may differ.

    Args:
        expected: of the very batch that was measured.
        found: its classification loss.
    """
    head = (
        f"expected a classification loss of {expected.total:.3g} (background {expected.background:.3g}, objects "
        f"{expected.foreground:.3g}) from the prior {expected.prior:g}, {expected.positives:,} positive and "
        f"{expected.negatives:,} negative anchors; found {found:.3g}"
    )
    off = (
        ""
        if expected.prior <= 0.1
        else (
            f". The prior {expected.prior:g} lets every anchor start out as half an object: the background is "
            f"{expected.background / max(expected.foreground, 1e-12):,.0f} times the objects' loss, and training may "
            "diverge. --prior 0.01 prevents that"
        )
    )
    if abs(found - expected.total) <= AGREE * expected.total:
        return f"{head}: they agree{off}."
    if found > expected.total:
        why = (
            "The scores do not start at the prior: the weights are not fresh (a fine-tuned or imported head), or the "
            "features are so large that the head's random weights spread the scores"
        )
    else:
        why = "The network already knows something: the weights are not fresh (a fine-tuned or imported head)"
    return f"{head}. {why}{off}."
