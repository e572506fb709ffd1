"""The focal loss of one example as a function of its logit, and the settings that the loss microscope offers.

z is the wrong logit of an example: -x for a positive example with the logit x, x for a negative one. With
s = sigmoid(z) = 1 - p_t, a weight w and gamma g (arXiv 1708.02002, equation 5):

loss = w s^g softplus(z)
gradient = |d loss / d x| = w s^g (s + g (1 - s) softplus(z))

This module is torch-free. `report/scripts/loss_terms.js` computes the same numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

ALPHAS: Final = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Values of alpha that the microscope offers, in addition to no weights."""
GAMMAS: Final = tuple(0.25 * step for step in range(21))
"""Values of gamma that the microscope offers."""


class Setting(NamedTuple):
    """Alpha and gamma of a focal loss. Alpha None weights every example by 1. Gamma 0 gives cross-entropy."""

    alpha: float | None
    gamma: float

    @property
    def weights(self) -> tuple[float, float]:
        """Weights of the positives and of the negatives."""
        return (1.0, 1.0) if self.alpha is None else (self.alpha, 1 - self.alpha)


def example_terms(wrong: npt.ArrayLike, gamma: float) -> tuple[Floats, Floats]:
    """Return loss and absolute gradient of examples with the weight 1, in the shape of their wrong logits.

    Args:
        wrong: wrong logit z of each example: -x for a positive with the logit x, x for a negative.
        gamma: gamma of the focal loss; 0 gives cross-entropy.
    """
    z = np.asarray(wrong, dtype=np.float64)
    softplus, minus_log_s = np.logaddexp(0, z), np.logaddexp(0, -z)
    power = np.exp(-gamma * minus_log_s)
    loss: Floats = power * softplus
    gradient: Floats = power * (np.exp(-minus_log_s) + gamma * np.exp(-softplus) * softplus)
    return loss, gradient


def setting_text(setting: Setting) -> str:
    """Return a setting in words: "alpha 0.75 and gamma 2"."""
    alpha = "equal weights" if setting.alpha is None else f"alpha {setting.alpha:.2f}"
    return f"{alpha} and gamma {setting.gamma:g}"


def train_options(setting: Setting) -> str:
    """Return the options of `retinanet train` for a setting, such as "--loss focal --alpha 0.60 --gamma 1.5".

    Equal weights are alpha 0.5 with twice the loss, or cross-entropy for gamma 0.
    """
    if setting.alpha is None and setting.gamma == 0:
        return "--loss ce"
    alpha = 0.5 if setting.alpha is None else setting.alpha
    return f"--loss focal --alpha {alpha:.2f} --gamma {setting.gamma:g}"
