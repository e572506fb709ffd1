"""Callback that writes metrics.csv: its rows and cells."""

from pathlib import Path
from types import SimpleNamespace

from retinanet.train.metrics_file import COLUMNS, MetricsFile
from retinanet.train.metrics_table import read_metrics


def trainer(step: int, **values: float) -> SimpleNamespace:
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.1}, {"lr": 0.01}])
    return SimpleNamespace(
        is_global_zero=True, global_step=step, current_epoch=0, callback_metrics=values, optimizers=[optimizer]
    )


def test_rows_are_written_for_the_first_step_each_nth_step_and_each_evaluation(tmp_path: Path):
    file = MetricsFile(path=tmp_path / "metrics.csv", log_every=2)
    file.on_fit_start(trainer(0), None)
    file.on_train_start(trainer(0), None)
    for step in (1, 2, 2, 3, 4):  # step 2 comes twice: two batches of one accumulated step
        file.on_train_batch_end(trainer(step, loss=step / 2, AP=0.5), None, None, None, 0)
    file.on_validation_end(trainer(4, loss=2.0, AP=0.25), None)
    rows = read_metrics(tmp_path / "metrics.csv")
    assert tuple(rows[0]) == COLUMNS
    assert [(row["step"], row["loss"], row["AP"]) for row in rows] == [
        (1, 0.5, None),
        (2, 1.0, None),
        (4, 2.0, None),
        (4, None, 0.25),
    ]
    assert {row["lr"] for row in rows} == {0.01}


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
