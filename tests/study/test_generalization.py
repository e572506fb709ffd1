"""AP on training images and on validation images, with numbers worked by hand."""

import dataclasses

import pytest

from retinanet.study.decision import needs_images
from retinanet.study.generalization import generalization, sample
from tests.study.probes import runs, seen_by


def test_the_change_of_two_seeds():
    """Training 0.5 and 0.8, validation 0.3 and 0.4: changes -0.4 and -0.5. t(1) = 12.706, s = 0.0707, half width
    12.706 x 0.0707 / sqrt(2) = 0.635."""
    found = generalization(seen_by(runs([0.3, 0.4]), [0.5, 0.8]))
    assert found.train == pytest.approx((0.5, 0.8))
    assert found.val == pytest.approx((0.3, 0.4))
    assert found.change.mean == pytest.approx(-0.45)
    assert found.change.low == pytest.approx(-0.45 - 0.635310, abs=1e-5)


def test_progress_does_not_count():
    """Three seeds with very different progress have the same change, -60 %: a run with AP 0.24 and one with 0.76."""
    found = generalization(seen_by(runs([0.184, 0.304, 0.096]), [0.46, 0.76, 0.24]))
    assert (found.change.mean, found.change.high) == pytest.approx((-0.6, -0.6))
    assert needs_images(found)


def test_only_classes_with_objects_in_both_count():
    """Class c has AP 0.9 in the sample of the training images. Class a is missing there, class b in the validation."""
    (run,) = runs([0.3], rare=[0.2])
    run.metrics["per_class"]["b"]["AP"] = -1.0
    train = {"per_class": {"a": {"AP": -1.0}, "b": {"AP": 0.7}, "c": {"AP": 0.9}}}
    found = generalization([dataclasses.replace(run, train_metrics=train)])
    assert (found.train, found.val) == ((0.9,), (0.2,))


def test_a_diverged_run_has_no_difference():
    (run,) = runs([0.0])
    found = generalization([dataclasses.replace(run, metrics={}, diverged="loss became NaN")])
    assert (found.train, found.val, found.change.mean) == ((0.0,), (0.0,), 0.0)


@pytest.mark.parametrize(
    ("val", "needed"),
    [
        ([0.30, 0.45, 0.60], True),  # every seed loses a quarter of 0.4, 0.6, 0.8
        ([0.32, 0.48, 0.64], False),  # 20 % is below 25 %
        ([0.10, 0.54, 0.72], False),  # 32 % on average, but the interval contains 0
        ([0.04, 0.06, 0.08], True),
    ],
)
def test_from_which_change_images_are_missing(val, needed):
    assert needs_images(generalization(seen_by(runs(val), [0.4, 0.6, 0.8]))) is needed


def test_a_run_that_has_not_learnt_shows_nothing():
    change = generalization(seen_by(runs([0.001, 0.002]), [0.02, 0.029])).change
    assert (change.mean, change.low, change.high) == (0.0, 0.0, 0.0)


def test_a_sample_of_the_images():
    chosen = sample(range(100), 10, seed=3)
    assert len(set(chosen)) == 10
    assert chosen == sorted(chosen) == sample(range(100), 10, seed=3)
    assert chosen != sample(range(100), 10, seed=4)
    assert sample(range(5), 10, seed=3) == [0, 1, 2, 3, 4]
