"""Runs of a few steps: what they write, that they repeat, that they resume, and what they refuse."""

import csv
import json
from pathlib import Path

import pytest
import torch
import yaml

from retinanet.analysis.coverage import reach
from retinanet.config import TrainConfig, resolve
from retinanet.data import load
from retinanet.errors import ConfigError
from retinanet.train import CheckpointError, NonFiniteError, fit, load_checkpoint
from retinanet.train.module import DetectionModule
from retinanet.train.optimisation import lr_factor, make_optimizer
from tests.shared import TRAINED


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["state_dict"]


def assert_same_weights(first: Path, second: Path) -> None:
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_a_run_writes_all_it_promises(trained_run):
    run = trained_run
    for name in ("best.ckpt", "last.ckpt", "metrics.csv", "config.yaml", "evaluation.json"):
        assert (run / name).stat().st_size > 0, name
    assert list((run / "tensorboard").glob("events*"))
    assert not list(run.glob("*.partial"))
    table = rows(run)
    losses = [float(row["loss"]) for row in table if row["loss"]]
    assert len(losses) == 2 * 3, "a row for each step, log_every 1"
    assert all(float(row["box_loss"]) > 0 for row in table if row["loss"])
    assert [row["epoch"] for row in table if row["AP"]] == ["0", "1"]
    saved = load_checkpoint(run / "best.ckpt")
    assert saved.classes == ("square", "bar")
    assert saved.category_ids == (3, 17)
    assert saved.image_config.image_size == 64
    assert saved.train_config["anchor_sizes"] == [16, 32, 64, 128, 256]
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert set(evaluation["per_class"]) == {"square", "bar"}


def test_config_yaml_repeats_the_run(trained_run, tmp_path):
    values = yaml.safe_load((trained_run / "config.yaml").read_text())
    fit(**{**values, "output": tmp_path / "again"})
    assert_same_weights(trained_run / "last.ckpt", tmp_path / "again" / "last.ckpt")
    assert rows(trained_run) == rows(tmp_path / "again")


def test_resumed_equals_undisturbed(tiny, tmp_path):
    """Three epochs at once, and one stopped after the first epoch and resumed: the same weights and the same rows.

    Momentum, schedule, running average, sampler, augmentation and evaluation all have to be right for that.
    """
    options = {
        **tiny,
        "color_jitter": 0.3,
        "crop": 0.5,
        "scale_jitter": (0.8, 1.2),
        "multi_scale": (64, 80),
        "epochs": 3,
    }
    fit(**options)
    other = {**options, "output": tmp_path / "other"}
    stop_after(1, other)
    assert len([row for row in rows(tmp_path / "other") if row["AP"]]) == 1
    fit(**other, resume=True)
    assert_same_weights(options["output"] / "last.ckpt", tmp_path / "other" / "last.ckpt")
    assert rows(options["output"]) == rows(tmp_path / "other")
    whole, resumed = (torch.load(o["output"] / "last.ckpt", weights_only=True) for o in (options, other))
    for name, value in whole["current_model_state"].items():
        assert torch.equal(value, resumed["current_model_state"][name]), name


def stop_after(epochs: int, options: dict[str, object]) -> None:
    """Run as many epochs of a longer run, and die as with Ctrl-C within the next one."""
    original = DetectionModule.training_step

    def dying(self, batch, batch_idx):
        if self.current_epoch == epochs and batch_idx == 1:
            raise _KilledError
        return original(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DetectionModule, "training_step", dying)
        with pytest.raises(_KilledError):
            fit(**options)


class _KilledError(Exception):
    pass


def test_workers_and_evaluations_change_nothing(tiny, tmp_path):
    """Two workers instead of none, and no evaluation between the epochs: the same weights."""
    options = {**tiny, "color_jitter": 0.3, "scale_jitter": (0.8, 1.2), "epochs": 2}
    fit(**options)
    other = {**options, "output": tmp_path / "other", "workers": 2, "evaluate_every": 2}
    fit(**other)
    assert_same_weights(tiny["output"] / "last.ckpt", tmp_path / "other" / "last.ckpt")


def test_another_seed_is_another_run(tiny, trained_run):
    fit(**tiny, **TRAINED, seed=1)
    a, b = weights(trained_run / "last.ckpt"), weights(tiny["output"] / "last.ckpt")
    assert any(not torch.equal(a[name], b[name]) for name in a)


def test_an_existing_run_is_not_overwritten(tiny, run_folder):
    before = (tiny["output"] / "last.ckpt").read_bytes()
    with pytest.raises(ConfigError, match=r"already holds a run .*--resume.*--overwrite"):
        fit(**tiny, max_steps=1)
    assert (tiny["output"] / "last.ckpt").read_bytes() == before
    fit(**tiny, max_steps=2, overwrite=True)
    assert rows(tiny["output"])[-1]["step"] == "2"


def test_max_steps_within_an_epoch_still_gives_a_best_checkpoint(tiny):
    result = fit(**tiny, max_steps=2)
    assert result.best.exists()
    assert result.ap >= 0


def test_nothing_to_resume_is_said(tiny):
    with pytest.raises(ConfigError, match="nothing to resume"):
        fit(**tiny, resume=True)


def test_a_damaged_checkpoint_is_named(tiny, run_folder, tmp_path):
    last = run_folder / "last.ckpt"
    last.write_bytes(last.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match=r"last\.ckpt cannot be read"):
        fit(**tiny, **TRAINED, resume=True)
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match="no checkpoint of retinanet's"):
        load_checkpoint(tmp_path / "other.ckpt")


def test_a_non_finite_loss_stops_with_the_files(tiny):
    with pytest.raises(NonFiniteError, match=r"at step \d+ of epoch 0, on .*\.png"):
        fit(**{**tiny, "lr": 1e30, "clip_gradients": 0, "warmup_steps": 0, "optimizer": "sgd"}, epochs=3)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"precision": "bf16"}, marks=pytest.mark.slow),
        {"accumulate": 2},
        {"optimizer": "sgd", "schedule": "step", "ema": 0},
    ],
)
def test_other_ways_to_train(tiny, options):
    fit(**{**tiny, **options}, epochs=1)
    assert all(torch.isfinite(value).all() for value in weights(tiny["output"] / "last.ckpt").values())


def test_early_stopping(tiny):
    fit(**{**tiny, "lr": 1e-12}, epochs=6, patience=1)
    assert max(int(row["epoch"]) for row in rows(tiny["output"])) < 5


def test_unreached_objects_are_counted(squares):
    """Squares of 24 and bars of 40 x 20 pixels: anchors from 32 reach some, anchors from 256 none."""
    data = load(squares[0])
    options = {"train": "a", "val": "b", "output": "c", "preset": "small", "image_size": 64, "max_size": 96}
    small = {"anchor_sizes": (16.0, 32.0, 64.0, 128.0, 256.0)}
    assert reach(data, resolve(TrainConfig, {**options, **small})).unreached == 0
    found = reach(data, resolve(TrainConfig, {**options, "anchor_sizes": (256.0, 256.0, 256.0, 512.0, 512.0)}))
    assert found.objects == data.num_objects == found.unreached
    assert "no positive anchor" in found.sentence()
    assert "square" in found.sentence()


def test_learning_rate_schedules():
    config = resolve(TrainConfig, {"train": "a", "val": "b", "output": "c", "warmup_steps": 10})
    factor = lr_factor(config, 900)
    assert factor(0) == pytest.approx(1 / 11)
    assert [factor(s) for s in (10, 603, 604, 801, 802)] == [1, 1, 0.1, 0.1, 0.01]
    cosine = lr_factor(resolve(TrainConfig, {"train": "a", "val": "b", "output": "c", "schedule": "cosine"}), 100)
    assert cosine(10) == 1
    assert cosine(55) == pytest.approx(0.5, abs=0.01)
    assert cosine(100) == pytest.approx(0)


def test_decay_spares_norms_and_biases_and_lr_follows_the_batch():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.GroupNorm(2, 4))
    config = resolve(TrainConfig, {"train": "a", "val": "b", "output": "c", "lr": 0.01, "lr_batch_size": 16})
    groups = make_optimizer(model, config, pictures_per_step=32).param_groups
    assert sorted((len(g["params"]), g["weight_decay"]) for g in groups) == [(1, 1e-4), (3, 0.0)]
    assert groups[0]["lr"] == pytest.approx(0.02)


def test_every_epoch_shuffles_and_augments_anew(tiny, monkeypatch):
    """Lightning must tell the sampler its epoch: otherwise every epoch repeats the first, silently."""
    seen: dict[int, list[torch.Tensor]] = {}
    original = DetectionModule.training_step

    def watching(self, batch, batch_idx):
        seen.setdefault(self.current_epoch, []).append(batch.images_N3HW.clone())
        return original(self, batch, batch_idx)

    monkeypatch.setattr(DetectionModule, "training_step", watching)
    fit(**{**tiny, "color_jitter": 0.5, "workers": 2, "evaluate_every": 3, "measure_imbalance": 0}, epochs=3)
    pictures = [[picture for batch in seen[epoch] for picture in batch] for epoch in range(3)]
    assert [len(p) for p in pictures] == [12, 12, 12]
    for first, second in ((0, 1), (1, 2), (0, 2)):
        assert not any(torch.equal(a, b) for a in pictures[first] for b in pictures[second])
