"""The commands that are suggested after a training run and after a check: chosen by the outcome, ready to copy."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from retinanet.analysis.next_steps import after_check, after_training, data_flags, serve_model
from retinanet.cli import app
from retinanet.commands.layers import current_flags
from retinanet.config import CheckConfig, TrainConfig, resolve

RUN = {"train": "my data/train.json", "val": "my data/val.json", "output": "runs/it's first", "preset": "small"}


def rows(*aps: float, losses: tuple[tuple[float, float], ...] = ()) -> list[dict[str, float | None]]:
    evaluated: list[dict[str, float | None]] = [{"epoch": float(n), "AP": ap} for n, ap in enumerate(aps)]
    return evaluated + [{"epoch": float(n), "loss": train, "val_loss": val} for n, (train, val) in enumerate(losses)]


def commands(found: list[Any]) -> list[list[str]]:
    """Return the words of each command, after the command line has parsed it."""
    lines = [shlex.split(step.command)[1:] for step in found]
    for words in lines:
        app.parse_args(current_flags(_complete(words), app), exit_on_error=False, print_error=False)
    return lines


def _complete(words: list[str]) -> list[str]:
    """Return a command with the options that `train` takes from a config.yaml, and without this file."""
    if words[0] != "train":
        return words
    flags = [word for word in words if word != "--config" and Path(word).suffix != ".yaml"]
    return [*flags, "--train", "t", "--val", "v"]


def test_after_a_run_that_has_learnt_errors_are_explained_and_thresholds_tuned() -> None:
    config = resolve(TrainConfig, RUN)
    check, tune = commands(after_training(config, rows(0.1, 0.4, 0.5, 0.5, 0.5)))
    best = "runs/it's first/best.ckpt"
    assert check == ["check", best, "my data/val.json", "--report", "runs/it's first/check.html"]
    assert tune == ["tune", best, "my data/val.json", "-o", "runs/it's first/tuned.ckpt"]


@pytest.mark.parametrize("aps", [(), (0.0, 0.0, 0.0), (-1.0, -1.0)])
def test_without_ap_the_data_is_checked_first(aps: tuple[float, ...]) -> None:
    data, errors = commands(after_training(resolve(TrainConfig, RUN), rows(*aps)))
    assert data[:4] == ["check", "my data/train.json", "--val", "my data/val.json"]
    assert errors[:2] == ["check", "runs/it's first/best.ckpt"]


@pytest.mark.parametrize(
    ("options", "length"),
    [
        ({"epochs": 5}, ["--epochs", "10"]),
        ({"epochs": 5, "max_steps": 70}, ["--max-steps", "140"]),
        ({"time_budget": "1h30m"}, ["--time-budget", "10800s"]),
        ({"epochs": 50}, None),  # `patience` has stopped it
    ],
)
def test_a_run_whose_ap_was_rising_trains_longer(options: dict[str, Any], length: list[str] | None) -> None:
    first, second = commands(after_training(resolve(TrainConfig, {**RUN, **options}), rows(0.1, 0.2, 0.3, 0.4, 0.5)))
    if length is None:
        assert (first[0], second[0]) == ("check", "tune")
    else:
        assert first == ["train", "--resume", "-o", "runs/it's first", *length]
        assert second[0] == "check"


def test_an_overfitted_run_is_followed_by_a_probe() -> None:
    losses = tuple((1.0 - 0.1 * n, 1.0 - 0.1 * n if n < 4 else 0.6 + 0.1 * n) for n in range(9))
    steps = after_training(resolve(TrainConfig, RUN), rows(0.4, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, losses=losses))
    assert commands(steps)[0][:4] == ["prescribe", "my data/train.json", "--val", "my data/val.json"]


def test_flags_read_the_data_as_training_did() -> None:
    options = {"images": "a", "val_images": "b c", "classes": ["x y", "z"], "rename": ["x y=w"], "skip_invalid": True}
    config = resolve(TrainConfig, {**RUN, **options})
    check, tune = commands(after_training(config, rows(0.5)))
    flags = ["--images", "b c", "--classes", "x y", "z", "--rename", "x y=w", "--skip-invalid"]
    assert check[3:-2] == flags == tune[3:-2]
    assert data_flags(resolve(TrainConfig, RUN).dataset) == ()
    words = app.parse_args(check, exit_on_error=False, print_error=False)[1].arguments["options"]
    assert resolve(CheckConfig, words.given).dataset.selection.classes == ("x y", "z")


def test_after_a_check_the_costliest_causes_choose_the_commands() -> None:
    run = resolve(TrainConfig, {**RUN, "anchors": "given"})
    model, data = Path("runs/a/best.ckpt"), Path("v.json")
    first, second = commands(after_check(model, data, ["no anchor", "anchors taken", "below the threshold"], run=run))
    assert first == ["train", "--config", "runs/it's first/config.yaml", "--anchors", "auto", *first[5:]]
    assert second == ["tune", "runs/a/best.ckpt", "v.json", "--aim", "recall=0.95", "-o", "runs/a/tuned.ckpt"]
    suspects, tune = commands(after_check(model, data, ["unlabelled?", "suppressed"]))
    assert suspects == ["check", "runs/a/best.ckpt", "v.json", "--hard", "-o", "runs/a/hard"]
    assert tune[0] == "tune"
    assert [words[0] for words in commands(after_check(model, data, []))] == ["tune", "check"]
    assert commands([serve_model(Path("a b/t.ckpt"), "See")]) == [["serve", "a b/t.ckpt"]]
