"""Short training runs: their files, their reproducibility, and their options."""

import json

import pytest
import torch
import yaml

from retinanet.analysis.coverage import training_coverage
from retinanet.config import TrainConfig, resolve
from retinanet.data import load
from retinanet.train import fit, load_checkpoint
from tests.shared import TRAINED
from tests.train.run_files import assert_same_weights, metrics_rows, read_weights


def test_a_run_writes_its_files(trained_run):
    run = trained_run
    for name in ("best.ckpt", "last.ckpt", "metrics.csv", "config.yaml", "evaluation.json"):
        assert (run / name).stat().st_size > 0, name
    assert list((run / "tensorboard").glob("events*"))
    assert not list(run.glob("*.partial"))
    table = metrics_rows(run)
    losses = [float(row["loss"]) for row in table if row["loss"]]
    assert len(losses) == 2 * 3, "one row per step with log_every=1"
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
    assert metrics_rows(trained_run) == metrics_rows(tmp_path / "again")


@pytest.mark.slow
def test_weights_do_not_depend_on_workers_and_evaluations(tiny, tmp_path):
    options = {**tiny, "color_jitter": 0.3, "scale_jitter": (0.8, 1.2), "epochs": 2}
    fit(**options)
    other = {**options, "output": tmp_path / "other", "workers": 2, "evaluate_every": 2}
    fit(**other)
    assert_same_weights(tiny["output"] / "last.ckpt", tmp_path / "other" / "last.ckpt")


@pytest.mark.slow
def test_another_seed_gives_other_weights(tiny, trained_run):
    fit(**tiny, **TRAINED, seed=1)
    a, b = read_weights(trained_run / "last.ckpt"), read_weights(tiny["output"] / "last.ckpt")
    assert any(not torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"precision": "bf16"}, marks=pytest.mark.slow),
        pytest.param({"accumulate": 2}, marks=pytest.mark.slow),
        {"optimizer": "sgd", "schedule": "step", "ema": 0},
    ],
)
def test_weights_are_finite_with_other_options(tiny, options):
    fit(**{**tiny, **options}, epochs=1)
    assert all(torch.isfinite(value).all() for value in read_weights(tiny["output"] / "last.ckpt").values())


@pytest.mark.slow
def test_training_stops_early_with_patience(tiny):
    fit(**{**tiny, "lr": 1e-12}, epochs=6, patience=1)
    assert max(int(row["epoch"]) for row in metrics_rows(tiny["output"])) < 5


def test_objects_without_a_positive_anchor_are_counted(squares):
    """Squares are 24 x 24 pixels, bars 40 x 20. Anchors from 16 pixels match all objects, anchors from 256 none."""
    data = load(squares[0])
    options = {"train": "a", "val": "b", "output": "c", "preset": "small", "image_size": 64, "max_size": 96}
    small = {"anchor_sizes": (16.0, 32.0, 64.0, 128.0, 256.0)}
    assert training_coverage(data, resolve(TrainConfig, {**options, **small})).unreached == 0
    large = training_coverage(
        data, resolve(TrainConfig, {**options, "anchor_sizes": (256.0, 256.0, 256.0, 512.0, 512.0)})
    )
    assert large.objects == data.num_objects == large.unreached
    assert "no positive anchor" in large.sentence()
    assert "square" in large.sentence()


@pytest.mark.slow
@pytest.mark.parametrize("assigner", ["atss", "task_aligned"])
def test_a_run_with_another_assigner(tiny, assigner):
    """The number of positives in the first step differs from that of IoU thresholds."""
    fit(**tiny, assigner=assigner, max_steps=2)
    fit(**{**tiny, "output": tiny["output"].with_name("iou")}, max_steps=2)
    rows = [metrics_rows(tiny["output"].with_name(name)) for name in ("run", "iou")]
    assert rows[0][0]["positives_per_image"] != rows[1][0]["positives_per_image"]
