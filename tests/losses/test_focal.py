"""Focal loss and cross-entropy: hand-worked values, properties of the formula, torchvision, precision in float32."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import sigmoid_focal_loss as torchvision_focal

from retinanet.losses import balanced_cross_entropy, sigmoid_cross_entropy, sigmoid_focal_loss
from tests.shared import num_examples


def logit(p):
    return torch.tensor(math.log(p / (1 - p)), dtype=torch.float64)


ONE, ZERO = torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)


def exact(x, t, alpha, gamma):
    """Return focal loss by the paper's formula, for hard or soft targets, in float64."""
    p = torch.sigmoid(x)
    q = torch.sigmoid(-x)
    one_minus_p_t = t * q + (1 - t) * p
    entropy = -t * torch.nn.functional.logsigmoid(x) - (1 - t) * torch.nn.functional.logsigmoid(-x)
    return (alpha * t + (1 - alpha) * (1 - t)) * one_minus_p_t**gamma * entropy


def test_cross_entropy_and_focal_loss_give_hand_worked_values():
    """Cross-entropy at p = 0.5 is ln 2. Focal loss with alpha 0.75 and gamma 2 at p = 0.9:

    y = 1: 0.75 x 0.01 x 0.1053605 = 0.000790204. y = 0: 0.25 x 0.81 x 2.3025851 = 0.466273.
    Example of the paper (section 3.2): with gamma = 2, the focal loss is 100 times smaller than cross-entropy at
    p_t = 0.9, and about 1000 times smaller at p_t = 0.968.
    """
    assert sigmoid_cross_entropy(logit(0.5), ONE).item() == pytest.approx(0.6931472)
    assert sigmoid_cross_entropy(logit(0.5), ZERO).item() == pytest.approx(0.6931472)
    assert sigmoid_focal_loss(logit(0.9), ONE).item() == pytest.approx(0.75 * 0.01 * 0.10536052)
    assert sigmoid_focal_loss(logit(0.9), ZERO).item() == pytest.approx(0.25 * 0.81 * 2.30258509)
    unweighted = sigmoid_focal_loss(logit(0.9), ONE, alpha=-1)
    assert (sigmoid_cross_entropy(logit(0.9), ONE) / unweighted).item() == pytest.approx(100)
    ratio = sigmoid_cross_entropy(logit(0.968), ONE) / sigmoid_focal_loss(logit(0.968), ONE, alpha=-1)
    assert ratio.item() == pytest.approx(1000, rel=0.03)


def test_the_prior_keeps_the_first_loss_small():
    """201,600 background anchors x 80 classes, divided by 50 positives.

    Cross-entropy is 3,242 at the prior p = 0.01 and 223,582 at p = 0.5. Focal loss (alpha 0.25, gamma 2) is 0.243 at
    the prior and 41,922 at p = 0.5.
    """
    count = 201_600 * 80 / 50
    assert sigmoid_cross_entropy(logit(0.01), ZERO).item() * count == pytest.approx(3242, rel=1e-3)
    assert sigmoid_focal_loss(logit(0.01), ZERO, alpha=0.25).item() * count == pytest.approx(0.243, rel=2e-3)
    assert sigmoid_cross_entropy(logit(0.5), ZERO).item() * count == pytest.approx(223_582, rel=1e-4)
    assert sigmoid_focal_loss(logit(0.5), ZERO, alpha=0.25).item() * count == pytest.approx(41_922, rel=1e-4)


@given(st.floats(-30, 30), st.sampled_from([0.0, 1.0]), st.floats(0, 1))
def test_gamma_zero_is_alpha_balanced_cross_entropy(x, t, alpha):
    x, t = torch.tensor(x, dtype=torch.float64), torch.tensor(t)
    torch.testing.assert_close(
        sigmoid_focal_loss(x, t, alpha=alpha, gamma=0), balanced_cross_entropy(x, t, alpha=alpha)
    )
    torch.testing.assert_close(sigmoid_focal_loss(x, t, alpha=0.5, gamma=0), 0.5 * sigmoid_cross_entropy(x, t))


@given(st.floats(0, 5), st.floats(0, 1))
def test_focal_loss_never_rises_with_p_t(gamma, alpha):
    p = torch.linspace(0.001, 0.999, 500, dtype=torch.float64)
    x = torch.log(p / (1 - p))
    for t, sign in ((ONE, -1), (ZERO, 1)):
        change = sign * sigmoid_focal_loss(x, t, alpha=alpha, gamma=gamma).diff()
        assert (change >= 0).all()


def test_alpha_decides_the_order_of_hard_and_easy_examples():
    """With alpha 0.75 and gamma 2: hard positive > hard negative > easy positive > easy negative.

    With the paper's alpha 0.25, negatives have three times the weight of positives: hard negative > hard positive >
    easy negative > easy positive.
    """
    low, high = logit(0.1), logit(0.9)

    def losses(alpha):
        return [
            sigmoid_focal_loss(x, t, alpha=alpha).item()
            for x, t in ((low, ONE), (high, ZERO), (high, ONE), (low, ZERO))
        ]

    hard_positive, hard_negative, easy_positive, easy_negative = losses(0.75)
    assert hard_positive > hard_negative > easy_positive > easy_negative
    hard_positive, hard_negative, easy_positive, easy_negative = losses(0.25)
    assert hard_negative > hard_positive > easy_negative > easy_positive


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("alpha", [-1, 0.25, 0.75])
@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2, 5])
@pytest.mark.parametrize("soft", [False, True])
def test_value_and_gradient_equal_torchvisions(reduction, alpha, gamma, soft):
    generator = torch.Generator().manual_seed(hash((alpha, gamma, soft)) % 1000)
    x = (torch.randn(20, 7, generator=generator, dtype=torch.float64) * 3).requires_grad_()
    t = torch.rand(20, 7, generator=generator, dtype=torch.float64)
    t = t if soft else (t > 0.7).double()
    expected = torchvision_focal(x, t, alpha=alpha, gamma=gamma, reduction=reduction)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), x)
    loss = sigmoid_focal_loss(x, t, alpha, gamma, reduction)
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, expected_gradient)


@settings(max_examples=num_examples(60), deadline=None)
@given(
    st.floats(-60, 60), st.sampled_from([0.0, 1.0]), st.floats(0, 1), st.sampled_from([0.0, 0.3, 1.0, 1.5, 2.0, 5.0])
)
def test_float32_has_a_small_relative_error_for_all_logits(x, t, alpha, gamma):
    """Value and gradient in float32 agree with the float64 formula to 2e-4 of their size, even tiny ones."""
    x64 = torch.tensor(x, dtype=torch.float32).double().requires_grad_()
    expected = exact(x64, torch.tensor(t, dtype=torch.float64), alpha, gamma)
    (expected_gradient,) = torch.autograd.grad(expected, x64)
    x32 = x64.detach().float().requires_grad_()
    loss = sigmoid_focal_loss(x32, torch.tensor(t), alpha, gamma)
    (gradient,) = torch.autograd.grad(loss, x32)
    smallest = 1e-36  # smaller float32 numbers lose digits
    torch.testing.assert_close(loss.double(), expected, rtol=2e-4, atol=smallest)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=2e-4, atol=smallest)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2, 3.7])
def test_extreme_logits_give_finite_losses_and_exact_gradients(dtype, gamma):
    """At x = +-1e4, a wrong answer has a loss of 1e4 x weight and a gradient of +-weight. A right one has 0 and 0."""
    x = torch.tensor([1e4, -1e4, 1e4, -1e4]).to(dtype).requires_grad_()
    t = torch.tensor([1.0, 1, 0, 0])
    loss = sigmoid_focal_loss(x, t, alpha=0.75, gamma=gamma)
    assert loss.dtype == torch.float32
    loss.sum().backward()
    size = x.detach().float().abs()[0]
    torch.testing.assert_close(loss, torch.stack([0 * size, 0.75 * size, 0.25 * size, 0 * size]))
    torch.testing.assert_close(x.grad.float(), torch.tensor([0, -0.75, 0.25, 0]))


@pytest.mark.parametrize("gamma", [0.0, 1.0, 1.5, 2.0])
def test_first_and_second_gradients_agree_with_finite_differences(gamma):
    x = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).mul(3).requires_grad_()
    t = (torch.arange(8) % 2).double()
    assert torch.autograd.gradcheck(lambda x: sigmoid_focal_loss(x, t, 0.75, gamma), x)
    assert torch.autograd.gradgradcheck(lambda x: sigmoid_focal_loss(x, t, 0.75, gamma), x)


def test_a_nan_logit_gives_a_nan_loss():
    loss = sigmoid_focal_loss(torch.tensor([float("nan"), 0.0]), torch.tensor([1.0, 1.0]))
    assert loss[0].isnan()
    assert not loss[1].isnan()


def test_invalid_arguments_raise_errors():
    x = torch.zeros(2)
    with pytest.raises(ValueError, match="gamma must be 0 or more, found -1"):
        sigmoid_focal_loss(x, x, gamma=-1)
    for gamma, found in ((torch.ones(3), r"a tensor of shape \(3,\)"), (None, "NoneType"), ([2.0], "list")):
        with pytest.raises(TypeError, match=f"gamma: expected one number, found {found}"):
            sigmoid_focal_loss(x, x, gamma=gamma)
    with pytest.raises(ValueError, match="gamma must be 0 or more, found nan"):
        sigmoid_focal_loss(x, x, gamma=math.nan)
    for alpha in (1.5, -0.25, math.nan):
        with pytest.raises(
            ValueError, match=f"alpha: expected a number in .0, 1., or -1 for no weights, found {alpha}"
        ):
            sigmoid_focal_loss(x, x, alpha=alpha)
    with pytest.raises(ValueError, match="expected a number in .0, 1., found -1"):
        balanced_cross_entropy(x, x, alpha=-1)
    for alpha, found in ((None, "NoneType"), ([0.2, 0.8], "list"), ("auto", "str")):
        with pytest.raises(TypeError, match=f"alpha: expected a number or a tensor, found {found}"):
            sigmoid_focal_loss(x, x, alpha=alpha)
    with pytest.raises(ValueError, match="found 'average'"):
        sigmoid_focal_loss(x, x, reduction="average")


def test_torch_compile_gives_the_same_value_and_gradient():
    """The documentation promises this. The backend "eager" traces the function without a C++ compiler."""
    x = torch.linspace(-4, 4, 12).view(3, 4).requires_grad_()
    t = (torch.arange(12).view(3, 4) % 3 == 0).float()
    compiled = torch.compile(sigmoid_focal_loss, backend="eager", fullgraph=True)
    for alpha in (0.25, torch.tensor([0.2, 0.5, 0.9, 0.4])):
        gradients = [torch.autograd.grad(f(x, t, alpha).sum(), x)[0] for f in (sigmoid_focal_loss, compiled)]
        torch.testing.assert_close(compiled(x, t, alpha), sigmoid_focal_loss(x, t, alpha))
        torch.testing.assert_close(*gradients)
