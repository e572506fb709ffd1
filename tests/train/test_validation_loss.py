"""The validation loss: images of all ranks as one batch, with the weights that are evaluated."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from retinanet.analysis.model_outputs import dense_outputs, load_for_analysis
from retinanet.config import LossConfig
from retinanet.data import load
from retinanet.losses import DetectionLoss
from retinanet.losses.detection import ImageLosses
from retinanet.train.metrics_table import read_metrics
from retinanet.train.validation_loss import VALIDATION_LOSSES, CollectedLosses, validation_losses

ROWS = [(0, 6.0, 3.0, 2), (1, 1.0, 0.0, 0), (2, 3.0, 1.0, 2)]
"""Three images with 2, 0 and 2 positives. Sums: classification 10, box 4, positives 4."""


@pytest.mark.parametrize(
    ("normaliser", "expected"),
    [
        ("batch", (10 / 4 + 2 * 4 / 4, 10 / 4, 4 / 4)),
        # The means over the images of 6 / 2, 1 / 1 and 3 / 2, and of 3 / 2, 0 and 1 / 2.
        ("image", (5.5 / 3 + 2 * 2 / 3, 5.5 / 3, 2 / 3)),
    ],
)
@pytest.mark.parametrize("rows", [ROWS, [*ROWS[::-1], ROWS[0]]], ids=["once", "image 0 on two ranks"])
def test_all_images_are_one_batch(normaliser, expected, rows):
    loss = DetectionLoss(config=LossConfig(normaliser=normaliser, box_loss_weight=2.0))
    found = validation_losses(rows, loss)
    assert tuple(found) == VALIDATION_LOSSES
    assert tuple(found.values()) == pytest.approx(expected)


def test_without_positives_the_sum_is_divided_by_1():
    found = validation_losses([(0, 0.5, 0.0, 0), (1, 0.25, 0.0, 0)], DetectionLoss(config=LossConfig()))
    assert tuple(found.values()) == (0.75, 0.75, 0.0)


def test_a_rank_collects_the_losses_of_its_batches():
    collected = CollectedLosses()
    assert collected.rows() == []
    for indices, values in (((4, 1), (1.0, 2.0)), ((3,), (3.0,))):
        values_N = torch.tensor(values)
        losses = ImageLosses(classification_N=values_N, box_N=10 * values_N, positives_N=values_N.long())
        collected.add(indices, losses)
    assert collected.rows() == [(4, 1.0, 10.0, 1), (1, 2.0, 20.0, 2), (3, 3.0, 30.0, 3)]


@pytest.mark.parametrize("batch_size", [1, 5])
def test_a_run_writes_the_loss_of_the_saved_weights(
    trained_run: Path, squares: tuple[Path, Path], batch_size: int
) -> None:
    """The run evaluates the running average of its weights in batches of 4. Both checkpoints hold this average."""
    trained = load_for_analysis(trained_run / "last.ckpt", device="cpu")
    data, loss = load(squares[1], classes=trained.classes), trained.make_loss()
    collected = CollectedLosses()
    for part in dense_outputs(trained, data, batch_size=batch_size):
        collected.add(part.batch.indices, loss.per_image([(part.outputs, part.targets)]))
    expected = validation_losses(collected.rows(), loss)
    last = read_metrics(trained_run / "metrics.csv")[-1]
    assert {name: last[name] for name in VALIDATION_LOSSES} == pytest.approx(expected, rel=1e-4)
    assert all(math.isfinite(value) and value > 0 for value in expected.values())
