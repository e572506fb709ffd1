"""Formula and parameters of the focal loss that all forms in `ops` compute.

Shape suffixes: N batch, A anchors, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class FocalTerms:
    """Parameters of the focal loss of one example, an (anchor, class) pair.

    With target t, p = sigmoid(logit) and weight w, the loss is

    w (t (1 - p) + (1 - t) p)^gamma (-t log p - (1 - t) log(1 - p)).

    For t = 1 and t = 0, this is equation 5 of Lin et al., arXiv 1708.02002. Label smoothing sets t between 0 and 1.

    Args:
        positive_weight_K: weight w of positive examples (a positive anchor and its true class), one per class; float32.
        negative_weight_K: weight w of all other examples, whose target is 0, one per class; float32.
        gamma: focusing parameter, 0 or more; 0 gives weighted cross-entropy.
        target: target t of positive examples, in (0, 1].
    """

    positive_weight_K: Tensor
    negative_weight_K: Tensor
    gamma: float
    target: float


FocalLossForm: TypeAlias = Callable[
    ["Tensor", "Tensor", "Tensor", "Tensor", FocalTerms, "Tensor | None", bool], tuple["Tensor", "Tensor | None"]
]
"""Signature of each form of the focal loss. All tensors are contiguous and on one device.

Arguments: logits_NAK, positive_NA, ignored_NA, labels_NA, terms, scale_N, with_gradient; see `focal_loss.focal_loss`.
Results: the loss sum of each image in float64, not multiplied by `scale_N`; the gradient of (sum x `scale_N`), or None
without `with_gradient`.
"""


def empty_gradient(logits_NAK: Tensor) -> Tensor:
    """Return an uninitialised tensor for the gradient, in the shape and type of the logits.

    For float16 logits, the gradient is float32, because float16 rounds 1e-8 to 0.
    """
    return torch.empty_like(logits_NAK, dtype=torch.float32 if logits_NAK.dtype == torch.float16 else None)
