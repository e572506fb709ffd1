"""Evaluation of a detector or a results file on a dataset."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from retinanet.config import PostprocessConfig
from retinanet.data import read
from retinanet.evaluate import EvaluationError, evaluate, evaluate_model, match_classes
from tests.evaluate.block_detector_fake import block_detector, made_image
from tests.evaluate.block_scenes import write_scenes


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_perfect_detector_has_ap_one(tmp_path: Path, batch_size: int) -> None:
    """This test fails if boxes are in resized pixels, ids are shifted, or images are mixed up."""
    data = read(write_scenes(tmp_path))
    metrics, results = evaluate_model(block_detector(image_size=50), data, batch_size=batch_size, workers=2)
    assert pytest.approx(1) == metrics.AP
    assert [row["image_id"] for row in results] == [40, 40, 41, 43, 43]
    assert {(row["image_id"], row["category_id"]) for row in results} == {
        (40, 11),
        (40, 500),
        (41, 4),
        (43, 11),
        (43, 4),
    }


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    data = read(write_scenes(tmp_path, names=("red", "lime", "blue")))
    metrics, results = evaluate_model(block_detector(), data)
    assert pytest.approx(1) == metrics.per_class["red"].AP
    assert metrics.per_class["lime"].AP == 0  # the data has objects of a class that the model lacks
    assert pytest.approx(2 / 3) == metrics.AP
    assert len(results) == 3  # detections of "green" are left out
    with pytest.raises(EvaluationError, match="share no class: the model has red, green, blue; the data has"):
        evaluate_model(block_detector(), read(write_scenes(tmp_path, names=("Red", "Green", "Blue"))))


def test_unmatched_classes_are_noted() -> None:
    assert match_classes(["a", "b"], ["b", "a"]) == ([1, 0], ())
    columns, notes = match_classes(["cat", "dog"], ["cow", "cat"])
    assert columns == [1, None]
    assert [note.split(":")[0] for note in notes] == ["the model does not have cow", "the data does not have dog"]
    assert match_classes(["a", "a"], ["a", "b", "a"])[0] == [0, 2]


def test_a_results_file_on_voc_data(tmp_path: Path) -> None:
    """The reader numbers the images of a VOC folder from 1, and the results use these ids."""
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "JPEGImages").mkdir()
    for name in ("p", "q"):
        made_image((100, 100), {0: (20, 20, 60, 60)}).save(tmp_path / "JPEGImages" / f"{name}.png")
        box = "<xmin>20</xmin><ymin>20</ymin><xmax>60</xmax><ymax>60</ymax>"
        (tmp_path / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><filename>{name}.png</filename><size><width>100</width><height>100</height></size>"
            f"<object><name>red</name><bndbox>{box}</bndbox></object></annotation>"
        )
    data = read(tmp_path)
    (red,) = data.category_ids
    rows = [
        {"image_id": record.image_id, "category_id": red, "bbox": record.boxes_G4[0].tolist(), "score": 0.5}
        for record in data.records
    ]
    for row in rows:
        x1, y1, x2, y2 = row["bbox"]
        row["bbox"] = [x1, y1, x2 - x1, y2 - y1]
    file = tmp_path / "results.json"
    file.write_text(json.dumps(rows[:1]))
    assert pytest.approx(0.5) == evaluate(file, data=tmp_path).metrics.AR100
    assert pytest.approx(1) == evaluate_model(block_detector(), data)[0].AP


def test_evaluation_does_not_change_random_states(tmp_path: Path) -> None:
    import torch

    data = read(write_scenes(tmp_path))
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002 - this test is about the global state
    before = (torch.random.get_rng_state(), np.random.get_state()[1].copy())  # type: ignore[index, union-attr] # noqa: NPY002
    evaluate_model(block_detector(), data)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # type: ignore[index] # noqa: NPY002


def test_the_number_of_detections_raises_the_limit_of_the_detector(tmp_path: Path) -> None:
    data, detector = read(write_scenes(tmp_path)), block_detector()
    one = dataclasses.replace(detector.info, postprocess_config=PostprocessConfig(max_detections=1))
    detector.info = one
    assert len(evaluate_model(detector, data)[1]) == 3
    metrics, results = evaluate_model(detector, data, max_detections=2)
    assert len(results) == 5
    assert pytest.approx(1) == metrics.AP
    assert metrics.max_detections == 2
