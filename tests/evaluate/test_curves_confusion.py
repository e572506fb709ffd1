from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from retinanet.commands.evaluate import confusion_table
from retinanet.errors import ConfigError
from retinanet.evaluate import confusion_matrix, evaluate_results, precision_recall

LEFT, RIGHT = [0.0, 0.0, 40.0, 40.0], [50.0, 0.0, 40.0, 40.0]
CAT, DOG, COW = 3, 7, 90


def truth(*objects: tuple[int, list[float], int]) -> dict[str, Any]:
    return {
        "images": [{"id": 1, "width": 100, "height": 100}],
        "categories": [{"id": CAT, "name": "cat"}, {"id": DOG, "name": "dog"}, {"id": COW, "name": "cow"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": c, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
            for i, (c, box, crowd) in enumerate(objects, start=1)
        ],
    }


def found(category: int, box: list[float], score: float) -> dict[str, Any]:
    return {"image_id": 1, "category_id": category, "bbox": box, "score": score}


def test_curve_by_hand() -> None:
    """Right, wrong, right: precision 1 up to recall 1/2, then 2/3."""
    results = [found(CAT, LEFT, 0.9), found(CAT, [0.0, 60.0, 20.0, 20.0], 0.8), found(CAT, RIGHT, 0.7)]
    objects = truth((CAT, LEFT, 0), (CAT, RIGHT, 0), (DOG, LEFT, 0))
    curve = precision_recall(objects, results)
    assert curve.classes == ("cat", "dog", "cow")
    assert curve.recall_R.tolist() == pytest.approx(np.linspace(0, 1, 101).tolist())
    np.testing.assert_allclose(curve.precision_RK[:51, 0], 1)
    np.testing.assert_allclose(curve.precision_RK[51:, 0], 2 / 3)
    np.testing.assert_allclose(curve.scores_RK[[0, 50, 51, 100], 0], [0.9, 0.9, 0.7, 0.7])
    assert (curve.precision_RK[:, 1] == 0).all()  # dogs, none found
    assert np.isnan(curve.precision_RK[:, 2]).all()  # no cow anywhere
    assert curve.precision_RK[:, 0].mean() == pytest.approx(evaluate_results(objects, results).per_class["cat"].AP50)


def test_curve_at_another_iou() -> None:
    results = [found(CAT, [0.0, 0.0, 40.0, 30.0], 0.9)]  # IoU 0.75 with LEFT
    assert precision_recall(truth((CAT, LEFT, 0)), results, iou=0.75).precision_RK[0, 0] == pytest.approx(1)
    assert precision_recall(truth((CAT, LEFT, 0)), results, iou=0.8).precision_RK[0, 0] == 0
    with pytest.raises(ConfigError, match=r"0\.50, 0\.55.*found 0\.3"):
        precision_recall(truth((CAT, LEFT, 0)), results, iou=0.3)


def test_confusion_by_hand() -> None:
    objects = truth((CAT, LEFT, 0), (DOG, RIGHT, 0), (DOG, [0.0, 50.0, 40.0, 40.0], 0))
    results = [
        found(CAT, LEFT, 0.9),
        found(CAT, RIGHT, 0.8),  # a dog taken for a cat
        found(COW, [50.0, 60.0, 20.0, 20.0], 0.7),  # nothing there
        found(DOG, [0.0, 50.0, 40.0, 40.0], 0.4),  # right, but below the threshold
    ]
    matrix = confusion_matrix(objects, results)
    assert matrix.classes == ("cat", "dog", "cow")
    assert matrix.counts.tolist() == [[1, 0, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]]
    assert confusion_matrix(objects, results, score=0.4).counts[1].tolist() == [1, 1, 0, 0]
    assert confusion_matrix(objects, []).counts[:, -1].tolist() == [1, 2, 0, 0]
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(confusion_table(matrix))
    assert "background" in console.export_text()


def test_a_crowd_is_neither_missed_nor_wrongly_found() -> None:
    crowd = [50.0, 0.0, 50.0, 100.0]
    objects = truth((CAT, LEFT, 0), (CAT, crowd, 1))
    inside = [60.0, 10.0, 20.0, 20.0]
    results = [found(CAT, LEFT, 0.9), found(CAT, inside, 0.8), found(DOG, inside, 0.7)]
    matrix = confusion_matrix(objects, results)
    assert matrix.counts.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
