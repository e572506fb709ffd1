"""The focal loss of a batch in one pass over the logits.

Targets are class ids instead of one-hot tensors. The result is one sum per image. The gradient is computed together
with the loss. There are three forms: C for CPU tensors, Triton for CUDA tensors, and torch in chunks otherwise. Each
form allocates one tensor of the size of the logits: the gradient. `FocalTerms` states the formula, which agrees with
`retinanet.losses.focal`.

Shape suffixes: N batch, A anchors, K classes.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import torch

from retinanet.ops import native_library, triton_check
from retinanet.ops.focal_loss_native import focal_loss_native
from retinanet.ops.focal_loss_torch import focal_loss_torch
from retinanet.ops.focal_terms import FocalLossForm, FocalTerms
from retinanet.ops.native_library import DTYPE_CODES

if TYPE_CHECKING:
    from torch import Tensor


def focal_loss(
    logits_NAK: Tensor,
    positive_NA: Tensor,
    ignored_NA: Tensor,
    labels_NA: Tensor,
    *,
    terms: FocalTerms,
    scale_N: Tensor | None = None,
) -> Tensor:
    """Return the focal loss of each image, summed over anchors and classes and multiplied by `scale_N`; float32 (N,).

    `FocalTerms` states the formula of one example. An ignored anchor gives a loss of 0 and a gradient of 0 for all
    logits, even NaN. The arithmetic is float32 for all types of logits. The gradient is stored in the type of the
    logits, but in float32 for float16 logits, because float16 rounds 1e-8 to 0. The result can be differentiated once,
    not twice.

    Pass constant factors of the loss as `scale_N`. If the loss is then summed, backward receives the gradient 1 and
    returns the stored gradient without another pass over it.

    Args:
        logits_NAK: class scores before the sigmoid: float32, bfloat16 or float16; see `supports_focal_loss`.
        positive_NA: bool, positive anchors.
        ignored_NA: bool, ignored anchors; false where `positive_NA` is true.
        labels_NA: int64 class ids; only the ids of positive anchors are read.
        terms: parameters of the loss.
        scale_N: float32 factor of each image; no gradient flows into it. None: 1.

    Raises:
        TypeError: a tensor has another type, or is on another device than the logits.
        ValueError: a tensor has another shape, gamma is below 0, or the target is outside (0, 1]. In the C and torch
            forms also: the class id of a positive anchor is negative, or K or more.
    """
    N, A, K = logits_NAK.shape
    for name, tensor, dtype, shape in (
        ("positive_NA", positive_NA, torch.bool, (N, A)),
        ("ignored_NA", ignored_NA, torch.bool, (N, A)),
        ("labels_NA", labels_NA, torch.int64, (N, A)),
        ("positive_weight_K", terms.positive_weight_K, torch.float32, (K,)),
        ("negative_weight_K", terms.negative_weight_K, torch.float32, (K,)),
        *([("scale_N", scale_N, torch.float32, (N,))] if scale_N is not None else []),
    ):
        if tensor.dtype != dtype or tensor.device != logits_NAK.device:
            raise TypeError(f"{name}: expected {dtype} on {logits_NAK.device}, found {tensor.dtype} on {tensor.device}")
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name}: expected shape {shape}, found {tuple(tensor.shape)}")
    if terms.gamma < 0 or not 0 < terms.target <= 1:
        raise ValueError(f"expected gamma >= 0 and a target in (0, 1], found {terms.gamma} and {terms.target}")
    scale_N = scale_N.detach() if scale_N is not None else None
    loss_N: Tensor = _FocalLoss.apply(logits_NAK, positive_NA, ignored_NA, labels_NA, terms, scale_N)
    return loss_N


def supports_focal_loss(logits_NAK: Tensor) -> bool:
    """Return whether `focal_loss` supports these logits.

    It supports a dense CPU or CUDA tensor of float32, bfloat16 or float16. It does not support tracing,
    `torch.compile` and functorch transforms such as vmap.
    """
    if logits_NAK.dtype not in DTYPE_CODES or logits_NAK.layout is not torch.strided:
        return False
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    if torch._C._functorch.maybe_current_level() is not None:
        return False
    if type(logits_NAK) not in {torch.Tensor, torch.nn.Parameter}:
        return False
    return logits_NAK.device.type in {"cpu", "cuda"}


def implementation(device: torch.device) -> FocalLossForm:
    """Return the form that computes the focal loss of tensors on a device."""
    if device.type == "cpu":
        return focal_loss_native if native_library.available() else focal_loss_torch
    return focal_loss_triton if triton_works(device) else focal_loss_torch


@functools.cache
def triton_works(device: torch.device) -> bool:
    """Return whether Triton is installed and computes the focal loss correctly on this CUDA device.

    The first call for a device computes a tiny batch with a known loss and stores the result for later calls.
    """

    def check() -> None:
        logits_NAK = torch.zeros((1, 1, 1), dtype=torch.float32, device=device)
        mask_NA = torch.zeros((1, 1), dtype=torch.bool, device=device)
        one_K = torch.ones(1, dtype=torch.float32, device=device)
        terms = FocalTerms(positive_weight_K=one_K, negative_weight_K=one_K, gamma=2.0, target=1.0)
        sums_N, _ = focal_loss_triton(logits_NAK, mask_NA, mask_NA, mask_NA.long(), terms, None, True)
        if abs(sums_N.item() - 0.25 * math.log(2)) > 1e-5:
            raise RuntimeError(f"expected a loss of 0.1733, found {sums_N.item()}")

    return triton_check.triton_works("focal loss", device, check)


def focal_loss_triton(
    logits_NAK: Tensor,
    positive_NA: Tensor,
    ignored_NA: Tensor,
    labels_NA: Tensor,
    terms: FocalTerms,
    scale_N: Tensor | None,
    with_gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """Import and call the Triton form: see `retinanet.ops.focal_loss_triton`."""
    # The import is here because Triton loads slowly and is not installed on every machine.
    from retinanet.ops import focal_loss_triton as form

    return form.focal_loss_triton(logits_NAK, positive_NA, ignored_NA, labels_NA, terms, scale_N, with_gradient)


class _FocalLoss(torch.autograd.Function):
    """Focal loss whose gradient is computed in the forward pass and returned by the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        logits_NAK: Tensor,
        positive_NA: Tensor,
        ignored_NA: Tensor,
        labels_NA: Tensor,
        terms: FocalTerms,
        scale_N: Tensor | None,
    ) -> Tensor:
        with_gradient = bool(ctx.needs_input_grad[0])
        sums_N, gradient_NAK = implementation(logits_NAK.device)(
            logits_NAK.contiguous(),
            positive_NA.contiguous(),
            ignored_NA.contiguous(),
            labels_NA.contiguous(),
            terms,
            scale_N.contiguous() if scale_N is not None else None,
            with_gradient,
        )
        ctx.dtype = logits_NAK.dtype
        if gradient_NAK is not None:
            ctx.save_for_backward(gradient_NAK)
        loss_N: Tensor = sums_N if scale_N is None else sums_N * scale_N
        return loss_N.float()

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            gradient_NAK = _times(ctx.saved_tensors[0], incoming[0], ctx.dtype)
        if torch.is_grad_enabled():
            # With create_graph, the stored gradient would enter the second derivative as a constant: a wrong result.
            error = torch._C._functions.DelayedError(b"focal_loss can be differentiated once, not twice", 1)
            gradient_NAK = error(gradient_NAK.requires_grad_())
        return (gradient_NAK, *(None,) * 5)


def _times(gradient_NAK: Tensor, incoming_N: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the stored gradient times the incoming gradient, in memory that the caller may overwrite."""
    is_cpu = gradient_NAK.device.type == "cpu"
    if is_cpu and bool((incoming_N == 1).all()):
        if gradient_NAK.dtype != dtype:
            return gradient_NAK.to(dtype)
        return gradient_NAK.clone() if _graph_is_kept() else gradient_NAK
    # On a GPU, a comparison with 1 would make the CPU wait. The product takes less time: it reads and writes the
    # gradient once.
    factor_N11 = incoming_N.reshape(-1, 1, 1)
    if gradient_NAK.dtype == dtype and not is_cpu and not _graph_is_kept():
        return gradient_NAK.mul_(factor_N11)
    # The stored gradient must not change: another backward pass may need it. The product is computed in float32.
    out_NAK = torch.empty_like(gradient_NAK, dtype=dtype)
    return torch.mul(gradient_NAK, factor_N11, out=out_NAK)


def _graph_is_kept() -> bool:
    """Return whether this backward pass keeps the graph for another backward pass (`retain_graph`)."""
    return bool(torch._C._autograd._get_current_graph_task_keep_graph())
