"""The sentences of the training report: the course of the AP, weaknesses, durations."""

from __future__ import annotations

from pathlib import Path

from retinanet.report import summary
from retinanet.train.metrics_table import read_metrics
from tests.report.made import metrics, rows_of, write


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
    assert "No object of the validation images was found" in parsed(tmp_path, [0.0, 0.0])


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
