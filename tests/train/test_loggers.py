"""Loggers: CSV, MLflow, and a logger of the user."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import CSVLogger

from retinanet.errors import ConfigError
from retinanet.train import fit

Options = dict[str, Any]


@pytest.mark.slow
def test_the_csv_logger_by_name_and_a_logger_object(tiny: Options, tmp_path: Path) -> None:
    fit(**tiny, epochs=1, logger="csv")
    folder = tiny["output"]
    assert isinstance(folder, Path)
    with (folder / "csv" / "metrics.csv").open() as file:
        assert {"loss", "AP"} <= set(next(csv.reader(file)))
    first = (folder / "csv" / "metrics.csv").read_bytes()
    fit(**tiny, epochs=2, logger="csv", resume=True)
    assert (folder / "csv" / "metrics.csv").read_bytes() == first, "the resumed run does not change the file"
    assert (folder / "csv-2" / "metrics.csv").exists()
    fit(**{**tiny, "output": tmp_path / "own"}, epochs=1, logger=CSVLogger(tmp_path / "logs", name="", version="a"))
    assert (tmp_path / "logs" / "a" / "metrics.csv").exists()
    assert not (tmp_path / "own" / "tensorboard").exists()


@pytest.mark.slow
def test_a_resumed_run_continues_the_same_mlflow_run(
    tiny: Options, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning's own logger writes into MLflow's local file store."""
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    fit(**tiny, epochs=1, logger="mlflow")
    folder = tiny["output"]
    assert isinstance(folder, Path)
    run_id = json.loads((folder / "logger.json").read_text())["mlflow"]
    fit(**tiny, epochs=2, logger="mlflow", resume=True)
    [run] = (tmp_path / "mlruns").glob("*/*/metrics/AP")
    assert run.parts[-3] == run_id
    assert len(run.read_text().splitlines()) == 2
    assert (run.parents[1] / "params" / "fpn_width").read_text() == "16"


def test_the_error_for_a_missing_package_names_the_package(tiny: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="logger wandb needs a package that is not installed: pip install wandb"):
        fit(**tiny, logger="wandb")
