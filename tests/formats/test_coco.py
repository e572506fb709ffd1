"""Tests of the COCO reader: ids, faults, search for images, and conversion back to COCO."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retinanet import data
from retinanet.data import DataError
from retinanet.formats import splits_of, write

Write = Callable[..., Path]


def test_coco_file_with_id_gaps_crowd_and_empty_images(write_coco: Write) -> None:
    source = write_coco(
        [
            {"id": 901, "image_id": 3, "category_id": 90, "bbox": [1, 2, 10, 20], "area": 55.5},
            {"id": 44, "image_id": 1, "category_id": 7, "bbox": [0, 0, 64, 48], "iscrowd": 1},
        ],
        images=3,
        categories={90: "dog", 7: "cat", 13: "never used"},
    )
    found = data.load(source)
    assert found.classes == ("cat", "never used", "dog")
    assert found.category_ids == (7, 13, 90)
    assert [len(r.boxes_G4) for r in found.records] == [1, 0, 1]
    assert (found.num_objects, found.num_crowd) == (2, 1)
    dog = found.records[2]
    assert (dog.image_id, dog.annotation_ids, dog.labels_G.tolist(), dog.areas_G.tolist()) == (3, (901,), [2], [55.5])
    np.testing.assert_array_equal(dog.boxes_G4, [[1, 2, 11, 22]])
    assert found.records[0].crowd_G.tolist() == [True]
    assert found.records[1].boxes_G4.shape == (0, 4)
    coco = found.to_coco()
    assert [c["id"] for c in coco["categories"]] == [7, 13, 90]
    assert {
        (a["id"], a["image_id"], a["category_id"], tuple(a["bbox"]), a["iscrowd"]) for a in coco["annotations"]
    } == {
        (901, 3, 90, (1, 2, 10, 20), 0),
        (44, 1, 7, (0, 0, 64, 48), 1),
    }
    json.dumps(coco)  # plain numbers only


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"bbox": [5, 5, 0, 10]}, r"area above 0, found \(5, 5\) to \(5, 15\)"),
        ({"bbox": [5, 5, -3, 10]}, "area above 0"),
        ({"bbox": [1, 2, 3]}, "four finite numbers"),
        ({"bbox": [1, 2, 3, "x"]}, "four finite numbers"),
        ({"bbox": [1, 2, float("nan"), 4]}, "four finite numbers"),
        ({"bbox": [1, 2, float("inf"), 4]}, "four finite numbers"),
        ({"bbox": [100, 5, 10, 10]}, "within the 64x48 image"),
        ({"bbox": [63.5, 5, 10, 10]}, "within the 64x48 image"),  # only half a pixel lies inside
        ({"bbox": [1, 2, 3, 4], "image_id": 77}, "one of the images as image_id, found 77"),
        ({"bbox": [1, 2, 3, 4], "category_id": 77}, "one of the categories as category_id, found 77"),
        ({"bbox": [1, 2, 3, 4], "iscrowd": 5}, "0 or 1 as iscrowd, found 5"),
        ({"segmentation": [[1, 2, 3]]}, "polygons or a run-length encoded mask"),
        ({"segmentation": {"size": [48, 64], "counts": [-4, 9]}}, "polygons or a run-length encoded mask"),
    ],
)
def test_an_invalid_object_is_reported(write_coco: Write, annotation: dict[str, Any], message: str) -> None:
    source = write_coco(
        [{"id": 1, "image_id": 1, "bbox": [1, 1, 9, 9]}, {"id": 1768, "image_id": 1, "area": 1, **annotation}]
    )
    with pytest.raises(DataError, match=rf"1 fault\n.*_train\.json, annotation 1768: .*{message}.*--skip-invalid"):
        data.load(source)
    left = data.load(source, skip_invalid=True)
    assert left.num_objects == 1
    assert len(left.faults) == 1


def test_boxes_over_the_edge_are_clipped_and_tiny_boxes_kept(write_coco: Write) -> None:
    boxes = [[-5, -0.5, 20, 20], [60, 40, 10, 8.5], [63, 0, 5, 5], [3, 3, 0.5, 0.25], [0, 0, 1, 1]]
    found = data.load(write_coco([{"image_id": 1, "bbox": b} for b in boxes]))
    np.testing.assert_allclose(
        found.records[0].boxes_G4,
        [[0, 0, 15, 19.5], [60, 40, 64, 48], [63, 0, 64, 5], [3, 3, 3.5, 3.25], [0, 0, 1, 1]],
    )


ONE = {"id": 1, "file_name": "1.jpg", "width": 64, "height": 48}
OBJECT = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}


@pytest.mark.parametrize(
    ("section", "entries", "message"),
    [
        ("images", [ONE, {"id": 2, "width": 4}], "image 2: .*file_name None"),
        ("images", [ONE, {**ONE, "file_name": "2.jpg"}], r"image 1: .*the id of 1\.jpg again"),
        ("images", [ONE, {"file_name": "2.jpg"}], "image at position 2: .*an 'id'"),
        ("images", [ONE, {"id": 5, "file_name": "5.jpg"}], "image 5: .*width and height.*no such"),
        ("images", [ONE, None], "image at position 2: .*an 'id'"),
        ("categories", [{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}], "category 1: .*the id of 'cat' again"),
        ("categories", [{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}], "category 2: .*two categories"),
        ("categories", [{"id": 1, "name": "cat"}, {"id": 2}], "category 2: .*text 'name'"),
        ("annotations", [OBJECT, "x"], "annotation at position 2: .*found 'x'"),
    ],
)
def test_invalid_entries_are_reported(write_coco: Write, section: str, entries: list[Any], message: str) -> None:
    source = write_coco([OBJECT])
    source.write_text(json.dumps({**json.loads(source.read_text()), section: entries}))
    with pytest.raises(DataError, match=message):
        data.load(source)
    assert data.load(source, skip_invalid=True).num_objects == 1


def test_faults_of_one_kind_are_counted_with_three_examples(write_coco: Write) -> None:
    source = write_coco([{"image_id": 1, "bbox": [0, 0, 0, 0]}] * 250 + [{"image_id": 1, "bbox": [0, 0, 9, 9]}])
    with pytest.raises(DataError) as caught:
        data.load(source)
    assert len(caught.value.faults) == 250
    lines = str(caught.value).splitlines()
    assert len(lines) == 6
    assert "250 faults of one kind" in lines[1]
    assert "annotation 3:" in lines[4]
    assert lines[-1].strip().startswith("and 247 more of this kind")


def test_texts_of_numbers_missing_flags_and_repeated_ids_are_read(write_coco: Write) -> None:
    """Exports of other tools write ids and numbers as texts, and merged files repeat annotation ids."""
    source = write_coco([{"image_id": 1, "bbox": [0, 0, 9, 9]}])
    content = json.loads(source.read_text())
    content["images"] = [{"id": "1", "file_name": "1.jpg", "width": "64", "height": " 48 "}]
    content["categories"] = [{"id": "1.0", "name": 7}]
    content["annotations"] = [
        {"id": "a", "image_id": 1.0, "category_id": 1, "bbox": ["1", "2.0", " 3 ", 4], "iscrowd": None},
        {"id": 1, "image_id": "1", "category_id": "1", "bbox": [5, 5, 9, 9], "iscrowd": "1"},
        {"id": 1, "image_id": "1", "category_id": "1", "bbox": [5, 5, 9, 9], "iscrowd": "1"},
        {"id": 1, "image_id": "1", "category_id": "1", "bbox": [6, 5, 9, 9], "iscrowd": False},
    ]
    source.write_text(json.dumps(content))
    found = data.load(source)
    (record,) = found.records
    assert (found.classes, record.image_id) == (("7",), 1)
    np.testing.assert_array_equal(record.boxes_G4, [[1, 2, 4, 6], [5, 5, 14, 14], [6, 5, 15, 14]])
    assert record.crowd_G.tolist() == [False, True, False]
    assert any("1 annotations repeat the id, image, class and box" in note for note in found.notes)
    assert any("1 annotations repeat the id of another annotation: all" in note for note in found.notes)


def test_images_with_text_ids_are_numbered(write_coco: Write) -> None:
    source = write_coco([{"image_id": 1, "bbox": [0, 0, 9, 9]}], images=2)
    content = json.loads(source.read_text())
    for image, name in zip(content["images"], ("frame-b", "frame-a"), strict=True):
        image["id"] = name
    content["annotations"][0]["image_id"] = "frame-a"
    source.write_text(json.dumps(content))
    found = data.load(source)
    assert [(r.image_id, len(r.boxes_G4)) for r in found.records] == [(1, 0), (2, 1)]
    assert any("image ids are texts" in note for note in found.notes)


@pytest.mark.parametrize(
    "segmentation",
    [
        [[3, 4, 10, 4, 10, 12], [5, 9, 13, 9, 13, 16, 5, 16]],
        {"size": [48, 64], "counts": [3 * 48 + 4, 12] + [36, 12] * 9 + [48 * 64 - 13 * 48 + 32]},
    ],
    ids=["polygons", "mask"],
)
def test_annotations_without_a_bbox_get_the_box_of_their_segmentation(write_coco: Write, segmentation: Any) -> None:
    source = write_coco([{"image_id": 1, "bbox": [0, 0, 9, 9]}])
    content = json.loads(source.read_text())
    content["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": segmentation}]
    source.write_text(json.dumps(content))
    found = data.load(source)
    np.testing.assert_array_equal(found.records[0].boxes_G4, [[3, 4, 13, 16]])
    assert any("1 polygons and other shapes" in note for note in found.notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "line 1, column 2: not JSON"),
        ("\n\n[1,", "line 3"),
        ("[]", "found a list"),
        ('[{"image_id": 1, "score": 0.5}]', "COCO results, not ground truth"),
        ('{"images": [], "annotations": []}', "the file has no 'categories'"),
        ('{"images": {}, "annotations": [], "categories": []}', "the file has 'images' that is no list"),
        ("3", "found int"),
        ('{"images": [], "annotations": [], "categories": []}', "at least one image, found none"),
    ],
)
def test_files_other_than_ground_truth_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=message):
        data.load(tmp_path / "x.json")


@pytest.mark.parametrize("folder", ["annotations", "annotations/images", "images", "train", "images/train", "."])
def test_images_are_found_in_common_folders(tmp_path: Path, write_coco: Write, write_image: Write, folder: str) -> None:
    source = write_coco([{"image_id": 1, "bbox": [0, 0, 9, 9]}])
    (tmp_path / "images" / "1.jpg").unlink()
    expected = write_image(tmp_path / folder / "1.jpg")
    assert data.load(source).records[0].path.samefile(expected)


def test_images_in_another_folder_and_missing_images(tmp_path: Path, write_coco: Write) -> None:
    source = write_coco([{"image_id": 1, "bbox": [0, 0, 9, 9]}])
    (tmp_path / "sub").mkdir()
    source = source.rename(tmp_path / "sub" / source.name)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"expected 1 image files, found none.*1\.jpg.*--images"):
        data.load(source, skip_invalid=True)
    assert data.load(source, images=tmp_path / "elsewhere").num_objects == 1
    with pytest.raises(DataError, match=r"images is no folder.*Did you mean 'elsewhere'"):
        data.load(source, images=tmp_path / "elswhere")
    assert data.read(source).num_objects == 1  # the evaluation of a results file needs no images


def test_lvis_names_images_by_their_addresses(write_coco: Write) -> None:
    source = write_coco([{"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 2, 10, 20]}], categories={7: "cat"})
    content = json.loads(source.read_text())
    for image in content["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/val2017/{Path(image.pop('file_name')).name}"
    source.write_text(json.dumps(content))
    assert len(data.load(source).records) == len(content["images"])


def test_missing_sizes_come_from_the_images(write_coco: Write) -> None:
    source = write_coco([{"image_id": 1, "bbox": [0, 0, 9, 9]}])
    content = json.loads(source.read_text())
    del content["images"][0]["width"]
    source.write_text(json.dumps(content))
    assert (data.load(source).records[0].width, data.load(source).records[0].height) == (64, 48)


def test_labels_follow_the_given_class_list(write_coco: Write) -> None:
    source = write_coco(
        [{"image_id": 1, "category_id": i, "bbox": [0, 0, 9, 9]} for i in (5, 9)], categories={5: "cat", 9: "dog"}
    )
    found = data.load(source, classes=["dog", "bird", "cat"])
    assert found.records[0].labels_G.tolist() == [2, 0]
    assert found.category_ids == (9, 10, 5)  # ids of the file; bird, which the file lacks, gets a new id
    with pytest.raises(
        DataError, match=r"annotation 2: expected one of the classes cat, dogs; found 'dog'\. Did you mean 'dogs'"
    ):
        data.load(source, classes=["cat", "dogs"])


@pytest.mark.parametrize("ids", [(0, 1), (None, 2)])
def test_invalid_annotation_ids_are_renumbered(write_coco: Write, ids: tuple[Any, Any]) -> None:
    source = write_coco([{"id": i, "image_id": 1, "bbox": [0, 0, 9, 9]} for i in ids])
    content = json.loads(source.read_text())
    content["annotations"] = [{k: v for k, v in a.items() if v is not None} for a in content["annotations"]]
    source.write_text(json.dumps(content))
    assert [a["id"] for a in data.load(source).to_coco()["annotations"]] == [1, 2]


def test_coco128(shared_data: Path) -> None:
    found = data.load(shared_data / "coco128" / "annotations" / "instances_train2017.json")
    assert (len(found.records), found.num_objects, found.num_crowd) == (128, 939, 10)
    assert len(found.classes) == 80
    assert (found.category_ids[0], found.category_ids[-1]) == (1, 90)
    assert len(np.unique(np.concatenate([r.labels_G for r in found.records]))) == 71
    assert sum(len(r.boxes_G4) == 0 for r in found.records) == 2


def test_reference_detections_have_the_expected_metrics(shared_data: Path) -> None:
    pycocotools = pytest.importorskip("pycocotools.cocoeval")
    from pycocotools.coco import COCO

    folder = shared_data / "coco_reference"
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = data.read(folder / "ground_truth.json").to_coco()
        truth.createIndex()
        evaluation = pycocotools.COCOeval(truth, truth.loadRes(str(folder / "detections.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    expected = json.loads((folder / "expected.json").read_text())
    np.testing.assert_allclose(evaluation.stats, list(expected.values()), atol=1e-9)


@pytest.mark.parametrize(
    ("annotation", "box"),
    [
        # cvat#6785: CVAT writes the box before its rotation. 20 x 10 about (20, 15) becomes 10 x 20.
        ({"bbox": [10, 10, 20, 10], "segmentation": [], "attributes": {"rotation": 90.0}}, (15, 5, 25, 25)),
        ({"bbox": [10, 10, 20, 10], "attributes": {"rotation": 0.0}}, (10, 10, 30, 20)),
        ({"bbox": [10, 10, 20, 10], "attributes": {"rotation": "left"}}, (10, 10, 30, 20)),
        ({"bbox": [10, 10, 20, 10], "attributes": []}, (10, 10, 30, 20)),
        # supervision#205: one polygon without the list around it
        ({"segmentation": [10, 10, 30, 10, 30, 20, 10, 20]}, (10, 10, 30, 20)),
    ],
)
def test_boxes_of_labelling_tools(write_coco: Write, annotation: dict[str, Any], box: tuple[float, ...]) -> None:
    found = data.load(write_coco([{"id": 1, "image_id": 1, **annotation}]))
    np.testing.assert_allclose(found.records[0].boxes_G4, [box], atol=1e-9)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [24, 32], "counts": [0, 4, 764]}, "a mask of the size of the 64x48 image, found 32x24"),
        ([[810, 20, 60, 20, 7, 9, 1]], "an odd number of coordinates. Run lengths are written as"),
        ([], "four finite numbers"),
    ],
)
def test_invalid_segmentations_are_explained(write_coco: Write, segmentation: Any, message: str) -> None:
    """darwin-py#1178, cvat#6014, X-AnyLabeling#397: masks of another size, run lengths as a polygon, empty shapes."""
    source = write_coco(
        [{"id": 1, "image_id": 1, "bbox": [1, 1, 9, 9]}, {"id": 2, "image_id": 1, "segmentation": segmentation}]
    )
    with pytest.raises(DataError, match=rf"1 fault\n.*annotation 2: .*{message}"):
        data.load(source)


def test_sections_may_be_objects_of_entries(write_coco: Write) -> None:
    """LIVECell: the annotations are an object {id: annotation}."""
    source = write_coco([{"id": 1, "image_id": 1, "bbox": [1, 1, 9, 9]}])
    content = json.loads(source.read_text())
    content["annotations"] = {"1": content["annotations"][0]}
    source.write_text(json.dumps(content))
    assert data.load(source).num_objects == 1


@pytest.mark.parametrize(
    ("supercategory", "count"), [("none", 2), ("animal", 2)], ids=["rf-detr#609", "other supercategory"]
)
def test_a_category_0_with_objects_is_kept(write_coco: Write, supercategory: str, count: int) -> None:
    source = write_coco(
        [{"id": 1, "image_id": 1, "category_id": 0, "bbox": [1, 1, 9, 9]}], categories={0: "cat", 1: "dog"}
    )
    content = json.loads(source.read_text())
    for category in content["categories"]:
        category["supercategory"] = supercategory
    source.write_text(json.dumps(content))
    found = data.load(source)
    assert (found.classes, len(found.classes)) == (("cat", "dog"), count)


def test_a_folder_gives_the_instances_of_the_requested_split(write_coco: Write, tmp_path: Path) -> None:
    """A COCO folder also has captions and key points of the same images, which sort around the instances."""
    annotations = tmp_path / "coco" / "annotations"
    annotations.mkdir(parents=True)
    source = write_coco([{"id": 1, "image_id": 1, "bbox": [1, 1, 9, 9]}])
    for split, x in (("train", 1), ("val", 2)):
        content = json.loads(source.read_text())
        content["annotations"][0]["bbox"][0] = x
        (annotations / f"instances_{split}2017.json").write_text(json.dumps(content))
        for kind in ("captions", "person_keypoints"):
            (annotations / f"{kind}_{split}2017.json").write_text('{"images": [], "annotations": []}')
    for split, x in (("train", 1), ("val", 2)):
        found = data.read(annotations.parent, split=split)
        assert found.records[0].boxes_G4[0, 0] == x
        assert f"annotations/instances_{split}2017.json was read (there is also" in " ".join(found.notes)
    assert data.read(f"{annotations.parent}#val").records[0].boxes_G4[0, 0] == 2


def test_a_folder_named_annotations_with_json_files(write_coco: Write, write_image: Write, tmp_path: Path) -> None:
    """datumaro#1630: Annotations/ with .json files was read as Pascal VOC. Of several files, a note says which."""
    root = tmp_path / "set"
    write_image(root / "Images" / "1.jpg", 64, 48)
    (root / "Annotations").mkdir()
    content = json.loads(write_coco([{"id": 1, "image_id": 1, "bbox": [1, 1, 9, 9]}]).read_text())
    content["images"] = [{"id": 1, "file_name": "1.jpg", "width": 64, "height": 48}]
    for name in ("a", "b"):
        (root / "Annotations" / f"{name}.json").write_text(json.dumps(content))
    found = data.load(root)
    assert found.num_objects == 1
    assert "by its Annotations/a.json, the first of 2 files" in " ".join(found.notes)


@pytest.mark.parametrize(
    ("annotation", "found"),
    [({"image_id": 1, "segments_info": []}, "panoptic segments"), ({"image_id": 1, "caption": "a cat"}, "captions")],
)
def test_files_of_other_tasks_are_named(annotation: dict[str, Any], found: str, write_coco: Write) -> None:
    """vision#8845: the stuff, panoptic and caption files of COCO have no boxes of objects."""
    source = write_coco([{"id": 1, "image_id": 1, "bbox": [1, 1, 9, 9]}])
    content = json.loads(source.read_text())
    content["annotations"] = [annotation]
    for sections in (content, {key: value for key, value in content.items() if key != "categories"}):
        source.write_text(json.dumps(sections))
        with pytest.raises(DataError, match=rf"holds {found}, no boxes \(give the file of the instances\)"):
            data.load(source)


def test_a_converted_folder_gives_the_requested_split(write_coco: Write, tmp_path: Path) -> None:
    """`convert` and `split` write train.json and val.json beside images/. Files of labelme may have such names."""
    found = data.load(write_coco([{"id": 1, "image_id": 1, "bbox": [1, 1, 9, 9]}]))
    write({"train": found, "val": found}, tmp_path / "out", "coco")
    for split in ("train", "val"):
        assert data.load(tmp_path / "out", split=split).records[0].path.parent.name == split
    assert [path.name for path in splits_of(tmp_path / "out").values()] == ["train.json", "val.json"]
    labelme = '{"shapes": [], "imagePath": "train.jpg", "imageWidth": 1, "imageHeight": 1}'
    for split in ("train", "val"):
        (tmp_path / "out" / f"{split}.json").write_text(labelme)
    assert "was read as labelme" in " ".join(data.read(tmp_path / "out", split="val").notes)
