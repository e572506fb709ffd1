"""Options from flags, files, presets and a resumed run, in their order."""

from pathlib import Path

import pytest
import yaml

from retinanet.config import PRESETS
from tests.commands.made import run

DATA = ("--train", "t.json", "--val", "v.json", "-o", "out")


def test_flags_go_before_the_file_and_it_before_the_preset(seen, tmp_path: Path):
    (tmp_path / "c.yaml").write_text("epochs: 3\nlr: 1e-3\nanchor_sizes: [16, 32, 64, 128, 256]\ntrain: other.json\n")
    words = ("--val", "v.json", "-o", "out", "--preset", "small", "--config", tmp_path / "c.yaml", "--epochs", "5")
    assert run("train", *words) == 0
    (config,) = seen
    assert (config.schedule.epochs, config.optimiser.lr, config.train) == (5, 1e-3, Path("other.json"))
    assert config.model.anchor_sizes == (16, 32, 64, 128, 256)
    assert config.model.backbone == PRESETS["small"]["backbone"]
    assert config.loss.alpha == 0.75


def test_the_preset_may_come_from_the_file_and_many_values_from_one_flag(seen, tmp_path: Path):
    (tmp_path / "c.yaml").write_text("preset: paper\n")
    assert run("train", *DATA, "--config", tmp_path / "c.yaml", "--multi-scale", 480, 512, "--no-augment") == 0
    assert seen[0].loss.alpha == 0.25
    assert seen[0].augmentation.multi_scale == (480, 512)
    assert seen[0].augmentation.augment is False


def test_a_missing_file_and_a_missing_option(seen, capsys):
    assert run("train", *DATA, "--config", "absent.yaml") == 2
    assert "the option file cannot be read (No such file or directory): absent.yaml" in capsys.readouterr().err
    assert run("train", "--train", "t.json") == 2
    assert not seen


@pytest.mark.slow
def test_resume_needs_no_more_than_the_folder(run_folder: Path, capsys):
    """config.yaml in the run's folder holds the rest."""
    assert run("train", "--resume", "-o", run_folder, "--epochs", 3) == 0
    assert "epoch 3/3" in capsys.readouterr().out
    assert yaml.safe_load((run_folder / "config.yaml").read_text())["epochs"] == 3
