"""Equalization loss v2: hand-worked weights and losses of several steps, and its state."""

import dataclasses
import math

import pytest
import torch

from retinanet.config import LossConfig
from retinanet.losses import DetectionLoss, equalization_loss_v2
from tests.loss_inputs import one_positive

NO_BOX = [0.0] * 4


def logit(p):
    return math.log(p / (1 - p))


def batch(*rows, ignored=()):
    """Return outputs and targets of one image from the probabilities of each anchor; anchor 0 is positive, class 0."""
    outputs, targets = one_positive([[logit(p) for p in row] for row in rows], NO_BOX)
    ignored_NA = torch.tensor([[a in ignored for a in range(len(rows))]])
    return outputs, dataclasses.replace(targets, ignored_NA=ignored_NA)


def test_hand_worked_weights():
    """G = 0.8 = mu: f = 0.5, q = 3, r = 0.5. G = 0: f = 1 / (1 + e^9.6) = 0.0000677, q = 4.99973. G = inf: f = 1."""
    x, one, zero = torch.zeros(3), torch.tensor(1.0), torch.tensor(0.0)
    gradients = torch.tensor([0.4, 0.0, 0.0]), torch.tensor([0.5, 2.0, 0.0])
    ln2 = math.log(2)
    positive = equalization_loss_v2(x, one, *gradients)
    assert (positive / ln2).tolist() == pytest.approx([3, 4.99973, 1])
    negative = equalization_loss_v2(x, zero, *gradients)
    assert (negative / ln2).tolist() == pytest.approx([0.5, 0.0000677241, 1])
    assert equalization_loss_v2(x, zero, *gradients, reduction="sum") == pytest.approx(ln2 * 1.5000677)


def test_the_weights_follow_the_gradients_of_earlier_steps():
    """One class; p = 0.6 at the object, 0.5 at the background, and an ignored anchor.

    Step 1 is cross-entropy. Its gradients are 0.4 and 0.5, so G = 0.8: step 2 has q = 3 and r = 0.5. Step 2 adds the
    gradients 3 x 0.4 and 0.5 x 0.5, so G = 1.6 / 0.75 = 2.13: step 3 has q = r = 1, but for 1e-7.
    """
    loss = DetectionLoss(config=LossConfig(loss="eql_v2"))
    inputs = batch([0.6], [0.5], [0.9], ignored=[2])
    object_loss, background_loss = -math.log(0.6), -math.log(0.5)
    assert loss(*inputs).classification.item() == pytest.approx(object_loss + background_loss)
    assert loss(*inputs).classification.item() == pytest.approx(3 * object_loss + 0.5 * background_loss)
    torch.testing.assert_close(loss.state_dict()["earlier_2K"], torch.tensor([[0.4], [0.5]]))
    torch.testing.assert_close(loss.state_dict()["step_2K"], torch.tensor([[1.2], [0.25]]))
    assert loss(*inputs).classification.item() == pytest.approx(object_loss + background_loss)


def test_a_class_without_objects_keeps_its_background_from_dominating():
    """Class 1 has no object, so G = 0, and its negatives have the weight 0.0000677. Class 0 has G = 0.8 / 0.1 = 8."""
    loss = DetectionLoss(config=LossConfig(loss="eql_v2"))
    inputs = batch([0.2, 0.3], [0.1, 0.3])
    loss(*inputs)
    found = loss(*inputs).classification.item()
    assert found == pytest.approx(-math.log(0.2) - math.log(0.9) - 0.0000677241 * 2 * math.log(0.7))


def test_label_smoothing_changes_the_target_and_the_gradient():
    """Target 0.9: p = 0.6 has the gradient 0.3. G = 0.3 / 0.375 = 0.8, so step 2 has q = 3 and r = 0.5."""
    loss = DetectionLoss(config=LossConfig(loss="eql_v2", label_smoothing=0.1))
    inputs = batch([0.6], [0.375])
    loss(*inputs)
    object_loss = -0.9 * math.log(0.6) - 0.1 * math.log(0.4)
    assert loss(*inputs).classification.item() == pytest.approx(3 * object_loss - 0.5 * math.log(0.625))


def test_only_training_steps_change_the_state():
    loss = DetectionLoss(config=LossConfig(loss="eql_v2"))
    inputs = batch([0.6], [0.5])
    loss(*inputs)
    loss(*inputs)
    before = loss.state_dict()
    with torch.no_grad():
        evaluated = loss(*inputs).classification
    loss.classification_NAK(*inputs)
    assert all(loss.state_dict()[name] is value for name, value in before.items())
    assert evaluated.item() == pytest.approx(-3 * math.log(0.6) - 0.5 * math.log(0.5)), "weights of the last step"
    again = DetectionLoss(config=LossConfig(loss="eql_v2"))
    again.load_state_dict(before)
    assert again(*inputs).classification == loss(*inputs).classification


@pytest.mark.parametrize("loss", ["eql_v2", "ghm_c"])
def test_a_step_with_nan_does_not_spoil_later_steps(loss):
    criterion = DetectionLoss(config=LossConfig(loss=loss))
    outputs, targets = batch([0.6], [0.5])
    criterion(outputs, targets)
    bad = dataclasses.replace(outputs, logits_NAK=torch.full_like(outputs.logits_NAK, math.nan))
    assert criterion(bad, targets).classification.isnan()
    assert criterion(outputs, targets).classification.isfinite()
