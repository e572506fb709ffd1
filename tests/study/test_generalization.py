"""AP on training images and on validation images, with numbers worked by hand."""

import dataclasses

import pytest

from retinanet.study.decision import needs_images
from retinanet.study.generalization import generalization, sample
from tests.study.probes import runs, seen_by


def test_the_difference_of_two_seeds():
    """Training 0.5 and 0.7, validation 0.3 and 0.4: differences 0.2 and 0.3. t(1) = 12.706, s = 0.0707, half width
    12.706 x 0.0707 / sqrt(2) = 0.635."""
    found = generalization(seen_by(runs([0.3, 0.4]), [0.5, 0.7]))
    assert found.train == pytest.approx((0.5, 0.7))
    assert found.val == pytest.approx((0.3, 0.4))
    assert found.difference.mean == pytest.approx(0.25)
    assert found.difference.low == pytest.approx(0.25 - 0.635310, abs=1e-5)


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
    assert (found.train, found.val, found.difference.mean) == ((0.0,), (0.0,), 0.0)


@pytest.mark.parametrize(
    ("train", "needed"),
    [
        ([0.30, 0.32, 0.34], True),  # every seed has 0.1 more
        ([0.29, 0.31, 0.33], False),  # 0.09 is below 0.1
        ([0.20, 0.32, 0.50], False),  # 0.12 on average, but the interval contains 0
    ],
)
def test_from_which_difference_images_are_missing(train, needed):
    assert needs_images(generalization(seen_by(runs([0.2, 0.22, 0.24]), train))) is needed


def test_a_sample_of_the_images():
    chosen = sample(range(100), 10, seed=3)
    assert len(set(chosen)) == 10
    assert chosen == sorted(chosen) == sample(range(100), 10, seed=3)
    assert chosen != sample(range(100), 10, seed=4)
    assert sample(range(5), 10, seed=3) == [0, 1, 2, 3, 4]
