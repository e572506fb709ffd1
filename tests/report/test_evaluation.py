"""Test the report of `retinanet evaluate --report`, from a checkpoint and from COCO results."""

import json

import numpy as np
import pytest

from retinanet.cli import main
from retinanet.evaluate import ConfusionMatrix
from retinanet.report import Report
from retinanet.report.evaluation import confusion_section
from tests.report.test_html import assert_self_contained


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


def matrix(counts, classes):
    return ConfusionMatrix(classes=tuple(classes), counts=np.array(counts), iou=0.5, score=0.5)


def test_the_most_frequent_mistakes_are_listed():
    report = Report(title="t")
    confusion_section(report.section("s"), matrix([[9, 4, 1], [0, 5, 0], [7, 0, 0]], ["cat", "dog"]))
    page = report.html()
    assert_self_contained(page)
    assert "7 detected as cat on background; 4 of class cat detected as dog; 1 of class cat missed" in page


def test_of_a_hundred_classes_the_most_confused_are_shown():
    counts = np.diag(np.arange(101))
    counts[3, 7] = 50
    report = Report(title="t")
    confusion_section(report.section("s"), matrix(counts, [f"class-{k}" for k in range(100)]))
    page = report.html()
    assert "Only the 30 most confused classes are shown" in page
    assert "50 of class class-3 detected as class-7" in page


@pytest.mark.slow
def test_report_from_a_checkpoint_and_from_its_results(trained_run, squares, tmp_path):
    best = trained_run / "best.ckpt"
    results, first = tmp_path / "results.json", tmp_path / "first.html"
    assert run("evaluate", best, "--data", squares[1], "--results", results, "--report", first) == 0
    page = first.read_text()
    assert_self_contained(page)
    for text in ("Confusion matrix", "Detections and ground truth", "Average precision"):
        assert text in page, text
    without_images = tmp_path / "elsewhere" / "annotations.json"
    without_images.parent.mkdir()
    without_images.write_text(squares[1].read_text())
    second = tmp_path / "second.html"
    assert run("evaluate", results, "--data", without_images, "--report", second) == 0
    page = second.read_text()
    assert "6 image files could not be found" in page
    assert "Detections and ground truth" not in page


def test_report_of_results_without_a_detection(squares, tmp_path):
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps([]))
    assert run("evaluate", empty, "--data", squares[1], "--report", tmp_path / "r.html") == 0
    assert_self_contained((tmp_path / "r.html").read_text())
