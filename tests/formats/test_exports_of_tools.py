"""Data sets as each format and labelling tool writes them, read back box for box, and their faults."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from retinanet import data
from retinanet.data import DataError, DetectionData
from retinanet.formats import splits_of

Write = Callable[..., Path]
W, H = 64, 48
CAT, DOG = (1.0, 2.0, 30.0, 40.0), (10.5, 4.25, 20.25, 40.0)


def boxes(found: DetectionData) -> dict[str, list[tuple[str, tuple[float, ...]]]]:
    """Class and box of each object, by picture."""
    return {
        r.path.name: [
            (found.classes[k], tuple(round(v, 6) for v in box))
            for k, box in zip(r.labels_G, r.boxes_G4.tolist(), strict=True)
        ]
        for r in found.records
    }


EXPECTED = {"a.jpg": [("cat", CAT), ("dog", DOG)], "b.jpg": []}


def shares(box: tuple[float, ...]) -> str:
    x1, y1, x2, y2 = box
    return f"{(x1 + x2) / 2 / W} {(y1 + y2) / 2 / H} {(x2 - x1) / W} {(y2 - y1) / H}"


def write_yolo(root: Path, write_picture: Write, *, split: str = "train", folder: str | None = None) -> Path:
    """images/train + labels/train, or train/images + train/labels as Roboflow."""
    images, labels = (root / "images" / split, root / "labels" / split)
    if folder is not None:
        images, labels = root / folder / "images", root / folder / "labels"
    for name in ("a", "b"):
        write_picture(images / f"{name}.jpg", W, H, seed=ord(name))
    labels.mkdir(parents=True)
    (labels / "a.txt").write_text(f"0 {shares(CAT)}\n2 {shares(DOG)}\n")
    return root


class TestYolo:
    def test_a_data_yaml_with_folders(self, tmp_path: Path, write_picture: Write) -> None:
        root = write_yolo(tmp_path, write_picture)
        file = root / "data.yaml"
        file.write_text(yaml.safe_dump({"path": ".", "train": "images/train", "names": ["cat", "bird", "dog"]}))
        found = data.load(file)
        assert boxes(found) == EXPECTED
        assert (found.classes, found.category_ids) == (("cat", "bird", "dog"), (1, 2, 3))
        assert any("1 of 2 pictures have no label file" in note for note in found.notes)

    def test_names_as_a_map_and_a_list_of_pictures(self, tmp_path: Path, write_picture: Write) -> None:
        root = write_yolo(tmp_path, write_picture)
        (root / "train.txt").write_text("./images/train/a.jpg\n\nimages/train/b.jpg\n")
        (root / "data.yaml").write_text(yaml.safe_dump({"train": "train.txt", "names": {0: "cat", 2: "dog"}, "nc": 2}))
        found = data.load(root)
        assert boxes(found) == EXPECTED
        assert (found.classes, found.category_ids) == (("cat", "dog"), (1, 3))

    def test_the_splits(self, tmp_path: Path, write_picture: Write) -> None:
        root = write_yolo(tmp_path, write_picture)
        write_picture(root / "images" / "val" / "c.jpg", W, H)
        (root / "labels" / "val").mkdir()
        (root / "labels" / "val" / "c.txt").write_text(f"1 {shares(DOG)}\n")
        file = root / "data.yaml"
        file.write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", "names": ["cat", "x", "dog"]}))
        assert list(boxes(data.read(file))) == ["a.jpg", "b.jpg"]
        assert "the split train was read (there is also val" in " ".join(data.read(file).notes)
        assert list(boxes(data.read(file, split="val"))) == ["c.jpg"]
        assert list(boxes(data.read(f"{file}#val"))) == ["c.jpg"]
        assert list(splits_of(file)) == ["train", "val"]
        with pytest.raises(DataError, match="expected the split 'test', found train, val"):
            data.read(f"{file}#test")
        with pytest.raises(DataError, match="Did you mean 'train'"):
            data.read(f"{file}#trian")

    def test_polygons_and_oriented_boxes_become_boxes_with_a_word(self, tmp_path: Path, write_picture: Write) -> None:
        root = write_yolo(tmp_path, write_picture)
        (root / "labels" / "train" / "b.txt").write_text(
            "0 0.25 0.25 0.75 0.25 0.5 0.75\n0 0.5 0.25 0.75 0.5 0.5 0.75 0.25 0.5\n"
        )
        (root / "data.yaml").write_text(yaml.safe_dump({"train": "images/train", "names": ["cat", "x", "dog"]}))
        found = data.load(root)
        assert boxes(found)["b.jpg"] == [("cat", (16.0, 12.0, 48.0, 36.0))] * 2
        assert any("2 polygons or oriented boxes were reduced" in note for note in found.notes)

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ("0 0.5 0.5 0.2", "found 4 columns"),
            ("0 0.5 0.5 0.2 x", "expected numbers"),
            ("7 0.5 0.5 0.2 0.2", r"class id of the class list \(0 to 2\), found '7'"),
            ("1.5 0.5 0.5 0.2 0.2", "found '1.5'"),
            ("0 0.5 0.5 0 0.2", "area above 0"),
            ("0 0.5 0.5 nan 0.2", "finite"),
            ("0 320 240 20 20", "are they pixels"),
            ("0 1.5 0.5 0.2 0.2", "within the 64x48 picture"),
        ],
    )
    def test_a_faulty_line_is_named(self, tmp_path: Path, write_picture: Write, line: str, says: str) -> None:
        root = write_yolo(tmp_path, write_picture)
        (root / "labels" / "train" / "b.txt").write_text(f"0 {shares(CAT)}\n{line}\n")
        (root / "data.yaml").write_text(yaml.safe_dump({"train": "images/train", "names": ["cat", "x", "dog"]}))
        with pytest.raises(DataError, match=rf"1 fault\n.*b\.txt, line 2: .*{says}"):
            data.load(root)
        assert data.load(root, skip_bad=True).num_objects == 3

    def test_labels_without_a_picture(self, tmp_path: Path, write_picture: Write) -> None:
        root = write_yolo(tmp_path, write_picture)
        (root / "labels" / "train" / "gone.txt").write_text(f"0 {shares(CAT)}\n")
        (root / "data.yaml").write_text(yaml.safe_dump({"train": "images/train", "names": ["cat", "x", "dog"]}))
        with pytest.raises(DataError, match=r"gone\.txt: labels without a picture"):
            data.load(root)

    def test_no_labels_at_all_is_not_a_set_of_empty_pictures(self, tmp_path: Path, write_picture: Write) -> None:
        write_picture(tmp_path / "images" / "a.jpg")
        (tmp_path / "data.yaml").write_text(yaml.safe_dump({"train": "images", "names": ["cat"]}))
        with pytest.raises(DataError, match=r"none of its 1 pictures has a label file; the first was expected at"):
            data.read(tmp_path / "data.yaml")

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            ("names: [a, a]\ntrain: images", "every class name once"),
            ("names: {x: a}\ntrain: images", "class ids from 0"),
            ("names: [a]\nnc: 2\ntrain: images", "`nc` says 2"),
            ("train: images", "`names`"),
            ("names: [a", "not YAML"),
            ("names: [a]\ntrain: imagse", "Did you mean 'images'"),
        ],
    )
    def test_a_faulty_data_yaml(self, tmp_path: Path, content: str, says: str) -> None:
        (tmp_path / "images").mkdir()
        (tmp_path / "data.yaml").write_text(content)
        with pytest.raises(DataError, match=says):
            data.read(tmp_path / "data.yaml")


class TestCsv:
    def rows(self, root: Path, write_picture: Write, text: str, name: str = "a.csv") -> Path:
        for picture in ("a", "b"):
            write_picture(root / f"{picture}.jpg", W, H, seed=ord(picture))
        (root / name).write_text(text)
        return root / name

    def test_with_and_without_a_header(self, tmp_path: Path, write_picture: Write) -> None:
        text = "a.jpg,1,2,30,40,cat\na.jpg,10.5,4.25,20.25,40,dog\nb.jpg,,,,,\n"
        assert boxes(data.load(self.rows(tmp_path, write_picture, text))) == EXPECTED
        assert boxes(data.load(self.rows(tmp_path, write_picture, f"path,x1,y1,x2,y2,class\n{text}"))) == EXPECTED

    def test_quotes_and_commas_in_names(self, tmp_path: Path, write_picture: Write) -> None:
        write_picture(tmp_path / "a, b.jpg", W, H)
        found = data.load(self.rows(tmp_path, write_picture, '"a, b.jpg",1,2,30,40,"cat, big"\n'))
        assert boxes(found) == {"a, b.jpg": [("cat, big", CAT)]}

    def test_the_class_file_of_keras_retinanet_gives_the_order(self, tmp_path: Path, write_picture: Write) -> None:
        file = self.rows(tmp_path, write_picture, "a.jpg,1,2,30,40,cat\n")
        (tmp_path / "classes.csv").write_text("dog,0\ncat,1\n")
        assert data.load(file).classes == ("dog", "cat")
        (tmp_path / "classes.csv").write_text("dog,0\ncat\n")
        with pytest.raises(DataError, match=r"classes\.csv, line 2: expected `class,id`"):
            data.load(file)

    @pytest.mark.parametrize(
        ("line", "says"),
        [
            ("a.jpg,1,2,30,40", r"a\.csv, line 2: expected path,x1,y1,x2,y2,class, found 5 columns"),
            ("a.jpg,1,2,x,40,cat", r"line 2: expected four finite numbers"),
            ("a.jpg,1,2,30,40,", r"line 2: expected a class"),
            ("a.jpg,30,2,1,40,cat", r"line 2: expected a box with an area above 0"),
            ("gone.jpg,1,2,3,4,cat", r"a\.csv, line 2: picture not found at .*gone\.jpg"),
            (",1,2,3,4,cat", r"line 2: expected the path of a picture"),
        ],
    )
    def test_a_faulty_line_is_named(self, tmp_path: Path, write_picture: Write, line: str, says: str) -> None:
        with pytest.raises(DataError, match=says):
            data.load(self.rows(tmp_path, write_picture, f"a.jpg,1,2,30,40,cat\n{line}\n"))


# What labelling tools export. Each fixture has the files, names and quirks that the tool writes.


def coco(images: str = "") -> dict[str, Any]:
    def box(b: tuple[float, ...]) -> list[float]:
        return [b[0], b[1], b[2] - b[0], b[3] - b[1]]

    return {
        "images": [
            {"id": i, "file_name": f"{images}{n}.jpg", "width": W, "height": H} for i, n in enumerate(("a", "b"))
        ],
        "categories": [
            {"id": 0, "name": "animals", "supercategory": "none"},
            {"id": 1, "name": "cat", "supercategory": "animals"},
            {"id": 2, "name": "dog", "supercategory": "animals"},
        ],
        "annotations": [
            {"id": 0, "image_id": 0, "category_id": 1, "bbox": box(CAT), "area": 1, "iscrowd": 0, "segmentation": []},
            {"id": 1, "image_id": 0, "category_id": 2, "bbox": box(DOG), "area": 1, "iscrowd": 0, "segmentation": []},
        ],
    }


def voc_xml(name: str, objects: list[tuple[str, tuple[float, ...]]]) -> str:
    found = "".join(
        f"<object><name>{c}</name><bndbox><xmin>{b[0]}</xmin><xmax>{b[2]}</xmax><ymin>{b[1]}</ymin><ymax>{b[3]}</ymax>"
        "</bndbox></object>"
        for c, b in objects
    )
    return (
        f"<annotation><filename>{name}</filename><size><width>{W}</width><height>{H}</height><depth>3</depth></size>"
        f"{found}</annotation>"
    )


OBJECTS = [("cat", CAT), ("dog", DOG)]


def roboflow_coco(root: Path, write: Write) -> Path:
    for name in ("a", "b"):
        write(root / "train" / f"{name}.jpg", W, H, seed=ord(name))
        write(root / "valid" / f"{name}.jpg", W, H, seed=ord(name) + 9)
    for split in ("train", "valid"):
        (root / split / "_annotations.coco.json").write_text(json.dumps(coco()))
    return root


def roboflow_voc(root: Path, write: Write) -> Path:
    for name, objects in (("a", OBJECTS), ("b", [])):
        write(root / "train" / f"{name}.jpg", W, H, seed=ord(name))
        (root / "train" / f"{name}.xml").write_text(voc_xml(f"{name}.jpg", objects))  # type: ignore[arg-type]
    return root


def roboflow_yolo(root: Path, write: Write) -> Path:
    write_yolo(root, write, folder="train")
    (root / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\n\nnc: 3\nnames: ['cat', 'x', 'dog']\n"
    )
    return root / "data.yaml"


def roboflow_csv(root: Path, write: Write) -> Path:
    for name in ("a", "b"):
        write(root / "train" / f"{name}.jpg", W, H, seed=ord(name))
    rows = [["filename", "width", "height", "class", "xmin", "ymin", "xmax", "ymax"]]
    rows += [["a.jpg", str(W), str(H), c, *map(str, b)] for c, b in OBJECTS]
    with (root / "train" / "_annotations.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return root


def label_studio(root: Path, write: Write, *, minimal: bool = False) -> Path:
    for name in ("a", "b"):
        write(root / "images" / f"0a1b2c3d-{name}.jpg", W, H, seed=ord(name))
    (root / "images" / "0a1b2c3d-a.jpg").rename(root / "images" / "a.jpg")  # as it was before the upload

    def value(c: str, b: tuple[float, ...]) -> dict[str, Any]:
        x1, y1, x2, y2 = b
        inner = {"x": x1 / W * 100, "y": y1 / H * 100, "width": (x2 - x1) / W * 100, "height": (y2 - y1) / H * 100}
        return {**inner, "rotation": 0, "rectanglelabels": [c]}

    def size() -> dict[str, int]:
        return {"original_width": W, "original_height": H}

    tasks = []
    for i, (name, objects) in enumerate((("a", OBJECTS), ("b", []))):
        picture = f"/data/upload/1/0a1b2c3d-{name}.jpg"
        if minimal:
            label = {"label": [{**value(c, b), **size()} for c, b in objects]} if objects else {}
            tasks.append({"image": picture, "id": i + 1, **label, "annotator": 1, "annotation_id": i, "lead_time": 1.0})
            continue
        result = [
            {"id": f"r{n}", "type": "rectanglelabels", "value": value(c, b), "image_rotation": 0, **size()}
            for n, (c, b) in enumerate(objects)
        ]
        choices = {"id": "c", "type": "choices", "value": {"choices": ["sharp"]}}
        annotations = [
            {"id": i, "was_cancelled": False, "ground_truth": False, "result": [*result, choices]},
            {"id": i + 9, "was_cancelled": True, "result": result},
        ]
        tasks.append({"id": i + 1, "annotations": annotations, "data": {"image": picture}, "predictions": []})
    (root / "project-1.json").write_text(json.dumps(tasks))
    return root / "project-1.json"


def label_studio_min(root: Path, write: Write) -> Path:
    return label_studio(root, write, minimal=True)


def label_studio_yolo(root: Path, write: Write) -> Path:
    for name in ("a", "b"):
        write(root / "images" / f"{name}.jpg", W, H, seed=ord(name))
    (root / "labels").mkdir()
    (root / "labels" / "a.txt").write_text(f"0 {shares(CAT)}\n1 {shares(DOG)}\n")
    (root / "labels" / "b.txt").write_text("")
    (root / "classes.txt").write_text("cat\ndog\n")
    (root / "notes.json").write_text(json.dumps({"categories": [{"id": 0, "name": "cat"}], "info": {}}))
    return root


def label_studio_coco(root: Path, write: Write) -> Path:
    for name in ("a", "b"):
        write(root / "images" / f"{name}.jpg", W, H, seed=ord(name))
    content = coco("images\\")  # written on Windows
    content["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    (root / "result.json").write_text(json.dumps(content))
    return root


def cvat_xml(root: Path, write: Write) -> Path:
    for name in ("a", "b"):
        write(root / "images" / f"{name}.jpg", W, H, seed=ord(name))
    shapes = "".join(
        f'<box label="{c}" source="manual" occluded="0" xtl="{b[0]}" ytl="{b[1]}" xbr="{b[2]}" ybr="{b[3]}" '
        'z_order="0"></box>'
        for c, b in OBJECTS
    )
    labels = "".join(f"<label><name>{c}</name><color>#fff</color></label>" for c in ("cat", "dog"))
    (root / "annotations.xml").write_text(
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta><task><labels>{labels}'
        f'</labels></task></meta><image id="0" name="a.jpg" width="{W}" height="{H}">{shapes}</image>'
        f'<image id="1" name="b.jpg" width="{W}" height="{H}"></image></annotations>'
    )
    return root


def cvat_yolo(root: Path, write: Write) -> Path:
    """CVAT's "YOLO 1.1": paths begin with data/, which is the folder of the archive's root."""
    for name in ("a", "b"):
        write(root / "obj_train_data" / f"{name}.jpg", W, H, seed=ord(name))
    (root / "obj_train_data" / "a.txt").write_text(f"0 {shares(CAT)}\n1 {shares(DOG)}\n")
    (root / "obj_train_data" / "b.txt").write_text("")
    (root / "obj.names").write_text("cat\ndog\n")
    (root / "train.txt").write_text("data/obj_train_data/a.jpg\ndata/obj_train_data/b.jpg\n")
    (root / "obj.data").write_text("classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n")
    return root


def cvat_coco(root: Path, write: Write) -> Path:
    for name in ("a", "b"):
        write(root / "images" / "default" / f"{name}.jpg", W, H, seed=ord(name))
    (root / "annotations").mkdir()
    content = coco()
    content["categories"] = [{"id": 1, "name": "cat", "supercategory": ""}, {"id": 2, "name": "dog"}]
    (root / "annotations" / "instances_default.json").write_text(json.dumps(content))
    return root


def cvat_voc(root: Path, write: Write) -> Path:
    (root / "Annotations").mkdir(parents=True)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for name, objects in (("a", OBJECTS), ("b", [])):
        write(root / "JPEGImages" / f"{name}.jpg", W, H, seed=ord(name))
        (root / "Annotations" / f"{name}.xml").write_text(voc_xml(f"{name}.jpg", objects))  # type: ignore[arg-type]
    (root / "ImageSets" / "Main" / "default.txt").write_text("a\nb\n")
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\ncat:1,2,3::\ndog:1,2,4::\n")
    return root


def labelme(root: Path, write: Write) -> Path:
    root.mkdir(exist_ok=True)
    for name, objects in (("a", OBJECTS), ("b", [])):
        write(root / f"{name}.jpg", W, H, seed=ord(name))
        shapes = [
            # drawn from the lower right to the upper left: labelme keeps the order of the clicks
            {
                "label": c,
                "points": [[b[2], b[3]], [b[0], b[1]]],
                "group_id": None,
                "shape_type": "rectangle",
                "flags": {},
            }
            for c, b in objects  # type: ignore[attr-defined]
        ]
        content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": f"{name}.jpg", "imageData": None}
        (root / f"{name}.json").write_text(json.dumps({**content, "imageHeight": H, "imageWidth": W}))
    return root


EXPORTS = [
    *(roboflow_coco, roboflow_voc, roboflow_yolo, roboflow_csv),
    *(label_studio, label_studio_min, label_studio_yolo, label_studio_coco),
    *(cvat_xml, cvat_yolo, cvat_coco, cvat_voc, labelme),
]


@pytest.mark.parametrize("export", EXPORTS, ids=lambda f: f.__name__)
def test_every_export_is_read_box_for_box(export: Callable[..., Path], tmp_path: Path, write_picture: Write) -> None:
    source = export(tmp_path / "set", write_picture)
    found = data.load(source)
    expected: dict[str, Any] = dict(EXPECTED)
    if export is roboflow_csv:  # Roboflow's CSV has no line for a picture without objects
        del expected["b.jpg"]
    if export in {label_studio, label_studio_min}:
        expected = {"a.jpg": EXPECTED["a.jpg"], "0a1b2c3d-b.jpg": []}
    assert boxes(found) == expected
    assert set(found.classes) >= {"cat", "dog"}


def test_a_folder_of_splits_gives_the_one_that_is_asked_for(tmp_path: Path, write_picture: Write) -> None:
    root = roboflow_coco(tmp_path / "set", write_picture)
    assert list(splits_of(root)) == ["train", "val"]
    assert data.read(root, split="val").records[0].path.parent.name == "valid"
    assert "category 0, 'animals', is Roboflow's name for all" in " ".join(data.read(root).notes)


def test_a_guess_is_stated_and_can_be_overridden(tmp_path: Path, write_picture: Write) -> None:
    root = labelme(tmp_path / "set", write_picture)
    (root / "boxes.csv").write_text("a.jpg,5,5,9,9,cow\n")
    guessed = data.read(root)
    assert guessed.classes == ("cow",)
    assert "was read as CSV by its boxes.csv; it could also be labelme (--format overrides)" in " ".join(guessed.notes)
    assert boxes(data.read(root, format="labelme")) == EXPECTED


def test_shapes_that_are_no_boxes(tmp_path: Path, write_picture: Write) -> None:
    """A polygon is reduced to its box with a word; a point encloses nothing."""
    root = labelme(tmp_path / "set", write_picture)
    content = json.loads((root / "b.json").read_text())
    content["shapes"] = [
        {"label": "cat", "shape_type": "polygon", "points": [[5, 5], [20, 10], [10, 30]]},
        {"label": "cat", "shape_type": "circle", "points": [[30, 20], [30, 25]]},
        {"label": "cat", "shape_type": "point", "points": [[5, 5]]},
    ]
    (root / "b.json").write_text(json.dumps(content))
    with pytest.raises(
        DataError, match=r"b\.json, shape 3 of 3: expected a rectangle, a polygon or a circle, found 'po"
    ):
        data.load(root)
    found = data.load(root, skip_bad=True)
    assert boxes(found)["b.jpg"] == [("cat", (5, 5, 20, 30)), ("cat", (25, 15, 35, 25))]
    assert any("2 polygons and other shapes" in note for note in found.notes)


def test_a_turned_box_of_cvat_and_label_studio(tmp_path: Path, write_picture: Write) -> None:
    """20 x 10 turned by 90 degrees is 10 x 20: CVAT turns about the centre, Label Studio about a corner."""
    root = cvat_xml(tmp_path / "cvat", write_picture)
    file = root / "annotations.xml"
    turned = '<box label="cat" xtl="20" ytl="20" xbr="40" ybr="30" rotation="90"></box></image></annotations>'
    file.write_text(file.read_text().replace("</image></annotations>", turned))
    np.testing.assert_allclose(boxes(data.load(root))["b.jpg"][0][1], (25, 15, 35, 35), atol=1e-5)
    source = label_studio(tmp_path / "ls", write_picture)
    tasks = json.loads(source.read_text())
    value = {"x": 40 / W * 100, "y": 10 / H * 100, "width": 20 / W * 100, "height": 10 / H * 100, "rotation": 90}
    result = {"id": "t", "type": "rectanglelabels", "value": {**value, "rectanglelabels": ["cat"]}}
    tasks[1]["annotations"][0]["result"] = [{**result, "original_width": W, "original_height": H}]
    source.write_text(json.dumps(tasks))
    np.testing.assert_allclose(boxes(data.load(source))["0a1b2c3d-b.jpg"][0][1], (30, 10, 40, 30), atol=1e-5)


class TestWantedClasses:
    @pytest.fixture
    def source(self, tmp_path: Path, write_picture: Write) -> Path:
        return labelme(tmp_path / "set", write_picture)

    def test_keep(self, source: Path) -> None:
        found = data.load(source, keep=["dog"])
        assert (found.classes, found.num_objects, len(found.records)) == (("dog",), 1, 2)
        assert any("1 objects of cat were left out" in note for note in found.notes)

    def test_ignore(self, source: Path) -> None:
        assert data.load(source, ignore=["dog"]).classes == ("cat",)

    def test_rename_and_merge(self, source: Path) -> None:
        assert data.load(source, rename={"cat": "lion"}).classes == ("dog", "lion")
        assert data.load(source, rename={"cat": "dog"}).classes == ("dog",)
        assert data.load(source, rename={"cat": "dog"}).num_objects == 2

    def test_a_class_that_is_not_there(self, source: Path) -> None:
        with pytest.raises(DataError, match="ignore_classes names 'dgo', the classes are cat, dog. Did you mean 'dog'"):
            data.load(source, ignore=["dgo"])

    def test_in_validation_data_a_class_may_be_absent(self, source: Path) -> None:
        found = data.load(source, classes=("dog", "emu"), keep=["dog", "emu"])
        assert (found.classes, found.num_objects) == (("dog", "emu"), 1)

    def test_coco_keeps_its_ids(self, tmp_path: Path, write_picture: Write) -> None:
        root = roboflow_coco(tmp_path / "coco", write_picture)
        found = data.load(root, rename={"dog": "wolf"}, ignore=["cat"])
        assert (found.classes, found.category_ids) == (("wolf",), (2,))
