"""The imbalance meter: hand-worked numbers, and the loss of training."""

import csv
import math

import numpy as np
import pytest
import torch

from retinanet.analysis.imbalance_meter import ImbalanceMeter, histogram, measure
from retinanet.analysis.model_outputs import load_for_analysis
from retinanet.config import LOSSES, LossConfig
from retinanet.data import load
from retinanet.images import Frame
from retinanet.losses import DetectionLoss, sigmoid_focal_loss
from retinanet.train import fit, imbalance_file
from retinanet.train.imbalance_file import row_of
from retinanet.types import AnchorTargets, HeadOutputs, Target

CLASSES = ("a", "b", "c")


def batch_with(logits, positive, ignored=None, labels=None, per_level=None):
    """Return outputs, targets and objects of one image; each positive anchor is matched with its own object."""
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


def test_imbalance_by_hand():
    """Cross-entropy, one class, logits 0, 2, -2, 2; the second anchor is positive, the last one ignored.

    Losses of the background: ln 2 = 0.6931 (easy, because p_t = 0.5 is the limit) and softplus(-2) = 0.1269 (easy).
    Loss of the object: softplus(-2) = 0.1269 (easy). Gradients: 0.5, 0.1192, 0.1192.
    Effective number of negatives: 0.6192^2 / (0.25 + 0.0142).
    """
    logits = torch.tensor([[0.0], [2.0], [-2.0], [2.0]])
    outputs, targets, image = batch_with(logits, [False, True, False, False], [False, False, False, True])
    meter = ImbalanceMeter(classes=("a",), levels=(3,), loss_config=LossConfig(loss="ce"))
    meter.add(outputs, targets, [image], [Frame(100, 100, 50, 50)])
    result = meter.result()
    assert (result.positive_anchors, result.ignored_anchors, result.negative_anchors) == (1, 1, 2)
    assert (result.objects, result.unreached) == (1, 0)
    assert result.examples_SE.tolist() == [[1, 0], [2, 0]]
    loss_at_2 = math.log1p(math.exp(-2))
    np.testing.assert_allclose(result.loss_SE, [[loss_at_2, 0], [math.log(2) + loss_at_2, 0]], rtol=1e-6)
    gradient_at_2 = 1 / (1 + math.exp(2))
    np.testing.assert_allclose(result.gradient_SE, [[gradient_at_2, 0], [0.5 + gradient_at_2, 0]], rtol=1e-6)
    assert result.effective_negatives == pytest.approx((0.5 + gradient_at_2) ** 2 / (0.25 + gradient_at_2**2))
    assert result.size_positives.tolist() == [0, 1, 0], "40 x 40 original pixels are medium"
    assert result.loss_shares_SE.sum() == pytest.approx(1)


@pytest.mark.parametrize("loss", sorted(LOSSES.keys() - {"ohem"}))
def test_parts_add_up_to_the_loss_of_training(loss):
    """The parts by kind, by class and by level each add up to the sum of `DetectionLoss`."""
    generator = torch.Generator().manual_seed(0)
    A = 60
    logits = torch.randn(A, 3, generator=generator) * 2
    positive = (torch.rand(A, generator=generator) < 0.2).tolist()
    ignored = [not p and i % 7 == 0 for i, p in enumerate(positive)]
    outputs, targets, image = batch_with(logits, positive, ignored, [i % 3 for i in range(A)], (40, 20))
    config = LossConfig(loss=loss)
    training_loss = DetectionLoss(config=config)
    for _ in range(2):
        training_loss(outputs, targets)  # the weights of some losses change in training
    meter = ImbalanceMeter(classes=CLASSES, levels=(3, 4), loss_config=config, loss=training_loss)
    meter.add(outputs, targets, [image])
    meter.add(outputs, targets, [image])
    result = meter.result()
    expected = 2 * meter.loss.classification_NAK(outputs, targets).sum().item()
    for sums in (result.loss_SE, result.class_loss_KS, result.level_loss_LS):
        assert sums.sum() == pytest.approx(expected, rel=1e-5)
    for sums in (result.class_gradient_KS, result.level_gradient_LS):
        assert sums.sum() == pytest.approx(result.gradient_SE.sum(), rel=1e-5)
    np.testing.assert_allclose(result.class_loss_KS.sum(0), result.loss_SE.sum(1), rtol=1e-5)
    assert result.examples_SE.sum() == 2 * 3 * (A - sum(ignored))
    assert result.images == 2
    assert result.class_positives_K.sum() == result.level_positives_L.sum() == 2 * sum(positive)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
@pytest.mark.parametrize("positive", [True, False])
def test_cumulative_loss_equals_the_sorted_losses(gamma, positive):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3000, 1, generator=generator) * 2 - 2
    outputs, targets, image = batch_with(logits, [i < 1000 for i in range(3000)])
    meter = ImbalanceMeter(classes=("a",), levels=(3,), loss_config=LossConfig())
    meter.add(outputs, targets, [image])
    share, loss = meter.result().cumulative_loss(gamma, positive=positive)
    chosen = logits[:1000, 0] if positive else logits[1000:, 0]
    all_losses = sigmoid_focal_loss(chosen, torch.full_like(chosen, float(positive)), alpha=-1, gamma=gamma)
    exact = all_losses.double().sort().values.cumsum(0).numpy()
    at = np.arange(1, len(chosen) + 1) / len(chosen)
    np.testing.assert_allclose(np.interp(at, share, loss), exact / exact[-1], atol=0.01)


def test_a_higher_gamma_concentrates_the_background_loss():
    logits = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(2)) - 4
    outputs, targets, image = batch_with(logits, [False] * 20_000)
    meter = ImbalanceMeter(classes=("a",), levels=(3,), loss_config=LossConfig())
    meter.add(outputs, targets, [image])
    shares = [meter.result().hardest_share(gamma, 0.01, positive=False) for gamma in (0.0, 0.5, 1.0, 2.0, 5.0)]
    assert shares == sorted(shares)
    assert shares[0] < 0.15
    assert shares[-1] > 0.8


def test_no_positive_anchor_and_logits_beyond_the_bins():
    outputs, targets, image = batch_with(torch.tensor([[1e4], [-1e4]]), [False, False])
    meter = ImbalanceMeter(classes=("a",), levels=(3,), loss_config=LossConfig())
    meter.add(outputs, targets, [image])
    result = meter.result()
    assert result.histogram_SB[1].sum() == 2
    assert result.cumulative_loss(2.0, positive=True)[1].tolist() == [0, 1]
    assert result.sentences()
    assert result.to_json()["unreached_objects"] == 0


@pytest.mark.slow
def test_a_hundred_million_background_examples():
    """The counts are exact integers, and memory does not grow."""
    counts = np.zeros(6000, dtype=np.int64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        counts += histogram(torch.randn(2_000_000, generator=generator) - 5)
    assert counts.sum() == 100_000_000
    assert (counts * (np.arange(6000) + 0.5)).sum() / 1e8 / 100 - 30 == pytest.approx(-5, abs=1e-3)


def test_training_writes_imbalance_csv_and_a_checkpoint_can_be_measured(trained_run, squares):
    """The checkpoint is measured with the assigner of its training run."""
    with (trained_run / "imbalance.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3, "one row for each of three batches per epoch, because four rows are configured"
    for row in rows:
        shares = [float(v) for k, v in row.items() if k.endswith("_loss")]
        assert sum(shares) == pytest.approx(1, abs=1e-4)
        assert float(row["negative_anchors"]) > 100
    trained = load_for_analysis(trained_run / "best.ckpt", device="cpu")
    data = load(squares[1], classes=trained.classes)
    result = measure(trained, data, batch_size=2)
    assert result.images == len(data.records)
    assert result.objects == data.num_objects
    assert result.positive_anchors == result.size_positives.sum() == result.level_positives_L.sum()
    assert len(result.to_json()["per_level"]) == 5


@pytest.mark.slow
def test_training_measures_the_loss_of_its_own_steps(tiny, monkeypatch):
    """The weights of GHM-C depend on the batch. A measurement with another state would give another sum."""
    measured = []
    monkeypatch.setattr(imbalance_file, "row_of", lambda result: measured.append(result) or row_of(result))
    fit(**tiny, loss="ghm_c", max_steps=1)
    with (tiny["output"] / "metrics.csv").open(newline="") as file:
        (loss,) = [float(row["classification_loss"]) for row in csv.DictReader(file) if row["loss"]]
    assert measured[0].loss_SE.sum() / measured[0].positive_anchors == pytest.approx(loss, rel=1e-4)
