"""Test RUN/report.html of complete and incomplete run folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retinanet.evaluate.per_image import ImageResults
from retinanet.report import training_report
from tests.report.run_files import coco_metrics, metrics_rows, write_metrics
from tests.report.test_html import Page, assert_self_contained


def image_results(name: str = "a.jpg", *, truth: int = 1, found: int = 1) -> ImageResults:
    box = np.array([[10.0, 10, 40, 40]])
    return ImageResults(
        name=name,
        image=Image.new("RGB", (100, 60)),
        boxes_G4=np.repeat(box, truth, axis=0) + 50 * np.arange(truth)[:, None],
        labels_G=np.zeros(truth, dtype=np.int64),
        detected_D4=np.repeat(box, found, axis=0) + 50 * np.arange(found)[:, None],
        detected_labels_D=np.zeros(found, dtype=np.int64),
        scores_D=np.full(found, 0.9),
    )


def written_report(run: Path, **options: Any) -> Page:
    """Write the report of a run folder, check that it is self-contained, and return the page."""
    path = training_report(run, **options)
    assert path == run / "report.html"
    return assert_self_contained(path.read_text(encoding="utf-8"))


def test_a_complete_run_folder(tmp_path: Path) -> None:
    write_metrics(tmp_path, metrics_rows([0.2, 0.4, 0.5]))
    (tmp_path / "config.yaml").write_text("lr: 0.01  # <i>\n")
    page = written_report(
        tmp_path,
        metrics=coco_metrics(),
        gallery=[
            image_results("right.jpg"),
            image_results("missed.jpg", found=0),
            image_results("empty.jpg", truth=0, found=1),
        ],
        classes=["<b>cat</b>", "dog"],
        command="retinanet train --train 'a b.json'",
        notes=["A note."],
        seconds=62,
    )
    for text in (
        "The best AP on the validation images was 0.500 (AP50 0.500), after epoch 3 of 3.",
        "The class with the lowest AP is <b>cat</b>: AP 0.400 (50 objects).",
        "At score threshold 0.50, 2 of 3 images have no missed object and no false detection. In total, 1 of 2 objects "
        "is missed and no detections are false.",
        "1 detection with a score of 0.5 or more lies where no object is labelled: probably unlabelled objects.",
        "1 image with objects has no detection.",
        "1 of 1 image without objects has a detection.",
        "Training took 1 min 2 s.",
        "A note.",
        "lr: 0.01  # <i>",
        "retinanet train --train 'a b.json'",
    ):
        assert text in page.text
    assert len(page.all("svg")) == 5 + 4 + 3  # figures, the legend of the images, images
    assert len(page.all("image")) == 3
    assert "The largest loss: 1 of 2 objects" in page.text
    assert not page.all("b")


def test_missing_files_and_columns_are_left_out(tmp_path: Path) -> None:
    page = written_report(tmp_path)
    assert "No metrics of the training were found" in page.text
    assert not page.all("svg")
    page = written_report(write_metrics(tmp_path / "header", []))
    assert "No AP was measured" in page.text
    page = written_report(write_metrics(tmp_path / "one", metrics_rows([0.3])))
    assert "after epoch 1 of 1" in page.text
    only_loss = ("epoch", "step", "loss")
    page = written_report(write_metrics(tmp_path / "old", metrics_rows([0.3, 0.4]), only_loss))
    assert len(page.all("svg")) == 1


def test_metrics_without_objects_are_shown_as_a_dash(tmp_path: Path) -> None:
    nothing = {"AP": -1.0, "AP50": -1.0, "objects": 0}
    page = written_report(
        write_metrics(tmp_path, metrics_rows([-1.0])),
        metrics=coco_metrics(
            **dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl"), -1.0), per_class={"cat": nothing}
        ),
    )
    assert "-1" not in page.text.split("Made by")[0]
    assert "No AP was measured during training." in page.text
    assert "These classes have no objects, so they have no AP: cat." in page.text


def test_metrics_are_read_from_evaluation_json(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text('{"epoch": 0, "AP": 0.5, "AP50": 0.7, "per_class": {}}')
    assert "0.700" in written_report(tmp_path).text


def test_the_error_of_an_invalid_cell_names_line_and_column(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,loss\n0,1.5\n1,abc\n")
    with pytest.raises(ValueError, match=r"metrics\.csv, line 3, loss: expected a number, found 'abc'"):
        training_report(tmp_path)


def test_a_sampler_that_is_not_the_default_is_named(tmp_path: Path) -> None:
    write_metrics(tmp_path, metrics_rows([0.2]))
    for sampler, is_named in (("natural", False), ("balanced", True)):
        (tmp_path / "sampling.json").write_text(json.dumps({"sampler": sampler, "sentence": "cat 3 (4)"}))
        assert ("Sampling: cat 3 (4)" in written_report(tmp_path).text) is is_named


def test_validation_losses_have_a_chart_and_a_sentence_on_overfitting(tmp_path: Path) -> None:
    val_losses = [1.0, 0.8, 0.7, 0.6, 0.7, 0.8, 0.9, 1.0]
    without = written_report(write_metrics(tmp_path / "old", metrics_rows([0.3] * 8)))
    page = written_report(write_metrics(tmp_path / "new", metrics_rows([0.3] * 8, val_losses=val_losses)))
    assert len(page.all("svg")) == len(without.all("svg")) + 1
    assert "Loss of the validation images after each evaluated epoch" in page.text
    assert "The validation loss has risen by 36 % since epoch 3" in page.text
    assert "overfit" not in without.text
