"""Focal loss of a batch in one pass: labels by index, summed for each picture, the gradient made with the value.

Three forms of one function: C for CPU tensors, Triton for CUDA ones, and torch in chunks where neither is there. Each
keeps one gradient in memory and nothing else of that size. `losses.focal` has the formula; this must agree with it.

Shape suffixes: N batch, A anchors, K classes; C the elements of a chunk.
"""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from retinanet.ops import native_library as library

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

TYPES: Final = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
"""The logits' types, as native/focal.c numbers them."""
CHUNK: Final = {"cpu": 1 << 18, "cuda": 1 << 24}
"""Elements that the torch form works on at a time: on a CPU a megabyte, so that its steps stay in the cache and their
number costs little; on a GPU enough to be worth a launch for each step."""


Implementation = Callable[..., "tuple[Tensor, Tensor | None]"]
"""logits_NAK, positive_NA, ignored_NA, labels_NA, terms, scale_N, with_gradient -> float64 sums_N and the gradient."""


@dataclass(frozen=True, kw_only=True)
class FocalTerms:
    """What the loss of an element is, for a target t, p = sigmoid(logit) and w the weight:

    w (t (1 - p) + (1 - t) p)^gamma (-t log p - (1 - t) log(1 - p)).

    Args:
        positive_weight_K: w of a positive anchor's own class, for each class; float32.
        negative_weight_K: w of everything else, where t is 0.
        gamma: 0 or more; 0 gives cross-entropy.
        target: t of a positive anchor's own class, in (0, 1].
    """

    positive_weight_K: Tensor
    negative_weight_K: Tensor
    gamma: float
    target: float


def supports(logits_NAK: Tensor) -> bool:
    """Whether `focal_sum_N` takes these logits: a plain CPU or CUDA tensor of 32 bits or less, not traced."""
    if logits_NAK.dtype not in TYPES or logits_NAK.layout is not torch.strided:
        return False
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    if torch._C._functorch.maybe_current_level() is not None:
        return False
    if type(logits_NAK) not in {torch.Tensor, torch.nn.Parameter}:
        return False
    return logits_NAK.device.type in {"cpu", "cuda"}


def implementation(device: torch.device) -> Implementation:
    """Return which of the three forms serves tensors of a device."""
    if device.type == "cpu":
        return _native if library.available() else _chunked
    return _triton if triton_works(device) else _chunked


@functools.cache
def triton_works(device: torch.device) -> bool:
    """Whether Triton is installed and compiles for this CUDA device: tried once, on a tiny batch with a known sum."""
    try:
        logits_NAK = torch.zeros((1, 1, 1), device=device)
        mask_NA = torch.zeros((1, 1), dtype=torch.bool, device=device)
        one_K = torch.ones(1, device=device)
        terms = FocalTerms(positive_weight_K=one_K, negative_weight_K=one_K, gamma=2.0, target=1.0)
        sums_N, _ = _triton(logits_NAK, mask_NA, mask_NA, mask_NA.long(), terms, None, True)
        if abs(sums_N.item() - 0.25 * math.log(2)) > 1e-5:
            raise RuntimeError(f"a loss of {sums_N.item()} where 0.1733 is right")
    except Exception as error:  # noqa: BLE001 - no Triton, no compiler, no driver, an old card: each raises its own
        log.warning("focal loss: Triton cannot be used on %s (%s), the slower torch code serves", device, error)
        return False
    return True


def focal_sum_N(
    logits_NAK: Tensor,
    positive_NA: Tensor,
    ignored_NA: Tensor,
    labels_NA: Tensor,
    *,
    terms: FocalTerms,
    scale_N: Tensor | None = None,
) -> Tensor:
    """Return the loss of each picture, summed over its anchors and classes and multiplied by `scale_N`; float32.

    Ignored anchors give exactly 0 and a gradient of 0, whatever their logits. The gradient is kept in the logits' type
    (float32 for float16 ones, where 1e-8 would be 0), so what is known of the loss's factor belongs into `scale_N`: a
    gradient that comes in as 1 costs no further pass. It can be differentiated once.

    Args:
        logits_NAK: float32, bfloat16 or float16, see `supports`.
        positive_NA: bool.
        ignored_NA: bool, never true where `positive_NA` is.
        labels_NA: int64 class ids, read where positive.
        terms: the loss.
        scale_N: float32, constant: no gradient flows into it. None: 1.

    Raises:
        TypeError, ValueError: tensors of other types or shapes, gamma below 0, or a label that is no class.
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
    loss_N: Tensor = _FocalSum.apply(logits_NAK, positive_NA, ignored_NA, labels_NA, terms, scale_N)
    return loss_N


class _FocalSum(torch.autograd.Function):
    """The gradient is made in the forward pass, where all that it needs is at hand."""

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
        if torch.is_grad_enabled():  # create_graph: as a constant it would be silently wrong
            error = torch._C._functions.DelayedError(b"focal_sum_N can be differentiated once, not twice", 1)
            gradient_NAK = error(gradient_NAK.requires_grad_())
        return (gradient_NAK, *(None,) * 5)


def _times(gradient_NAK: Tensor, incoming_N: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a gradient that the caller may write into, multiplied by what came in."""
    if not _skippable(incoming_N):
        # Out of place: the graph may be used again. The product is made in float32 and stored in the logits' type.
        out_NAK = torch.empty_like(gradient_NAK, dtype=dtype)
        return torch.mul(gradient_NAK, incoming_N.reshape(-1, 1, 1), out=out_NAK)
    if gradient_NAK.dtype != dtype:
        return gradient_NAK.to(dtype)
    return gradient_NAK.clone() if _graph_is_kept() else gradient_NAK


def _skippable(incoming_N: Tensor) -> bool:
    """Whether the incoming gradient is 1 for every picture. Waits for the device, unless a CUDA graph is being made."""
    if incoming_N.is_cuda and torch.cuda.is_current_stream_capturing():
        return False
    return bool((incoming_N == 1).all())


def _graph_is_kept() -> bool:
    """Whether this backward pass leaves the graph for another one."""
    return bool(torch._C._autograd._get_current_graph_task_keep_graph())


def _native(
    logits_NAK: Tensor,
    positive_NA: Tensor,
    ignored_NA: Tensor,
    labels_NA: Tensor,
    terms: FocalTerms,
    scale_N: Tensor | None,
    with_gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    N, A, K = logits_NAK.shape
    half = logits_NAK.dtype == torch.float16
    gradient_NAK = torch.empty_like(logits_NAK, dtype=torch.float32 if half else None) if with_gradient else None
    sums_N = torch.empty(N, dtype=torch.float64)
    weights = [w.contiguous() for w in (terms.positive_weight_K, terms.negative_weight_K)]
    address = library.address
    library.call(
        "rn_focal",
        address(logits_NAK, name="logits_NAK", dtype=logits_NAK.dtype, shape=(N, A, K)),
        TYPES[logits_NAK.dtype],
        *(N, A, K),
        address(positive_NA, name="positive_NA", dtype=torch.bool, shape=(N, A)),
        address(ignored_NA, name="ignored_NA", dtype=torch.bool, shape=(N, A)),
        address(labels_NA, name="labels_NA", dtype=torch.int64, shape=(N, A)),
        *(address(w, name="weight_K", dtype=torch.float32, shape=(K,)) for w in weights),
        *(float(terms.gamma), float(terms.target)),
        address(scale_N, name="scale_N", dtype=torch.float32, shape=(N,)) if scale_N is not None else None,
        gradient_NAK.data_ptr() if gradient_NAK is not None else None,
        torch.get_num_threads(),
        sums_N.data_ptr(),
    )
    return sums_N, gradient_NAK


def _triton(
    logits_NAK: Tensor,
    positive_NA: Tensor,
    ignored_NA: Tensor,
    labels_NA: Tensor,
    terms: FocalTerms,
    scale_N: Tensor | None,
    with_gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    from retinanet.ops import focal_loss_triton as triton_focal

    return triton_focal.forward(logits_NAK, positive_NA, ignored_NA, labels_NA, terms, scale_N, with_gradient)


def _chunked(
    logits_NAK: Tensor,
    positive_NA: Tensor,
    ignored_NA: Tensor,
    labels_NA: Tensor,
    terms: FocalTerms,
    scale_N: Tensor | None,
    with_gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """Everything as background, a chunk of anchors at a time; then ignored anchors and the positives' own class."""
    N, A, K = logits_NAK.shape
    half = logits_NAK.dtype == torch.float16
    gradient_NAK = torch.empty_like(logits_NAK, dtype=torch.float32 if half else None) if with_gradient else None
    sums_N = logits_NAK.new_zeros(N, dtype=torch.float64)
    rows = max(1, CHUNK[logits_NAK.device.type] // max(K, 1))
    work = logits_NAK.new_empty((6, min(rows, A), K), dtype=torch.float32)
    weight_K = terms.negative_weight_K
    for n in range(N):
        scale = None if scale_N is None else scale_N[n]
        for a in range(0, A, rows):
            part = slice(a, min(a + rows, A))
            x, positive, ignored = logits_NAK[n, part], positive_NA[n, part], ignored_NA[n, part]
            slope = None if gradient_NAK is None else gradient_NAK[n, part]
            out = slope if slope is None or slope.dtype == torch.float32 else work[5, : len(x)]
            loss = _background(x, terms.gamma, weight_K, work[:5, : len(x)], out)
            own = torch.nonzero(positive).squeeze(1)
            label = labels_NA[n, part][own]
            if len(own) and bool(((label < 0) | (label >= K)).any()):
                raise ValueError(f"labels_NA: expected class ids below {K} where positive")
            own_loss, own_slope = _own_class(x[own, label], terms, label)
            loss.index_put_((own, label), own_loss)
            left_out = torch.nonzero(ignored).squeeze(1)
            loss[left_out] = 0.0
            sums_N[n] += loss.sum(dim=1).sum(dtype=torch.float64)
            if slope is not None and out is not None:
                out.index_put_((own, label), own_slope)
                out[left_out] = 0.0
                if scale is not None:
                    out *= scale
                if out is not slope:
                    slope.copy_(out)
    return sums_N, gradient_NAK


def _background(x: Tensor, gamma: float, weight_K: Tensor, work: Tensor, slope: Tensor | None) -> Tensor:
    """Return w p^gamma softplus(x) in the first of five buffers, and write its slope. As native/focal_body.h."""
    entropy, q, e, p, spare = work.unbind()
    torch.abs(x.float(), out=e)
    e.neg_().exp_()
    # log1p(e) = 2 atanh(s): torch's own log1p is ten times slower, until a fractional pow has run on the thread.
    torch.add(e, 2.0, out=spare)
    torch.div(e, spare, out=spare)  # s
    torch.mul(spare, spare, out=p)  # s^2
    torch.mul(p, 0.268514991, out=entropy)
    for coefficient in (0.282366186, 0.400075614, 0.666666389):
        entropy.add_(coefficient).mul_(p)
    entropy.add_(2.0).mul_(spare)  # log1p(e)
    # p = exp(min(x, 0)) / (1 + e) and q = exp(min(-x, 0)) / (1 + e), where exp(min(x, 0)) is e or 1, the larger by far:
    # a `where` costs seven such steps.
    torch.mul(x.float(), 1e30, out=p).clamp_(0.0, 1.0)  # 1 above 0; what is between was so small that e is 1
    torch.neg(p, out=q).add_(1.0)
    torch.maximum(p, e, out=p)
    torch.maximum(q, e, out=q)
    torch.add(e, 1.0, out=spare)
    torch.reciprocal(spare, out=spare)
    p.mul_(spare)
    q.mul_(spare)
    whole = gamma in range(9)
    power = p if whole else _power(x, entropy, gamma)
    torch.clamp(x.float(), min=0, out=spare)
    entropy.add_(spare)
    if slope is not None:
        # Clamped for x = +inf, where q is 0: the slope there is the weight.
        torch.clamp(entropy, max=torch.finfo(torch.float32).max / max(gamma, 1.0), out=spare)
        torch.addcmul(p, spare, q, value=gamma, out=slope)
    if whole:
        torch.mul(p, weight_K, out=spare) if gamma else spare.copy_(weight_K)
        for _ in range(int(gamma) - 1):
            spare.mul_(p)
    else:
        torch.mul(power, weight_K, out=spare)
    entropy.mul_(spare)
    if slope is not None:
        slope.mul_(spare)
    return entropy


def _power(x: Tensor, log1p_e: Tensor, gamma: float) -> Tensor:
    """Return p^gamma = exp(gamma log p), log p = min(x, 0) - log1p(e).

    A power of p would lose what p has lost by underflowing; and gamma x is multiplied in parts, the first exactly:
    its rounding would be a relative error of the result.
    """
    low = torch.clamp(x.float(), min=-128, max=0)  # the cross-entropy is 0 there
    head = low.bfloat16().float()  # 8 bits
    steep = float(torch.tensor(gamma).bfloat16())
    rest = (low - head).mul_(gamma).add_(head, alpha=gamma - steep).add_(log1p_e, alpha=-gamma)
    return head.mul_(steep).exp_().mul_(rest.exp_())


def _own_class(x_P: Tensor, terms: FocalTerms, label_P: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss and the slope at the positives' own class: worked out in float64, returned as float32."""
    x, t, gamma = x_P.double(), terms.target, terms.gamma
    p, q = torch.sigmoid(x), torch.sigmoid(-x)
    down, up = torch.nn.functional.softplus(-x), torch.nn.functional.softplus(x)
    if t == 1:  # apart, for 0 times infinity
        base, entropy, ratio, inner = q, down, -p, -q
    else:
        base, entropy = t * q + (1 - t) * p, t * down + (1 - t) * up
        ratio, inner = (1 - 2 * t) * p * q / base, (1 - t) * p - t * q
    power = terms.positive_weight_K[label_P] * base**gamma
    slope = gamma * ratio * entropy.clamp(max=torch.finfo(torch.float64).max) + inner
    return (power * entropy).float(), (power * slope).float()
