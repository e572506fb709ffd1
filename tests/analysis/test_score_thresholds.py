"""Thresholds for an aim: hand-worked numbers, brute force, and promises against a known truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from retinanet.analysis.score_thresholds import Aim, Choice, Outcomes, UnsupportedAimError, choose, measure, p_value
from retinanet.errors import ConfigError


def made(scores: list[float], correct: list[int], objects: list[int], images: list[int] | None = None) -> Outcomes:
    """Return outcomes; by default, detection i lies in image i modulo the number of images."""
    if images is None:
        images = [i % len(objects) for i in range(len(scores))]
    return Outcomes(
        scores_D=np.array(scores),
        correct_D=np.array(correct, dtype=bool),
        image_D=np.array(images),
        objects_I=np.array(objects),
    )


@pytest.mark.parametrize(
    ("text", "aim"),
    [
        ("recall=0.95", Aim(kind="recall", value=0.95)),
        (" Precision=0.9 ", Aim(kind="precision", value=0.9)),
        ("f1", Aim(kind="f1")),
        ("cost=10:1", Aim(kind="cost", value=10)),
        ("cost=1:4", Aim(kind="cost", value=0.25)),
    ],
)
def test_aims_are_read(text: str, aim: Aim) -> None:
    assert Aim.parse(text) == aim
    assert Aim.parse(str(aim)) == aim


@pytest.mark.parametrize(
    "text", ["", "recall", "recall=1", "recall=95", "precision=nan", "f1=0.5", "cost=1", "cost=1:0"]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="aim must be recall=R or precision=P"):
        Aim.parse(text)


def test_recall_by_hand() -> None:
    """100 images with one object each. For recall 0.9, the loss of an image is at most 0.9.

    The allowed misses are 0.1 x 100 - 0.9 = 9.1, so at most 9. 100 right detections have the scores 0.01, 0.02, ..., 1.
    Without the 9 lowest, 0.10 is the lowest kept score: the threshold lies between 0.09 and 0.10.
    """
    scores = [(i + 1) / 100 for i in range(100)]
    found = choose(made(scores, [1] * 100, [1] * 100), Aim(kind="recall", value=0.9), confidence=0.95)
    assert found == Choice(threshold=pytest.approx(0.095), recall=0.91, precision=1.0)


def test_too_few_images_for_a_recall() -> None:
    """8 images allow 0.1 x 8 - 0.9 = -0.1 misses. 9 images allow 0."""
    with pytest.raises(UnsupportedAimError, match="8 images with 8 objects are too few") as refused:
        choose(made([0.9] * 8, [1] * 8, [1] * 8), Aim(kind="recall", value=0.9), confidence=0.95)
    assert refused.value.images == 9
    choose(made([0.9] * 9, [1] * 9, [1] * 9), Aim(kind="recall", value=0.9), confidence=0.95)


def test_a_recall_that_the_model_never_reaches() -> None:
    with pytest.raises(UnsupportedAimError, match=r"finds 80 of 100 objects .* no number of images") as refused:
        choose(made([0.9] * 80, [1] * 80, [1] * 100), Aim(kind="recall", value=0.9), confidence=0.95)
    assert refused.value.images is None


def test_p_value_is_the_binomial_distribution_function() -> None:
    """k false detections of n, at precision 0.9: P(Bin(n, 0.1) <= k)."""
    for n, k in ((29, 0), (50, 2), (100, 5), (10, 10)):
        assert p_value(np.float64(k), np.float64(n), 0.9) == pytest.approx(binom.cdf(k, n, 0.1), abs=1e-12)
    assert p_value(np.float64(0), np.float64(0), 0.9) == 1


def test_precision_by_hand() -> None:
    """200 right detections with score 0.9, 200 wrong ones with score 0.3: every threshold from 0.3 to 0.9 passes."""
    scores, correct = [0.9] * 200 + [0.3] * 200, [1] * 200 + [0] * 200
    found = choose(made(scores, correct, [10] * 20), Aim(kind="precision", value=0.9), confidence=0.95)
    assert 0.3 <= found.threshold < 0.9
    assert found.precision == 1
    assert found.threshold < 0.35, "the lowest threshold that passes is chosen"


def test_the_named_number_of_images_supports_a_precision() -> None:
    """20 right detections do not show precision 0.9 (0.9^20 = 0.12); the named number of such images does."""
    with pytest.raises(UnsupportedAimError, match="20 images are too few to show precision 0.9") as refused:
        choose(made([0.8] * 20, [1] * 20, [1] * 20), Aim(kind="precision", value=0.9), confidence=0.95)
    needed = refused.value.images
    assert needed is not None
    choose(made([0.8] * needed, [1] * needed, [1] * needed), Aim(kind="precision", value=0.9), confidence=0.95)
    with pytest.raises(UnsupportedAimError):
        choose(
            made([0.8] * (needed - 2), [1] * (needed - 2), [1] * (needed - 2)),
            Aim(kind="precision", value=0.9),
            confidence=0.95,
        )


def test_a_precision_that_no_threshold_reaches() -> None:
    with pytest.raises(UnsupportedAimError, match=r"highest precision at any threshold is 0.500") as refused:
        choose(made([0.8] * 100, [1, 0] * 50, [1] * 100), Aim(kind="precision", value=0.9), confidence=0.95)
    assert refused.value.images is None


def test_no_objects() -> None:
    with pytest.raises(UnsupportedAimError, match="expected objects, found none"):
        choose(made([0.5], [0], [0]), Aim(kind="f1"), confidence=0.95)


def test_f1_and_cost_equal_brute_force() -> None:
    """All thresholds between different scores are tried, on 200 random cases with equal scores among them."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        count = int(rng.integers(1, 30))
        data = made(
            list(rng.integers(1, 20, count) / 20), list((rng.random(count) < 0.6).astype(int)), [count, 3], [0] * count
        )
        objects = int(data.objects_I.sum())
        cuts = np.append(np.unique(data.scores_D) - 1e-6, 1.0)

        def counts(threshold: float, data: Outcomes = data) -> tuple[int, int]:
            kept_D = data.scores_D > threshold
            return int((kept_D & data.correct_D).sum()), int((kept_D & ~data.correct_D).sum())

        def f1(threshold: float, objects: int = objects) -> float:
            right, false = counts(threshold)
            return 2 * right / (objects + right + false)

        def cost(threshold: float, objects: int = objects) -> float:
            right, false = counts(threshold)
            return 3 * (objects - right) + false

        assert f1(choose(data, Aim(kind="f1"), confidence=0.95).threshold) == max(map(f1, cuts))
        assert cost(choose(data, Aim(kind="cost", value=3), confidence=0.95).threshold) == min(map(cost, cuts))


def test_measure_without_detections() -> None:
    assert measure(made([], [], [2]), 0.5) == Choice(threshold=0.5, recall=0.0, precision=1.0)


def drawn(seed: int, images: int) -> Outcomes:
    """Return detections whose probability of being right is their score, with three to seven of them in an image.

    Every object has one detection, so that the recall at a threshold t is 1 - t^2, and the precision (1 + t) / 2.
    """
    rng = np.random.default_rng(seed)
    count_I = rng.integers(3, 8, images)
    image_D = np.repeat(np.arange(images), count_I)
    scores_D = rng.random(len(image_D))
    correct_D = rng.random(len(image_D)) < scores_D
    objects_I = np.bincount(image_D[correct_D], minlength=images)
    return Outcomes(scores_D=scores_D, correct_D=correct_D, image_D=image_D, objects_I=objects_I)


def test_promises_hold_against_a_known_truth() -> None:
    """The expected recall is at least 0.9, and a promised precision of 0.8 is wrong in at most 5 % of 300 samples.

    A threshold without a reserve would be wrong in about half of the samples.
    """
    recall, precision = Aim(kind="recall", value=0.9), Aim(kind="precision", value=0.8)
    recalls, broken, refused = [], 0, 0
    for seed in range(300):
        data = drawn(seed, 200)
        recalls.append(1 - choose(data, recall, confidence=0.95).threshold ** 2)
        try:
            broken += (1 + choose(data, precision, confidence=0.95).threshold) / 2 < 0.8
        except UnsupportedAimError:
            refused += 1
    assert 0.9 <= np.mean(recalls) < 0.93
    assert broken <= 0.05 * 300
    assert refused < 0.05 * 300


def test_images_whose_errors_come_together_need_more_images() -> None:
    """200 detections in 100 images pass; the same numbers, with all errors in few images, do not."""
    scores, aim = [0.9] * 200, Aim(kind="precision", value=0.9)
    spread = made(scores, [0] * 8 + [1] * 192, [2] * 100, list(range(100)) * 2)
    assert choose(spread, aim, confidence=0.95).precision == 0.96
    together = made(scores, [0] * 8 + [1] * 192, [2] * 100, [0] * 8 + [1 + i % 99 for i in range(192)])
    with pytest.raises(UnsupportedAimError, match="too few to show precision"):
        choose(together, aim, confidence=0.95)
