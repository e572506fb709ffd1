"""Images per second and the remaining time, with a clock that the test sets."""

import pytest

from retinanet.train.pace import EVALUATION_SHARE, Pace


def test_the_pace_is_that_of_the_latest_batches_without_the_first_one_and_without_evaluations() -> None:
    now = 0.0
    pace = Pace(clock=lambda: now)
    assert pace.images_per_second is None
    assert pace.seconds_left(batches=5, evaluations=1, evaluation_batches=2) is None
    pace.start()
    now = 100.0
    pace.end_batch(8)  # starts workers
    assert pace.images_per_second == pytest.approx(0.08)
    for _ in range(4):
        now += 2.0
        pace.end_batch(8)
    assert pace.images_per_second == pytest.approx(4.0)
    estimate = 10 * 2.0 + 3 * (6 * 2.0 * EVALUATION_SHARE)
    assert pace.seconds_left(batches=10, evaluations=3, evaluation_batches=6) == pytest.approx(estimate)
    pace.begin_evaluation()
    now += 30.0
    pace.end_evaluation()
    now += 2.0
    pace.end_batch(8)
    assert pace.images_per_second == pytest.approx(4.0)
    assert pace.seconds_left(batches=10, evaluations=3, evaluation_batches=6) == pytest.approx(10 * 2.0 + 3 * 30.0)
    assert pace.seconds_left(batches=0, evaluations=0, evaluation_batches=float("inf")) == 0.0
