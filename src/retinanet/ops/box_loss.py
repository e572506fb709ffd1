"""The box loss of a batch in one pass over the anchors, in Triton, for CUDA tensors.

The kernel reads one byte of each anchor, and offsets and boxes of the positive anchors only. It computes the gradient
together with the loss. The gradient is the only tensor of the size of the offsets that it allocates. Formulas and
sources are those of `retinanet.losses.box`.

Shape suffixes: N batch, A anchors.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from retinanet.ops.triton_check import triton_works

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class BoxTerms:
    """Parameters of a box loss that the kernel computes.

    Args:
        kind: "offsets" for smooth L1 on the offsets, "giou" for 1 - GIoU of the boxes.
        beta: difference of offsets at which smooth L1 turns from quadratic to linear; 0 gives L1.
    """

    kind: Literal["offsets", "giou"]
    beta: float = 0.0


def box_loss(
    deltas_NA4: Tensor, boxes_NA4: Tensor, anchors_A4: Tensor, positive_NA: Tensor, scale_N: Tensor, terms: BoxTerms
) -> Tensor:
    """Return the box loss of each image, summed over its positive anchors and multiplied by `scale_N`; float32 (N,).

    An anchor that is not positive has a loss and a gradient of 0, even if its offsets are NaN. The result can be
    differentiated once.

    Args:
        deltas_NA4: predicted offsets: float32, bfloat16 or float16, on a CUDA device; see `supports_box_loss`.
        boxes_NA4: matched ground-truth boxes, xyxy, input pixels, float32.
        anchors_A4: anchors, xyxy, input pixels, float32.
        positive_NA: bool, positive anchors.
        scale_N: float32 factor of each image; no gradient flows into it.
        terms: parameters of the loss.
    """
    loss_N: Tensor = _BoxLoss.apply(deltas_NA4, boxes_NA4, anchors_A4, positive_NA, scale_N.detach(), terms)
    return loss_N


def supports_box_loss(deltas_NA4: Tensor, boxes_NA4: Tensor, anchors_A4: Tensor) -> bool:
    """Return whether `box_loss` supports these tensors: on a CUDA device where Triton works, not while compiling."""
    if torch.compiler.is_compiling() or type(deltas_NA4) is not torch.Tensor or not deltas_NA4.is_cuda:
        return False
    dtypes_fit = deltas_NA4.dtype in {torch.float32, torch.bfloat16, torch.float16}
    return dtypes_fit and boxes_NA4.dtype == anchors_A4.dtype == torch.float32 and works(deltas_NA4.device)


@functools.cache
def works(device: torch.device) -> bool:
    """Return whether the kernel computes known losses on a CUDA device. The result is stored for later calls."""

    def check() -> None:
        # A box beside its anchor, of equal size: dx is 1 and the hull is covered, so both losses are 1.
        anchor_14, box_114 = (
            torch.tensor([[x, 0.0, x + 10, 10]], device=device, dtype=torch.float32).view(shape)
            for x, shape in ((0.0, (1, 4)), (10.0, (1, 1, 4)))
        )
        one_1 = torch.ones(1, dtype=torch.float32, device=device)
        for terms in (BoxTerms(kind="offsets"), BoxTerms(kind="giou")):
            positive_11 = torch.ones((1, 1), dtype=torch.bool, device=device)
            deltas_114 = torch.zeros_like(box_114).requires_grad_()
            loss = box_loss(deltas_114, box_114, anchor_14, positive_11, one_1, terms).item()
            if not math.isclose(loss, 1, rel_tol=1e-5):
                raise RuntimeError(f"{terms.kind}: expected a loss of 1, found {loss}")

    return triton_works("box loss", device, check)


class _BoxLoss(torch.autograd.Function):
    """Box loss whose gradient is computed in the forward pass and multiplied in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        deltas_NA4: Tensor,
        boxes_NA4: Tensor,
        anchors_A4: Tensor,
        positive_NA: Tensor,
        scale_N: Tensor,
        terms: BoxTerms,
    ) -> Tensor:
        # The import is here because Triton loads slowly and is not installed on every machine.
        from retinanet.ops.box_loss_triton import box_loss_triton

        loss_N, gradient_NA4 = box_loss_triton(
            deltas_NA4.contiguous(),
            boxes_NA4.contiguous(),
            anchors_A4.contiguous(),
            positive_NA.contiguous(),
            scale_N.contiguous(),
            giou=terms.kind == "giou",
            beta=terms.beta,
            with_gradient=bool(ctx.needs_input_grad[0]),
        )
        ctx.dtype = deltas_NA4.dtype
        if gradient_NA4 is not None:
            ctx.save_for_backward(gradient_NA4)
        return loss_N

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_NA4,) = ctx.saved_tensors
        out_NA4 = torch.empty_like(gradient_NA4, dtype=ctx.dtype)
        with torch.no_grad():
            torch.mul(gradient_NA4, incoming[0].view(-1, 1, 1), out=out_NA4)
        if torch.is_grad_enabled():
            # With create_graph, the stored gradient would enter the second derivative as a constant: a wrong result.
            error = torch._C._functions.DelayedError(b"box_loss can be differentiated once, not twice", 1)
            out_NA4 = error(out_NA4.requires_grad_())
        return (out_NA4, *(None,) * 5)
