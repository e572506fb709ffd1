"""Test the threshold that shows an object, and the tried remedies: by applying them to planted errors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from retinanet.analysis.visibility import below, remedy, visibilities
from retinanet.config import PostprocessConfig
from tests.analysis.planted_errors import Planted, plant, shifted


def is_missed(planted: Planted) -> bool:
    return any(miss.object == 0 for miss in planted.errors().missed())


@pytest.mark.parametrize("score", [0.37, 0.3735, 0.001, 0.9999, 1.0])
def test_a_float32_score_exceeds_the_threshold_below_it(score: float):
    threshold = below(float(np.float32(score)))
    assert np.float32(score) > np.float32(threshold)
    assert threshold == pytest.approx(score, abs=0.0011)
    assert not np.float32(score) > np.float32(threshold + 0.0011)


@pytest.mark.parametrize(
    ("cause", "option"),
    [
        ("below the threshold", "threshold"),
        ("suppressed", "nms_threshold"),
        ("not a candidate", "candidates_per_level"),
        ("beyond max_detections", "max_detections"),
    ],
)
def test_the_remedy_shows_the_object_and_a_smaller_change_does_not(cause: str, option: str):
    for seed in range(10):
        planted, _ = plant(cause, np.random.default_rng(seed))
        errors = planted.errors()
        miss = next(one for one in errors.missed() if one.object == 0)
        assert miss.cause == cause
        found = remedy(errors, miss, visibilities(errors)[0])
        assert found is not None
        assert found.option == option
        step = {"threshold": 0.002, "nms_threshold": -0.02}.get(option, -1)
        for value, is_too_small in ((found.value, False), (found.value + step, True)):
            if option == "threshold":
                changed = planted.changed(threshold=value)
            else:
                changed = planted.changed(config=dataclasses.replace(planted.config, **{option: value}))
            assert is_missed(changed) is is_too_small, (seed, value)
            if not is_too_small:
                assert found.detections == len(changed.errors().shown)


@pytest.mark.parametrize("cause", ["suppressed", "not a candidate", "beyond max_detections"])
def test_no_threshold_shows_what_a_limit_or_nms_drops(cause: str):
    planted, _ = plant(cause, np.random.default_rng(0))
    found = visibilities(planted.errors())[0]
    assert (found.threshold, found.cause) == (None, cause)


def test_a_suppressed_box_of_another_class_stays_without_agnostic_nms():
    planted, _ = plant("suppressed", np.random.default_rng(0))
    (right, neighbour, fitting) = planted.rows
    wrong = (neighbour[0], (neighbour[1] + 1) % 3, 0.9)
    labels = np.array([*planted.labels_G[:2], wrong[1]])
    config = PostprocessConfig(agnostic_nms=True)
    changed = planted.changed(rows=[right, wrong, fitting], labels_G=labels, config=config)
    errors = changed.errors()
    miss = next(one for one in errors.missed() if one.object == 0)
    found = remedy(errors, miss, visibilities(errors)[0])
    assert (miss.cause, found.option, found.value) == ("suppressed", "agnostic_nms", False)  # type: ignore[union-attr]


def test_a_box_that_belongs_to_a_neighbour_explains_no_other_object():
    """A duplicate of the neighbour's detection has IoU 0.6 with the object. NMS keeps a box of the object itself."""
    planted, _ = plant("suppressed", np.random.default_rng(0))
    right, neighbour, (box, label, _) = planted.rows
    duplicate, own = (neighbour[0], label, 0.85), (shifted(box, -0.15), label, 0.2)
    errors = planted.changed(rows=[right, neighbour, duplicate, own]).errors()
    miss = next(one for one in errors.missed() if one.object == 0)
    assert miss.cause == "below the threshold"
    assert miss.best is not None
    assert miss.best.score == pytest.approx(0.2)


def test_the_object_that_took_the_anchors_is_named():
    planted, _ = plant("anchors taken", np.random.default_rng(0))
    miss = next(one for one in planted.errors().missed() if one.object == 0)
    assert (miss.cause, miss.taken_by) == ("anchors taken", 1)
    assert "its anchors are positive for object 2" in miss.why(("a", "b", "c"))
    other, _ = plant("no anchor", np.random.default_rng(0))
    assert next(one for one in other.errors().missed() if one.object == 0).taken_by is None


def test_a_threshold_for_each_class():
    planted, _ = plant("below the threshold", np.random.default_rng(0))
    label, score = int(planted.labels_G[0]), planted.rows[1][2]
    for own, missed in ((score - 0.01, False), (score + 0.01, True)):
        thresholds = [0.5, 0.5, 0.5]
        thresholds[label] = own
        assert is_missed(planted.changed(threshold=tuple(thresholds))) is missed
