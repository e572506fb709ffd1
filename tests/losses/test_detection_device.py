"""`DetectionLoss` on a GPU: values and gradients of the CPU, a fixed number of kernels, and no wait for the device.

The tests run the code for GPUs on the device double. The sums of the CPU have another order, so values and gradients in
float32 may differ by 1e-5 of their size.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from retinanet.config import BOX_LOSSES, LOSSES, LossConfig
from retinanet.losses import DetectionLoss, detection, ohem
from retinanet.ops import focal_loss as focal
from retinanet.ops.focal_loss_torch import focal_loss_torch
from retinanet.types import AnchorTargets, HeadOutputs
from tests.device_double import double, peak_bytes, to_cpu, to_double

KERNELS = {
    "focal": 60,
    "ce": 42,
    "balanced_ce": 50,
    "weighted": 50,
    "hard_negative_mining": 60,
    "ohem": 58,
    "quality_focal": 95,
    "varifocal": 87,
    "eql_v2": 100,
    "ghm_c": 103,
}
"""Kernels of each classification loss with smooth L1, for a batch of any size. Quality losses need the IoUs of the
predicted boxes; `eql_v2` and `ghm_c` compute their weights, here in the first step."""
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


@pytest.mark.parametrize("options", [{"loss": "eql_v2"}, {"loss": "ghm_c"}, {"loss": "ghm_c", "ghm_bins": 3}])
def test_losses_with_a_state_have_the_values_of_the_cpu_in_each_step_without_waiting(options):
    """The state of a checkpoint lies on the CPU. Its copy to the device is not waited for."""
    batches = [make_batch(2, 70, seed=seed) for seed in range(3)]
    on_cpu, on_device, resumed = (DetectionLoss(config=LossConfig(**options)) for _ in range(3))
    for step, batch in enumerate(batches):
        expected = dataclasses.astuple(to_cpu(on_cpu(*batch)))
        if step == 2:
            resumed.load_state_dict(to_cpu(on_device.state_dict()))
        with double() as counts:
            found = [loss(*to_double(batch)) for loss in ([on_device, resumed] if step == 2 else [on_device])]
        for losses in found:
            torch.testing.assert_close(dataclasses.astuple(to_cpu(losses)), expected, rtol=1e-5, atol=0)
        assert counts.syncs == 0
    for loss in (on_device, resumed):
        torch.testing.assert_close(to_cpu(loss.state_dict()), on_cpu.state_dict())


@pytest.mark.parametrize("loss", LOSSES)
def test_targets_on_another_device_are_an_error(loss):
    outputs, targets = make_batch()
    for arguments in ((to_double(outputs), targets), (outputs, to_double(targets))):
        with double(), pytest.raises((RuntimeError, TypeError), match="expected .* on (meta|cpu), found"):
            DetectionLoss(config=LossConfig(loss=loss))(*arguments)


@pytest.fixture
def fused(monkeypatch):
    """Let `DetectionLoss` use the fused kernels on doubles, with torch on the CPU in place of Triton.

    Each stand-in launches nothing but the sum of the partial sums. So a kernel is missing from the counts of each.
    """

    def focal_form(logits_NAK, positive_NA, ignored_NA, labels_NA, terms, scale_N, with_gradient):
        arguments = to_cpu((logits_NAK, positive_NA, ignored_NA, labels_NA, terms, scale_N))
        sums_N, gradient_NAK = focal_loss_torch(*arguments, with_gradient)
        return to_double(sums_N[:, None]).sum(dim=1), to_double(gradient_NAK)

    def box_form(deltas_NA4, boxes_NA4, anchors_A4, positive_NA, scale_N, *, giou, beta, with_gradient):
        name = "giou" if giou else "smooth_l1" if beta else "l1"
        outputs, targets = make_batch(*positive_NA.shape)
        inputs = to_cpu(deltas_NA4).detach().requires_grad_()
        outputs = dataclasses.replace(outputs, deltas_NA4=inputs, anchors_A4=to_cpu(anchors_A4))
        targets = dataclasses.replace(targets, boxes_NA4=to_cpu(boxes_NA4), positive_NA=to_cpu(positive_NA))
        with torch.enable_grad():
            config = LossConfig(box_loss=name, smooth_l1_beta=beta or 1.0)
            loss_N = DetectionLoss(config=config)._box_N(outputs, targets, to_cpu(scale_N))
            (gradient_NA4,) = torch.autograd.grad(loss_N.sum(), inputs)
        assert with_gradient
        return to_double(loss_N.detach()[:, None]).sum(dim=1), to_double(gradient_NA4)

    monkeypatch.setattr(detection, "supports_focal_loss", lambda _: True)
    monkeypatch.setattr(detection, "supports_box_loss", lambda *_: True)
    monkeypatch.setattr(
        focal, "implementation", lambda device: focal_loss_torch if device.type == "cpu" else focal_form
    )
    monkeypatch.setitem(sys.modules, "retinanet.ops.box_loss_triton", SimpleNamespace(box_loss_triton=box_form))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"class_alpha": (0.2, 0.5, 0.9)},
        {"loss": "ce", "box_loss": "l1"},
        {"box_loss": "giou", "normaliser": "image"},
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_fused_kernels_need_few_other_kernels_and_no_wait(fused, options, dtype):
    config = LossConfig(**options)
    for N in (2, 8):
        forward, backward = check_equal_to_cpu(config, *make_batch(N, dtype=dtype))
        assert forward.kernels + 2 == 17, forward
        assert (forward.syncs, backward.syncs) == (0, 0), (forward, backward)
        assert backward.kernels == 3, backward


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_fused_gradients_on_a_gpu_can_be_computed_again(fused, factor):
    """The stored gradient is multiplied in place in the last backward pass only."""
    outputs, targets = make_batch()
    inputs = (outputs.logits_NAK, outputs.deltas_NA4)
    expected = torch.autograd.grad(factor * DetectionLoss(config=LossConfig())(outputs, targets).total, inputs)
    outputs, targets = to_double((outputs, targets))
    inputs = (outputs.logits_NAK, outputs.deltas_NA4)
    with double() as counts:
        total = factor * DetectionLoss(config=LossConfig())(outputs, targets).total
        for keep in (True, True, False):
            torch.testing.assert_close(to_cpu(torch.autograd.grad(total, inputs, retain_graph=keep)), expected)
        assert counts.syncs == 0


@pytest.mark.parametrize("ratio", [None, 1.0])
def test_ohem_waits_again_only_if_too_few_anchors_are_left(ratio):
    """The first 4 x 4 = 16 anchors are enough if none overlap, also if the only positive anchor is one of them.

    If all anchors are one box, one is kept. Then 64, 256 and all 300 anchors are necessary.
    """
    loss_NA, mask_NA = torch.rand(2, 300, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 300).bool()
    positive_NA = mask_NA.scatter(1, loss_NA.argmax(dim=1, keepdim=True), True)
    place_A1 = 20.0 * torch.arange(300)[:, None]
    for step, numbers in ((1.0, [4, 4] if ratio is None else [2, 2]), (0.0, [1, 1])):
        anchors_A4 = torch.tensor([0.0, 0, 10, 10]) + step * place_A1
        expected = ohem(loss_NA, positive_NA, mask_NA, anchors_A4, examples=4, ratio=ratio)
        assert expected.sum(dim=1).tolist() == numbers
        with double() as counts:
            tensors = to_double((loss_NA, positive_NA, mask_NA, anchors_A4))
            kept = ohem(*tensors, examples=4, ratio=ratio)
        assert torch.equal(to_cpu(kept), expected)
        assert (counts.syncs == 1) == (step == 1), counts


def test_memory_of_the_box_loss_without_the_kernel_is_bounded():
    """Memory of values and gradients for 16 images of 201,600 anchors, as in the docstring of `_box_N`."""
    N, A = 16, 201_600
    meta = partial(torch.empty, device="meta")
    mask_NA = meta(N, A, dtype=torch.bool)
    for name, most in (("smooth_l1", 0.28), ("giou", 0.44)):
        outputs = HeadOutputs(
            logits_NAK=meta(N, A, 1),
            deltas_NA4=meta(N, A, 4, requires_grad=True),
            anchors_A4=meta(A, 4),
            anchors_per_level=(A,),
        )
        targets = AnchorTargets(
            positive_NA=mask_NA,
            ignored_NA=mask_NA,
            labels_NA=mask_NA.long(),
            boxes_NA4=meta(N, A, 4),
            matched_NA=mask_NA.long(),
        )
        loss_N = partial(DetectionLoss(config=LossConfig(box_loss=name))._box_N, outputs, targets, meta(N))
        assert peak_bytes(lambda loss_N=loss_N: loss_N().sum().backward()) <= most * 2**30
