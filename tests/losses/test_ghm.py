"""GHM-C: hand-worked losses, the moving average of the counts, and the loss of the paper for a random batch."""

import dataclasses
import math

import pytest
import torch

from retinanet.config import LossConfig
from retinanet.losses import DetectionLoss, ghm_c_loss
from tests.losses.test_detection_device import make_batch
from tests.losses.test_equalization import batch, logit


def test_hand_worked_losses():
    """10 intervals. p = 0.05, t = 0: g = 0.05 in an interval with 4 examples, GD = 40. p = 0.25, t = 1: g = 0.75.

    A gradient norm of exactly 0.5 belongs to the interval [0.5, 0.6), a norm of 1 to the last interval.
    """
    counts_M = torch.tensor([4.0, 1, 1, 1, 1, 3, 1, 2, 1, 5])
    x = torch.tensor([logit(0.05), logit(0.25), 0.0, 100.0])
    loss = ghm_c_loss(x, torch.tensor([0.0, 1, 0, 0]), counts_M)
    assert loss.tolist() == pytest.approx([-math.log(0.95) / 40, -math.log(0.25) / 20, math.log(2) / 30, 100 / 50])


def test_the_loss_of_a_batch_is_the_mean_of_each_interval_over_m():
    """The norms 0.04 (object), 0.05, 0.02 and 0.01 lie in interval 0, 0.55 in interval 5. An anchor is ignored."""
    inputs = batch([0.96], [0.05], [0.02], [0.01], [0.55], [0.55], ignored=[5])
    loss = DetectionLoss(config=LossConfig(loss="ghm_c"))
    easy = -sum(map(math.log, (0.96, 0.95, 0.98, 0.99)))
    assert loss(*inputs).classification.item() == pytest.approx((easy / 4 - math.log(0.45)) / 10)
    assert loss.state_dict()["counts_M"].tolist() == [4, 0, 0, 0, 0, 1, 0, 0, 0, 0]


def test_the_counts_are_averaged_over_the_steps():
    """Step 2: 0.75 x 4 + 0.25 x 2 = 3.5 in interval 0, 0.75 x 1 in interval 5, 0.25 x 1 in interval 9."""
    loss = DetectionLoss(config=LossConfig(loss="ghm_c"))
    loss(*batch([0.96], [0.05], [0.02], [0.01], [0.55]))
    found = loss(*batch([0.04], [0.05], [0.01])).classification.item()
    assert loss.state_dict()["counts_M"].tolist() == [3.5, 0, 0, 0, 0, 0.75, 0, 0, 0, 0.25]
    assert found == pytest.approx(-(math.log(0.95) + math.log(0.99)) / 35 - math.log(0.04) / 2.5)
    step_alone = DetectionLoss(config=LossConfig(loss="ghm_c", ghm_momentum=0.0, ghm_bins=2))
    step_alone(*batch([0.96], [0.05], [0.55]))
    assert step_alone(*batch([0.04], [0.05])).classification.item() == pytest.approx(-math.log(0.04 * 0.95) / 2)


@pytest.mark.parametrize("positives", [0.0, 0.2])
def test_the_number_of_positives_cancels(positives):
    """The loss is the sum of CE / GD over all examples that are not ignored, in float64, example by example."""
    outputs, targets = make_batch(N=3, A=50, K=2, positives=positives, dtype=torch.float64)
    loss = DetectionLoss(config=LossConfig(loss="ghm_c"))(outputs, targets)
    assert (loss.num_positives > 0) == (positives > 0)
    examples = []
    for n, a, k in torch.cartesian_prod(torch.arange(3), torch.arange(50), torch.arange(2)).tolist():
        p = outputs.logits_NAK[n, a, k].sigmoid().item()
        if not targets.ignored_NA[n, a]:
            is_own = bool(targets.positive_NA[n, a]) and int(targets.labels_NA[n, a]) == k
            examples.append((int(10 * abs(p - is_own)), -math.log(p if is_own else 1 - p)))
    counts = [sum(j == m for j, _ in examples) for m in range(10)]
    expected = sum(entropy / (10 * counts[j]) for j, entropy in examples)
    assert loss.classification.item() == pytest.approx(expected)


def test_an_interval_without_examples_in_training_gives_a_finite_loss():
    loss = DetectionLoss(config=LossConfig(loss="ghm_c"))
    loss(*batch([0.96], [0.05]))
    with torch.no_grad():
        assert loss(*batch([0.04], [0.55])).classification.isfinite()


def test_parts_of_a_batch_are_counted_together():
    whole, parts = (DetectionLoss(config=LossConfig(loss="ghm_c")) for _ in range(2))
    outputs, targets = make_batch(N=2)
    halves = [
        (
            dataclasses.replace(outputs, logits_NAK=outputs.logits_NAK[n], deltas_NA4=outputs.deltas_NA4[n]),
            dataclasses.replace(targets, **{f.name: getattr(targets, f.name)[n] for f in dataclasses.fields(targets)}),
        )
        for n in (slice(0, 1), slice(1, 2))
    ]
    torch.testing.assert_close(parts.over_parts(halves).total, whole(outputs, targets).total)
    assert torch.equal(parts.state_dict()["counts_M"], whole.state_dict()["counts_M"])
