"""All classification losses: hand-worked values, float32 against float64, extreme logits, and gradients."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.losses import (
    balanced_cross_entropy,
    equalization_loss_v2,
    ghm_c_loss,
    quality_focal_loss,
    sigmoid_cross_entropy,
    sigmoid_focal_loss,
    varifocal_loss,
    weighted_cross_entropy,
)
from tests.shared import num_examples

FLOAT64 = torch.float64
ALL = {
    "ce": sigmoid_cross_entropy,
    "balanced_ce": balanced_cross_entropy,
    "weighted": weighted_cross_entropy,
    "focal": sigmoid_focal_loss,
    "quality_focal": quality_focal_loss,
    "varifocal": varifocal_loss,
    "eql_v2": partial(
        equalization_loss_v2, positive_gradient=torch.tensor(0.4), negative_gradient=torch.tensor(0.5), alpha=0.5
    ),
    "ghm_c": partial(ghm_c_loss, counts=torch.tensor([1 / 3, 2 / 3, 2 / 3])),
}
"""Every loss. Equalization loss v2 has the weights q = 1.25 and r = 0.5, GHM-C 1 up to a norm of 1/3, then 0.5."""


def logit(p):
    return torch.tensor(math.log(p / (1 - p)), dtype=FLOAT64)


def test_quality_focal_loss_gives_hand_worked_values():
    """|q - p|^2 (-q log p - (1 - q) log(1 - p)). p = 0.6, q = 0.8: 0.04 x (0.8 x 0.5108256 + 0.2 x 0.9162907).

    The loss is 0 at p = q. At q = 0, it equals focal loss without alpha.
    """
    positive = quality_focal_loss(logit(0.6), torch.tensor(0.8, dtype=FLOAT64))
    assert positive.item() == pytest.approx(0.04 * (0.8 * 0.51082562 + 0.2 * 0.91629073))
    assert quality_focal_loss(logit(0.7), torch.tensor(0.7, dtype=FLOAT64)).item() == pytest.approx(0, abs=1e-15)
    x, zero = torch.linspace(-5, 5, 21, dtype=FLOAT64), torch.zeros(21, dtype=FLOAT64)
    torch.testing.assert_close(quality_focal_loss(x, zero), sigmoid_focal_loss(x, zero, alpha=-1))


def test_varifocal_loss_gives_hand_worked_values():
    """q (-q log p - (1 - q) log(1 - p)) for q = 0.8, p = 0.6: 0.8 x 0.5919186. For q = 0: 0.75 p^2 (-log(1 - p))."""
    positive = varifocal_loss(logit(0.6), torch.tensor(0.8, dtype=FLOAT64))
    assert positive.item() == pytest.approx(0.8 * (0.8 * 0.51082562 + 0.2 * 0.91629073))
    background = varifocal_loss(logit(0.6), torch.tensor(0.0, dtype=FLOAT64))
    assert background.item() == pytest.approx(0.75 * 0.36 * 0.91629073)


@given(st.floats(-40, 40), st.floats(0, 1), st.floats(0.5, 4))
@settings(max_examples=num_examples(200))
def test_quality_losses_in_float32_agree_with_the_formula_in_float64(x, q, gamma):
    q32 = torch.tensor(q)
    t, x64 = q32.double(), torch.tensor(x).double()
    p, entropy = torch.sigmoid(x64), sigmoid_cross_entropy(x64, t)
    expected = (t - p).abs() ** gamma * entropy
    # Near p = q, the rounding error of q - p in float32 is about 2^-23, and that of its power about 2^(-23 gamma).
    rounding = float(entropy) * 2.0 ** (-23 * gamma)
    torch.testing.assert_close(
        quality_focal_loss(torch.tensor(x), q32, gamma=gamma).double(), expected, rtol=1e-3, atol=1e-6 + rounding
    )
    expected = t * entropy if q32 > 0 else 0.75 * p**gamma * entropy
    torch.testing.assert_close(
        varifocal_loss(torch.tensor(x), q32, gamma=gamma).double(), expected, rtol=1e-4, atol=1e-30
    )


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("target", [0.0, 0.5, 1.0])
def test_extreme_logits_give_finite_losses_and_exact_gradients(name, dtype, target):
    """At +-1e4, a right answer has loss 0 and gradient 0. A wrong answer has a loss of about |x|."""
    x = torch.tensor([-1e4, 1e4], dtype=dtype).requires_grad_()
    loss = ALL[name](x, torch.full((2,), target))
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss).all()
    assert torch.isfinite(x.grad).all()
    if target in {0.0, 1.0}:
        right, wrong = (0, 1) if target == 0 else (1, 0)
        assert loss[right] == 0
        assert x.grad[right] == 0
        assert loss[wrong] > 1e3
        assert 0.2 < x.grad[wrong].abs() <= 1.25


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
def test_gradients_agree_with_finite_differences(name, target):
    x = torch.linspace(-8, 8, 9, dtype=FLOAT64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ALL[name](x, torch.full_like(x, target)), x)


def test_gradients_agree_with_finite_differences_at_extreme_logits():
    """At +-1e4 in float64, every loss is a linear function of the logit."""
    x = torch.tensor([-1e4, 1e4], dtype=FLOAT64).requires_grad_()
    for loss in ALL.values():
        for target in (0.0, 1.0):
            assert torch.autograd.gradcheck(
                lambda x, loss=loss, target=target: loss(x, torch.full_like(x, target)), x, eps=1e-2, atol=1e-6
            )


@pytest.mark.parametrize("name", ALL)
def test_targets_need_the_shape_of_the_inputs(name):
    """Labels (8,) for logits (8, 1) would broadcast to (8, 8): every logit with every label."""
    loss, inputs = ALL[name], torch.randn(8, 1)
    for shape in ((8,), (1, 8), (8, 2), (8, 1, 1), (1,), (0, 1)):
        with pytest.raises(ValueError, match=r"expected the shape of the inputs, \(8, 1\), found"):
            loss(inputs, torch.ones(shape))
    inputs = torch.randn(8, 5)
    for shape in ((8, 5), (8, 1), (1, 5), (1, 1), ()):
        targets = torch.rand(shape)
        assert torch.equal(loss(inputs, targets), loss(inputs, targets.expand(8, 5)))
    assert loss(torch.zeros(0, 5), torch.zeros(0, 5)).shape == (0, 5)


@pytest.mark.parametrize("loss", [balanced_cross_entropy, sigmoid_focal_loss])
def test_a_tensor_of_alphas_keeps_the_shape_of_the_inputs(loss):
    inputs, targets = torch.randn(8, 5), (torch.rand(8, 5) > 0.5).float()
    alpha_K = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9])
    by_class = torch.stack([loss(inputs[:, k], targets[:, k], alpha=alpha_K[k].item()) for k in range(5)], dim=1)
    torch.testing.assert_close(loss(inputs, targets, alpha=alpha_K), by_class)
    for shape in ((8,), (4,), (2, 8, 5), (8, 1, 5)):
        with pytest.raises(ValueError, match="alpha: expected a shape that broadcasts to the inputs"):
            loss(inputs, targets, alpha=torch.ones(shape))
    with pytest.raises(ValueError, match="alpha: expected a shape that broadcasts"):
        loss(inputs[:, :1], targets[:, :1], alpha=torch.ones(8))
