"""The page of `evaluate --report`, from a checkpoint and from results, with and without the images."""

import json

import numpy as np
import pytest

from retinanet.cli import main
from retinanet.evaluate import ConfusionMatrix
from retinanet.report import Report
from retinanet.report.evaluation import confusion_section
from tests.report.test_html import assert_self_contained


def run(*words):
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return stop.value.code


def matrix(counts, classes):
    return ConfusionMatrix(classes=tuple(classes), counts=np.array(counts), iou=0.5, score=0.5)


def test_confusion_is_said_in_words():
    report = Report(title="t")
    confusion_section(report.section("s"), matrix([[9, 4, 1], [0, 5, 0], [7, 0, 0]], ["cat", "dog"]))
    page = report.html()
    assert_self_contained(page)
    assert "7 times cat found where nothing is; 4 cat taken for dog; 1 cat not found" in page


def test_a_hundred_classes_are_cut_to_the_most_confused():
    counts = np.diag(np.arange(101))
    counts[3, 7] = 50
    report = Report(title="t")
    confusion_section(report.section("s"), matrix(counts, [f"class-{k}" for k in range(100)]))
    page = report.html()
    assert "The 30 most confused classes" in page
    assert "50 class-3 taken for class-7" in page


def test_from_a_checkpoint_and_from_its_results(trained_run, squares, tmp_path):
    best = trained_run / "best.ckpt"
    results, first = tmp_path / "results.json", tmp_path / "first.html"
    assert run("evaluate", best, "--data", squares[1], "--results", results, "--report", first) == 0
    page = first.read_text()
    assert_self_contained(page)
    for words in ("Which class is taken for which", "Detections beside ground truth", "Average precision"):
        assert words in page, words
    lonely = tmp_path / "elsewhere" / "annotations.json"
    lonely.parent.mkdir()
    lonely.write_text(squares[1].read_text())
    second = tmp_path / "second.html"
    assert run("evaluate", results, "--data", lonely, "--report", second) == 0
    page = second.read_text()
    assert "6 images are not there" in page
    assert "Detections beside ground truth" not in page


def test_results_without_a_detection(squares, tmp_path):
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps([]))
    assert run("evaluate", empty, "--data", squares[1], "--report", tmp_path / "r.html") == 0
    assert_self_contained((tmp_path / "r.html").read_text())
