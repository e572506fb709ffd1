"""RUN/report.html from whatever a run has left, and sentences that are true."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retinanet.evaluate.per_image import ImageResults
from retinanet.report import summary, training_report
from retinanet.train.metrics_table import read_metrics
from tests.report.test_html import assert_self_contained

COLUMNS = (
    *("epoch", "step", "lr", "loss", "classification_loss", "box_loss", "positives_per_image"),
    *("AP", "AP50", "AP75", "APs", "APm", "APl", "seconds"),
)


def rows_of(aps: list[float], losses: list[float] | None = None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for epoch, ap in enumerate(aps):
        loss = losses[epoch] if losses else 1 / (epoch + 1)
        step = {"epoch": epoch, "step": 10 * epoch + 10, "lr": 0.01, "seconds": 60.0 * epoch + 60}
        rows.append(
            {**step, "loss": loss, "classification_loss": loss / 2, "box_loss": loss / 2, "positives_per_image": 9}
        )
        rows.append({**step, "AP": ap, "AP50": ap, "AP75": ap, "APs": -1, "APm": ap, "APl": ap})
    return rows


def write(run: Path, rows: list[dict[str, Any]], columns: tuple[str, ...] = COLUMNS) -> Path:
    run.mkdir(exist_ok=True)
    with (run / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return run


def metrics(**changes: Any) -> dict[str, Any]:
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    per_class = {"<b>cat</b>": {"AP": 0.4, "AP50": 0.6, "objects": 50}, "dog": {"AP": 0.6, "AP50": 0.8, "objects": 70}}
    return {**dict.fromkeys(names, 0.5), "per_class": per_class, **changes}


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
        "The best AP on the validation pictures was 0.500 (AP50 0.500), after epoch 3 of 3.",
        "The weakest class is <b>cat</b> with AP 0.400 (50 objects).",
        "With detections of a score of 0.50 or more, 1 of 3 pictures has every object found and nothing wrong; in all, "
        "1 of 2 objects are missed and 1 detection wrong.",
        "On 1 picture with objects nothing was found.",
        "Of 1 picture without objects 1 got a detection all the same.",
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


def parsed(tmp_path: Path, aps: list[float], losses: list[float] | None = None) -> str:
    return " ".join(summary.course(read_metrics(write(tmp_path, rows_of(aps, losses)) / "metrics.csv")))


def test_the_course_of_the_ap(tmp_path: Path) -> None:
    rising = parsed(tmp_path, [0.1, 0.2, 0.3, 0.4])
    assert "AP was still rising: by 0.200 in the last 2 evaluations" in rising
    flat = parsed(tmp_path, [0.1, 0.4, 0.5, 0.502, 0.503])
    assert "levelled off: the last 2 evaluations added 0.003" in flat
    assert "after epoch 5 of 5" in flat
    fell = parsed(tmp_path, [0.1, 0.5, 0.45, 0.40])
    assert "AP fell to 0.400 by the last evaluation; best.ckpt holds the weights of epoch 2" in fell
    assert "by heart" in fell
    diverged = parsed(tmp_path, [0.1, 0.5, 0.45, 0.40], losses=[1.0, 0.5, 0.8, 0.9])
    assert "AP fell" in diverged
    assert "by heart" not in diverged
    assert "No object of the validation pictures was found" in parsed(tmp_path, [0.0, 0.0])


def test_weaknesses() -> None:
    assert summary.weaknesses({}) == []
    rare = {"a": {"AP": 0.9, "AP50": 1.0, "objects": 90}, "b": {"AP": 0.0, "AP50": 0.0, "objects": 1}}
    said = summary.weaknesses(metrics(per_class=rare, AP50=0.9, AP75=0.3, APs=0.1, APm=-1, APl=0.7))
    assert said == [
        "The weakest class is b with AP 0.000 (1 object): so few that the number is largely chance.",
        "Objects are found better than they are outlined: AP is 0.900 at IoU 0.50 and 0.300 at IoU 0.75.",
        "By size, small (below 32² pixels) objects are weakest: AP 0.100, "
        "against 0.700 of large (above 96² pixels) ones.",
    ]


def test_durations() -> None:
    assert [summary.duration(s) for s in (0.4, 59.6, 62, 3600 * 2 + 61)] == [
        "0 s",
        "1 min 0 s",
        "1 min 2 s",
        "2 h 1 min",
    ]
