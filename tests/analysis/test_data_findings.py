"""Findings about the data alone: a broken dataset for each."""

import dataclasses

from PIL import Image

from retinanet.analysis.anchor_findings import anchor_findings
from retinanet.analysis.coverage import coverage
from retinanet.analysis.data_findings import data_findings, duplicate_findings, split_findings
from retinanet.config import ImageConfig, MatchConfig, ModelConfig
from retinanet.data import load
from tests.analysis.made import made_data, scattered
from tests.analysis.made_findings import kinds, only


def test_healthy_data_is_left_in_peace():
    data = scattered(200, sides=(40, 150))
    assert data_findings(data) == []
    found = coverage(
        data, model_config=ModelConfig(), match_config=MatchConfig(), image_config=ImageConfig(image_size=384)
    )
    assert anchor_findings(found, ModelConfig()) == []
    assert split_findings(data, scattered(50, seed=1, sides=(40, 150))) == []


def test_a_class_that_nobody_labelled():
    data = dataclasses.replace(scattered(100), classes=("c0", "c1", "ghost"), category_ids=(1, 2, 3))
    assert only(data_findings(data), "unlabelled class").where == ("ghost",)


def test_a_rare_class_and_uneven_ones():
    data = made_data([[(0, 10 * i, 50 * j, 10 * i + 9, 50 * j + 40) for i in range(50)] for j in range(3)])
    data = dataclasses.replace(data, records=(*data.records, made_data([[(1, 0, 0, 50, 50)]]).records[0]))
    found = data_findings(data)
    assert only(found, "rare class").where == ("b: 1",)
    assert "150 times more objects of a (150) than of b (1)" in only(found, "uneven classes").what


def test_duplicate_and_contradictory_boxes_name_the_objects():
    data = made_data([[(0, 10, 10, 60, 60), (0, 10, 10, 60, 61), (1, 200, 200, 250, 250), (0, 200, 200, 250, 250)]])
    found = data_findings(data)
    assert only(found, "duplicate boxes").where == ("0.png: object 1 and object 2",)
    assert only(found, "contradictory labels").where == ("0.png: object 3 and object 4 (b, a)",)


def test_a_box_over_everything_and_too_many_objects():
    many = [(0, i, j, i + 2, j + 2) for i in range(0, 60, 3) for j in range(0, 21, 3)]
    found = data_findings(made_data([[(0, 0, 0, 512, 384)], many]))
    assert only(found, "whole image").where == ("0.png: object 1",)
    assert "at most 140" in only(found, "many objects").what


def test_mostly_empty_images():
    assert "3 of 4" in only(data_findings(made_data([[], [], [], [(0, 1, 1, 9, 9)]])), "empty images").what


def test_classes_that_one_set_lacks():
    train, val = made_data([[(0, 1, 1, 9, 9)]]), made_data([[(1, 1, 1, 9, 9)]])
    unknown = dataclasses.replace(train, classes=("a", "c"))
    assert only(split_findings(unknown, val), "class only in val").severity == "error"
    found = split_findings(train, val)
    assert kinds(found) == ["class only in train", "class only in val"]
    assert only(found, "class only in val").severity == "warning"
    assert only(found, "class only in val").where == ("b",)


def test_the_same_pixels_in_both_sets(squares, tmp_path):
    """Another name and another format: what counts are the pixels."""
    train, val = load(squares[0]), load(squares[1])
    assert duplicate_findings([("train", train), ("val", val)]) == []
    copied = dataclasses.replace(val.records[0], path=tmp_path / "copy.bmp")
    Image.open(train.records[2].path).save(copied.path)
    val = dataclasses.replace(val, records=(copied, *val.records, val.records[1]))
    found = duplicate_findings([("train", train), ("val", val)])
    assert only(found, "images in both sets").where == ("train/2.png = val/copy.bmp",)
    assert only(found, "duplicate images").where == ("1.png = 1.png",)
