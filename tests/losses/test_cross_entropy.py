"""Weighted cross-entropy against hand-worked values, and one alpha per class."""

import math

import pytest
import torch

from retinanet.losses import balanced_cross_entropy, sigmoid_focal_loss, weighted_cross_entropy

FLOAT64 = torch.float64


def logit(p):
    return torch.tensor(math.log(p / (1 - p)), dtype=FLOAT64)


def test_weighted_cross_entropy_gives_hand_worked_values():
    """-log p for y = 1, -0.5 log(1 - p) for y = 0 (YOLO). At p = 0.9: 0.1053605 and 0.5 x 2.3025851."""
    one, zero = torch.ones((), dtype=FLOAT64), torch.zeros((), dtype=FLOAT64)
    assert weighted_cross_entropy(logit(0.9), one).item() == pytest.approx(0.10536052)
    assert weighted_cross_entropy(logit(0.9), zero).item() == pytest.approx(0.5 * 2.30258509)
    assert weighted_cross_entropy(logit(0.9), zero, negative_weight=1).item() == pytest.approx(2.30258509)


@pytest.mark.parametrize("loss", [balanced_cross_entropy, sigmoid_focal_loss])
def test_a_tensor_of_alphas_weighs_each_class_with_its_alpha(loss):
    x, t = torch.randn(5, 3), torch.randint(0, 2, (5, 3)).float()
    alphas = torch.tensor([0.1, 0.5, 0.9])
    together = loss(x, t, alpha=alphas)
    for k, alpha in enumerate(alphas.tolist()):
        torch.testing.assert_close(together[:, k], loss(x[:, k], t[:, k], alpha=alpha))
