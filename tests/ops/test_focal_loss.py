"""Value and gradient of the fused focal loss in its three forms against the formula in float64.

The Triton form is tested on a GPU. Without a GPU, `test_focal_loss_triton.py` runs this file again through Triton's
interpreter. Shape suffixes: N images, A anchors, K classes.
"""

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from retinanet.config import LossConfig
from retinanet.losses import DetectionLoss
from retinanet.ops import focal_loss as focal
from retinanet.ops import native_library
from retinanet.ops.focal_loss import focal_loss, supports_focal_loss
from retinanet.ops.focal_loss_native import focal_loss_native
from retinanet.ops.focal_loss_torch import focal_loss_torch
from retinanet.ops.focal_terms import FocalTerms
from retinanet.types import AnchorTargets, HeadOutputs
from tests.device_double import double, to_cpu, to_double

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
GAMMAS = [0.0, 0.5, 1.0, 2.0, 3.7, 5.0]
SMALLEST = 1e-36  # smaller float32 numbers lose digits


@pytest.fixture(params=["C", "torch", "triton"])
def device(request, monkeypatch):
    """Return the device of the tested form. During the test, `focal_loss` uses this form."""
    if request.param == "triton":
        pytest.importorskip("triton", reason="Triton is not installed")
        if torch.cuda.is_available() and not INTERPRETED:
            assert focal.triton_works(torch.device("cuda:0"))
            return torch.device("cuda:0")
        if not INTERPRETED:
            pytest.skip("no GPU: test_focal_loss_triton.py runs this test through Triton's interpreter")
        monkeypatch.setattr(focal, "implementation", lambda _: focal.focal_loss_triton)
    elif INTERPRETED:
        pytest.skip("with TRITON_INTERPRET=1, only the Triton form is tested")
    elif request.param == "C":
        request.getfixturevalue("native")
        assert focal.implementation(torch.device("cpu")) is focal_loss_native
    else:
        monkeypatch.setattr(native_library, "available", lambda: False)
        assert focal.implementation(torch.device("cpu")) is focal_loss_torch
    return torch.device("cpu")


def exact(x, own, ignored, terms):
    """Return the loss of each example and its derivative by the logit, from the formula in float64.

    Args:
        x: logits, (N, A, K).
        own: bool (N, A, K), positive examples, whose target is `terms.target`; all other targets are 0.
        ignored: bool (N, A), anchors whose loss and derivative are 0, whatever the logits.
        terms: parameters of the loss.
    """
    x = x.double().cpu()
    t = own.double() * terms.target
    weight = torch.where(own, terms.positive_weight_K.double().cpu(), terms.negative_weight_K.double().cpu())
    p, q = torch.sigmoid(x), torch.sigmoid(-x)
    up, down = torch.nn.functional.softplus(x, threshold=1e9), torch.nn.functional.softplus(-x, threshold=1e9)
    # The threshold makes softplus exact: softplus(-800) is 0 in float64, and larger results keep their digits.
    base = t * q + (1 - t) * p
    entropy = torch.where(t > 0, t * down, 0) + torch.where(t < 1, (1 - t) * up, 0)
    power = base**terms.gamma
    # base' / base is -p for t = 1 and q for t = 0, also where base is 0.
    ratio = torch.where(t == 1, -p, torch.where(t == 0, q, (1 - 2 * t) * p * q / base))
    bend = torch.where(entropy.isinf(), 0, terms.gamma * ratio * entropy) if terms.gamma > 0 else 0.0
    slope = bend + (1 - t) * p - t * q
    keep = ~ignored.unsqueeze(-1)
    return torch.where(keep, weight * power * entropy, 0.0), torch.where(keep, weight * power * slope, 0.0)


def class_terms(K, gamma, *, target=1.0, device="cpu"):
    """Return terms in which each class has a different weight."""
    positive = torch.linspace(0.1, 0.9, K)
    return FocalTerms(
        positive_weight_K=positive.to(device), negative_weight_K=(1 - positive).to(device), gamma=gamma, target=target
    )


def random_case(x, *, positives=0.1, ignored=0.1, seed=0):
    """Return random targets for logits: positive_NA, ignored_NA, labels_NA, and a mask (NAK) of positive examples."""
    rng = torch.Generator().manual_seed(seed)
    N, A, K = x.shape
    draw = torch.rand(N, A, generator=rng)
    positive, is_ignored = draw < positives, draw > 1 - ignored
    labels = torch.randint(0, K, (N, A), generator=rng)
    own = torch.zeros(N, A, K, dtype=torch.bool)
    own[positive] = torch.nn.functional.one_hot(labels[positive], K).bool()
    labels[~positive] = -7  # invalid: only labels of positive anchors may be read
    return positive, is_ignored, labels, own


def fused(x, case, terms, device, *, scale_N=None, incoming_N=None):
    """Return the loss of each image, and the gradient of the sum of the losses, weighted with `incoming_N`."""
    positive, ignored, labels = (part.to(device) for part in case[:3])
    x = x.to(device).detach().requires_grad_()
    loss_N = focal_loss(x, positive, ignored, labels, terms=terms, scale_N=scale_N)
    assert loss_N.dtype == torch.float32
    (gradient,) = torch.autograd.grad(loss_N, x, torch.ones_like(loss_N) if incoming_N is None else incoming_N)
    assert (gradient.dtype, gradient.shape) == (x.dtype, x.shape)
    return loss_N.detach().cpu(), gradient.cpu()


def one_image_per_value(values):
    """Return logits in which each value is an image with one anchor and one class: no sum hides a single example."""
    return values.reshape(-1, 1, 1)


@pytest.mark.slow
def test_the_reference_derivative_agrees_with_autograd():
    """All forms are compared with `exact`, whose derivative is written by hand."""
    x = torch.randn(3, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 4
    for gamma in GAMMAS:
        for target in (1.0, 0.9):
            case = random_case(x, positives=0.4)
            terms = class_terms(5, gamma, target=target)

            def loss(x, case=case, terms=terms):
                return exact(x, case[3], case[1], terms)[0].sum()

            x.requires_grad_()
            assert torch.autograd.gradcheck(loss, x)
            (slope,) = torch.autograd.grad(loss(x), x)
            torch.testing.assert_close(slope, exact(x, case[3], case[1], terms)[1].detach(), rtol=1e-9, atol=1e-12)


def test_losses_and_a_gradient_equal_hand_worked_values(device):
    """At p = 0.9: positive 0.75 x 0.01 x 0.1053605 = 0.000790204, background 0.25 x 0.81 x 2.3025851 = 0.466273.

    Gradient of the background at p = 0.5: 0.25 x 0.25 x (2 x 0.5 x ln 2 + 0.5) = 0.0745717.
    """
    weights = {"positive_weight_K": torch.tensor([0.75]), "negative_weight_K": torch.tensor([0.25])}
    terms = FocalTerms(**{k: w.to(device) for k, w in weights.items()}, gamma=2.0, target=1.0)
    x = torch.logit(torch.tensor([0.9, 0.9, 0.5])).reshape(3, 1, 1)
    positive = torch.tensor([[True], [False], [False]])
    case = (positive, torch.zeros_like(positive), torch.zeros(3, 1, dtype=torch.int64))
    loss_N, gradient = fused(x, case, terms, device)
    torch.testing.assert_close(loss_N, torch.tensor([0.000790204, 0.466273, 0.0433217]), rtol=1e-5, atol=0)
    assert gradient[2].item() == pytest.approx(0.0745717, rel=1e-5)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("target", [1.0, 0.9])
@pytest.mark.parametrize("spread", [1.0, 8.0])
def test_random_logits_agree_with_the_formula(device, gamma, target, spread):
    """Some sizes exceed a block and a chunk. Positive and ignored anchors are next to each other."""
    for N, A, K in ((1, 1, 1), (2, 3, 1), (1, 129, 7), (2, 173, 80)):
        x = torch.randn(N, A, K, generator=torch.Generator().manual_seed(A)) * spread - 2
        case = random_case(x, positives=0.2, ignored=0.2)
        terms = class_terms(K, gamma, target=target, device=device)
        loss_N, gradient = fused(x, case, terms, device)
        expected, slope = exact(x, case[3], case[1], terms)
        torch.testing.assert_close(loss_N.double(), expected.sum(dim=(1, 2)), rtol=2e-6, atol=SMALLEST)
        # With smoothing, the gradient of a positive crosses 0: there it is a difference of two close float32 numbers.
        torch.testing.assert_close(gradient.double(), slope, rtol=1e-5 if target == 1 else 5e-5, atol=SMALLEST)


@pytest.mark.slow
@pytest.mark.parametrize("gamma", [pytest.param(g, marks=() if g == 2.0 else pytest.mark.slow) for g in GAMMAS])
@pytest.mark.parametrize("own", [False, True])
def test_logits_from_minus_100_to_100_have_a_small_relative_error(device, gamma, own):
    """The relative error of each example is below 1e-5, also where the loss is tiny."""
    x = one_image_per_value(torch.linspace(-100, 100, 301 if device.type == "cpu" and INTERPRETED else 4001))
    ones = torch.full((len(x), 1), own)
    case = (ones, torch.zeros_like(ones), torch.zeros(len(x), 1, dtype=torch.int64))
    terms = class_terms(1, gamma, device=device)
    loss_N, gradient = fused(x, case, terms, device)
    expected, slope = exact(x, ones.unsqueeze(-1), case[1], terms)
    torch.testing.assert_close(loss_N.double(), expected.flatten(), rtol=1e-5, atol=SMALLEST)
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-5, atol=SMALLEST)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_extreme_logits_give_finite_losses_and_exact_gradients(device, gamma, dtype):
    """At +-1e4, a wrong answer has a loss of 1e4 x weight and a gradient of +-weight. A right answer has 0 and 0."""
    x = one_image_per_value(torch.tensor([1e4, -1e4, 1e4, -1e4])).to(dtype)
    positive = torch.tensor([True, True, False, False]).reshape(4, 1)
    case = (positive, torch.zeros_like(positive), torch.zeros(4, 1, dtype=torch.int64))
    weights = {"positive_weight_K": torch.tensor([0.75]), "negative_weight_K": torch.tensor([0.25])}
    terms = FocalTerms(**{k: w.to(device) for k, w in weights.items()}, gamma=gamma, target=1.0)
    loss_N, gradient = fused(x, case, terms, device)
    size = x[0].float().item()
    torch.testing.assert_close(loss_N, torch.tensor([0, 0.75 * size, 0.25 * size, 0]))
    torch.testing.assert_close(gradient.flatten().float(), torch.tensor([0, -0.75, 0.25, 0]))


@pytest.mark.parametrize("gamma", GAMMAS)
def test_infinite_background_logits(device, gamma):
    """At +inf, the loss is infinite and the gradient is the weight. At -inf, both are 0."""
    x = one_image_per_value(torch.tensor([float("inf"), float("-inf")]))
    no = torch.zeros(2, 1, dtype=torch.bool)
    terms = class_terms(1, gamma, device=device)
    loss_N, gradient = fused(x, (no, no, torch.zeros(2, 1, dtype=torch.int64)), terms, device)
    assert loss_N.tolist() == [float("inf"), 0.0]
    torch.testing.assert_close(gradient.flatten(), torch.tensor([terms.negative_weight_K.item(), 0.0]))


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_nan_logit_changes_only_its_image_and_its_gradient(device, gamma, dtype):
    """A NaN is in a background example, in a positive example, and in an ignored anchor, where it has no effect."""
    x = torch.randn(4, 40, 9, generator=torch.Generator().manual_seed(3)).to(dtype)
    positive = torch.zeros(4, 40, dtype=torch.bool)
    ignored, labels = positive.clone(), torch.zeros(4, 40, dtype=torch.int64)
    x[0, 17, 4] = float("nan")
    positive[1, 5], labels[1, 5], x[1, 5, 8] = True, 8, float("nan")
    ignored[2, 6], x[2, 6] = True, float("nan")
    loss_N, gradient = fused(x, (positive, ignored, labels), class_terms(9, gamma, device=device), device)
    assert loss_N.isnan().tolist() == [True, True, False, False]
    assert gradient.isnan().nonzero().tolist() == [[0, 17, 4], [1, 5, 8]]


@pytest.mark.parametrize("worst", [1e4, float("inf"), float("-inf"), float("nan")])
def test_ignored_anchors_have_exactly_zero_loss_and_gradient(device, worst):
    x = torch.full((2, 30, 6), worst)
    x[:, ::2] = 0.3
    positive = torch.zeros(2, 30, dtype=torch.bool)
    positive[0, 2] = True
    ignored = torch.arange(30).expand(2, 30) % 2 == 1
    terms = class_terms(6, 2.0, device=device)
    loss_N, gradient = fused(x, (positive, ignored, torch.full((2, 30), 5)), terms, device)
    assert (gradient[ignored] == 0).all()
    assert (gradient[~ignored] != 0).all()
    few = (positive[:, ::2], ignored[:, ::2], torch.full((2, 15), 5))
    torch.testing.assert_close(loss_N, fused(x[:, ::2], few, terms, device)[0])
    all_ignored = torch.ones(2, 30, dtype=torch.bool)
    loss_N, gradient = fused(x, (~all_ignored, all_ignored, torch.zeros(2, 30, dtype=torch.int64)), terms, device)
    assert loss_N.tolist() == [0, 0]
    assert (gradient == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gamma", GAMMAS)
def test_half_precision_logits_are_computed_in_float32(device, gamma, dtype):
    """The loss of the rounded logits has the accuracy of float32. The gradient is rounded once, when it is stored."""
    x = (torch.randn(2, 61, 13, generator=torch.Generator().manual_seed(4)) * 5).to(dtype)
    case = random_case(x, positives=0.2)
    terms = class_terms(13, gamma, device=device)
    loss_N, gradient = fused(x, case, terms, device)
    expected, slope = exact(x, case[3], case[1], terms)
    torch.testing.assert_close(loss_N.double(), expected.sum(dim=(1, 2)), rtol=2e-6, atol=SMALLEST)
    torch.testing.assert_close(
        gradient.double(),
        slope,
        rtol=torch.finfo(dtype).eps,
        atol=SMALLEST if dtype == torch.bfloat16 else 6e-8,  # about the smallest float16 number
    )


def test_a_float16_gradient_is_rounded_after_loss_scaling(device):
    """float16 rounds a gradient of 1e-9 to 0, but not 1e-9 times a loss scale of 1e6."""
    x = torch.full((1, 1, 1), -10.0, dtype=torch.float16)
    no = torch.zeros(1, 1, dtype=torch.bool)
    case = (no, no, torch.zeros(1, 1, dtype=torch.int64))
    terms = class_terms(1, 2.0, device=device)
    factor = torch.tensor([1e6], device=device)
    _, gradient = fused(x, case, terms, device, incoming_N=factor)
    slope = exact(x, no.unsqueeze(-1), no, terms)[1] * 1e6
    assert 0 < slope.item() * 1e-6 < 2e-8 * 6
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-3, atol=1e-7)


def test_strided_tensors_give_equal_results(device):
    """Strided, transposed and expanded views give the bits of their contiguous copies."""
    whole = torch.randn(2, 90, 40, generator=torch.Generator().manual_seed(5))
    views = (whole[:, ::3, 1::2], whole[:, :, 3:17], whole.transpose(1, 2), whole[:1].expand(3, 90, 40))
    for view in views:
        positive, ignored, labels, _ = random_case(view)
        spread = [torch.stack([part, part], -1)[..., 0] for part in (positive, ignored, labels)]
        assert not spread[0].is_contiguous()
        terms = class_terms(view.shape[2], 2.0, device=device)
        loss_N, gradient = fused(view, spread, terms, device)
        expected_N, slope = fused(view.contiguous(), (positive, ignored, labels), terms, device)
        assert torch.equal(loss_N, expected_N)
        assert torch.equal(gradient, slope)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scale_and_incoming_gradient_multiply_the_gradient(device, dtype):
    """The scale also multiplies the loss. Incoming gradients are positive, negative and 0."""
    x = torch.randn(3, 50, 11, generator=torch.Generator().manual_seed(6)).to(dtype)
    case = random_case(x)
    terms = class_terms(11, 2.0, device=device)
    expected, slope = exact(x, case[3], case[1], terms)
    scale_N, incoming_N = torch.tensor([0.02, 3.0, 0.5]), torch.tensor([2.0, -0.5, 0.0])
    loss_N, gradient = fused(x, case, terms, device, scale_N=scale_N.to(device), incoming_N=incoming_N.to(device))
    torch.testing.assert_close(loss_N.double(), expected.sum(dim=(1, 2)) * scale_N, rtol=2e-6, atol=0)
    factor = (scale_N * incoming_N).reshape(-1, 1, 1)
    rtol = 1e-5 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(gradient.double(), slope * factor, rtol=rtol, atol=SMALLEST)


def test_a_graph_can_be_differentiated_several_times(device):
    """A returned gradient may be overwritten, and the loss may be part of two other losses."""
    x = torch.randn(2, 31, 5, generator=torch.Generator().manual_seed(7)).to(device).requires_grad_()
    positive, ignored, labels, _ = (part.to(device) for part in random_case(x))
    terms = class_terms(5, 2.0, device=device)
    loss = focal_loss(x, positive, ignored, labels, terms=terms).sum()
    (first,) = torch.autograd.grad(loss, x, retain_graph=True)
    expected = first.clone()
    first.zero_()
    (second,) = torch.autograd.grad(loss, x, retain_graph=True)
    assert torch.equal(second, expected)
    assert expected.abs().sum() > 0
    (third,) = torch.autograd.grad(3 * loss, x, retain_graph=True)
    torch.testing.assert_close(third, 3 * expected)
    (loss + 2 * loss).backward()
    torch.testing.assert_close(x.grad, 3 * expected)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_second_derivative_raises_an_error(device, factor):
    """Without the error, a gradient penalty would silently be constant."""
    x = torch.zeros(1, 2, 3, device=device, requires_grad=True)
    no = torch.zeros(1, 2, dtype=torch.bool, device=device)
    loss = factor * focal_loss(x, no, no, no.long(), terms=class_terms(3, 2.0, device=device)).sum()
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(RuntimeError, match="focal_loss can be differentiated once"):
        (loss + gradient.square().sum()).backward()


@pytest.mark.parametrize("gamma", GAMMAS)
def test_gradients_agree_with_finite_differences(device, gamma):
    """The tolerance allows for the rounding errors of differences in float32."""
    x = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(8)) * 2
    positive, ignored, labels, _ = (part.to(device) for part in random_case(x, positives=0.3))
    terms = class_terms(4, gamma, device=device)

    def loss_N(x):
        return focal_loss(x.float(), positive, ignored, labels, terms=terms).double()

    x = x.to(device).requires_grad_()
    assert torch.autograd.gradcheck(loss_N, x, eps=1e-2, atol=2e-3, rtol=1e-3, nondet_tol=1e-6)


def test_logits_without_a_gradient_give_an_equal_loss(device):
    """Without a gradient, no graph is kept."""
    x = torch.randn(2, 31, 5, generator=torch.Generator().manual_seed(9)).to(device)
    positive, ignored, labels, _ = (part.to(device) for part in random_case(x))
    terms = class_terms(5, 2.0, device=device)
    loss_N = focal_loss(x, positive, ignored, labels, terms=terms)
    assert not loss_N.requires_grad
    with_gradient_N = focal_loss(x.requires_grad_(), positive, ignored, labels, terms=terms)
    assert torch.equal(loss_N, with_gradient_N.detach())
    with torch.no_grad():
        assert torch.equal(loss_N, focal_loss(x, positive, ignored, labels, terms=terms))


@pytest.mark.parametrize("shape", [(0, 5, 3), (2, 0, 3), (2, 5, 0)])
def test_empty_batches_have_zero_loss(device, shape):
    x = torch.zeros(shape, device=device, requires_grad=True)
    no = torch.zeros(shape[:2], dtype=torch.bool, device=device)
    loss_N = focal_loss(x, no, no, no.long(), terms=class_terms(shape[2], 2.0, device=device))
    assert loss_N.tolist() == [0.0] * shape[0]
    loss_N.sum().backward()
    assert x.grad.shape == shape


def test_wrong_types_and_shapes_raise_errors(device):
    x = torch.zeros(2, 4, 3, device=device)
    no = torch.zeros(2, 4, dtype=torch.bool, device=device)
    labels, terms = no.long(), class_terms(3, 2.0, device=device)
    with pytest.raises(TypeError, match=r"labels_NA: expected torch\.int64"):
        focal_loss(x, no, no, labels.int(), terms=terms)
    with pytest.raises(TypeError, match=r"positive_NA: expected torch\.bool"):
        focal_loss(x, no.float(), no, labels, terms=terms)
    with pytest.raises(ValueError, match=r"ignored_NA: expected shape \(2, 4\), found \(2, 3\)"):
        focal_loss(x, no, no[:, :3], labels, terms=terms)
    with pytest.raises(ValueError, match=r"weight_K: expected shape \(3,\)"):
        focal_loss(x, no, no, labels, terms=class_terms(4, 2.0, device=device))
    with pytest.raises(ValueError, match="gamma >= 0"):
        focal_loss(x, no, no, labels, terms=class_terms(3, -1.0, device=device))
    with pytest.raises(ValueError, match=r"scale_N: expected shape \(2,\)"):
        focal_loss(x, no, no, labels, terms=terms, scale_N=torch.ones(3, device=device))


def test_class_ids_out_of_range_raise_an_error(device):
    """The form for GPUs does not check class ids: it treats the anchor as background."""
    x = torch.zeros(1, 4, 3, device=device)
    yes, no = (torch.full((1, 4), value, device=device) for value in (True, False))
    for label in (-1, 3, 2**40):
        labels = torch.full((1, 4), label, device=device)
        unchecked = INTERPRETED or device.type == "cuda"
        with contextlib.nullcontext() if unchecked else pytest.raises(ValueError, match="class id"):
            terms = class_terms(3, 2.0, device=device)
            loss_N = focal_loss(x, yes, no, labels, terms=terms)
            assert torch.equal(loss_N, focal_loss(x, no, no, labels, terms=terms))


def anchor_targets(x, case):
    """Return a case as the arguments of `DetectionLoss`. The boxes and offsets have no meaning."""
    positive, ignored, labels, _ = case
    return (
        HeadOutputs(
            logits_NAK=x,
            deltas_NA4=torch.zeros(*x.shape[:2], 4),
            anchors_A4=torch.tensor([0.0, 0, 10, 10]).expand(x.shape[1], 4),
            anchors_per_level=(x.shape[1],),
        ),
        AnchorTargets(
            positive_NA=positive,
            ignored_NA=ignored,
            labels_NA=labels,
            boxes_NA4=torch.tensor([0.0, 0, 10, 10]).expand(*x.shape[:2], 4),
            matched_NA=torch.where(positive, 0, -1),
        ),
    )


@pytest.mark.parametrize("normaliser", ["batch", "image"])
@pytest.mark.parametrize(
    "options",
    [
        {"loss": "focal"},
        {"loss": "focal", "gamma": 0.5, "class_alpha": (0.2, 0.5, 0.9)},
        {"loss": "focal", "label_smoothing": 0.1},
        {"loss": "balanced_ce"},
        {"loss": "ce"},
    ],
)
def test_detection_loss_with_a_fused_form_equals_its_plain_code(device, options, normaliser, monkeypatch):
    """`DetectionLoss` uses the fused form for float32 logits, and its plain code for float64 logits."""
    if device.type == "cuda":
        pytest.skip("the plain code runs on the CPU in this test")
    x = torch.randn(3, 40, 3, generator=torch.Generator().manual_seed(10)) * 4
    case = random_case(x, positives=0.2)
    case[0][1], case[3][1] = False, False  # an image without an object
    loss = DetectionLoss(config=LossConfig(normaliser=normaliser, **options))
    outputs, targets = anchor_targets(x.requires_grad_(), case)
    fused_loss = loss(outputs, targets).classification
    assert "FocalLoss" in str(fused_loss.grad_fn.next_functions)
    (gradient,) = torch.autograd.grad(fused_loss, x)
    wide = x.detach().double().requires_grad_()
    outputs, targets = anchor_targets(wide, case)
    expected = loss(outputs, targets).classification
    assert "FocalLoss" not in str(expected.grad_fn.next_functions)
    (slope,) = torch.autograd.grad(expected, wide)
    assert fused_loss.item() == pytest.approx(expected.item(), rel=3e-6)
    torch.testing.assert_close(gradient.double(), slope, rtol=2e-5, atol=1e-12)


def test_traced_and_float64_logits_are_not_supported():
    assert supports_focal_loss(torch.zeros(1, 2, 3))
    assert not supports_focal_loss(torch.zeros(1, 2, 3, dtype=torch.float64))
    assert not supports_focal_loss(torch.zeros(1, 2, 3, device="meta"))
    answers = []
    torch.func.vmap(lambda x: answers.append(supports_focal_loss(x)) or x)(torch.zeros(2, 1, 2, 3))
    assert answers == [False]


def test_results_do_not_depend_on_the_number_of_threads(native, threads):
    x = torch.randn(2, 5000, 80, generator=torch.Generator().manual_seed(11)) * 3
    case = random_case(x, positives=0.01)
    results = []
    for count in (1, 2, 3, 7):
        threads(count)
        results.append(fused(x, case, class_terms(80, 2.0), torch.device("cpu")))
    for loss_N, gradient in results[1:]:
        assert torch.equal(loss_N, results[0][0])
        assert torch.equal(gradient, results[0][1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_instruction_set_computes_the_formula(native, dtype):
    """The number of classes is around the size of a vector register, and the addresses are not aligned to it."""
    for name in native.instruction_sets():
        with native.use_instruction_set(name):
            for K in (1, 3, 15, 16, 17, 33):
                x = (torch.randn(37 * K + 1, generator=torch.Generator().manual_seed(K)) * 6).to(dtype)
                x = x[1:].reshape(1, 37, K)
                for gamma in GAMMAS:
                    case, terms = random_case(x), class_terms(K, gamma)
                    loss_N, gradient = fused(x, case, terms, torch.device("cpu"))
                    expected, slope = exact(x, case[3], case[1], terms)
                    torch.testing.assert_close(loss_N.double(), expected.sum(dim=(1, 2)), rtol=2e-6, atol=SMALLEST)
                    rtol = max(1e-5, torch.finfo(dtype).eps)
                    atol = 6e-8 if dtype == torch.float16 else SMALLEST
                    torch.testing.assert_close(gradient.double(), slope, rtol=rtol, atol=atol)


def test_concurrent_calls_from_python_threads(native):
    x = torch.randn(2, 900, 20, generator=torch.Generator().manual_seed(12))
    case, terms = random_case(x), class_terms(20, 2.0)
    expected = fused(x, case, terms, torch.device("cpu"))
    with ThreadPoolExecutor(8) as pool:
        for loss_N, gradient in pool.map(lambda _: fused(x, case, terms, torch.device("cpu")), range(32)):
            assert torch.equal(loss_N, expected[0])
            assert torch.equal(gradient, expected[1])


@pytest.mark.parametrize("with_gradient", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_torch_form_on_a_gpu_has_the_values_of_the_cpu_and_never_waits(gamma, dtype, with_gradient):
    for N in (2, 5):
        x = (torch.randn(N, 60, 7, generator=torch.Generator().manual_seed(13)) * 4).to(dtype)
        case = random_case(x, positives=0.2)
        x[:, 3:5], x[case[1]] = 1e4, torch.nan  # some logits are large, and those of ignored anchors are NaN
        arguments = (x, *case[:3], class_terms(7, gamma, target=0.9), torch.linspace(0.1, 2, N))
        expected = focal_loss_torch(*arguments, with_gradient)
        with double() as counts:
            found = focal_loss_torch(*to_double(arguments), with_gradient)
        assert counts.syncs == 0, counts
        for value, cpu_value in zip(found, expected, strict=True):
            if with_gradient or cpu_value is not None:
                assert torch.equal(to_cpu(value), cpu_value)
        kernels = counts.kernels if N == 2 else kernels  # noqa: F821
    assert counts.kernels == kernels, "the number of images does not change the number of kernels"


def test_on_a_gpu_an_invalid_class_id_counts_as_background():
    x, yes = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(14)), torch.ones(1, 4, dtype=torch.bool)
    labels = torch.tensor([[-1, 3, 2**40, -(2**40)]])
    expected = focal_loss_torch(x, ~yes, ~yes, labels, class_terms(3, 2.0), None, True)
    with double():
        found = focal_loss_torch(*to_double((x, yes, ~yes, labels, class_terms(3, 2.0))), None, True)
    assert all(torch.equal(*pair) for pair in zip(to_cpu(found), expected, strict=True))
