"""`evaluate`: its tables, and results files in place of a model."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from retinanet.commands.evaluate import evaluate as evaluate_command
from retinanet.commands.evaluate import metrics_table
from retinanet.config import EvaluateConfig, resolve
from retinanet.data import read
from retinanet.evaluate import evaluate_model, evaluate_results
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
