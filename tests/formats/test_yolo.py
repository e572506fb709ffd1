"""Tests of the YOLO reader: polygons, oriented boxes and faults."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from retinanet import data
from retinanet.data import DataError
from retinanet.formats import splits_of
from tests.formats.samples import CAT, H, W, Write, boxes, shares, write_yolo


def test_polygons_and_oriented_boxes_become_boxes_with_a_note(tmp_path: Path, write_image: Write) -> None:
    root = write_yolo(tmp_path, write_image)
    (root / "labels" / "train" / "b.txt").write_text(
        "0 0.25 0.25 0.75 0.25 0.5 0.75\n0 0.5 0.25 0.75 0.5 0.5 0.75 0.25 0.5\n"
    )
    (root / "data.yaml").write_text(yaml.safe_dump({"train": "images/train", "names": ["cat", "x", "dog"]}))
    found = data.load(root)
    assert boxes(found)["b.jpg"] == [("cat", (16.0, 12.0, 48.0, 36.0))] * 2
    assert any("2 polygons and other shapes were replaced" in note for note in found.notes)


POINTS = [(0.4, 0.4), (0.6, 0.4), (0.5, 0.6)]


@pytest.mark.parametrize("visibility", [None, 2], ids=["2 numbers", "3 numbers"])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("is_declared", [True, False])
def test_lines_with_key_points_begin_with_a_box(
    is_declared: bool, count: int, visibility: int | None, tmp_path: Path, write_image: Write
) -> None:
    """yolov5#12330: key points were read as the corners of a polygon."""
    root = write_yolo(tmp_path, write_image)
    points = " ".join(f"{x} {y}" + ("" if visibility is None else f" {visibility}") for x, y in POINTS[:count])
    (root / "labels" / "train" / "b.txt").write_text(f"0 0.5 0.5 0.25 0.25 {points}\n0 0.5 0.5 0.25 0.25\n")
    content: dict[str, object] = {"train": "images/train", "names": ["cat", "x", "dog"]}
    if is_declared:
        content["kpt_shape"] = [count, 2 if visibility is None else 3]
    (root / "data.yaml").write_text(yaml.safe_dump(content))
    if not is_declared and visibility is None:
        return  # x, y pairs cannot be told from a polygon
    found = data.load(root)
    assert boxes(found)["b.jpg"] == [("cat", (24.0, 18.0, 40.0, 30.0))] * 2
    assert any("key points of 1 lines were left out" in note for note in found.notes)


def test_other_columns_than_the_declared_key_points_are_faults(tmp_path: Path, write_image: Write) -> None:
    root = write_yolo(tmp_path, write_image)
    (root / "labels" / "train" / "b.txt").write_text("0 0.5 0.5 0.25 0.25 0.4 0.4 2\n")
    options = {"train": "images/train", "names": ["cat", "x", "dog"], "kpt_shape": [2, 3]}
    (root / "data.yaml").write_text(yaml.safe_dump(options))
    with pytest.raises(DataError, match=r"expected 5 or 11 columns \(kpt_shape 2 x 3\), found 8 columns"):
        data.load(root)
    (root / "data.yaml").write_text(yaml.safe_dump({**options, "kpt_shape": [2, 4]}))
    with pytest.raises(DataError, match=r"expected the number of key points and 2 or 3 in `kpt_shape`, found"):
        data.load(root)


def test_polygons_with_equal_columns_may_be_key_points(tmp_path: Path, write_image: Write) -> None:
    root = write_yolo(tmp_path, write_image)
    (root / "labels" / "train" / "b.txt").write_text("0 0.5 0.5 0.25 0.25 0.4 0.4 0.6 0.4 0.5 0.6\n" * 10)
    (root / "data.yaml").write_text(yaml.safe_dump({"train": "images/train", "names": ["cat", "x", "dog"]}))
    assert any("declare `kpt_shape: [3, 2]` in the data.yaml" in note for note in data.load(root).notes)


@pytest.mark.parametrize("names", ["[yes, no, 'on']", "{0: yes, 1: no, 2: on}", "\n- yes\n- no\n- on"])
def test_class_names_are_words(names: str, tmp_path: Path, write_image: Write) -> None:
    """YAML 1.1 reads yes, no and on as truth values."""
    root = write_yolo(tmp_path, write_image)
    (root / "data.yaml").write_text(f"train: images/train\nnc: '3'\nnames: {names}\n")
    assert data.load(root).classes == ("yes", "no", "on")


@pytest.mark.parametrize(
    ("names", "message"),
    [("[cat, '', dog]", "the name of class 1"), ("[[cat], dog]", "the name of class 0"), ("{0: a, 0.0: b}", "id once")],
)
def test_invalid_class_names_are_refused(names: str, message: str, tmp_path: Path, write_image: Write) -> None:
    root = write_yolo(tmp_path, write_image)
    (root / "data.yaml").write_text(f"train: images/train\nnames: {names}\n")
    with pytest.raises(DataError, match=message):
        data.load(root)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2", "found 4 columns"),
        ("0 0.5 0.5 0.2 x", "expected finite numbers"),
        ("x", "expected finite numbers, found 'x'"),
        ("7 0.5 0.5 0.2 0.2", r"class id of the class list \(0 to 2\), found '7'"),
        ("1.5 0.5 0.5 0.2 0.2", "found '1.5'"),
        ("0 0.5 0.5 0 0.2", "area above 0"),
        ("0 0.5 0.5 nan 0.2", "finite"),
        ("0 320 240 20 20", "maybe pixels"),
        ("0 1.5 0.5 0.2 0.2", "within the 64x48 image"),
        ("0 0.5 0.5 0.2 0.2 0.98", "found 6 columns: the last one may be the confidence"),
        ("cow 0.5 0.5 0.2 0.2", "finite numbers, found 'cow"),
    ],
)
def test_an_invalid_line_is_reported(tmp_path: Path, write_image: Write, line: str, message: str) -> None:
    root = write_yolo(tmp_path, write_image)
    (root / "labels" / "train" / "b.txt").write_text(f"0 {shares(CAT)}\n{line}\n")
    (root / "data.yaml").write_text(yaml.safe_dump({"train": "images/train", "names": ["cat", "x", "dog"]}))
    with pytest.raises(DataError, match=rf"1 fault\n.*b\.txt, line 2: .*{message}"):
        data.load(root)
    assert data.load(root, skip_invalid=True).num_objects == 3


def test_labels_without_an_image_are_reported(tmp_path: Path, write_image: Write) -> None:
    root = write_yolo(tmp_path, write_image)
    (root / "labels" / "train" / "gone.txt").write_text(f"0 {shares(CAT)}\n")
    (root / "data.yaml").write_text(yaml.safe_dump({"train": "images/train", "names": ["cat", "x", "dog"]}))
    with pytest.raises(DataError, match=r"gone\.txt: labels without an image"):
        data.load(root)


def test_a_dataset_without_label_files_is_refused(tmp_path: Path, write_image: Write) -> None:
    write_image(tmp_path / "images" / "a.jpg")
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"train": "images", "names": ["cat"]}))
    with pytest.raises(DataError, match=r"none of its 1 images has a label file; the first was expected at"):
        data.read(tmp_path / "data.yaml")


def test_images_that_share_a_label_file_are_faults(tmp_path: Path, write_image: Write) -> None:
    """Labels of a.txt cannot belong to both a.jpg and a.png. a.jpg.txt belongs to a.jpg only."""
    root = write_yolo(tmp_path, write_image)
    write_image(root / "images" / "train" / "b.png", W, H)
    (root / "data.yaml").write_text(yaml.safe_dump({"train": "images/train", "names": ["cat", "x", "dog"]}))
    assert list(boxes(data.load(root))) == ["a.jpg", "b.jpg", "b.png"]  # both have no objects
    labels = root / "labels" / "train"
    (labels / "b.txt").write_text(f"0 {shares(CAT)}\n")
    with pytest.raises(DataError, match=r"2 faults\n.*b\.jpg: expected one image for the labels in .*b\.jpg, b\.png"):
        data.load(root)
    (labels / "b.txt").rename(labels / "b.png.txt")
    found = boxes(data.load(root))
    assert (found["b.jpg"], found["b.png"]) == ([], [("cat", CAT)])


def test_the_name_of_a_class_instead_of_its_id(tmp_path: Path, write_image: Write) -> None:
    """fastdup#85: some tools write class names."""
    root = write_yolo(tmp_path, write_image)
    (root / "labels" / "train" / "b.txt").write_text(f"dog {shares(CAT)}\n")
    (root / "data.yaml").write_text(yaml.safe_dump({"train": "images/train", "names": ["cat", "x", "dog"]}))
    assert boxes(data.load(root))["b.jpg"] == [("dog", CAT)]


def test_class_names_beside_the_labels(tmp_path: Path, write_image: Write) -> None:
    """labelImg#482: labelImg writes classes.txt into the folder of the labels."""
    write_image(tmp_path / "images" / "a.jpg", W, H)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text(f"1 {shares(CAT)}\n")
    (tmp_path / "labels" / "classes.txt").write_text("dog\ncat\n")
    found = data.load(tmp_path)
    assert (found.classes, boxes(found)) == (("dog", "cat"), {"a.jpg": [("cat", CAT)]})


@pytest.mark.parametrize("order", ["images/{}", "{}/images"])
def test_a_folder_without_a_yaml_gives_the_requested_split(order: str, tmp_path: Path, write_image: Write) -> None:
    """luxonis-train#213: validation read the training images."""
    root = tmp_path / "set"
    for split, name in (("train", "a"), ("valid", "b")):
        images = root / order.format(split)
        write_image(images / f"{name}.jpg", W, H)
        labels = Path(str(images).replace("images", "labels"))
        labels.mkdir(parents=True)
        (labels / f"{name}.txt").write_text(f"0 {shares(CAT)}\n")
    (root / "classes.txt").write_text("cat\n")
    whole, train, val = (boxes(data.load(root, split=split)) for split in (None, "train", "val"))
    assert (list(whole), train, val) == (["a.jpg", "b.jpg"], {"a.jpg": [("cat", CAT)]}, {"b.jpg": [("cat", CAT)]})
    if order.startswith("images"):
        moved = (root / "images").rename(tmp_path / "elsewhere")
        assert boxes(data.load(root, split="val", images=moved)) == val
        assert boxes(data.load(root, images=moved)) == whole
        moved.rename(root / "images")
    assert {name: list(boxes(data.load(path))) for name, path in splits_of(root).items()} == {
        "train": ["a.jpg"],
        "val": ["b.jpg"],
    }
