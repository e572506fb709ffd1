"""`DetectionLoss` on a GPU: values and gradients of the CPU, a fixed number of kernels, and no wait for the device.

The tests run the code for GPUs on the device double. The sums of the CPU have another order, so values and gradients in
float32 may differ by 1e-5 of their size.
"""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from retinanet.config import BOX_LOSSES, LOSSES, LossConfig
from retinanet.losses import DetectionLoss, detection
from retinanet.ops import focal_loss as focal
from retinanet.ops.focal_loss_torch import focal_loss_torch
from retinanet.types import AnchorTargets, HeadOutputs
from tests.device_double import double, to_cpu, to_double

KERNELS = {
    "focal": 59,
    "ce": 41,
    "balanced_ce": 49,
    "weighted": 49,
    "hard_negative_mining": 59,
    "ohem": 54,
    "quality_focal": 94,
    "varifocal": 86,
}
"""Kernels of each classification loss with smooth L1, for a batch of any size. Quality losses need the IoUs of the
predicted boxes."""
BOX_KERNELS = {"smooth_l1": 0, "l1": 1, "giou": 24}
"""Kernels of each box loss, minus those of smooth L1."""


def make_batch(N=2, A=70, K=3, *, positives=0.2, ignored=0.1, dtype=torch.float32, seed=0):
    """Return random outputs and targets of N images with A anchors and K classes."""
    rng = torch.Generator().manual_seed(seed)
    corner_A2, draw_NA = torch.rand(A, 2, generator=rng) * 50, torch.rand(N, A, generator=rng)
    anchors_A4 = torch.cat([corner_A2, corner_A2 + 5 + 20 * torch.rand(A, 2, generator=rng)], dim=1)
    positive_NA = draw_NA < positives
    outputs = HeadOutputs(
        logits_NAK=(3 * torch.randn(N, A, K, generator=rng)).to(dtype).requires_grad_(),
        deltas_NA4=(0.3 * torch.randn(N, A, 4, generator=rng)).to(dtype).requires_grad_(),
        anchors_A4=anchors_A4,
        anchors_per_level=(A,),
    )
    targets = AnchorTargets(
        positive_NA=positive_NA,
        ignored_NA=~positive_NA & (draw_NA > 1 - ignored),
        labels_NA=torch.randint(0, K, (N, A), generator=rng) * positive_NA,
        boxes_NA4=(anchors_A4 + torch.rand(N, A, 4, generator=rng)) * positive_NA[..., None],
        matched_NA=torch.zeros(N, A, dtype=torch.int64),
    )
    return outputs, targets


def run(config, outputs, targets):
    """Return the losses, the gradients of logits and offsets, and the counts of the forward and the backward pass."""
    with double() as forward:
        losses = DetectionLoss(config=config)(outputs, targets)
    inputs = (outputs.logits_NAK, outputs.deltas_NA4)
    with double() as backward:
        gradients = torch.autograd.grad(losses.total, inputs)
    return (*dataclasses.astuple(to_cpu(losses)), *to_cpu(gradients)), forward, backward


def check_equal_to_cpu(config, outputs, targets):
    """Check that the device double gives the values and gradients of the CPU, and return the counts of both passes."""
    expected, *_ = run(config, outputs, targets)
    found, forward, backward = run(config, *to_double((outputs, targets)))
    dtype = outputs.logits_NAK.dtype
    rtol = 1e-5 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps
    for value, cpu_value in zip(found, expected, strict=True):
        torch.testing.assert_close(value, cpu_value, rtol=rtol, atol=1e-7, equal_nan=True)
    return forward, backward


@pytest.mark.parametrize("box_loss", BOX_LOSSES)
@pytest.mark.parametrize("loss", LOSSES)
def test_values_and_gradients_are_those_of_the_cpu_and_counts_are_fixed(loss, box_loss):
    """OHEM waits once, for the anchors with the highest losses."""
    config = LossConfig(loss=loss, box_loss=box_loss, ohem_examples=20)
    for N, A in ((2, 70), (8, 300)):
        forward, backward = check_equal_to_cpu(config, *make_batch(N, A))
        assert forward.kernels == KERNELS[loss] + BOX_KERNELS[box_loss], forward
        assert (forward.syncs, backward.syncs) == (loss == "ohem", 0), (forward, backward)


@pytest.mark.parametrize("normaliser", ["batch", "image"])
@pytest.mark.parametrize(
    "options",
    [
        {"loss": "focal", "class_alpha": (0.2, 0.5, 0.9), "label_smoothing": 0.1},
        {"loss": "focal", "gamma": 0.5, "alpha": 0.25},
        {"loss": "weighted", "negative_weight": 0.1, "label_smoothing": 0.2, "box_loss_weight": 3.0},
        {"loss": "hard_negative_mining", "negatives_per_positive": 1.0},
        {"loss": "ohem", "ohem_balanced": True, "ohem_examples": 6, "ohem_nms": 0.3},
        {"loss": "tests.outside_parts:LinearLoss", "box_loss": "tests.outside_parts:DeltaNorm"},
        {"loss": "tests.outside_parts:DoubledFocal", "box_loss": "giou"},
    ],
)
def test_options_and_losses_of_users_have_the_values_of_the_cpu(options, normaliser):
    config = LossConfig(normaliser=normaliser, **options)
    forward, backward = check_equal_to_cpu(config, *make_batch(3, seed=1))
    assert (forward.syncs, backward.syncs) == (options["loss"] == "ohem", 0)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("positives", "ignored"), [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0)], ids=["no positive", "all ignored", "all positive"]
)
def test_batches_of_one_kind_of_anchor_have_the_values_of_the_cpu(loss, positives, ignored):
    outputs, targets = make_batch(positives=positives, ignored=ignored)
    assert targets.ignored_NA.all() == (ignored == 1)
    for box_loss in BOX_LOSSES:
        forward, backward = check_equal_to_cpu(LossConfig(loss=loss, box_loss=box_loss), outputs, targets)
        assert (forward.syncs, backward.syncs) == (loss == "ohem", 0)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_and_half_precision_logits_have_the_values_of_the_cpu(loss, dtype):
    """Logits of +-1e4 give finite losses and gradients."""
    outputs, targets = make_batch(K=1, dtype=dtype)
    with torch.no_grad():
        outputs.logits_NAK[:, ::3], outputs.logits_NAK[:, 1::3] = 1e4, -1e4
    check_equal_to_cpu(LossConfig(loss=loss), outputs, targets)
    (*_, gradient_NAK, _), _, _ = run(LossConfig(loss=loss), *to_double((outputs, targets)))
    assert gradient_NAK.isfinite().all()


@pytest.mark.parametrize("box_loss", [*BOX_LOSSES, "tests.outside_parts:DeltaNorm"])
def test_offsets_boxes_and_labels_of_negative_anchors_have_no_effect(box_loss):
    """The CPU selects the positive anchors. A mask must hide everything else: NaN, infinities and unused labels."""
    outputs, targets = make_batch()
    other_NA = ~targets.positive_NA
    with torch.no_grad():
        outputs.deltas_NA4[other_NA] = torch.tensor([math.nan, math.inf, -math.inf, 1e30])
    targets.boxes_NA4[other_NA] = math.nan
    targets.labels_NA[other_NA] = -1
    for loss in ("focal", "quality_focal"):
        check_equal_to_cpu(LossConfig(loss=loss, box_loss=box_loss), outputs, targets)
    (_, _, box, _, _, gradient_NA4), _, _ = run(LossConfig(box_loss=box_loss), *to_double((outputs, targets)))
    assert box.isfinite()
    assert (gradient_NA4[other_NA] == 0).all()


def test_parts_of_a_batch_have_the_values_of_the_cpu_without_waiting():
    parts = [make_batch(2, 70), make_batch(1, 30, seed=2)]
    loss = DetectionLoss(config=LossConfig())
    expected = dataclasses.astuple(to_cpu(loss.over_parts(parts)))
    with double() as counts:
        found = dataclasses.astuple(to_cpu(loss.over_parts(to_double(parts))))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    assert counts.syncs == 0


@pytest.mark.parametrize("loss", LOSSES)
def test_targets_on_another_device_are_an_error(loss):
    outputs, targets = make_batch()
    for arguments in ((to_double(outputs), targets), (outputs, to_double(targets))):
        with double(), pytest.raises((RuntimeError, TypeError), match="expected .* on (meta|cpu), found"):
            DetectionLoss(config=LossConfig(loss=loss))(*arguments)


@pytest.fixture
def kernel_in_torch(monkeypatch):
    """Let `DetectionLoss` use the fused focal loss on doubles, with the torch form on the CPU in place of Triton."""

    def form(logits_NAK, positive_NA, ignored_NA, labels_NA, terms, scale_N, with_gradient):
        arguments = to_cpu((logits_NAK, positive_NA, ignored_NA, labels_NA, terms, scale_N))
        sums_N, gradient_NAK = focal_loss_torch(*arguments, with_gradient)
        return to_double(sums_N), to_double(gradient_NAK)

    monkeypatch.setattr(detection, "supports_focal_loss", lambda _: True)
    monkeypatch.setattr(focal, "implementation", lambda device: focal_loss_torch if device.type == "cpu" else form)


@pytest.mark.parametrize(
    "options", [{"loss": "focal"}, {"loss": "focal", "class_alpha": (0.2, 0.5, 0.9)}, {"loss": "ce"}]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_fused_kernel_needs_few_other_kernels_and_no_wait(kernel_in_torch, options, dtype):
    """The Triton form launches its kernel and a sum of the partial sums, which the stand-in of this test leaves out."""
    config = LossConfig(**options)
    for N in (2, 8):
        outputs, targets = make_batch(N, dtype=dtype)
        forward, backward = check_equal_to_cpu(config, outputs, targets)
        with double() as box:
            DetectionLoss(config=config)._box_N(*to_double((outputs, targets)))
        assert forward.kernels - box.kernels + 2 == 14, forward
        assert (forward.syncs, backward.syncs) == (0, 0)
        assert backward.kernels <= 25 + (dtype != torch.float32), backward
