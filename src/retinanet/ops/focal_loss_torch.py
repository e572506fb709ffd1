"""The focal loss of a batch in plain torch, in chunks: for CPU and CUDA tensors.

Shape suffixes: N batch, A anchors, K classes, R anchors of all images, C anchors of a chunk, P positive anchors of a
chunk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from retinanet.ops.focal_terms import FocalTerms, empty_gradient

if TYPE_CHECKING:
    from torch import Tensor

_CPU_CHUNK: Final = 1 << 18
"""Number of elements of a chunk on a CPU. A chunk is one megabyte, so that all steps work in the cache."""
_GPU_CHUNK: Final = 1 << 24
"""Number of elements of a chunk on a GPU. A chunk is so large that the time of a kernel launch for each step is
small."""


def focal_loss_torch(
    logits_NAK: Tensor,
    positive_NA: Tensor,
    ignored_NA: Tensor,
    labels_NA: Tensor,
    terms: FocalTerms,
    scale_N: Tensor | None,
    with_gradient: bool,
) -> tuple[Tensor, Tensor | None]:
    """Return the loss sum of each image and the gradient in torch, on a CPU or CUDA device.

    The function computes all examples of a chunk of anchors as background. Then it replaces the examples of ignored
    anchors and the true class of positive anchors. On a GPU, the number of operations depends on the number of elements
    only, and the CPU never waits. Arguments and results are those of `FocalLossForm`.

    Raises:
        ValueError: the class id of a positive anchor is negative, or K or more. On a GPU, class ids are not checked:
            such an anchor counts as background.
    """
    N, A, K = logits_NAK.shape
    gradient_NAK = empty_gradient(logits_NAK) if with_gradient else None
    if logits_NAK.numel() == 0:
        return logits_NAK.new_zeros(N, dtype=torch.float64), gradient_NAK
    is_cpu = logits_NAK.device.type == "cpu"
    replace = _replace_by_index if is_cpu else _replace_by_label
    rows = min(N * A, max(1, (_CPU_CHUNK if is_cpu else _GPU_CHUNK) // K))
    work = logits_NAK.new_empty((6, rows, K), dtype=torch.float32)
    sums_R = logits_NAK.new_empty(N * A, dtype=torch.float32)
    scale_R1 = None if scale_N is None else scale_N.view(N, 1).expand(N, A).reshape(N * A, 1)
    for first in range(0, N * A, rows):
        part = slice(first, min(first + rows, N * A))
        x, positive, ignored, label = (
            values.view(N * A, *values.shape[2:])[part] for values in (logits_NAK, positive_NA, ignored_NA, labels_NA)
        )
        slope = None if gradient_NAK is None else gradient_NAK.view(N * A, K)[part]
        out = slope if slope is None or slope.dtype == torch.float32 else work[5, : len(x)]
        loss = _background(x, terms.gamma, terms.negative_weight_K, work[:5, : len(x)], out)
        replace(x, positive, ignored, label, terms, loss, out)
        torch.sum(loss, dim=1, out=sums_R[part])
        if slope is not None and out is not None:
            if scale_R1 is not None:
                out *= scale_R1[part]
            if out is not slope:
                slope.copy_(out)
    return sums_R.view(N, A).sum(dim=1, dtype=torch.float64), gradient_NAK


def _replace_by_index(
    x_CK: Tensor,
    positive_C: Tensor,
    ignored_C: Tensor,
    label_C: Tensor,
    terms: FocalTerms,
    loss_CK: Tensor,
    slope_CK: Tensor | None,
) -> None:
    """Replace the examples of ignored anchors and the true class of positive anchors, from lists of these anchors."""
    K = x_CK.shape[1]
    own, skipped = torch.nonzero(positive_C).squeeze(1), torch.nonzero(ignored_C).squeeze(1)
    label = label_C[own]
    if len(own) and bool(((label < 0) | (label >= K)).any()):
        wrong = label[(label < 0) | (label >= K)][0].item()
        raise ValueError(f"labels_NA: expected class ids in 0..{K - 1} at positive anchors, found {wrong}")
    own_loss, own_slope = _own_class(x_CK[own, label], terms, label)
    for values, new in ((loss_CK, own_loss), (slope_CK, own_slope)):
        if values is not None:
            values.index_put_((own, label), new)
            values[skipped] = 0.0


def _replace_by_label(
    x_CK: Tensor,
    positive_C: Tensor,
    ignored_C: Tensor,
    label_C: Tensor,
    terms: FocalTerms,
    loss_CK: Tensor,
    slope_CK: Tensor | None,
) -> None:
    """Replace the examples of ignored anchors and the true class of positive anchors, with tensors of fixed sizes.

    The loss of one class is computed for every anchor, which takes 1 / K of the work. A mask selects the positives.
    """
    own_C1 = (positive_C & (label_C >= 0) & (label_C < x_CK.shape[1])).unsqueeze(1)
    label_C1 = label_C.unsqueeze(1) * own_C1
    ignored_C1 = ignored_C.unsqueeze(1)
    for values, new_C1 in zip((loss_CK, slope_CK), _own_class(x_CK.gather(1, label_C1), terms, label_C1), strict=True):
        if values is not None:
            values.scatter_(1, label_C1, new_C1.where(own_C1, values.gather(1, label_C1)))
            values.masked_fill_(ignored_C1, 0.0)


def _background(x: Tensor, gamma: float, weight_K: Tensor, work: Tensor, slope: Tensor | None) -> Tensor:
    """Return the background loss w p^gamma softplus(x), and write its derivative by x into `slope`.

    The result is the first of the five buffers in `work`. The steps are those of native/focal_body.h.
    """
    entropy, q, e, p, spare = work.unbind()
    torch.abs(x.float(), out=e)
    e.neg_().exp_()
    # log1p(e) = 2 atanh(s) with s = e / (2 + e). torch.log1p would be ten times slower on the CPU.
    torch.add(e, 2.0, out=spare)
    torch.div(e, spare, out=spare)  # s
    torch.mul(spare, spare, out=p)  # s^2
    torch.mul(p, 0.268514991, out=entropy)
    for coefficient in (0.282366186, 0.400075614, 0.666666389):
        entropy.add_(coefficient).mul_(p)
    entropy.add_(2.0).mul_(spare)  # log1p(e)
    # p = exp(min(x, 0)) / (1 + e) and q = exp(min(-x, 0)) / (1 + e). Each numerator is 1 or e, chosen by the sign of x
    # with a product, a clamp and a maximum, because torch.where takes the time of seven such steps.
    torch.mul(x.float(), 1e30, out=p).clamp_(0.0, 1.0)  # 1 for x > 0, 0 for x < 0; between 0 and 1 only where e is 1
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
        # For x = +inf, q is 0 and the entropy infinite. The clamp avoids 0 x inf: the derivative is the weight.
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
    """Return p^gamma as exp(gamma log p), with log p = min(x, 0) - log1p(e).

    The function does not start from p, because p underflows for small x. It computes gamma x in two parts, of which the
    first is exact, because a rounding error of gamma x would be a relative error of the result.
    """
    low = torch.clamp(x.float(), min=-128, max=0)  # the cross-entropy is 0 in float32 below -128
    head = low.bfloat16().float()  # 8 bits
    steep = float(torch.tensor(gamma, dtype=torch.float32, device="cpu").bfloat16())
    rest = (low - head).mul_(gamma).add_(head, alpha=gamma - steep).add_(log1p_e, alpha=-gamma)
    return head.mul_(steep).exp_().mul_(rest.exp_())


def _own_class(x_P: Tensor, terms: FocalTerms, label_P: Tensor) -> tuple[Tensor, Tensor]:
    """Return the loss and its derivative by x for the true class of positive anchors, float32.

    The arithmetic is float64.
    """
    x, t, gamma = x_P.double(), terms.target, terms.gamma
    p, q = torch.sigmoid(x), torch.sigmoid(-x)
    down, up = torch.nn.functional.softplus(-x), torch.nn.functional.softplus(x)
    if t == 1:  # the general formula below would compute 0 x inf
        base, entropy, ratio, inner = q, down, -p, -q
    else:
        base, entropy = t * q + (1 - t) * p, t * down + (1 - t) * up
        ratio, inner = (1 - 2 * t) * p * q / base, (1 - t) * p - t * q
    power = terms.positive_weight_K[label_P] * base**gamma
    slope = gamma * ratio * entropy.clamp(max=torch.finfo(torch.float64).max) + inner
    return (power * entropy).float(), (power * slope).float()
