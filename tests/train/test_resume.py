"""Changed options and changed data of a resumed training run."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from retinanet.checkpoint.loaded_model import KEY
from retinanet.commands.terminal import show_progress
from retinanet.config import TrainConfig, resolve, with_options
from retinanet.errors import ConfigError
from retinanet.train import fit
from retinanet.train.resume import (
    RunProgress,
    SavedRun,
    check_resumed_options,
    read_saved_run,
    why_ended,
    with_computed_options,
)
from tests.train.run_files import metrics_rows
from tests.train.runs import Options


@pytest.fixture(autouse=True)
def progress() -> None:
    """Print the progress lines, which the tests read."""
    show_progress()


def groups_of(path: Path) -> list[dict[str, Any]]:
    groups: list[dict[str, Any]] = torch.load(path, weights_only=True)["optimizer_states"][0]["param_groups"]
    return groups


def test_options_that_are_not_given_come_from_the_run(run_folder: Path, capsys: pytest.CaptureFixture[str]):
    result = fit(output=run_folder, resume=True, epochs=3, log_every=2)
    assert (result.config.model.head_width, result.config.schedule.epochs) == (16, 3)
    assert "resuming with changed options: epochs was 2, is 3; log_every was 1, is 2" in capsys.readouterr().out
    assert [row["epoch"] for row in metrics_rows(run_folder) if row["AP"]] == ["0", "1", "2"]


def test_a_changed_learning_rate_takes_effect(run_folder: Path):
    """The optimiser's state holds the earlier learning rate and weight decay, which must not replace the new ones."""
    before = groups_of(run_folder / "last.ckpt")
    fit(output=run_folder, resume=True, epochs=3, lr=1e-5, weight_decay=0.5, batch_size=2)
    after = groups_of(run_folder / "last.ckpt")
    assert {group["initial_lr"] for group in before} == {1e-3}
    assert {group["initial_lr"] for group in after} == {1e-5 * 2 / 4}, "lr is given for 4 images per step, found 2"
    assert {group["weight_decay"] for group in after} == {0.5, 0.0}


@pytest.mark.slow
def test_a_refused_change_names_the_option_and_the_run_continues_without_it(run_folder: Path):
    with pytest.raises(ConfigError, match=r"optimizer was adamw, is sgd\. Resume without .*--from .*last.ckpt -o NEW"):
        fit(output=run_folder, resume=True, epochs=3, optimizer="sgd")
    with pytest.raises(ConfigError, match="sampler was natural, is balanced; repeat_threshold was 0.0, is 0.5"):
        fit(output=run_folder, resume=True, epochs=3, sampler="balanced", repeat_threshold=0.5)
    fit(output=run_folder, resume=True, epochs=3)
    assert metrics_rows(run_folder)[-1]["epoch"] == "2"


def test_an_option_missing_in_the_checkpoint_must_keep_its_default(run_folder: Path, tiny: Options):
    checkpoint = torch.load(run_folder / "last.ckpt", weights_only=True)
    for name in ("sampler", "repeat_threshold"):
        del checkpoint[KEY]["config"][name]
    torch.save(checkpoint, run_folder / "last.ckpt")
    config = resolve(TrainConfig, {**tiny, "score_threshold": 0.001, "epochs": 2})
    for sampler in ("natural", "balanced"):
        changed = with_options(config, sampler=sampler)
        saved = read_saved_run(run_folder / "last.ckpt", changed)
        changed = with_computed_options(changed, saved)
        if sampler == "natural":
            check_resumed_options(changed, saved, report=False)
        else:
            with pytest.raises(ConfigError, match="sampler was natural, is balanced. Resume without"):
                check_resumed_options(changed, saved, report=False)


def test_the_batch_size_must_not_change_within_an_epoch(run_folder: Path, tiny: Options):
    config = resolve(TrainConfig, {**tiny, "score_threshold": 0.001, "epochs": 2, "batch_size": 2})
    saved = read_saved_run(run_folder / "last.ckpt", config)
    config = with_computed_options(config, saved)
    assert not saved.within_epoch
    check_resumed_options(config, saved, report=False)
    within = SavedRun(path=saved.path, options=saved.options, classes=saved.classes, data={}, within_epoch=True)
    with pytest.raises(ConfigError, match="in the middle of an epoch: batch_size was 4, is 2"):
        check_resumed_options(config, within, report=False)


def test_values_that_the_first_start_computed_replace_options_that_are_not_given(tmp_path: Path):
    """Half of the normalisation is given, as after a restart by SLURM; `loss` is given with its default value."""
    half = (0.5, 0.5, 0.5)
    paths = {"train": "t", "val": "v", "output": "o", "start_from": "m.ckpt"}
    config = resolve(TrainConfig, {**paths, "image_mean": (0.4, 0.4, 0.4), "loss": "focal", "batch_size": 0})
    computed = {"image_mean": (0.4, 0.4, 0.4), "image_std": half, "loss": "ohem", "gamma": 1.5, "batch_size": 4}
    path = tmp_path / "last.ckpt"
    saved = SavedRun(path=path, options=computed, classes=(), data={}, within_epoch=False)
    config = with_computed_options(config, saved)
    assert (config.image.image_mean, config.image.image_std) == ((0.4, 0.4, 0.4), half)
    assert (config.loss.loss, config.loss.gamma, config.batch.batch_size) == ("focal", 1.5, 4)
    with pytest.raises(ConfigError, match="loss was ohem, is focal"):
        check_resumed_options(config, saved, report=False)


@pytest.mark.slow
def test_corrected_data_in_the_same_place_is_reported_and_moved_data_is_the_same(
    tiny: Options, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    own = Path(shutil.copytree(tiny["train"].parent, tmp_path / "own")) / "annotations.json"
    fit(**{**tiny, "train": own, "epochs": 1})
    moved = Path(shutil.move(own.parent, tmp_path / "moved")) / own.name
    fit(output=tiny["output"], resume=True, epochs=2, train=moved)
    assert "the data has changed" not in capsys.readouterr().out
    content = json.loads(moved.read_text())
    removed = content["images"].pop()
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != removed["id"]]
    moved.write_text(json.dumps(content))
    fit(output=tiny["output"], resume=True, epochs=3)
    assert (
        "train: the data has changed since the checkpoint, which was trained with 12 images" in capsys.readouterr().out
    )


@pytest.mark.slow
def test_initial_weights_are_not_needed_to_resume(run_folder: Path, tiny: Options, tmp_path: Path):
    model = shutil.copy(run_folder / "best.ckpt", tmp_path / "model.ckpt")
    output = tmp_path / "second"
    small = {name: tiny[name] for name in ("train", "val", "preset", "batch_size", "workers", "device")}
    fit(**small, output=output, start_from=model, epochs=1)
    Path(model).unlink()
    fit(output=output, resume=True, epochs=2)
    assert metrics_rows(output)[-1]["epoch"] == "1"


def test_a_finished_run_names_the_option_that_continues_it(run_folder: Path, capsys: pytest.CaptureFixture[str]):
    """`run_folder` holds 2 complete epochs."""
    weights = (run_folder / "last.ckpt").read_bytes()
    fit(output=run_folder, resume=True)
    assert "nothing is left to train: all 2 epochs are done: a larger --epochs" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="epochs must be 2 or more, the number of complete epochs.*, found 1"):
        fit(output=run_folder, resume=True, epochs=1)
    assert (run_folder / "last.ckpt").read_bytes() == weights


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"patience": 3}, {"patience": 0}])
def test_a_run_that_patience_had_stopped_continues_with_more_patience(
    tiny: Options, changes: Options, capsys: pytest.CaptureFixture[str]
):
    """The threshold of 1 removes every detection, so the AP is 0 after each epoch and never rises."""
    fit(**tiny, epochs=6, patience=1, score_threshold=1.0)
    assert [row["epoch"] for row in metrics_rows(tiny["output"]) if row["AP"]] == ["0", "1"]
    fit(output=tiny["output"], resume=True)
    assert "nothing is left to train: evaluations without a better AP: 1, the --patience" in capsys.readouterr().out
    fit(output=tiny["output"], resume=True, epochs=4, **changes)
    assert [row["epoch"] for row in metrics_rows(tiny["output"]) if row["AP"]] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("progress", "options", "reason"),
    [
        (RunProgress(epochs=2, steps=6), {"epochs": 3}, None),
        (RunProgress(epochs=3, steps=9), {"epochs": 3}, "all 3 epochs are done"),
        (RunProgress(epochs=2, steps=6, stopped=True), {"max_steps": 6}, "all 6 steps of --max-steps are done"),
        (RunProgress(epochs=2, steps=6, stopped=True), {"max_steps": 7}, None),
        (RunProgress(epochs=2, steps=6, stopped=True), {}, None),
        (
            RunProgress(epochs=20, steps=60, stopped=True, time_budget=60.0, time_is_used=True),
            {"time_budget": "60s"},
            "the --time-budget of 60s is used: a larger --time-budget would train further",
        ),
        (
            RunProgress(epochs=20, steps=60, stopped=True, time_budget=60.0, time_is_used=True),
            {"time_budget": "2m"},
            None,
        ),
        (RunProgress(epochs=20, steps=60, time_budget=60.0), {"time_budget": "60s"}, None),
        (RunProgress(epochs=2, steps=5, stopped=True), {}, "a callback had stopped training. Start a new.*last.ckpt"),
    ],
)
def test_why_a_resumed_run_has_ended(tmp_path: Path, progress: RunProgress, options: Options, reason: str | None):
    """The checkpoint was saved with `max_steps` 6. At step 5, only a callback can have stopped training."""
    config = resolve(TrainConfig, {"train": "t", "val": "v", "output": "o", **options})
    path = tmp_path / "last.ckpt"
    saved = SavedRun(path=path, options={"max_steps": 6}, classes=(), data={}, within_epoch=False, progress=progress)
    found = why_ended(config, saved)
    assert found is None if reason is None else re.search(reason, found or "")
