"""Find rare classes, and compute the focal loss weight alpha of each class, from the number of its objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

BETA: Final = 0.999
"""Base of the effective number: the higher beta, the more an additional object counts. Source: 0.9 to 0.9999."""
RARE_RATIO: Final = 8
"""A class is rare if another class has this many times as many objects."""


def class_alphas(counts: Sequence[int], *, alpha: float, beta: float = BETA) -> tuple[float, ...]:
    """Return alpha, the weight of the positives, for each class; rarer classes have a larger alpha.

    A class of n objects has the effective number (1 - beta^n) / (1 - beta). Its weight w is the inverse of that
    number, scaled so that the mean weight over all objects is 1 (Cui et al., arXiv 1901.05555, equation 2). The odds
    alpha : 1 - alpha of positive to negative are multiplied by w. Every returned value thus stays in (0, 1), and equal
    counts return `alpha`.

    Args:
        counts: number of objects of each class; a class without objects gets the weight of a class with one object.
        alpha: the common alpha of all classes, in [0, 1].
        beta: base of the effective number, in [0, 1); 0 gives every class the same weight.

    Raises:
        ValueError: `alpha` or `beta` is out of its range.
    """
    if not 0 <= alpha <= 1 or not 0 <= beta < 1:
        raise ValueError(f"expected alpha in [0, 1] and beta in [0, 1), found {alpha} and {beta}")
    n_K = np.maximum(np.asarray(counts, dtype=np.float64), 1)
    weight_K = (1 - beta) / (1 - beta**n_K)
    weight_K /= (weight_K * n_K).sum() / n_K.sum()
    odds_K = alpha * weight_K
    return tuple(float(value) for value in odds_K / (odds_K + 1 - alpha))


def rare_classes(counts: Sequence[int]) -> tuple[bool, ...]:
    """Return whether each class is rare: it has objects, and another class has `RARE_RATIO` times as many objects."""
    most = max(counts, default=0)
    return tuple(0 < count * RARE_RATIO <= most for count in counts)
