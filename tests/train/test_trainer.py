"""Runs of a few steps: what they write, that they repeat, and ways to train."""

import json

import pytest
import torch
import yaml

from retinanet.analysis.coverage import reach
from retinanet.config import TrainConfig, resolve
from retinanet.data import load
from retinanet.train import fit, load_checkpoint
from tests.shared import TRAINED
from tests.train.made_trainer import assert_same_weights, rows, weights


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


@pytest.mark.slow
def test_config_yaml_repeats_the_run(trained_run, tmp_path):
    values = yaml.safe_load((trained_run / "config.yaml").read_text())
    fit(**{**values, "output": tmp_path / "again"})
    assert_same_weights(trained_run / "last.ckpt", tmp_path / "again" / "last.ckpt")
    assert rows(trained_run) == rows(tmp_path / "again")


@pytest.mark.slow
def test_workers_and_evaluations_change_nothing(tiny, tmp_path):
    """Two workers instead of none, and no evaluation between the epochs: the same weights."""
    options = {**tiny, "color_jitter": 0.3, "scale_jitter": (0.8, 1.2), "epochs": 2}
    fit(**options)
    other = {**options, "output": tmp_path / "other", "workers": 2, "evaluate_every": 2}
    fit(**other)
    assert_same_weights(tiny["output"] / "last.ckpt", tmp_path / "other" / "last.ckpt")


@pytest.mark.slow
def test_another_seed_is_another_run(tiny, trained_run):
    fit(**tiny, **TRAINED, seed=1)
    a, b = weights(trained_run / "last.ckpt"), weights(tiny["output"] / "last.ckpt")
    assert any(not torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"precision": "bf16"}, marks=pytest.mark.slow),
        pytest.param({"accumulate": 2}, marks=pytest.mark.slow),
        {"optimizer": "sgd", "schedule": "step", "ema": 0},
    ],
)
def test_other_ways_to_train(tiny, options):
    fit(**{**tiny, **options}, epochs=1)
    assert all(torch.isfinite(value).all() for value in weights(tiny["output"] / "last.ckpt").values())


@pytest.mark.slow
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
