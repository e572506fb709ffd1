"""Training with a time budget: options that exclude it, its files, and the end of the schedule."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from retinanet.config import TrainConfig, resolve, with_options
from retinanet.errors import ConfigError
from retinanet.train import fit
from retinanet.train.metrics_table import read_metrics
from retinanet.train.time_budget import TimeBudget, check_length_options, make_time_plan
from retinanet.train.trainer import write_config

OPTIONS: dict[str, Any] = {"train": "a", "val": "b", "output": "c"}


@pytest.mark.parametrize("given", [{"epochs": 12}, {"epochs": 3}, {"max_steps": 100}])
def test_a_length_and_a_time_budget_exclude_each_other(given: dict[str, int]):
    """A number of epochs counts as given even if it is the default."""
    config = resolve(TrainConfig, {**OPTIONS, "time_budget": "30m", **given})
    (name, value) = next(iter(given.items()))
    message = f"time_budget and {name} exclude each other, found time_budget 30m and {name} {value}"
    with pytest.raises(ConfigError, match=message):
        check_length_options(config)


@pytest.mark.parametrize("options", [{"epochs": 3}, {"time_budget": "30m"}, {"time_budget": "30m", "max_steps": -1}])
def test_one_of_the_two_is_accepted(options: dict[str, Any]):
    check_length_options(resolve(TrainConfig, {**OPTIONS, **options}))


@pytest.mark.parametrize("value", ["30", "half an hour", 30])
def test_the_error_of_a_time_budget_states_the_format(value: object):
    with pytest.raises(ConfigError, match="time_budget: expected a duration such as 90s, 30m, 2h or 1h30m"):
        resolve(TrainConfig, {**OPTIONS, "time_budget": value})


def test_the_saved_options_can_be_used_again(tmp_path: Path):
    """They hold the budget without the number of epochs, which would exclude it."""
    write_config(resolve(TrainConfig, {**OPTIONS, "time_budget": "30m"}), tmp_path / "config.yaml")
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    again = resolve(TrainConfig, saved)
    check_length_options(again)
    assert again.schedule.time_budget == "30m"
    write_config(resolve(TrainConfig, {**OPTIONS, "epochs": 3}), tmp_path / "config.yaml")
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["epochs"] == 3


def test_a_budget_that_the_start_has_used_is_refused(tmp_path: Path):
    config = with_options(resolve(TrainConfig, {**OPTIONS, "time_budget": "10s"}), batch_size=1)
    plan = make_time_plan(config, 0.0)
    assert plan is not None
    plan.clock = lambda: 25.0
    trainer = SimpleNamespace(global_step=0, strategy=SimpleNamespace(broadcast=lambda numbers: numbers))
    with pytest.raises(ConfigError, match="must be longer than the start of training, which took 25 s, found 10 s"):
        TimeBudget(plan, path=tmp_path / "result.json").on_train_start(trainer, None)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_run_ends_with_a_complete_schedule_and_an_evaluation(tiny: dict[str, Any]) -> None:
    """A budget of a few seconds is extended after its end. No duration is checked, because other tests run beside."""
    folder = Path(tiny["output"])
    result = fit(**tiny, time_budget="15s", ema=0.9)
    rows = read_metrics(folder / "metrics.csv")
    written = json.loads((folder / "time-budget.json").read_text())
    assert rows[-1]["step"] == written["steps"] > 0
    assert rows[-1]["lr"] == 0, "the end of the cosine"
    assert rows[-1]["AP"] is not None
    assert rows[-1]["val_loss"] is not None
    assert result.last.exists()
    rates = [row["lr"] for row in rows if row["lr"] is not None]
    peak = rates.index(max(rates))
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    before = (folder / "metrics.csv").read_bytes()
    fit(output=folder, resume=True)
    assert (folder / "metrics.csv").read_bytes() == before, "nothing is left to train"
    fit(output=folder, resume=True, time_budget="10m", callbacks=["tests.train.test_time_budget:stop_soon"])
    more = read_metrics(folder / "metrics.csv")[len(rows) :]
    assert more[0]["step"] == written["steps"] + 1


def stop_soon() -> Any:
    """Return a callback that stops after two steps."""
    from lightning.pytorch.callbacks import Callback

    class StopSoon(Callback):
        steps = 0

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            self.steps += 1
            trainer.should_stop = self.steps == 2

    return StopSoon()
