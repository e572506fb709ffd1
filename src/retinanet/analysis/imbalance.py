"""Where the classification loss comes from: positive or negative, easy or hard, which class, level and object size.

Source: arXiv 1708.02002, sections 3 and 5.1 and figure 4. An example is one class at one anchor, as the sigmoid loss
sees it; it is positive where the anchor answers for an object of that class. The loss and its gradient are those of
`DetectionLoss`, the very function that training minimises; the gradient is the one with respect to the logits.

Shape suffixes: N batch, A anchors, K classes, L levels, B bins; S = 2: positive, negative; E = 2: easy, hard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from retinanet.config import LossConfig

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

GAMMAS: Final = (0.0, 0.5, 1.0, 2.0, 5.0)
"""Those of the paper's figure 4, and table 1b."""
SIZES: Final = ("small", "medium", "large")
LOWEST, HIGHEST, BINS_PER_UNIT = -30.0, 30.0, 100
"""Of the histogram of logits. A bin is 0.01 wide, so a loss read off it is right to 1 %; beyond +-30 lies nothing."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Imbalance:
    """What was measured. Sums are over all images; shares are of the sum over everything that counts.

    Args:
        classes: the name of each class id.
        levels: of the pyramid; level l has stride 2^l.
        images: measured.
        easy_from: an example is easy from this p_t on.
        loss_config: the loss that was measured.
        positive_anchors, ignored_anchors, negative_anchors: over all images.
        objects: to be found, crowd regions left out.
        unreached: of these, without a positive anchor.
        examples_SE: how many examples there are of each kind.
        loss_SE: their loss.
        gradient_SE: the sum of the absolute gradients.
        squares: sum of the squared gradients of the negatives.
        class_loss_KS, class_gradient_KS: by class.
        class_positives_K: positive anchors of each class.
        level_loss_LS, level_gradient_LS, level_positives_L: by level, the finest first.
        size_loss: of the positives, by the size of their object (`SIZES`), None where frames were not known.
        size_positives: positive anchors, likewise.
        histogram_SB: how many examples have their wrong answer's logit in each bin: -x for positives, x for negatives.
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
        """Share of the loss that each kind has; zeros where there is no loss at all."""
        return _shares(self.loss_SE)

    @property
    def gradient_shares_SE(self) -> Floats:
        """Share of the gradient, likewise."""
        return _shares(self.gradient_SE)

    @property
    def effective_negatives(self) -> float:
        """How many negatives of an image pull, if all that pull pulled alike: (sum |g|)^2 / sum g^2 (Kish, 1965)."""
        total = float(self.gradient_SE[1].sum())
        return total**2 / self.squares / self.images if self.squares > 0 else 0.0

    def cumulative_loss(self, gamma: float, *, positive: bool) -> tuple[Floats, Floats]:
        """Return figure 4: the share of the examples, the easiest first, and the share of their loss that they make.

        Alpha is the same for all examples of a kind and cancels out. From the histogram: exact to the width of a bin.

        Args:
            gamma: of the focal loss; 0 is cross-entropy.
            positive: the objects' examples, or else the background's.
        """
        counts_B = self.histogram_SB[0 if positive else 1].astype(np.float64)
        loss_B = counts_B * bin_losses(gamma)
        if counts_B.sum() == 0:
            return np.array([0.0, 1.0]), np.array([0.0, 1.0])
        used_B = np.flatnonzero(counts_B)
        share, loss = (np.concatenate([[0.0], x[used_B].cumsum() / x.sum()]) for x in (counts_B, loss_B))
        return share, loss

    def hardest_share(self, gamma: float, fraction: float, *, positive: bool) -> float:
        """Return what share of their loss the hardest `fraction` of the examples makes up."""
        share, loss = self.cumulative_loss(gamma, positive=positive)
        return float(1 - np.interp(1 - fraction, share, loss))

    def sentences(self) -> list[str]:
        """Return what was found in plain words."""
        positives, negatives = self.positive_anchors, self.negative_anchors
        per_image = [count / max(1, self.images) for count in (positives, self.ignored_anchors, negatives)]
        ratio = f", one positive for every {negatives / positives:,.0f} negatives" if positives else ""
        loss_SE, gradient_SE = self.loss_shares_SE, self.gradient_shares_SE
        found = [
            f"Of the anchors of an image, {per_image[0]:,.0f} are positive, {per_image[1]:,.0f} ignored and "
            f"{per_image[2]:,.0f} negative{ratio}.",
            f"{_percent(loss_SE[1].sum())} of the classification loss comes from the background "
            f"({_percent(loss_SE[1, 0])} from easy, {_percent(loss_SE[1, 1])} from hard examples) and "
            f"{_percent(loss_SE[0].sum())} from objects ({_percent(loss_SE[0, 0])} easy, {_percent(loss_SE[0, 1])} "
            f"hard); of the gradient, the background has {_percent(gradient_SE[1].sum())}.",
            f"The pull of the background is that of about {self.effective_negatives:,.0f} equal negatives an image, "
            f"out of {self.examples_SE[1].sum() / max(1, self.images):,.0f} examples.",
        ]
        if self.unreached:
            found.append(f"{self.unreached:,} of {self.objects:,} objects without a positive anchor teach nothing.")
        if self.examples_SE[1].sum():
            plain, focal = (self.hardest_share(gamma, 0.01, positive=False) for gamma in (0.0, 2.0))
            found.append(
                f"The hardest hundredth of the background makes up {_percent(plain)} of its cross-entropy and "
                f"{_percent(focal)} of its focal loss at gamma 2."
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the numbers by name, as plain values."""
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
        return {
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


def number_of_bins() -> int:
    """Return how many bins the histogram of logits has."""
    return round((HIGHEST - LOWEST) * BINS_PER_UNIT)


def bin_losses(gamma: float) -> Floats:
    """Return the focal loss, without alpha, of a background example in the middle of each bin, (B,)."""
    import torch  # here: reports import this module, and need no torch for results that were measured before

    from retinanet.losses import sigmoid_focal_loss

    middles_B = LOWEST + (torch.arange(number_of_bins(), dtype=torch.float64) + 0.5) / BINS_PER_UNIT
    losses: Floats = sigmoid_focal_loss(middles_B, torch.zeros_like(middles_B), alpha=-1, gamma=gamma).numpy()
    return losses


def _shares(values_SE: Floats) -> Floats:
    total = values_SE.sum()
    shares: Floats = values_SE / total if total > 0 else np.zeros_like(values_SE)
    return shares


def _percent(share: float) -> str:
    """Return 12 %, or 0.3 % where whole ones would hide it."""
    return f"{share:.0%}" if share >= 0.0995 or share == 0 else f"{share:.1%}"
