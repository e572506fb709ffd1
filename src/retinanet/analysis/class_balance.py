"""An alpha for each class from how often it occurs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

BETA: Final = 0.999
"""How soon another object of a class stops being news; 0.9 to 0.9999 in the source."""


def class_alphas(counts: Sequence[int], *, alpha: float, beta: float = BETA) -> tuple[float, ...]:
    """Return the weight of the positives of each class, larger for rarer classes.

    A class of n objects has the effective number (1 - beta^n) / (1 - beta); its weight w is the inverse of that, scaled
    so that the mean over the objects is 1 (Cui et al., arXiv 1901.05555, equation 2). The odds alpha : 1 - alpha of
    positive to negative are multiplied by w: every value stays in (0, 1), and equal counts give alpha itself.

    Args:
        counts: objects of each class; a class without any is given the weight of one with a single object.
        alpha: what all classes would have, in [0, 1].
        beta: in [0, 1); 0 gives every class the same.

    Raises:
        ValueError: a value out of its range.
    """
    if not 0 <= alpha <= 1 or not 0 <= beta < 1:
        raise ValueError(f"expected alpha in [0, 1] and beta in [0, 1), found {alpha} and {beta}")
    n_K = np.maximum(np.asarray(counts, dtype=np.float64), 1)
    weight_K = (1 - beta) / (1 - beta**n_K)
    weight_K /= (weight_K * n_K).sum() / n_K.sum()
    odds_K = alpha * weight_K
    return tuple(float(value) for value in odds_K / (odds_K + 1 - alpha))
