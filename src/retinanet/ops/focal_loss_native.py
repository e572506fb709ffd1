"""The focal loss of a batch in C, for CPU tensors.

Shape suffixes: N batch, A anchors, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from retinanet.ops.focal_terms import FocalTerms, empty_gradient
from retinanet.ops.native_library import DTYPE_CODES, address, buffer, call

if TYPE_CHECKING:
    from torch import Tensor


def focal_loss_native(
    logits_NAK: Tensor,
    positive_NA: Tensor,
    ignored_NA: Tensor,
    labels_NA: Tensor,
    terms: FocalTerms,
    scale_N: Tensor | None,
    with_gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return the loss sum of each image and the gradient in C. Requires CPU tensors and the C library.

    Arguments and results are those of `FocalLossForm`. The result does not depend on the number of threads.

    Raises:
        RuntimeError: the C library is missing.
        TypeError: a tensor is not on the CPU or has another type.
        ValueError: a tensor has another shape, or the class id of a positive anchor is negative, or K or more.
    """
    N, A, K = logits_NAK.shape
    gradient_NAK = empty_gradient(logits_NAK) if with_gradient else None
    sums_N = buffer(N, dtype=torch.float64)
    weights = [w.contiguous() for w in (terms.positive_weight_K, terms.negative_weight_K)]
    call(
        "rn_focal",
        address(logits_NAK, name="logits_NAK", dtype=logits_NAK.dtype, shape=(N, A, K)),
        DTYPE_CODES[logits_NAK.dtype],
        *(N, A, K),
        address(positive_NA, name="positive_NA", dtype=torch.bool, shape=(N, A)),
        address(ignored_NA, name="ignored_NA", dtype=torch.bool, shape=(N, A)),
        address(labels_NA, name="labels_NA", dtype=torch.int64, shape=(N, A)),
        *(address(w, name="weight_K", dtype=torch.float32, shape=(K,)) for w in weights),
        *(float(terms.gamma), float(terms.target)),
        address(scale_N, name="scale_N", dtype=torch.float32, shape=(N,)) if scale_N is not None else None,
        _gradient_address(gradient_NAK, logits_NAK),
        torch.get_num_threads(),
        address(sums_N, name="sums_N", dtype=torch.float64, shape=(N,)),
    )
    return sums_N, gradient_NAK


def _gradient_address(gradient_NAK: Tensor | None, logits_NAK: Tensor) -> int | None:
    if gradient_NAK is None:
        return None
    dtype = torch.float32 if logits_NAK.dtype == torch.float16 else logits_NAK.dtype  # as native/focal.c writes it
    return address(gradient_NAK, name="gradient_NAK", dtype=dtype, shape=logits_NAK.shape)
