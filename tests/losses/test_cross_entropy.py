"""Weighted and balanced cross-entropy, by hand."""

import math

import pytest
import torch

from retinanet.losses import balanced_cross_entropy, sigmoid_focal_loss, weighted_cross_entropy

FLOAT64 = torch.float64


def logit(p):
    return torch.tensor(math.log(p / (1 - p)), dtype=FLOAT64)


def test_weighted_by_hand():
    """-log p for objects, -0.5 log(1 - p) for the background (YOLO). p = 0.9: 0.1053605 and 0.5 x 2.3025851."""
    one, zero = torch.ones((), dtype=FLOAT64), torch.zeros((), dtype=FLOAT64)
    assert weighted_cross_entropy(logit(0.9), one).item() == pytest.approx(0.10536052)
    assert weighted_cross_entropy(logit(0.9), zero).item() == pytest.approx(0.5 * 2.30258509)
    assert weighted_cross_entropy(logit(0.9), zero, negative_weight=1).item() == pytest.approx(2.30258509)


@pytest.mark.parametrize("loss", [balanced_cross_entropy, sigmoid_focal_loss])
def test_alpha_for_each_class(loss):
    x, t = torch.randn(5, 3), torch.randint(0, 2, (5, 3)).float()
    alphas = torch.tensor([0.1, 0.5, 0.9])
    whole = loss(x, t, alpha=alphas)
    for k, alpha in enumerate(alphas.tolist()):
        torch.testing.assert_close(whole[:, k], loss(x[:, k], t[:, k], alpha=alpha))
