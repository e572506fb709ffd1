"""Compute the classification loss of the first training step from the prior, the loss and the number of anchors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from retinanet.losses import make_classification_loss

if TYPE_CHECKING:
    from retinanet.config import LossConfig

AGREE: Final = 0.25
"""Relative difference up to which expected and measured loss agree: the head's random weights change the loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedLoss:
    """Expected classification loss of the first step, divided by the number of positives as in `DetectionLoss`.

    Args:
        background: part of the background examples.
        foreground: part of the positive examples.
        prior: probability of every class at every anchor before training.
        positives: number of positive anchors.
        negatives: number of negative anchors.
        loss_config: the loss and its settings.
    """

    background: float
    foreground: float
    prior: float
    positives: int
    negatives: int
    loss_config: LossConfig

    @property
    def total(self) -> float:
        """Sum of the background's and the objects' parts."""
        return self.background + self.foreground


def expected_loss(
    *, positives: int, negatives: int, num_classes: int, prior: float, loss_config: LossConfig
) -> ExpectedLoss | None:
    """Return the loss of a network that predicts the probability `prior` for every class at every anchor.

    Source: arXiv 1708.02002, sections 3.3 and 4.1. The loss functions are those of training. A positive anchor is a
    background example of every class except its own.

    Args:
        positives: number of positive anchors of an image or a batch.
        negatives: number of negative anchors of the same image or batch.
        num_classes: number of classes K.
        prior: prior pi, in (0, 1).
        loss_config: the loss and its settings.

    Returns:
        The expected loss. None for hard example mining, which selects among equal losses, and for a loss with IoU
        targets, which depend on the boxes of the untrained network; and for a loss whose weights depend on the batch.
    """
    loss = make_classification_loss(loss_config)
    if loss.mines or loss.target == "iou" or loss.depends_on_batch:
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


def explain(expected: ExpectedLoss, measured: float) -> str:
    """Return sentences that compare the measured loss of the first step with the expected loss.

    Args:
        expected: expected loss of the measured batch.
        measured: classification loss of the measured batch.
    """
    comparison = (
        f"expected a classification loss of {expected.total:.3g} (background {expected.background:.3g}, objects "
        f"{expected.foreground:.3g}) from the prior {expected.prior:g}, {expected.positives:,} positive and "
        f"{expected.negatives:,} negative anchors; found {measured:.3g}"
    )
    warning = (
        ""
        if expected.prior <= 0.1
        else (
            f". With the prior {expected.prior:g} the loss of the background is "
            f"{expected.background / max(expected.foreground, 1e-12):,.0f} times the loss of the objects, and training "
            "may diverge: use --prior 0.01"
        )
    )
    if abs(measured - expected.total) <= AGREE * expected.total:
        return f"{comparison}: they agree{warning}."
    if measured > expected.total:
        cause = (
            "The scores do not start at the prior: the head is already trained (fine-tuned or imported weights), or "
            "the features are so large that the random weights of the head spread the scores"
        )
    else:
        cause = "The scores do not start at the prior: the head is already trained (fine-tuned or imported weights)"
    return f"{comparison}. {cause}{warning}."
