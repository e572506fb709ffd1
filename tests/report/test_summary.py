"""Test the sentences of the training report: AP during training, weak points, durations."""

from __future__ import annotations

from pathlib import Path

from retinanet.report import summary
from retinanet.train.metrics_table import read_metrics
from tests.report.run_files import coco_metrics, metrics_rows, write_metrics


def progress_of(tmp_path: Path, aps: list[float], losses: list[float] | None = None) -> str:
    run = write_metrics(tmp_path, metrics_rows(aps, losses))
    return " ".join(summary.training_progress(read_metrics(run / "metrics.csv")))


def test_sentences_on_ap_during_training(tmp_path: Path) -> None:
    rising = progress_of(tmp_path, [0.1, 0.2, 0.3, 0.4])
    assert "AP was still rising, by 0.200 in the last 2 evaluations" in rising
    flat = progress_of(tmp_path, [0.1, 0.4, 0.5, 0.502, 0.503])
    assert "AP has stopped rising: the last 2 evaluations improved it by 0.003" in flat
    assert "after epoch 5 of 5" in flat
    fell = progress_of(tmp_path, [0.1, 0.5, 0.45, 0.40])
    assert "AP fell to 0.400 in the last evaluation. best.ckpt holds the weights of epoch 2" in fell
    assert "overfitting" in fell
    diverged = progress_of(tmp_path, [0.1, 0.5, 0.45, 0.40], losses=[1.0, 0.5, 0.8, 0.9])
    assert "AP fell" in diverged
    assert "overfitting" not in diverged
    assert "the model detected no object of the validation images" in progress_of(tmp_path, [0.0, 0.0])


def test_sentences_on_weak_points() -> None:
    assert summary.weaknesses({}) == []
    rare = {"a": {"AP": 0.9, "AP50": 1.0, "objects": 90}, "b": {"AP": 0.0, "AP50": 0.0, "objects": 1}}
    sentences = summary.weaknesses(coco_metrics(per_class=rare, AP50=0.9, AP75=0.3, APs=0.1, APm=-1, APl=0.7))
    assert sentences == [
        "The class with the lowest AP is b: AP 0.000 (1 object). This AP is unreliable, because the class has too few "
        "objects.",
        "Many boxes are inaccurate: AP is 0.900 at IoU 0.50 and 0.300 at IoU 0.75.",
        "By object size, AP is lowest for small objects (below 32² pixels): 0.100. AP is highest for large objects "
        "(above 96² pixels): 0.700.",
    ]


def test_durations() -> None:
    assert [summary.duration(s) for s in (0.4, 59.6, 62, 3600 * 2 + 61)] == [
        "0 s",
        "1 min 0 s",
        "1 min 2 s",
        "2 h 1 min",
    ]
