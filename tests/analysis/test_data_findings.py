"""Findings about a dataset: one faulty dataset for each finding."""

import dataclasses

from PIL import Image

from retinanet.analysis.anchor_findings import anchor_findings
from retinanet.analysis.coverage import coverage
from retinanet.analysis.data_findings import data_findings, duplicate_findings, split_findings
from retinanet.analysis.finding import Finding
from retinanet.config import ImageConfig, MatchConfig, ModelConfig
from retinanet.data import load
from tests.analysis.datasets import dataset_from_boxes, random_dataset
from tests.analysis.findings import finding_kinds, finding_of_kind


def test_valid_data_has_no_findings():
    data = random_dataset(200, sides=(40, 150))
    assert data_findings(data) == []
    measured = coverage(
        data, model_config=ModelConfig(), match_config=MatchConfig(), image_config=ImageConfig(image_size=384)
    )
    assert anchor_findings(measured, ModelConfig()) == []
    assert split_findings(data, random_dataset(50, seed=1, sides=(40, 150))) == []


def test_a_class_without_objects_is_reported():
    data = dataclasses.replace(random_dataset(100), classes=("c0", "c1", "unused"), category_ids=(1, 2, 3))
    assert finding_of_kind(data_findings(data), "unlabelled class").where == ("unused",)


def test_rare_and_uneven_classes():
    data = dataset_from_boxes([[(0, 10 * i, 50 * j, 10 * i + 9, 50 * j + 40) for i in range(50)] for j in range(3)])
    data = dataclasses.replace(data, records=(*data.records, dataset_from_boxes([[(1, 0, 0, 50, 50)]]).records[0]))
    findings = data_findings(data)
    assert finding_of_kind(findings, "rare class").where == ("b: 1",)
    assert "150 times as many objects of a (150) as of b (1)" in finding_of_kind(findings, "uneven classes").what


def test_duplicate_and_contradictory_boxes_are_located():
    objects = [(0, 10, 10, 60, 60), (0, 10, 10, 60, 61), (1, 200, 200, 250, 250), (0, 200, 200, 250, 250)]
    data = dataset_from_boxes([objects])
    findings = data_findings(data)
    assert finding_of_kind(findings, "duplicate boxes").where == ("0.png: object 1 and object 2",)
    assert finding_of_kind(findings, "contradictory labels").where == ("0.png: object 3 and object 4 (b, a)",)


def test_a_box_over_the_whole_image_and_too_many_objects():
    many = [(0, i, j, i + 2, j + 2) for i in range(0, 60, 3) for j in range(0, 21, 3)]
    findings = data_findings(dataset_from_boxes([[(0, 0, 0, 512, 384)], many]))
    assert finding_of_kind(findings, "whole image").where == ("0.png: object 1",)
    assert "one image: 140" in finding_of_kind(findings, "many objects").what


def test_mostly_empty_images():
    data = dataset_from_boxes([[], [], [], [(0, 1, 1, 9, 9)]])
    assert "3 of 4" in finding_of_kind(data_findings(data), "empty images").what


def test_classes_in_only_one_set():
    train, val = dataset_from_boxes([[(0, 1, 1, 9, 9)]]), dataset_from_boxes([[(1, 1, 1, 9, 9)]])
    unknown = dataclasses.replace(train, classes=("a", "c"))
    assert finding_of_kind(split_findings(unknown, val), "class only in val").severity == "error"
    findings = split_findings(train, val)
    assert finding_kinds(findings) == ["class only in train", "class only in val"]
    assert finding_of_kind(findings, "class only in val").severity == "warning"
    assert finding_of_kind(findings, "class only in val").where == ("b",)


def test_identical_pixels_in_both_sets(squares, tmp_path):
    """A copy with another file name and image format has identical pixels."""
    train, val = load(squares[0]), load(squares[1])
    assert duplicate_findings([("train", train), ("val", val)]) == []
    copied = dataclasses.replace(val.records[0], path=tmp_path / "copy.bmp")
    Image.open(train.records[2].path).save(copied.path)
    val = dataclasses.replace(val, records=(copied, *val.records, val.records[1]))
    findings = duplicate_findings([("train", train), ("val", val)])
    assert finding_of_kind(findings, "images in both sets").where == ("train/2.png = val/copy.bmp",)
    assert finding_of_kind(findings, "duplicate images").where == ("1.png = 1.png",)


def test_class_names_that_differ_only_in_case_or_spaces():
    data = dataclasses.replace(random_dataset(10), classes=("traffic light", "Traffic_Light"), category_ids=(1, 2))
    assert finding_of_kind(data_findings(data), "similar class names").where == ("traffic light = Traffic_Light",)
    data = dataclasses.replace(data, classes=("c", "c++"))
    assert "similar class names" not in finding_kinds(data_findings(data))


def test_a_group_of_many_images_is_shortened_in_the_message_only():
    place = " = ".join(f"{number:05}.png" for number in range(1000))
    finding = Finding(kind="near-duplicates", severity="note", what="w", cause="c", advice="a", where=(place,))
    assert len(str(finding)) < 250
    assert finding.to_json()["where"] == [place]


def test_equal_boxes_are_listed_once_each():
    data = dataset_from_boxes([[(0, 10, 10, 60, 60)] * 4])
    assert finding_of_kind(data_findings(data), "duplicate boxes").where == (
        "0.png: object 1 and object 2",
        "0.png: object 1 and object 3",
        "0.png: object 1 and object 4",
    )
