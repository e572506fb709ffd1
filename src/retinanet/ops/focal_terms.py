"""The focal loss of one element, which all forms in `ops` compute, and what the forms share.

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
    """Parameters of the focal loss of one element, with target t, p = sigmoid(logit) and weight w:

    w (t (1 - p) + (1 - t) p)^gamma (-t log p - (1 - t) log(1 - p)).

    For t = 1 and t = 0 this is equation 5 of arXiv 1708.02002; t between 0 and 1 is label smoothing.

    Args:
        positive_weight_K: w of a positive anchor's own class, for each class; float32.
        negative_weight_K: w of all other elements, whose t is 0, for each class; float32.
        gamma: focusing parameter, 0 or more; 0 gives cross-entropy.
        target: t of a positive anchor's own class, in (0, 1].
    """

    positive_weight_K: Tensor
    negative_weight_K: Tensor
    gamma: float
    target: float


FocalLossForm: TypeAlias = Callable[
    ["Tensor", "Tensor", "Tensor", "Tensor", FocalTerms, "Tensor | None", bool], tuple["Tensor", "Tensor | None"]
]
"""A form of the focal loss. All tensors are contiguous and on one device.

Arguments: logits_NAK, positive_NA, ignored_NA, labels_NA, terms, scale_N, with_gradient. Results: the sum of each image
in float64, not yet multiplied by `scale_N`; the gradient of that sum times `scale_N`, or None without `with_gradient`.
"""


def empty_gradient(logits_NAK: Tensor) -> Tensor:
    """Return memory for the gradient: in the type of the logits, but in float32 for float16, where 1e-8 would be 0."""
    return torch.empty_like(logits_NAK, dtype=torch.float32 if logits_NAK.dtype == torch.float16 else None)
