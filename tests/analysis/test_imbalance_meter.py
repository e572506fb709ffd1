"""The meter of the class imbalance: by hand, and against the loss that training uses."""

import csv
import math

import numpy as np
import pytest
import torch

from retinanet.analysis.imbalance_meter import ImbalanceMeter, histogram, measure
from retinanet.analysis.model_outputs import load_for_analysis
from retinanet.config import LossConfig
from retinanet.data import load
from retinanet.images import Frame
from retinanet.losses import sigmoid_focal_loss
from retinanet.types import AnchorTargets, HeadOutputs, Target

CLASSES = ("a", "b", "c")


def example(logits, positive, ignored=None, labels=None, per_level=None):
    """One image of A anchors, each matched with an object of its own where positive."""
    A = logits.shape[0]
    positive_NA = torch.tensor(positive)[None]
    corner = torch.arange(A)[:, None] * 100.0
    anchors = torch.cat([corner, corner, corner + 20, corner + 20], dim=1)
    labels_NA = torch.tensor(labels or [0] * A)[None] * positive_NA
    matched = (positive_NA.cumsum(1) - 1) * positive_NA
    outputs = HeadOutputs(
        logits_NAK=logits[None],
        deltas_NA4=torch.zeros(1, A, 4),
        anchors_A4=anchors,
        anchors_per_level=per_level or (A,),
    )
    targets = AnchorTargets(
        positive_NA=positive_NA,
        ignored_NA=torch.tensor(ignored or [False] * A)[None],
        labels_NA=labels_NA,
        boxes_NA4=anchors[None] * positive_NA[..., None],
        matched_NA=matched,
    )
    image = Target(
        boxes_G4=anchors[positive_NA[0]],
        labels_G=labels_NA[positive_NA],
        crowd_G=torch.zeros(int(positive_NA.sum()), dtype=torch.bool),
    )
    return outputs, targets, image


def test_by_hand():
    """Cross-entropy, one class, logits 0, 2, -2, 2 (the last ignored); the second is an object.

    Losses: background ln 2 = 0.6931 (p_t = 0.5: easy from there on) and softplus(-2) = 0.1269 (easy), the object
    softplus(-2) = 0.1269 (easy). Gradients: 0.5, 0.1192, 0.1192. Effective negatives: 0.6192^2 / (0.25 + 0.0142).
    """
    logits = torch.tensor([[0.0], [2.0], [-2.0], [2.0]])
    outputs, targets, image = example(logits, [False, True, False, False], [False, False, False, True])
    meter = ImbalanceMeter(classes=("a",), levels=(3,), loss_config=LossConfig(loss="ce"))
    meter.add(outputs, targets, [image], [Frame(100, 100, 50, 50)])
    found = meter.result()
    assert (found.positive_anchors, found.ignored_anchors, found.negative_anchors) == (1, 1, 2)
    assert (found.objects, found.unreached) == (1, 0)
    assert found.examples_SE.tolist() == [[1, 0], [2, 0]]
    two = math.log1p(math.exp(-2))
    np.testing.assert_allclose(found.loss_SE, [[two, 0], [math.log(2) + two, 0]], rtol=1e-6)
    wrong = 1 / (1 + math.exp(2))
    np.testing.assert_allclose(found.gradient_SE, [[wrong, 0], [0.5 + wrong, 0]], rtol=1e-6)
    assert found.effective_negatives == pytest.approx((0.5 + wrong) ** 2 / (0.25 + wrong**2))
    assert found.size_positives.tolist() == [0, 1, 0], "20 x 20 in the input at scale 1/2 is 40 x 40: medium"
    assert found.loss_shares_SE.sum() == pytest.approx(1)


@pytest.mark.parametrize("loss", ["ce", "focal", "weighted", "balanced_ce", "hard_negative_mining", "varifocal"])
def test_shares_add_up_to_the_loss_that_training_uses(loss):
    """By kind, by class and by level: each adds up to DetectionLoss's own sum."""
    generator = torch.Generator().manual_seed(0)
    A = 60
    logits = torch.randn(A, 3, generator=generator) * 2
    positive = (torch.rand(A, generator=generator) < 0.2).tolist()
    ignored = [not p and i % 7 == 0 for i, p in enumerate(positive)]
    outputs, targets, image = example(logits, positive, ignored, [i % 3 for i in range(A)], (40, 20))
    meter = ImbalanceMeter(classes=CLASSES, levels=(3, 4), loss_config=LossConfig(loss=loss))
    meter.add(outputs, targets, [image])
    meter.add(outputs, targets, [image])
    found = meter.result()
    expected = 2 * meter.loss.classification_NAK(outputs, targets).sum().item()
    for sums in (found.loss_SE, found.class_loss_KS, found.level_loss_LS):
        assert sums.sum() == pytest.approx(expected, rel=1e-5)
    for sums in (found.class_gradient_KS, found.level_gradient_LS):
        assert sums.sum() == pytest.approx(found.gradient_SE.sum(), rel=1e-5)
    np.testing.assert_allclose(found.class_loss_KS.sum(0), found.loss_SE.sum(1), rtol=1e-5)
    assert found.examples_SE.sum() == 2 * 3 * (A - sum(ignored))
    assert found.images == 2
    assert found.class_positives_K.sum() == found.level_positives_L.sum() == 2 * sum(positive)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("positive", [True, False])
def test_figure_four_equals_sorting_every_loss(gamma, positive):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3000, 1, generator=generator) * 2 - 2
    outputs, targets, image = example(logits, [i < 1000 for i in range(3000)])
    meter = ImbalanceMeter(classes=("a",), levels=(3,), loss_config=LossConfig())
    meter.add(outputs, targets, [image])
    share, loss = meter.result().cumulative_loss(gamma, positive=positive)
    chosen = logits[:1000, 0] if positive else logits[1000:, 0]
    all_losses = sigmoid_focal_loss(chosen, torch.full_like(chosen, float(positive)), alpha=-1, gamma=gamma)
    exact = all_losses.double().sort().values.cumsum(0).numpy()
    at = np.arange(1, len(chosen) + 1) / len(chosen)
    np.testing.assert_allclose(np.interp(at, share, loss), exact / exact[-1], atol=0.01)


def test_more_gamma_concentrates_the_background_loss():
    logits = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(2)) - 4
    outputs, targets, image = example(logits, [False] * 20_000)
    meter = ImbalanceMeter(classes=("a",), levels=(3,), loss_config=LossConfig())
    meter.add(outputs, targets, [image])
    shares = [meter.result().hardest_share(gamma, 0.01, positive=False) for gamma in (0.0, 0.5, 1.0, 2.0, 5.0)]
    assert shares == sorted(shares)
    assert shares[0] < 0.15
    assert shares[-1] > 0.8


def test_nothing_positive_and_no_logit_beyond_the_bins():
    outputs, targets, image = example(torch.tensor([[1e4], [-1e4]]), [False, False])
    meter = ImbalanceMeter(classes=("a",), levels=(3,), loss_config=LossConfig())
    meter.add(outputs, targets, [image])
    found = meter.result()
    assert found.histogram_SB[1].sum() == 2
    assert found.cumulative_loss(2.0, positive=True)[1].tolist() == [0, 1]
    assert found.sentences()
    assert found.to_json()["unreached_objects"] == 0


@pytest.mark.slow
def test_a_hundred_million_background_examples():
    """Counts stay exact integers; the memory is that of one chunk."""
    counts = np.zeros(6000, dtype=np.int64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        counts += histogram(torch.randn(2_000_000, generator=generator) - 5)
    assert counts.sum() == 100_000_000
    assert (counts * (np.arange(6000) + 0.5)).sum() / 1e8 / 100 - 30 == pytest.approx(-5, abs=1e-3)


def test_from_a_checkpoint_and_live(trained_run, squares):
    """A training writes its shares; the checkpoint is measured with the matching that it was trained with."""
    with (trained_run / "imbalance.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3, "three batches an epoch, four wanted"
    for row in rows:
        shares = [float(v) for k, v in row.items() if k.endswith("_loss")]
        assert sum(shares) == pytest.approx(1, abs=1e-4)
        assert float(row["negative_anchors"]) > 100
    trained = load_for_analysis(trained_run / "best.ckpt", device="cpu")
    data = load(squares[1], classes=trained.classes)
    found = measure(trained, data, batch_size=2)
    assert found.images == len(data.records)
    assert found.objects == data.num_objects
    assert found.positive_anchors == found.size_positives.sum() == found.level_positives_L.sum()
    assert len(found.to_json()["per_level"]) == 5
