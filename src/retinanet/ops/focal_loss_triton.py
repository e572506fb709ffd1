"""The focal loss of a batch in Triton, for CUDA tensors: a flat grid over anchors x classes.

Each program computes a block of one image's elements and writes one partial sum. A second reduction adds the partial
sums. There are no atomic additions, so every run gives an identical sum. Labels are class ids. The arithmetic is that
of native/focal_body.h, in float32 for all types of logits.

Shape suffixes: N batch, A anchors, K classes, B blocks of an image.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

import torch
import triton
import triton.language as tl

from retinanet.ops.focal_terms import FocalTerms, empty_gradient

if TYPE_CHECKING:
    from torch import Tensor

BLOCK: Final = 2048
WARPS: Final = 8


@triton.jit
def _exp(a, b):  # type: ignore[no-untyped-def]
    """Return exp(a + b) for a <= 0 and a small b; 0 for a below -87.3.

    The hardware's exp2 computes only a small remainder, where it is precise.
    """
    bounded = tl.where(a < -87.3, -87.3, a)
    n = tl.floor(bounded * 1.44269504 + 0.5)
    rest = (bounded - n * 0.693145752) - n * 1.42860677e-6 + b
    scale = ((n.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)
    return tl.where(a < -87.3, 0.0, tl.exp2(rest * 1.44269504) * scale)


@triton.jit  # type: ignore[untyped-decorator]
def _focal_kernel(  # type: ignore[no-untyped-def] # noqa: PLR0915
    logits,
    positive,
    ignored,
    labels,
    positive_weight,
    negative_weight,
    scale,
    gradient,
    partial,
    per_image,
    blocks_per_image,
    target,
    gamma,
    gamma_head,
    K: tl.constexpr,
    MODE: tl.constexpr,
    SMOOTH: tl.constexpr,
    SCALED: tl.constexpr,
    WITH_GRADIENT: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Compute one block of one image. MODE is gamma if gamma is 0, 1 or 2, else -1."""
    program = tl.program_id(0)
    image = (program // blocks_per_image).to(tl.int64)
    within = (program % blocks_per_image) * BLOCK + tl.arange(0, BLOCK)
    inside = within < per_image
    anchor = image * (per_image // K) + within // K
    k = within % K
    place = image * per_image + within
    x = tl.load(logits + place, mask=inside, other=0.0).to(tl.float32)
    counted = inside & (tl.load(ignored + anchor, mask=inside, other=1) == 0)
    own = (tl.load(positive + anchor, mask=inside, other=0) != 0) & (
        k == tl.load(labels + anchor, mask=inside, other=0)
    )
    weight = tl.load(negative_weight + k, mask=inside, other=0.0)
    weight = tl.where(own, tl.load(positive_weight + k, mask=inside & own, other=0.0), weight)

    # v is the logit of the wrong answer: x for background examples, -x for the true class of a positive anchor.
    v = tl.where(own, -x, x)
    e = _exp(-tl.abs(v), 0.0)
    up = 1.0 + e
    both = 1.0 / (up * (2.0 + e))
    r = (2.0 + e) * both
    s = e * up * both
    z = s * s
    log1p_e = 2.0 * s + s * z * (((0.268514991 * z + 0.282366186) * z + 0.400075614) * z + 0.666666389)
    p = tl.where(v > 0, r, e * r)
    q = tl.where(v > 0, e * r, r)
    entropy = tl.where(v > 0, v, 0.0) + log1p_e
    base = p
    inner = p  # derivative of the entropy by v
    ratio = q  # derivative of log(base) by v
    log_base = tl.where(v < 0, v, 0.0) - log1p_e
    if SMOOTH:
        # With a target t below 1, the true class has base t p + (1 - t) q and
        # entropy t softplus(v) + (1 - t) softplus(-v).
        t = target
        other = tl.where(v < 0, -v, 0.0) + log1p_e
        mixed = t * p + (1.0 - t) * q
        base = tl.where(own, mixed, p)
        entropy = tl.where(own, t * entropy + (1.0 - t) * other, entropy)
        inner = tl.where(own, t * p - (1.0 - t) * q, p)
        ratio = tl.where(own, (2.0 * t - 1.0) * p * q / mixed, q)
        log_base = tl.where(own, tl.log(mixed), log_base)
    if MODE == 0:
        power = 1.0
    elif MODE == 1:
        power = base
    elif MODE == 2:
        power = base * base
    else:
        # gamma x is computed in two parts. The first is exact, because each factor has 12 bits.
        low = tl.where(v < 0, v, 0.0)
        low = tl.where(low < -128.0, -128.0, low)  # the entropy is 0 in float32 below -128
        if SMOOTH:
            low = tl.where(own, log_base, low)
        head = (low.to(tl.int32, bitcast=True) & -4096).to(tl.float32, bitcast=True)
        lost = head * (gamma - gamma_head) + (low - head) * gamma
        bend = -gamma * log1p_e
        if SMOOTH:
            bend = tl.where(own, 0.0, bend)
        power = _exp(head * gamma_head, lost) * _exp(bend, 0.0)
    weighted = weight * power
    tl.store(partial + program, tl.sum(tl.where(counted, weighted * entropy, 0.0), axis=0))
    if WITH_GRADIENT:
        finite = tl.where(entropy > 3.402823466e38, 3.402823466e38, entropy)
        slope = inner
        if MODE != 0:
            slope = gamma * ratio * finite + inner
        result = weighted * tl.where(own, -slope, slope)
        if SCALED:
            result = result * tl.load(scale + image)
        result = tl.where(counted, result, 0.0)
        tl.store(gradient + place, result.to(gradient.dtype.element_ty), mask=inside)


def focal_loss_triton(
    logits_NAK: Tensor,
    positive_NA: Tensor,
    ignored_NA: Tensor,
    labels_NA: Tensor,
    terms: FocalTerms,
    scale_N: Tensor | None,
    with_gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return the loss sum of each image and the gradient in Triton. Requires CUDA tensors.

    Arguments and results are those of `FocalLossForm`. Every run gives identical results. Class ids are not checked,
    because a check would make the CPU wait for the GPU: a positive anchor with an id outside 0..K-1 counts as
    background.

    Raises:
        ValueError: an image has 2^31 - 2048 or more logits.
    """
    N, A, K = logits_NAK.shape
    gradient_NAK = empty_gradient(logits_NAK) if with_gradient else None
    if logits_NAK.numel() == 0:
        return logits_NAK.new_zeros(N, dtype=torch.float64), gradient_NAK
    if A * K >= 2**31 - BLOCK:
        raise ValueError(f"expected fewer than 2^31 - {BLOCK} logits per image, found {A} anchors x {K} classes")
    blocks = triton.cdiv(A * K, BLOCK)
    partial_NB = logits_NAK.new_empty((N, blocks), dtype=torch.float32)
    gamma = float(terms.gamma)
    head = (torch.tensor(gamma, dtype=torch.float32, device="cpu").view(torch.int32) & -4096).view(torch.float32).item()
    device = torch.cuda.device(logits_NAK.device) if logits_NAK.is_cuda else contextlib.nullcontext()
    with device:
        _focal_kernel[(N * blocks,)](
            logits_NAK,
            positive_NA.view(torch.uint8),
            ignored_NA.view(torch.uint8),
            labels_NA,
            terms.positive_weight_K.contiguous(),
            terms.negative_weight_K.contiguous(),
            scale_N if scale_N is not None else partial_NB,
            gradient_NAK if gradient_NAK is not None else partial_NB,
            partial_NB,
            A * K,
            blocks,
            float(terms.target),
            gamma,
            head,
            K=K,
            MODE=int(gamma) if gamma in {0.0, 1.0, 2.0} else -1,
            SMOOTH=terms.target < 1,
            SCALED=scale_N is not None,
            WITH_GRADIENT=with_gradient,
            BLOCK=BLOCK,
            num_warps=WARPS,
        )
    return partial_NB.sum(dim=1, dtype=torch.float64), gradient_NAK
