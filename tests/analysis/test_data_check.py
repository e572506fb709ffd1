"""`check DATA`: a broken set-up for each finding, the exit status, and the page."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from retinanet.analysis.anchor_findings import anchor_findings, start_findings
from retinanet.analysis.coverage import coverage
from retinanet.analysis.data_check import check_data
from retinanet.analysis.data_findings import data_findings, duplicate_findings, split_findings
from retinanet.analysis.expected import expected_loss
from retinanet.analysis.statistics import statistics
from retinanet.cli import main
from retinanet.commands.check import check
from retinanet.config import CheckConfig, ImageConfig, LossConfig, MatchConfig, ModelConfig, resolve
from retinanet.data import load
from tests.analysis.made import made_data, scattered
from tests.report.test_html import assert_self_contained


def kinds(findings):
    return [finding.kind for finding in findings]


def only(findings, kind):
    (found,) = [finding for finding in findings if finding.kind == kind]
    return found


def settings(squares, **options):
    return resolve(CheckConfig, {"preset": "small", "image_size": 64, "max_size": 96, "workers": 1, **options})


def test_statistics_by_hand():
    data = made_data([[(0, 0, 0, 10, 20), (1, 5, 5, 9, 9)], [], [(1, 0, 0, 8, 8), (1, 0, 0, 9, 9, True)]])
    found = statistics(data)
    assert (found.pictures, found.empty, found.crowd, found.objects) == (3, 1, 1, 3)
    assert found.objects_K.tolist() == [1, 2]
    assert found.pictures_K.tolist() == [1, 2]
    assert found.per_picture_P.tolist() == [2, 0, 1]
    assert found.width_O.tolist() == [10, 4, 8]


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
    assert only(found, "whole picture").where == ("0.png: object 1",)
    assert "at most 140" in only(found, "many objects").what


def test_mostly_empty_pictures():
    assert "3 of 4" in only(data_findings(made_data([[], [], [], [(0, 1, 1, 9, 9)]])), "empty pictures").what


def test_classes_that_one_set_lacks():
    train, val = made_data([[(0, 1, 1, 9, 9)]]), made_data([[(1, 1, 1, 9, 9)]])
    unknown = dataclasses.replace(train, classes=("a", "c"))
    assert only(split_findings(unknown, val), "class only in val").severity == "error"
    found = split_findings(train, val)
    assert kinds(found) == ["class only in train", "class only in val"]
    assert only(found, "class only in val").severity == "warning"
    assert only(found, "class only in val").where == ("b",)


@pytest.mark.parametrize(
    ("sides", "ratio", "sizes", "kind"),
    [
        ((10, 18), (0.9, 1.1), (64, 128, 256, 512, 1024), "anchors too large"),
        ((250, 300), (0.9, 1.1), (8, 16, 24, 32, 40), "anchors too small"),
        ((60, 100), (8.0, 9.0), (32, 64, 128, 256, 512), "anchors of other shapes"),
    ],
)
def test_anchors_that_miss_name_the_direction(sides, ratio, sizes, kind):
    data = scattered(100, sides=sides, ratio=ratio)
    config = ModelConfig(anchor_sizes=tuple(map(float, sizes)))
    found = coverage(data, model_config=config, match_config=MatchConfig(), image_config=ImageConfig(image_size=384))
    assert only(anchor_findings(found, config), kind).severity == "warning"


def test_objects_on_top_of_each_other():
    """Two objects of the same box: all anchors go to the first."""
    pairs = [[(0, 100, 100, 164, 164), (1, 100, 100, 164, 164)] for _ in range(20)]
    data = made_data(pairs)
    config = ModelConfig(anchor_scales=(1.0,), anchor_ratios=(1.0,))
    found = coverage(data, model_config=config, match_config=MatchConfig(), image_config=ImageConfig(image_size=384))
    assert found.unreached == 20
    assert only(anchor_findings(found, config), "objects too close")


def test_tiny_objects():
    data = scattered(100, sides=(3, 6))
    found = coverage(
        data, model_config=ModelConfig(), match_config=MatchConfig(), image_config=ImageConfig(image_size=384)
    )
    assert "tiny objects" in kinds(anchor_findings(found, ModelConfig()))


def test_no_prior():
    numbers = {"positives": 50, "negatives": 200_000, "num_classes": 80, "loss_config": LossConfig()}
    assert start_findings(0.01, expected_loss(prior=0.01, **numbers)) == []
    assert "may diverge" in only(start_findings(0.5, expected_loss(prior=0.5, **numbers)), "no prior").advice
    assert only(start_findings(0.5, None), "no prior"), "whatever the loss"


def test_the_same_pixels_in_both_sets(squares, tmp_path):
    """Another name and another format: what counts are the pixels."""
    train, val = load(squares[0]), load(squares[1])
    assert duplicate_findings([("train", train), ("val", val)]) == []
    copied = dataclasses.replace(val.records[0], path=tmp_path / "copy.bmp")
    Image.open(train.records[2].path).save(copied.path)
    val = dataclasses.replace(val, records=(copied, *val.records, val.records[1]))
    found = duplicate_findings([("train", train), ("val", val)])
    assert only(found, "pictures in both sets").where == ("train/2.png = val/copy.bmp",)
    assert only(found, "duplicate pictures").where == ("1.png = 1.png",)


def test_the_command_lists_every_fault_and_goes_on(squares, tmp_path, capsys):
    content = json.loads(squares[0].read_text())
    content["annotations"][0]["bbox"] = [1, 1, 0, 5]
    bad = shutil.copytree(squares[0].parent, tmp_path / "bad") / "annotations.json"
    bad.write_text(json.dumps(content))
    assert check(bad, options=settings(squares)) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "annotation 1" in said
    assert "1 fault" in said
    assert "12 pictures" in said
    assert "square" in said
    assert check(bad, options=settings(squares, skip_bad=True)) == 0
    assert check(squares[0], options=settings(squares)) == 0


def test_the_page(squares, tmp_path):
    """Through the command line, with a preset that sets options which `check` does not have."""
    words = ["check", squares[0], "--val", squares[1], "--preset", "small", "--image-size", 64, "--max-size", 96]
    words += ["--prior", 0.5, "--report", tmp_path / "check.html"]
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert stop.value.code == 0
    page = (tmp_path / "check.html").read_text()
    assert_self_contained(page)
    for words in ("no prior", "What the anchors reach", "12 pictures"):
        assert words in page, words


def test_the_model_settings_are_those_of_the_preset(squares):
    found = check_data(squares[0], settings(squares))
    assert found.expected.loss_config.loss == "focal"
    assert found.coverage.classes == ("square", "bar")
    assert np.isclose(found.coverage.share, 1 - found.coverage.unreached / found.coverage.objects)
