"""Bootstrap over images: the same images for all evaluations, and hand-worked intervals."""

from __future__ import annotations

import pytest

from retinanet.evaluate.bootstrap import image_interval
from retinanet.evaluate.coco import coco_eval

BOX = [10, 10, 40, 40]


def evaluation(images, found):
    """Return the evaluation of a data set with one object per image, of which those in the images `found` are found."""
    truth = {
        "images": [{"id": i} for i in range(1, images + 1)],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": BOX} for i in range(1, images + 1)],
    }
    return coco_eval(truth, [{"image_id": i, "category_id": 1, "bbox": BOX, "score": 0.9} for i in found])


def test_the_interval_of_two_images():
    """A set-up finds both objects, the reference one of two. A resample holds each image twice (1 of 4 resamples) or
    each image once (2 of 4): differences of 1, 0 and about 0.5 in AP, so that the percentiles are 0 and 1."""
    interval = image_interval([evaluation(2, [1, 2])], [evaluation(2, [2])])
    assert interval == pytest.approx((0, 1))


def test_equal_runs_differ_by_nothing_in_every_resample():
    runs = [evaluation(20, range(1, 12)), evaluation(20, range(1, 9))]
    assert image_interval(runs, runs) == (0, 0)


def test_all_seeds_use_the_same_images():
    """In each resample the gain of one seed is the loss of the other seed: their mean is 0."""
    more, fewer = evaluation(20, range(1, 20)), evaluation(20, range(1, 9))
    low, high = image_interval([more, fewer], [fewer, more])
    assert low == pytest.approx(0)
    assert high == pytest.approx(0)


def test_the_interval_narrows_with_the_number_of_images():
    """Half of the objects are found: AP is about the share p of found objects, whose standard error is
    sqrt(p (1 - p) / n), here 0.056 for 80 images: an interval of about 0.5 +- 0.11."""
    low, high = image_interval([evaluation(80, range(1, 81))], [evaluation(80, range(1, 81, 2))])
    assert low == pytest.approx(0.39, abs=0.03)
    assert high == pytest.approx(0.61, abs=0.03)


def test_unpaired_evaluations_are_refused():
    with pytest.raises(ValueError, match="found 2 and 1 evaluations"):
        image_interval([evaluation(1, [1])] * 2, [evaluation(1, [1])])
