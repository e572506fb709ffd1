"""Bootstrap over images: the same images for all runs, and hand-worked intervals."""

from __future__ import annotations

import numpy as np
import pytest

from retinanet.evaluate.bootstrap import image_interval, in_categories_of_runs, with_categories_of_runs
from retinanet.evaluate.coco import evaluate_results

BOX = [10, 10, 40, 40]


def truth(images, categories=(1,)):
    """Return a data set with one object of a category in each image, by turns."""
    return {
        "images": [{"id": i} for i in range(1, images + 1)],
        "categories": [{"id": category, "name": f"thing {category}"} for category in categories],
        "annotations": [
            {"id": i, "image_id": i, "category_id": categories[i % len(categories)], "bbox": BOX}
            for i in range(1, images + 1)
        ],
    }


def found(images):
    return [{"image_id": i, "category_id": 1, "bbox": BOX, "score": 0.9} for i in images]


def test_the_interval_of_two_images():
    """A set-up finds both objects, the reference one of two. A resample holds one image twice (2 of 4 resamples) or
    each image once (2 of 4): differences of 1, 0 and about 0.5 in AP, so that the percentiles are 0 and 1."""
    assert image_interval(truth(2), [found([1, 2])], [found([2])]) == pytest.approx((0, 1))


def test_equal_runs_differ_by_nothing_in_every_resample():
    runs = [found(range(1, 12)), found(range(1, 9))]
    assert image_interval(truth(20), runs, runs) == (0, 0)


def test_all_seeds_use_the_same_images():
    """In each resample the gain of one seed is the loss of the other seed: their mean is 0."""
    more, fewer = found(range(1, 20)), found(range(1, 9))
    interval = image_interval(truth(20), [more, fewer], [fewer, more])
    assert interval == pytest.approx((0, 0))


def test_a_run_without_detections_counts_as_0():
    """Every resample: AP 1 and 0 of the two runs, mean 0.5, against 1."""
    everything = found(range(1, 21))
    interval = image_interval(truth(20), [everything, []], [everything, everything])
    assert interval == pytest.approx((-0.5, -0.5))


def test_the_interval_narrows_with_the_number_of_images():
    """Half of the objects are found: AP is about the share p of found objects, whose standard error is
    sqrt(p (1 - p) / n), here 0.056 for 80 images: an interval of about 0.5 +- 0.11."""
    low, high = image_interval(truth(80), [found(range(1, 81))], [found(range(1, 81, 2))])
    assert low == pytest.approx(0.39, abs=0.03)
    assert high == pytest.approx(0.61, abs=0.03)


def test_ap_over_the_categories_of_all_runs_is_the_mean_of_the_runs():
    """Random detections of three runs on two categories, with ids that are not consecutive."""
    rng, data = np.random.default_rng(0), truth(30, (1, 7))
    runs = [
        [
            {"image_id": i, "category_id": c, "bbox": [*rng.uniform(5, 15, 2), 40, 40], "score": float(rng.random())}
            for i in range(1, 31)
            for c in (1, 7)
        ]
        for _ in range(3)
    ]
    together = evaluate_results(with_categories_of_runs(data, 3), in_categories_of_runs(data, runs))
    assert pytest.approx(np.mean([evaluate_results(data, rows).AP for rows in runs])) == together.AP
    assert 0 < together.AP < 1


def test_unpaired_runs_are_refused():
    with pytest.raises(ValueError, match="found 2 and 1 runs"):
        image_interval(truth(1), [found([1])] * 2, [found([1])])
