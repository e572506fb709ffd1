"""Overfitting: rising, flat, noisy and falling validation losses, and AP that rises all the same."""

from __future__ import annotations

import numpy as np
import pytest

from retinanet.analysis.overfitting import epoch_means, find_overfitting

FALLING = [1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
RISING = [1.0, 0.8, 0.7, 0.6, 0.7, 0.8, 0.9, 1.0]
"""Medians of three: 0.9, 0.8, 0.7, 0.7, 0.7, 0.8, 0.9, 0.95. The minimum 0.7 is in epoch 3."""


def metrics_rows(val, train, aps=None, first=0):
    """Return two rows of metrics.csv per epoch: one of a training step, one of the evaluation."""
    rows = []
    for epoch, (v, t) in enumerate(zip(val, train, strict=False), start=first):
        rows.append({"epoch": float(epoch), "loss": t, "val_loss": None, "AP": None})
        rows.append({"epoch": float(epoch), "loss": None, "val_loss": v, "AP": aps[epoch] if aps else None})
    return rows


def test_a_rising_loss_is_reported_with_the_epoch_of_its_minimum():
    """0.95 / 0.7 = 1.36. The training loss falls from 0.6 to 0.15, by 75 %."""
    found = find_overfitting(metrics_rows(RISING, FALLING))
    assert found is not None
    assert (found.epoch, found.rise, found.fall) == (3, pytest.approx(0.95 / 0.7 - 1), pytest.approx(0.75))
    assert found.sentence() == (
        "The validation loss has risen by 36 % since epoch 3, while the training loss fell by 75 %: the model "
        "overfits. Train for about 3 epochs, add images, or use more augmentation."
    )


@pytest.mark.parametrize(
    ("val", "train"),
    [
        (FALLING, FALLING),
        ([1.0, 0.8] + 6 * [0.6], FALLING),
        (RISING, 8 * [0.5]),
        (RISING, FALLING[::-1]),
        (RISING[:5], FALLING),
        ([1.0, 0.8, 0.7, 0.6, 0.6, 0.6, 0.6, 1.0], FALLING),
        ([1.0, 0.5, 0.51, 0.515, 0.52, 0.521, 0.522, 0.522], FALLING),
        ([0.7, 0.6, 0.72, 0.58, 0.75, 0.61, 0.74, 0.6], FALLING),
        ([float("nan")] * 8, FALLING),
        ([None] * 8, FALLING),
        ([], []),
    ],
    ids=[
        *("falling", "flat", "flat training loss", "rising training loss", "too short", "one outlier at the end"),
        *("a rise of 4 %", "noise", "NaN", "a file of an earlier version", "no rows"),
    ],
)
def test_other_courses_are_not_reported(val, train):
    assert find_overfitting(metrics_rows(val, train)) is None


def test_noise_around_a_constant_loss_is_rarely_reported():
    rng = np.random.default_rng(0)
    train = list(np.linspace(1, 0.5, 20))
    courses = 1 + 0.05 * rng.standard_normal((200, 20))
    assert sum(find_overfitting(metrics_rows(list(val), train)) is not None for val in courses) <= 10


def test_noise_on_a_strong_rise_does_not_hide_it():
    rng = np.random.default_rng(1)
    epochs = np.arange(20)
    train = list(np.linspace(1, 0.5, 20))
    course = np.exp(-epochs / 3) + 0.8 + 0.03 * epochs
    courses = course * (1 + 0.02 * rng.standard_normal((200, 20)))
    found = [find_overfitting(metrics_rows(list(val), train)) for val in courses]
    assert sum(f is not None for f in found) >= 195
    assert all(4 <= f.epoch <= 12 for f in found if f is not None), "the minimum of the course is in epoch 8"


def test_ap_that_still_rises_is_stated():
    found = find_overfitting(metrics_rows(RISING, FALLING, [0.1, 0.2, 0.3, 0.32, 0.35, 0.4, 0.41, 0.38]))
    assert found is not None
    assert found.sentence() == (
        "The validation loss has risen by 36 % since epoch 3, while the training loss fell by 75 %: the model begins "
        "to overfit. AP still rose after epoch 3, from 0.300 to 0.410 in epoch 7, so fewer epochs would not improve "
        "AP. Add images or use more augmentation."
    )
    falls = find_overfitting(metrics_rows(RISING, FALLING, [0.1, 0.2, 0.3, 0.305, 0.3, 0.2, 0.1, 0.1]))
    assert falls is not None
    assert "Train for about 3 epochs" in falls.sentence()


def test_epochs_without_an_evaluation_are_left_out():
    """With `evaluate_every` 2, every second epoch has an evaluation. Epochs count all epochs."""
    rows = metrics_rows(RISING, FALLING)
    rows = [{**row, "epoch": 2 * row["epoch"] + 1} for row in rows]
    rows += [{"epoch": 2.0 * epoch, "loss": 1.0, "val_loss": None} for epoch in range(8)]
    found = find_overfitting(rows)
    assert found is not None
    assert found.epoch == 6


def test_the_mean_of_an_epoch_leaves_out_empty_cells():
    rows = [{"epoch": 1.0, "loss": 4.0}, {"epoch": 0.0, "loss": 1.0}, {"epoch": 1.0, "loss": 2.0}, {"epoch": 1.0}]
    assert epoch_means(rows, "loss") == {0: 1.0, 1: 3.0}
