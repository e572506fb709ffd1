"""Split the classification loss by positive and negative, easy and hard, class, feature level and object size.

Source: arXiv 1708.02002, sections 3 and 5.1 and figure 4. An example is one (anchor, class) pair in the sigmoid loss.
An example is positive if the anchor is positive for an object of that class. `DetectionLoss` computes the loss, as in
training. The gradient is taken with respect to the logits.

Shape suffixes: N batch, A anchors, K classes, L levels, B bins; S = 2: positive, negative; E = 2: easy, hard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from retinanet.config import LossConfig
from retinanet.former_names import with_former_fields

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

GAMMAS: Final = (0.0, 0.5, 1.0, 2.0, 5.0)
"""Values of gamma in figure 4 and table 1b of the paper."""
SIZES: Final = ("small", "medium", "large")
"""COCO object sizes by area in the original image: below 32² pixels, below 96² pixels, and 96² pixels or more."""
SIZE_LIMITS: Final = (32.0**2, 96.0**2)
"""Upper limits of COCO's small and medium objects, in square pixels of the original image."""
LOWEST, HIGHEST, BINS_PER_UNIT = -30.0, 30.0, 100
"""Range and resolution of the histogram of logits. A bin of width 0.01 gives a loss to within 1 %. Logits beyond +-30
count in the outermost bins."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Imbalance:
    """Measured sums over all images. A share is relative to the sum over all examples that are not ignored.

    Args:
        classes: name of each class id.
        levels: levels of the feature pyramid; level l has the stride 2^l.
        images: number of measured images.
        easy_from: minimum p_t of an easy example.
        loss_config: the measured loss and its settings.
        positive_anchors, ignored_anchors, negative_anchors: numbers of anchors.
        objects: number of objects without crowd regions.
        unreached: number of objects without a positive anchor.
        examples_SE: number of examples of each kind.
        loss_SE: sum of the loss of each kind.
        gradient_SE: sum of the absolute gradients of each kind.
        squares: sum of the squared gradients of the negatives.
        class_loss_KS, class_gradient_KS: loss and absolute gradient of each class.
        class_positives_K: number of positive anchors of each class.
        level_loss_LS, level_gradient_LS: loss and absolute gradient of each level, the finest level first.
        level_positives_L: number of positive anchors of each level, the finest level first.
        size_loss: loss of the positives for each object size (`SIZES`); zeros if the frames were unknown.
        size_positives: number of positive anchors for each object size; zeros if the frames were unknown.
        histogram_SB: number of examples per bin of the wrong logit, which is -x for positives and x for negatives.
    """

    classes: tuple[str, ...]
    levels: tuple[int, ...]
    images: int
    easy_from: float
    loss_config: LossConfig
    positive_anchors: int
    ignored_anchors: int
    negative_anchors: int
    objects: int
    unreached: int
    examples_SE: Ints
    loss_SE: Floats
    gradient_SE: Floats
    squares: float
    class_loss_KS: Floats
    class_gradient_KS: Floats
    class_positives_K: Ints
    level_loss_LS: Floats
    level_gradient_LS: Floats
    level_positives_L: Ints
    size_loss: Floats
    size_positives: Ints
    histogram_SB: Ints

    @property
    def loss_shares_SE(self) -> Floats:
        """Share of each kind in the loss; zeros if the loss is 0."""
        return _shares(self.loss_SE)

    @property
    def gradient_shares_SE(self) -> Floats:
        """Share of each kind in the absolute gradient; zeros if the gradient is 0."""
        return _shares(self.gradient_SE)

    @property
    def effective_negatives(self) -> float:
        """Effective number of negatives per image, (sum |g|)^2 / sum g^2 (Kish, 1965).

        That many equally weighted negatives would have the same gradient.
        """
        total = float(self.gradient_SE[1].sum())
        return total**2 / self.squares / self.images if self.squares > 0 else 0.0

    def cumulative_loss(self, gamma: float, *, positive: bool) -> tuple[Floats, Floats]:
        """Return figure 4 of the paper: cumulative share of the examples, easiest first, and their share of the loss.

        Alpha is equal for all positives and for all negatives, and cancels out. The values come from the histogram and
        are exact to the width of a bin.

        Args:
            gamma: gamma of the focal loss; 0 gives cross-entropy.
            positive: True for the positive examples, False for the background examples.
        """
        counts_B = self.histogram_SB[0 if positive else 1].astype(np.float64)
        loss_B = counts_B * bin_losses(gamma)
        if counts_B.sum() == 0:
            return np.array([0.0, 1.0]), np.array([0.0, 1.0])
        used_B = np.flatnonzero(counts_B)
        share, loss = (np.concatenate([[0.0], x[used_B].cumsum() / x.sum()]) for x in (counts_B, loss_B))
        return share, loss

    def hardest_share(self, gamma: float, fraction: float, *, positive: bool) -> float:
        """Return the share of the loss that the hardest `fraction` of the positive (or negative) examples has."""
        share, loss = self.cumulative_loss(gamma, positive=positive)
        return float(1 - np.interp(1 - fraction, share, loss))

    def sentences(self) -> list[str]:
        """Return sentences about anchors, loss shares, effective negatives and hard background."""
        anchors = (self.positive_anchors, self.ignored_anchors, self.negative_anchors)
        per_image = [count / max(1, self.images) for count in anchors]
        loss_SE, gradient_SE = self.loss_shares_SE, self.gradient_shares_SE
        sentences = [
            anchor_sentence(*per_image),
            f"{_percent(loss_SE[1].sum())} of the classification loss comes from the background "
            f"({_percent(loss_SE[1, 0])} from easy and {_percent(loss_SE[1, 1])} from hard examples), and "
            f"{_percent(loss_SE[0].sum())} from objects ({_percent(loss_SE[0, 0])} from easy and "
            f"{_percent(loss_SE[0, 1])} from hard examples).",
            f"{_percent(gradient_SE[1].sum())} of the gradient comes from the background. The background gradient "
            f"equals that of about {self.effective_negatives:,.0f} equally weighted negatives per image, out of "
            f"{self.examples_SE[1].sum() / max(1, self.images):,.0f} (effective number of negatives).",
        ]
        if self.unreached:
            sentences.append(
                f"{self.unreached:,} of {self.objects:,} objects have no positive anchor: training learns nothing from "
                "such objects."
            )
        if self.examples_SE[1].sum():
            plain, focal = (self.hardest_share(gamma, 0.01, positive=False) for gamma in (0.0, 2.0))
            sentences.append(
                f"The hardest 1 % of the background examples has {_percent(plain)} of the background's cross-entropy, "
                f"and {_percent(focal)} of the background's focal loss at gamma 2."
            )
        return sentences

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain values for JSON."""
        kinds = [(side, ease) for side in ("positive", "negative") for ease in ("easy", "hard")]

        def by_kind(values_SE: Floats | Ints) -> dict[str, float]:
            return {f"{ease}_{side}": float(v) for (side, ease), v in zip(kinds, values_SE.flatten(), strict=True)}

        def rows(names: Sequence[str], loss: Floats, gradient: Floats, positives: Ints) -> dict[str, Any]:
            return {
                name: {
                    "positive_anchors": int(positives[i]),
                    "positive_loss": float(loss[i, 0]),
                    "negative_loss": float(loss[i, 1]),
                    "positive_gradient": float(gradient[i, 0]),
                    "negative_gradient": float(gradient[i, 1]),
                }
                for i, name in enumerate(names)
            }

        levels = [f"P{level}" for level in self.levels]
        per_image = {
            "positive": self.positive_anchors,
            "ignored": self.ignored_anchors,
            "negative": self.negative_anchors,
        }
        document = {
            "images": self.images,
            "loss": self.loss_config.loss,
            "alpha": self.loss_config.alpha,
            "gamma": self.loss_config.gamma,
            "easy_from": self.easy_from,
            "anchors_per_image": {name: count / max(1, self.images) for name, count in per_image.items()},
            "objects": self.objects,
            "unreached_objects": self.unreached,
            "examples": by_kind(self.examples_SE),
            "loss_shares": by_kind(self.loss_shares_SE),
            "gradient_shares": by_kind(self.gradient_shares_SE),
            "effective_negatives_per_image": self.effective_negatives,
            "per_class": rows(self.classes, self.class_loss_KS, self.class_gradient_KS, self.class_positives_K),
            "per_level": rows(levels, self.level_loss_LS, self.level_gradient_LS, self.level_positives_L),
            "per_size": {
                name: {"positive_anchors": int(n), "positive_loss": float(loss)}
                for name, n, loss in zip(SIZES, self.size_positives, self.size_loss, strict=True)
            },
            "hardest_hundredth": {
                f"gamma {gamma:g}": {
                    side: self.hardest_share(gamma, 0.01, positive=side == "positive")
                    for side in ("positive", "negative")
                }
                for gamma in GAMMAS
            },
        }
        return with_former_fields(document)


def anchor_sentence(positive: float, ignored: float, negative: float) -> str:
    """Return a sentence with the average numbers of positive, ignored and negative anchors of an image."""
    ratio = f": {negative / positive:,.0f} negatives for each positive" if positive else ""
    return (
        f"An image has on average {positive:,.0f} positive, {ignored:,.0f} ignored and {negative:,.0f} negative "
        f"anchors{ratio}."
    )


def number_of_bins() -> int:
    """Return the number of bins of the histogram of logits."""
    return round((HIGHEST - LOWEST) * BINS_PER_UNIT)


def bin_losses(gamma: float) -> Floats:
    """Return the focal loss without alpha of a background example at the centre of each bin, (B,)."""
    import torch  # imported late: a report on measured results needs this module without torch

    from retinanet.losses import sigmoid_focal_loss

    centres_B = LOWEST + (torch.arange(number_of_bins(), dtype=torch.float64) + 0.5) / BINS_PER_UNIT
    losses: Floats = sigmoid_focal_loss(centres_B, torch.zeros_like(centres_B), alpha=-1, gamma=gamma).numpy()
    return losses


def _shares(values_SE: Floats) -> Floats:
    total = values_SE.sum()
    shares: Floats = values_SE / total if total > 0 else np.zeros_like(values_SE)
    return shares


def _percent(share: float) -> str:
    """Return a share in percent, with one decimal below 9.95 %, such as "12%" or "0.3%"."""
    return f"{share:.0%}" if share >= 0.0995 or share == 0 else f"{share:.1%}"
