"""Focal loss and cross-entropy: formula, hand-worked values, torchvision, float64, extremes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import sigmoid_focal_loss as torchvision_focal

from retinanet.losses import balanced_cross_entropy, sigmoid_cross_entropy, sigmoid_focal_loss
from tests.shared import examples


def logit(p):
    return torch.tensor(math.log(p / (1 - p)), dtype=torch.float64)


ONE, ZERO = torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)


def exact(x, t, alpha, gamma):
    """The formula on hard or soft targets in float64, written as the paper does."""
    p = torch.sigmoid(x)
    q = torch.sigmoid(-x)
    wrong = t * q + (1 - t) * p
    entropy = -t * torch.nn.functional.logsigmoid(x) - (1 - t) * torch.nn.functional.logsigmoid(-x)
    return (alpha * t + (1 - alpha) * (1 - t)) * wrong**gamma * entropy


def test_by_hand():
    """CE(0.5) = ln 2. p = 0.9, y = 1, alpha 0.75, gamma 2: 0.75 x 0.01 x 0.1053605 = 0.000790204.

    p = 0.9, y = 0: 0.25 x 0.81 x 2.3025851 = 0.466273. The paper's example (section 3.2): with gamma = 2, p_t = 0.9
    costs 100 times less than cross-entropy and p_t = 0.968 about 1000 times less.
    """
    assert sigmoid_cross_entropy(logit(0.5), ONE).item() == pytest.approx(0.6931472)
    assert sigmoid_cross_entropy(logit(0.5), ZERO).item() == pytest.approx(0.6931472)
    assert sigmoid_focal_loss(logit(0.9), ONE).item() == pytest.approx(0.75 * 0.01 * 0.10536052)
    assert sigmoid_focal_loss(logit(0.9), ZERO).item() == pytest.approx(0.25 * 0.81 * 2.30258509)
    unweighted = sigmoid_focal_loss(logit(0.9), ONE, alpha=-1)
    assert (sigmoid_cross_entropy(logit(0.9), ONE) / unweighted).item() == pytest.approx(100)
    ratio = sigmoid_cross_entropy(logit(0.968), ONE) / sigmoid_focal_loss(logit(0.968), ONE, alpha=-1)
    assert ratio.item() == pytest.approx(1000, rel=0.03)


def test_step_zero_sums_of_the_paper_setting():
    """201,600 background anchors x 80 classes over 50 positives: CE 3,242 at p = 0.01; focal(0.25, 2) 0.243."""
    count = 201_600 * 80 / 50
    assert sigmoid_cross_entropy(logit(0.01), ZERO).item() * count == pytest.approx(3242, rel=1e-3)
    assert sigmoid_focal_loss(logit(0.01), ZERO, alpha=0.25).item() * count == pytest.approx(0.243, rel=2e-3)
    assert sigmoid_cross_entropy(logit(0.5), ZERO).item() * count == pytest.approx(223_582, rel=1e-4)
    assert sigmoid_focal_loss(logit(0.5), ZERO, alpha=0.25).item() * count == pytest.approx(41_922, rel=1e-4)


@given(st.floats(-30, 30), st.sampled_from([0.0, 1.0]), st.floats(0, 1))
def test_gamma_zero_is_balanced_cross_entropy_and_alpha_half_is_half_of_it(x, t, alpha):
    x, t = torch.tensor(x, dtype=torch.float64), torch.tensor(t)
    torch.testing.assert_close(
        sigmoid_focal_loss(x, t, alpha=alpha, gamma=0), balanced_cross_entropy(x, t, alpha=alpha)
    )
    torch.testing.assert_close(sigmoid_focal_loss(x, t, alpha=0.5, gamma=0), 0.5 * sigmoid_cross_entropy(x, t))


@given(st.floats(0, 5), st.floats(0, 1))
def test_decreasing_in_p_t(gamma, alpha):
    p = torch.linspace(0.001, 0.999, 500, dtype=torch.float64)
    x = torch.log(p / (1 - p))
    for t, sign in ((ONE, -1), (ZERO, 1)):
        change = sign * sigmoid_focal_loss(x, t, alpha=alpha, gamma=gamma).diff()
        assert (change >= 0).all()


def test_order_of_importance():
    """With alpha 0.75, gamma 2: hard positive > hard negative > easy positive > easy negative.

    With the paper's alpha 0.25 the negatives weigh three times the positives: hard negative > hard positive, and
    easy negative > easy positive.
    """
    hard, easy = logit(0.1), logit(0.9)

    def four(alpha):
        return [
            sigmoid_focal_loss(x, t, alpha=alpha).item()
            for x, t in ((hard, ONE), (easy, ZERO), (easy, ONE), (hard, ZERO))
        ]

    hard_positive, hard_negative, easy_positive, easy_negative = four(0.75)
    assert hard_positive > hard_negative > easy_positive > easy_negative
    hard_positive, hard_negative, easy_positive, easy_negative = four(0.25)
    assert hard_negative > hard_positive > easy_negative > easy_positive


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("alpha", [-1, 0.25, 0.75])
@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2, 5])
@pytest.mark.parametrize("soft", [False, True])
def test_drop_in_for_torchvision(reduction, alpha, gamma, soft):
    generator = torch.Generator().manual_seed(hash((alpha, gamma, soft)) % 1000)
    x = (torch.randn(20, 7, generator=generator, dtype=torch.float64) * 3).requires_grad_()
    t = torch.rand(20, 7, generator=generator, dtype=torch.float64)
    t = t if soft else (t > 0.7).double()
    theirs = torchvision_focal(x, t, alpha=alpha, gamma=gamma, reduction=reduction)
    (their_gradient,) = torch.autograd.grad(theirs.sum(), x)
    ours = sigmoid_focal_loss(x, t, alpha, gamma, reduction)
    (our_gradient,) = torch.autograd.grad(ours.sum(), x)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(our_gradient, their_gradient)


@settings(max_examples=examples(60), deadline=None)
@given(
    st.floats(-60, 60), st.sampled_from([0.0, 1.0]), st.floats(0, 1), st.sampled_from([0.0, 0.3, 1.0, 1.5, 2.0, 5.0])
)
def test_float32_keeps_its_tails(x, t, alpha, gamma):
    """Value and gradient in float32 against the float64 formula: relative, not absolute, far out too."""
    x64 = torch.tensor(x, dtype=torch.float32).double().requires_grad_()
    expected = exact(x64, torch.tensor(t, dtype=torch.float64), alpha, gamma)
    (expected_gradient,) = torch.autograd.grad(expected, x64)
    x32 = x64.detach().float().requires_grad_()
    found = sigmoid_focal_loss(x32, torch.tensor(t), alpha, gamma)
    (gradient,) = torch.autograd.grad(found, x32)
    smallest = 1e-36  # below, float32 itself has no digits left
    torch.testing.assert_close(found.double(), expected, rtol=2e-4, atol=smallest)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=2e-4, atol=smallest)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gamma", [0, 0.5, 1, 2, 3.7])
def test_extremes_are_finite_with_the_right_slope(dtype, gamma):
    """At x = +-1e4: a wrong answer costs 1e4 times its weight with slope of that weight, a right one nothing."""
    x = torch.tensor([1e4, -1e4, 1e4, -1e4]).to(dtype).requires_grad_()
    t = torch.tensor([1.0, 1, 0, 0])
    loss = sigmoid_focal_loss(x, t, alpha=0.75, gamma=gamma)
    assert loss.dtype == torch.float32
    loss.sum().backward()
    size = x.detach().float().abs()[0]
    torch.testing.assert_close(loss, torch.stack([0 * size, 0.75 * size, 0.25 * size, 0 * size]))
    torch.testing.assert_close(x.grad.float(), torch.tensor([0, -0.75, 0.25, 0]))


@pytest.mark.parametrize("gamma", [0.0, 1.0, 1.5, 2.0])
def test_gradcheck(gamma):
    x = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).mul(3).requires_grad_()
    t = (torch.arange(8) % 2).double()
    assert torch.autograd.gradcheck(lambda x: sigmoid_focal_loss(x, t, 0.75, gamma), x)
    assert torch.autograd.gradgradcheck(lambda x: sigmoid_focal_loss(x, t, 0.75, gamma), x)


def test_nan_stays_nan():
    loss = sigmoid_focal_loss(torch.tensor([float("nan"), 0.0]), torch.tensor([1.0, 1.0]))
    assert loss[0].isnan()
    assert not loss[1].isnan()


def test_bad_arguments_are_refused():
    x = torch.zeros(2)
    with pytest.raises(ValueError, match="gamma must be 0 or more, found -1"):
        sigmoid_focal_loss(x, x, gamma=-1)
    with pytest.raises(ValueError, match="alpha must be at most 1"):
        sigmoid_focal_loss(x, x, alpha=1.5)
    with pytest.raises(ValueError, match="found 'average'"):
        sigmoid_focal_loss(x, x, reduction="average")
