"""Files of COCO results: their ids are matched with the data, and their boxes are checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from retinanet.data import DataError
from retinanet.errors import UserError
from retinanet.evaluate import EvaluationError, evaluate
from tests.evaluate.block_scenes import write_scenes


def perfect_results(truth: Path) -> list[dict[str, Any]]:
    annotations = json.loads(truth.read_text())["annotations"]
    return [{**{key: a[key] for key in ("image_id", "category_id", "bbox")}, "score": 0.9} for a in annotations]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(rows))
    return path


def test_ground_truth_is_read_and_checked_as_for_training(tmp_path: Path) -> None:
    truth = write_scenes(tmp_path)
    file = write(tmp_path / "results.json", perfect_results(truth))
    content = json.loads(truth.read_text())
    for entry in content["annotations"]:
        del entry["id"]
    truth.write_text(json.dumps(content))
    assert pytest.approx(1) == evaluate(file, data=truth).metrics.AP
    content["annotations"][0].pop("bbox")
    truth.write_text(json.dumps(content))
    with pytest.raises(DataError, match="1 fault"):
        evaluate(file, data=truth)
    found = evaluate(file, data=truth, skip_invalid=True)
    assert any(note.startswith("1 faults in the data were left out") for note in found.notes)


def test_selected_classes_leave_out_detections_of_other_classes(tmp_path: Path) -> None:
    truth = write_scenes(tmp_path)
    file = write(tmp_path / "results.json", perfect_results(truth))
    found = evaluate(file, data=truth, classes=("red",))
    assert pytest.approx(1) == found.metrics.AP
    assert {row["category_id"] for row in found.results} == {11}
    assert any("selection leaves out were left out: 2 of green, 1 of blue" in note for note in found.notes)
    merged = evaluate(file, data=truth, rename=("green=red",))
    assert {name: row.AP for name, row in merged.metrics.per_class.items()} == pytest.approx({"red": 1, "blue": 1})


def test_images_are_matched_by_name_if_the_ids_are_not_those_of_the_data(tmp_path: Path) -> None:
    """`retinanet predict` numbers the images from 1 and writes their names."""
    truth = write_scenes(tmp_path)
    names = {image["id"]: image["file_name"] for image in json.loads(truth.read_text())["images"]}
    rows = [{**row, "file_name": f"some/{names[row['image_id']]}"} for row in perfect_results(truth)]
    same = evaluate(write(tmp_path / "same.json", rows), data=truth)
    assert not any("file_name" in note for note in same.notes)
    # Image 41 is image 40 of the data: without the names, its detections would count for another image.
    swapped = {40: 41, 41: 40, 42: 42, 43: 43}
    file = write(tmp_path / "swapped.json", [{**row, "image_id": swapped[row["image_id"]]} for row in rows])
    found = evaluate(file, data=truth)
    assert pytest.approx(1) == found.metrics.AP
    assert any("matched by their file_name" in note for note in found.notes)
    windows = [{**row, "file_name": row["file_name"].replace("/", "\\").upper()} for row in rows]
    assert not any("file_name" in note for note in evaluate(write(tmp_path / "w.json", windows), data=truth).notes)
    other = {"image_id": 9, "category_id": 11, "bbox": [1, 1, 9, 9], "score": 0.5, "file_name": "other.png"}
    more = evaluate(write(tmp_path / "more.json", [*rows, other]), data=truth)
    assert pytest.approx(1) == more.metrics.AP
    assert any("1 detections in 1 images that the data lacks were left out (other.png)" in note for note in more.notes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y, w, h: [x, y, x + w, y + h], "corners: "),
        (lambda x, y, w, h: [x / 200, y / 200, w / 200, h / 200], "fractions: .* but no value exceeds 1"),
    ],
)
def test_boxes_in_another_form_are_refused(tmp_path: Path, change: Any, words: str) -> None:
    truth = write_scenes(tmp_path)
    rows = [{**row, "bbox": change(*row["bbox"])} for row in perfect_results(truth)]
    with pytest.raises(EvaluationError, match=rf"the boxes are {words}"):
        evaluate(write(tmp_path / "r.json", rows), data=truth)


def test_a_detection_over_the_edge_is_no_corner(tmp_path: Path) -> None:
    truth = write_scenes(tmp_path)
    over = {"image_id": 40, "category_id": 11, "bbox": [150, 60, 100, 80], "score": 0.1}
    assert evaluate(write(tmp_path / "r.json", [*perfect_results(truth), over]), data=truth).metrics.AP > 0.99


def test_texts_as_ids_are_numbers_or_names(tmp_path: Path) -> None:
    """Ultralytics writes the stem of the file as image_id if it is no number."""
    truth = write_scenes(tmp_path)
    content = json.loads(truth.read_text())
    stems = {image["id"]: image["file_name"].removesuffix(".png") for image in content["images"]}
    classes = {category["id"]: category["name"] for category in content["categories"]}
    rows = perfect_results(truth)
    for image_id, category_id in ((str, str), (stems.get, classes.get)):
        named = [{**r, "image_id": image_id(r["image_id"]), "category_id": category_id(r["category_id"])} for r in rows]
        found = evaluate(write(tmp_path / "r.json", named), data=truth)
        assert pytest.approx(1) == found.metrics.AP
        assert any("5 times as image_id and 5 times as category_id" in note for note in found.notes)
    with pytest.raises(EvaluationError, match="image_id 'nowhere' is not in the ground truth"):
        evaluate(write(tmp_path / "r.json", [{**rows[0], "image_id": "nowhere"}]), data=truth)


def test_scores_and_repetitions_that_mislead_the_metrics_are_named(tmp_path: Path) -> None:
    """Joined files of two processes, a detector without scores, and scores in percent: all are valid COCO results."""
    truth = write_scenes(tmp_path)
    rows = [{**row, "score": 0.5 + i / 100} for i, row in enumerate(perfect_results(truth))]

    def notes(rows: list[dict[str, Any]]) -> str:
        return " ".join(evaluate(write(tmp_path / "results.json", rows), data=truth).notes)

    assert "results" not in notes(rows)
    assert f"2 of {len(rows) + 2} results repeat another result" in notes([*rows, *rows[:2]])
    assert f"all {len(rows)} results have the score 1: AP needs scores" in notes([{**row, "score": 1} for row in rows])
    assert "scores reach 90: AP only ranks them" in notes([*rows, {**rows[0], "score": 90}])


def test_an_output_that_cannot_be_written_is_refused_before_the_evaluation(tmp_path: Path) -> None:
    """Before, the metrics of a long evaluation were lost."""
    for option in ("results", "json", "report"):
        with pytest.raises(UserError, match="the file to write is a folder"):
            evaluate(tmp_path / "not-read.ckpt", data=tmp_path / "not-read.json", **{option: tmp_path})
