"""Callback that writes metrics.csv: its rows and cells."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from retinanet.train.metrics_file import COLUMNS, FIRST_COLUMNS, MetricsFile
from retinanet.train.metrics_table import read_metrics


def trainer(step: int, **values: float) -> SimpleNamespace:
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.1}, {"lr": 0.01}])
    return SimpleNamespace(
        **{"is_global_zero": True, "global_step": step, "current_epoch": 0, "callback_metrics": values},
        **{"optimizers": [optimizer], "state": SimpleNamespace(fn="fit")},
    )


def test_rows_are_written_for_the_first_step_each_nth_step_and_each_evaluation(tmp_path: Path):
    file = MetricsFile(path=tmp_path / "metrics.csv", log_every=2)
    file.on_fit_start(trainer(0), None)
    file.on_train_start(trainer(0), None)
    for step in (1, 2, 2, 3, 4):  # step 2 comes twice: two batches of one accumulated step
        file.on_train_batch_end(trainer(step, loss=step / 2, AP=0.5), None, None, None, 0)
    file.on_validation_end(trainer(4, loss=2.0, AP=0.25, val_loss=1.5), None)
    rows = read_metrics(tmp_path / "metrics.csv")
    assert tuple(rows[0]) == COLUMNS
    assert [(row["step"], row["loss"], row["AP"]) for row in rows] == [
        (1, 0.5, None),
        (2, 1.0, None),
        (4, 2.0, None),
        (4, None, 0.25),
    ]
    assert [row["val_loss"] for row in rows] == [None, None, None, 1.5]
    assert {row["lr"] for row in rows} == {0.01}


def test_an_evaluation_after_training_belongs_to_the_last_epoch(tmp_path: Path):
    """Lightning has then counted the last epoch as complete."""
    file = MetricsFile(path=tmp_path / "metrics.csv", log_every=2)
    file.on_fit_start(trainer(0), None)
    after = trainer(6, AP=0.25)
    after.current_epoch, after.state.fn = 3, "validate"
    file.on_validation_end(after, None)
    assert [row["epoch"] for row in read_metrics(tmp_path / "metrics.csv")] == [2]


def test_a_resumed_run_drops_the_rows_that_it_repeats(tmp_path: Path):
    first = MetricsFile(path=tmp_path / "metrics.csv", log_every=1)
    first.on_fit_start(trainer(0), None)
    first.on_train_batch_end(trainer(1, loss=1.0), None, None, None, 0)
    state = first.state_dict()
    first.on_train_batch_end(trainer(2, loss=2.0), None, None, None, 0)
    resumed = MetricsFile(path=tmp_path / "metrics.csv", log_every=1)
    resumed.load_state_dict({**state, "seconds": 100.0})
    resumed.on_fit_start(trainer(1), None)
    resumed.on_train_start(trainer(1), None)
    resumed.on_train_batch_end(trainer(2, loss=3.0), None, None, None, 0)
    assert [row["loss"] for row in read_metrics(tmp_path / "metrics.csv")] == [1.0, 3.0]
    assert resumed.seconds() >= 100


@pytest.mark.parametrize("resumes", [1, 2], ids=["resumed", "killed after the first step and resumed again"])
def test_a_file_without_validation_losses_gets_the_columns_at_a_resume(tmp_path: Path, resumes: int):
    """The checkpoint of an earlier version holds the size of the file after step 1, without the columns."""
    path = tmp_path / "metrics.csv"
    header = ",".join(FIRST_COLUMNS) + "\r\n"
    kept = "0,1,0.01,2.5,1.5,1,9,,,,,,,1.0\r\n0,1,0.01,,,,,0.25,0.5,0.1,-1,0.2,0.3,1.5\r\n"
    path.write_text(header + kept + "0,2,0.01,2,1,1,9,,,,,,,2.0\r\n", newline="")
    for _ in range(resumes):
        file = MetricsFile(path=path, log_every=1)
        file.load_state_dict({"seconds": 1.5, "size": len(header + kept)})
        file.on_train_start(trainer(1), None)
        file.on_train_batch_end(trainer(2, loss=3.0), None, None, None, 0)
    file.on_validation_end(trainer(2, AP=0.5, val_loss=1.25), None)
    rows = read_metrics(path)
    assert tuple(rows[0]) == COLUMNS
    assert [(row["step"], row["loss"], row["AP"], row["val_loss"]) for row in rows] == [
        (1, 2.5, None, None),
        (1, None, 0.25, None),
        (2, 3.0, None, None),
        (2, None, 0.5, 1.25),
    ]
    state = file.state_dict()
    assert state["size"] == path.stat().st_size
    assert tuple(state["columns"]) == COLUMNS
