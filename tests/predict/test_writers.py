"""Writing detections as COCO, CSV, Pascal VOC and YOLO files, and unique output names."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import supervision as sv
import yaml
from defusedxml import ElementTree

from retinanet.data import read
from retinanet.predict.writers import OutputImage, open_writer, output_names

CLASSES = ("red cell", 'Ångström <&>, "x"')
CATEGORY_IDS = (5, 90)
BOXES = np.array([[10.125, 20.5, 59.7, 80.3], [0, 0, 200, 100], [199, 99, 200, 100]], np.float32)
SCORES = np.array([0.91234, 0.5, 0.05], np.float32)
LABELS = np.array([1, 0, 1])


def detections(count: int = 3) -> sv.Detections:
    return sv.Detections(
        xyxy=BOXES[:count].reshape(-1, 4),
        confidence=SCORES[:count],
        class_id=LABELS[:count],
        data={"class_name": np.array(CLASSES)[LABELS[:count]]},
    )


def images() -> list[OutputImage]:
    return [
        OutputImage(path=Path(f"in/{name}.jpg"), name=PurePosixPath(name), image_id=i, width=200, height=100)
        for i, name in enumerate(("a", "b/a", "empty"), start=1)
    ]


def write(format: str, folder: Path) -> None:
    with open_writer(format, folder, classes=CLASSES, category_ids=CATEGORY_IDS) as writer:  # type: ignore[arg-type]
        for image, image_detections in zip(images(), (detections(), detections(1), detections(0)), strict=True):
            writer.write(image, image_detections)
    assert not list(folder.rglob("*.partial"))


def test_coco_results_have_ids_paths_boxes_and_scores(tmp_path: Path) -> None:
    write("coco", tmp_path)
    rows = json.loads((tmp_path / "detections.json").read_text(encoding="utf-8"))
    assert [row["image_id"] for row in rows] == [1, 1, 1, 2]
    assert [row["file_name"] for row in rows] == ["in/a.jpg"] * 3 + ["in/b/a.jpg"]
    assert [row["category_id"] for row in rows] == [90, 5, 90, 90]
    boxes = np.array([row["bbox"] for row in rows])
    boxes[:, 2:] += boxes[:, :2]
    np.testing.assert_allclose(boxes, np.concatenate([BOXES, BOXES[:1]]), rtol=1e-7)
    np.testing.assert_array_equal(np.float32([row["score"] for row in rows[:3]]), SCORES)


def test_coco_results_without_detections_are_an_empty_list(tmp_path: Path) -> None:
    with open_writer("coco", tmp_path, classes=CLASSES, category_ids=CATEGORY_IDS) as writer:
        writer.write(images()[0], detections(0))
    assert json.loads((tmp_path / "detections.json").read_text()) == []


def test_csv_has_one_line_per_detection_or_empty_image(tmp_path: Path) -> None:
    write("csv", tmp_path)
    text = (tmp_path / "detections.csv").read_text(encoding="utf-8")
    assert text.splitlines()[0] == "path,x1,y1,x2,y2,class,score"
    assert text.splitlines()[-1] == "in/empty.jpg,,,,,,"
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["path"] for row in rows] == ["in/a.jpg"] * 3 + ["in/b/a.jpg", "in/empty.jpg"]
    read_back = np.array([[row[key] for key in ("x1", "y1", "x2", "y2")] for row in rows[:3]], np.float32)
    np.testing.assert_array_equal(read_back, BOXES)
    np.testing.assert_array_equal(np.array([row["score"] for row in rows[:3]], np.float32), SCORES)
    assert [row["class"] for row in rows[:3]] == [CLASSES[k] for k in LABELS]


def test_yolo_files_have_class_names_and_relative_boxes(tmp_path: Path) -> None:
    write("yolo", tmp_path)
    assert yaml.safe_load((tmp_path / "data.yaml").read_text(encoding="utf-8")) == {"names": dict(enumerate(CLASSES))}
    rows = np.loadtxt(tmp_path / "labels" / "a.txt")
    assert rows[:, 0].tolist() == LABELS.tolist()
    centre, size = rows[:, 1:3] * [200, 100], rows[:, 3:5] * [200, 100]
    np.testing.assert_allclose(np.concatenate([centre - size / 2, centre + size / 2], axis=1), BOXES, atol=1e-4)
    np.testing.assert_array_equal(rows[:, 5].astype(np.float32), SCORES)
    assert (tmp_path / "labels" / "b" / "a.txt").read_text().count("\n") == 1
    assert (tmp_path / "labels" / "empty.txt").read_text() == ""


def test_voc_files_have_names_boxes_and_scores(tmp_path: Path) -> None:
    write("voc", tmp_path)
    root = ElementTree.parse(tmp_path / "Annotations" / "a.xml").getroot()
    assert (root.findtext("filename"), root.findtext("size/width"), root.findtext("size/height")) == (
        "a.jpg",
        "200",
        "100",
    )
    objects = root.findall("object")
    assert [element.findtext("name") for element in objects] == [CLASSES[k] for k in LABELS]
    boxes = [[float(e.findtext(f"bndbox/{c}", "")) for c in ("xmin", "ymin", "xmax", "ymax")] for e in objects]
    np.testing.assert_allclose(boxes, BOXES, atol=0.00501)
    np.testing.assert_array_equal(np.float32([e.findtext("score") for e in objects]), SCORES)
    assert ElementTree.parse(tmp_path / "Annotations" / "empty.xml").getroot().findall("object") == []


def test_voc_files_can_be_read_as_a_dataset(tmp_path: Path) -> None:
    """Users can correct detections by hand, and train on them."""
    write("voc", tmp_path)
    data = read(tmp_path, images=tmp_path)
    assert sorted(data.classes) == sorted(CLASSES)
    record = next(r for r in data.records if len(r.boxes_G4) == 3)
    np.testing.assert_allclose(np.asarray(record.boxes_G4), BOXES, atol=0.00501)
    assert [data.classes[k] for k in record.labels_G] == [CLASSES[k] for k in LABELS]


@pytest.mark.parametrize("format", ["coco", "csv"])
def test_a_failed_run_keeps_the_earlier_file(tmp_path: Path, format: str) -> None:
    target = tmp_path / f"detections.{'json' if format == 'coco' else 'csv'}"
    target.write_text("earlier file")
    writer = open_writer(format, tmp_path, classes=CLASSES, category_ids=CATEGORY_IDS)  # type: ignore[arg-type]

    def write_and_fail() -> None:
        with writer:
            writer.write(images()[0], detections())
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_and_fail()
    assert target.read_text() == "earlier file"
    assert (
        "in/a.jpg" in target.with_name(target.name + ".partial").read_text()
    )  # the detections before the error are kept


def test_output_names_are_unique() -> None:
    def names(*paths: str) -> list[str]:
        return [str(name) for name in output_names([Path(path) for path in paths])]

    assert names("x/a.jpg") == ["a"]
    assert names("x/a.jpg", "x/y/a.jpg") == ["a", "y/a"]
    assert names("x/a.jpg", "z/a.jpg") == ["x/a", "z/a"]
    assert names("x/a.jpg", "x/a.png", "x/b.png") == ["a.jpg", "a.png", "b"]
    assert names("x/a.jpg", "x/a.png", "x/a.jpg.png") == ["a.jpg", "a.png", "a.jpg.png"]
    assert names("x/a.jpg", "x/A.png") == ["a.jpg", "A.png"]
    assert names("x/v1.2.jpg", "x/v1.3.jpg") == ["v1.2", "v1.3"]
    assert names("x/../y/a.jpg", "y/b.jpg") == ["a", "b"]
    assert names() == []


@pytest.mark.parametrize("format", ["coco", "csv", "voc", "yolo"])
def test_a_name_that_is_not_utf8_loses_no_results(tmp_path: Path, format: str) -> None:
    """Old archives and shares contain names in Latin-1. Their bytes are written as %XX."""
    latin_1 = os.fsdecode(b"bild_\xfc")
    with open_writer(format, tmp_path, classes=CLASSES, category_ids=CATEGORY_IDS) as writer:
        for i, name in enumerate(("a", latin_1, "z")):
            image = OutputImage(
                path=Path(f"in/{name}.jpg"), name=PurePosixPath(name), image_id=i, width=200, height=100
            )
            writer.write(image, detections(1))
    if format in {"coco", "csv"}:
        (file,) = tmp_path.iterdir()
        text = file.read_text(encoding="utf-8")
        assert [f"in/{name}.jpg" in text for name in ("a", "bild_%FC", "z")] == [True] * 3
    else:
        written = sorted(path for path in tmp_path.rglob("*") if path.suffix in {".txt", ".xml"})
        assert [path.stem for path in written] == sorted(["a", latin_1, "z"])
    if format == "voc":
        names = [ElementTree.parse(path).findtext("filename") for path in written]
        assert names == ["a.jpg", "bild_%FC.jpg", "z.jpg"]
