"""`evaluate`: its tables, and results files in place of a model."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from retinanet.commands.evaluate import evaluate as evaluate_command
from retinanet.commands.evaluate import metrics_table, slices_table
from retinanet.config import EvaluateConfig, resolve
from retinanet.data import read
from retinanet.evaluate import EvaluationError, evaluate, evaluate_model, evaluate_results
from retinanet.evaluate.slices import Slice
from tests.evaluate.block_detector_fake import block_detector
from tests.evaluate.block_scenes import SCENES, write_scenes
from tests.evaluate.coco_documents import ground_truth, result


def test_table_shows_a_dash_where_there_is_nothing() -> None:
    truth = ground_truth(categories=[{"id": 7, "name": "[red]cat"}, {"id": 90, "name": "dog"}])
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(metrics_table(evaluate_results(truth, [result()])))
    lines = console.export_text().splitlines()
    assert " ".join(next(line for line in lines if "dog" in line).split()) == "│ dog │ 0 │ - │ - │ - │ - │"
    assert next(line for line in lines if "APs" in line).split()[-2:] == ["-", "│"]
    assert any("[red]cat" in line for line in lines)


def test_a_results_file_needs_no_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The detections of a model, written and evaluated again, give the model's numbers."""
    truth = write_scenes(tmp_path / "data")
    metrics, results = evaluate_model(block_detector(), read(truth))
    for name in SCENES:
        (tmp_path / "data" / name).unlink()
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results))
    config = resolve(EvaluateConfig, {"data": truth, "json": tmp_path / "out" / "numbers.json", "confusion": True})
    evaluate_command(file, options=config)
    assert json.loads((tmp_path / "out" / "numbers.json").read_text()) == metrics.to_json()
    shown = capsys.readouterr().out
    assert "AP50" in shown
    assert "background" in shown


def test_slices_and_further_metrics_are_printed_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = write_scenes(tmp_path / "data")
    rows = evaluate_model(block_detector(), read(truth))[1]
    file, attributes, numbers = tmp_path / "results.json", tmp_path / "a.csv", tmp_path / "numbers.json"
    file.write_text(json.dumps(rows[:-1]))  # an object of d.png is missed
    attributes.write_text("image,weather\na.png,[sun]\nb.png,[sun]\nc.png,rain\nd.png,fog\n")
    options = {"data": truth, "json": numbers, "slices": attributes, "slice_by": ("image_size",)}
    metrics = ("voc", "lvis", "open_images", "best_f1")
    evaluate_command(file, options=resolve(EvaluateConfig, {**options, "metrics": metrics}))
    found = json.loads(numbers.read_text())
    assert set(metrics) < set(found)
    assert found["voc"]["AP50"] == found["open_images"]["AP50"] == pytest.approx(5 / 6)
    assert found["best_f1"]["F1"] == pytest.approx(8 / 9)
    assert found["lvis"]["per_class"]["blue"] == {"AP": pytest.approx(1), "frequency": "r"}
    by_name = {(row["attribute"], row["value"]): row for row in found["slices"]}
    assert (by_name["weather", "fog"]["AP"], by_name["weather", "fog"]["objects"]) == (pytest.approx(0.5), 2)
    assert (by_name["weather", "[sun]"]["images"], by_name["weather", "rain"]["AP"]) == (2, -1)
    shown = capsys.readouterr().out
    for text in ("Pascal VOC", "LVIS", "Open Images", "highest F1", "Slices, lowest AP first", "[sun]"):
        assert text in shown


def test_by_default_the_json_holds_no_further_metrics(tmp_path: Path) -> None:
    truth = write_scenes(tmp_path / "data")
    metrics, rows = evaluate_model(block_detector(), read(truth))
    (tmp_path / "results.json").write_text(json.dumps(rows))
    assert evaluate(tmp_path / "results.json", data=truth).to_json() == metrics.to_json()


def test_an_invalid_file_of_attributes_is_found_before_the_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retinanet.evaluate.evaluation.load_with_options", lambda *_: block_detector())
    monkeypatch.setattr("retinanet.evaluate.evaluation.evaluate_model", lambda *_, **__: pytest.fail("evaluated"))
    truth = write_scenes(tmp_path / "data")
    (tmp_path / "a.csv").write_text("image,weather\na.png,sun\n")
    with pytest.raises(EvaluationError, match="found none for 3 images"):
        evaluate(tmp_path / "model.ckpt", data=truth, slices=tmp_path / "a.csv")


def test_a_long_list_of_slices_is_cut_in_the_terminal() -> None:
    rows = [
        Slice(attribute="a", value=f"{i}.", images=50, objects=50, AP=i / 100, AP50=0.5, AR=0.5, difference=-0.1)
        for i in range(30)
    ]
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(slices_table(rows))
    shown = console.export_text()
    assert "(20 of 30: --json or --report lists all)" in shown
    assert "a: 19." in shown
    assert "a: 20." not in shown
    assert "-0.100" in shown
