"""`tune` on the command line, and `predict --threshold tuned` with the checkpoint that it writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from retinanet.checkpoint.loading import load_checkpoint
from retinanet.cli import main


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def test_tune_and_predict(
    trained_run: Path, squares: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, numbers, page = tmp_path / "t.ckpt", tmp_path / "t.json", tmp_path / "t.html"
    options = ("--aim", "cost=20:1", "-o", model, "--json", numbers, "--report", page, "--workers", 0)
    assert run("tune", trained_run / "best.ckpt", squares[1], *options) == 0
    out = capsys.readouterr().out
    assert "Thresholds for cost=20:1" in out
    assert "square" in out
    found = json.loads(numbers.read_text())
    tuned = load_checkpoint(model).tuned
    assert tuned is not None
    assert found["tuned"]["thresholds"] == list(tuned.thresholds)
    assert found["per_class"]["bar"]["threshold"] == tuned.thresholds[1]
    text = page.read_text()
    assert "Reliability of the scores" in text
    assert tuned.sentence[:40] in text

    images = squares[1].parent / "images"
    assert run("predict", model, images, "--threshold", "tuned", "-o", tmp_path / "out") == 0
    assert "drawn (scores above the tuned thresholds)" in capsys.readouterr().out
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    limits = dict(zip(load_checkpoint(model).category_ids, tuned.thresholds, strict=True))
    assert all(row["score"] > np.float32(limits[row["category_id"]]) for row in rows)


def test_errors(
    trained_run: Path, squares: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("tune", trained_run / "best.ckpt", squares[1], "-o", tmp_path / "t.ckpt", "--aim", "speed") == 2
    assert "aim must be recall=R or precision=P" in capsys.readouterr().err
    image = next((squares[1].parent / "images").glob("*.png"))
    folder = tmp_path / "out"
    assert run("predict", trained_run / "best.ckpt", image, "--threshold", "tuned", "-o", folder) == 2
    assert "expected a model with tuned thresholds, found none" in capsys.readouterr().err
