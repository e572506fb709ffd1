"""Cross-validation: each image is detected by the run that was not trained on it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

import retinanet.study.runs as module
from retinanet.cli import main
from retinanet.data import load
from retinanet.report.study import study_report
from retinanet.study.runner import study
from tests.report.test_html import assert_self_contained


@pytest.fixture
def options(tiny, tmp_path):
    options = {key: value for key, value in tiny.items() if key not in {"train", "val", "output"}}
    return {**options, "output": tmp_path / "folds", "epochs": 1, "cross_validate": 3}


def perfect_run(config):
    """Write a run whose detections on the validation part are the ground truth."""
    folder, val = config.folder.output, load(config.val)
    rows = val.to_coco()["annotations"]
    detections = [{**{key: row[key] for key in ("image_id", "category_id", "bbox")}, "score": 0.9} for row in rows]
    (folder / "detections.json").write_text(json.dumps(detections))
    (folder / "evaluation.json").write_text(json.dumps({"AP": 1.0, "AP50": 1.0, "AP75": 1.0, "per_class": {}}))
    (folder / "metrics.csv").write_text("step,loss\n1,2.0\n")
    return SimpleNamespace(seconds=1.0)


@pytest.mark.slow
def test_out_of_fold_detections_of_every_image(options, squares, monkeypatch, capsys):
    """Perfect runs: pooled AP 1. The detections of all folds are results of the whole data, which `check` accepts."""
    trained = []

    def fake_fit(config):
        trained.append((load(config.train), load(config.val)))
        return perfect_run(config)

    monkeypatch.setattr(module, "fit", fake_fit)
    found = study(squares[0], **options)
    data = load(squares[0])
    held_out = [record.path.name for _, val in trained for record in val.records]
    assert sorted(held_out) == sorted(record.path.name for record in data.records)
    assert all(len(train.records) + len(val.records) == len(data.records) for train, val in trained)
    assert found.metrics["AP"] == pytest.approx(1)
    assert found.table()[1][-1] == ["all images", str(len(data.records)), "1.000", "1.000", "1.000"]
    assert "mean of 3 folds 1.000 (lowest 1.000, highest 1.000)" in found.sentences()[0]
    output = options["output"]
    assert {row["image_id"] for row in json.loads((output / "out_of_fold.json").read_text())} <= {
        record.image_id for record in data.records
    }
    assert json.loads((output / "study.json").read_text())["pooled"]["AP"] == pytest.approx(1)
    assert_self_contained(study_report(found, output / "report.html").read_text())
    words = ["check", output / "out_of_fold.json", output / "data.json", "--hard", "-o", output / "hard"]
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words), "--json", str(output / "check.json")])
    assert stop.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "AP 1.000" in printed
    assert "the objects without a positive anchor were not measured" in printed
    document = json.loads((output / "check.json").read_text())
    assert document["imbalance"] is None
    assert {row["kind"] for row in document["hard_examples"]} == {"hard object"}
    assert (output / "hard" / "hard.csv").exists()
    assert_self_contained((output / "hard" / "report.html").read_text())


@pytest.mark.slow
def test_a_real_cross_validation(options, squares):
    found = study(squares[0], **{**options, "cross_validate": 2})
    assert len(found.runs) == 2
    assert (options["output"] / "out_of_fold.json").exists()
