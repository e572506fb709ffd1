"""RUN/report.html from whatever a run has left, and sentences that are true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retinanet.evaluate.per_image import ImageResults
from retinanet.report import training_report
from tests.report.made import metrics, rows_of, write
from tests.report.test_html import assert_self_contained


def item(name: str = "a.jpg", *, truth: int = 1, found: int = 1) -> ImageResults:
    box = np.array([[10.0, 10, 40, 40]])
    return ImageResults(
        name=name,
        image=Image.new("RGB", (100, 60)),
        boxes_G4=np.repeat(box, truth, axis=0) + 50 * np.arange(truth)[:, None],
        labels_G=np.zeros(truth, dtype=np.int64),
        found_D4=np.repeat(box, found, axis=0) + 50 * np.arange(found)[:, None],
        found_labels_D=np.zeros(found, dtype=np.int64),
        scores_D=np.full(found, 0.9),
    )


def report_of(run: Path, **options: Any) -> Any:
    path = training_report(run, **options)
    assert path == run / "report.html"
    return assert_self_contained(path.read_text(encoding="utf-8"))


def test_a_whole_run(tmp_path: Path) -> None:
    write(tmp_path, rows_of([0.2, 0.4, 0.5]))
    (tmp_path / "config.yaml").write_text("lr: 0.01  # <i>\n")
    page = report_of(
        tmp_path,
        metrics=metrics(),
        gallery=[item("right.jpg"), item("missed.jpg", found=0), item("empty.jpg", truth=0, found=1)],
        classes=["<b>cat</b>", "dog"],
        command="retinanet train --train 'a b.json'",
        notes=["A note."],
        seconds=62,
    )
    for said in (
        "The best AP on the validation images was 0.500 (AP50 0.500), after epoch 3 of 3.",
        "The weakest class is <b>cat</b> with AP 0.400 (50 objects).",
        "With detections of a score of 0.50 or more, 1 of 3 images has every object found and nothing wrong; in all, "
        "1 of 2 objects are missed and 1 detection wrong.",
        "On 1 image with objects nothing was found.",
        "Of 1 image without objects 1 got a detection all the same.",
        "Training took 1 min 2 s.",
        "A note.",
        "lr: 0.01  # <i>",
        "retinanet train --train 'a b.json'",
    ):
        assert said in page.text
    assert len(page.all("svg")) == 5
    assert len(page.all("img")) == 3
    assert not page.all("b")


def test_what_is_missing_is_left_out(tmp_path: Path) -> None:
    page = report_of(tmp_path)
    assert "left no numbers" in page.text
    assert not page.all("svg")
    page = report_of(write(tmp_path / "header", []))
    assert "No AP was measured" in page.text
    page = report_of(write(tmp_path / "one", rows_of([0.3])))
    assert "after epoch 1 of 1" in page.text
    only_loss = ("epoch", "step", "loss")
    page = report_of(write(tmp_path / "old", rows_of([0.3, 0.4]), only_loss))
    assert len(page.all("svg")) == 1


def test_no_such_objects_is_a_dash_and_never_minus_one(tmp_path: Path) -> None:
    nothing = {"AP": -1.0, "AP50": -1.0, "objects": 0}
    page = report_of(
        write(tmp_path, rows_of([-1.0])),
        metrics=metrics(**dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl"), -1.0), per_class={"cat": nothing}),
    )
    assert "-1" not in page.text.split("Made by")[0]
    assert "No AP was measured during training." in page.text
    assert "No objects to measure by: cat." in page.text


def test_metrics_that_training_wrote_are_found(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text('{"epoch": 0, "AP": 0.5, "AP50": 0.7, "per_class": {}}')
    assert "0.700" in report_of(tmp_path).text


def test_a_broken_cell_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,loss\n0,1.5\n1,abc\n")
    with pytest.raises(ValueError, match=r"metrics\.csv, line 3, loss: expected a number, found 'abc'"):
        training_report(tmp_path)
