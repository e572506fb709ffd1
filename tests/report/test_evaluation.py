"""Test the report of `retinanet evaluate --report`, from a checkpoint and from COCO results."""

import json

import pytest

from retinanet.cli import main
from tests.report.test_html import assert_self_contained


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.mark.slow
def test_report_from_a_checkpoint_and_from_its_results(trained_run, squares, tmp_path):
    best = trained_run / "best.ckpt"
    results, first = tmp_path / "results.json", tmp_path / "first.html"
    assert run("evaluate", best, "--data", squares[1], "--results", results, "--report", first) == 0
    page = first.read_text()
    assert_self_contained(page)
    for text in ("Confusion matrix", "Probably unlabelled", "Average precision", "retinanet check"):
        assert text in page, text
    without_images = tmp_path / "elsewhere" / "annotations.json"
    without_images.parent.mkdir()
    without_images.write_text(squares[1].read_text())
    second = tmp_path / "second.html"
    assert run("evaluate", results, "--data", without_images, "--report", second) == 0
    page = second.read_text()
    assert "6 image files could not be found" in page
    assert "Show more images" not in page
    assert "Probably unlabelled" in page


def test_report_of_results_without_a_detection(squares, tmp_path):
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps([]))
    assert run("evaluate", empty, "--data", squares[1], "--report", tmp_path / "r.html") == 0
    assert_self_contained((tmp_path / "r.html").read_text())
