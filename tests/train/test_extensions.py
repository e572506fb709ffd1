"""Callbacks and transforms of the user's own in a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from retinanet.errors import ConfigError
from retinanet.train import fit
from tests.data.test_user_transform import noise

Options = dict[str, Any]
HERE = "tests.train.test_extensions"


class Counter(Callback):
    """Counts epochs, and keeps the count in the checkpoint."""

    def __init__(self) -> None:
        self.epochs = 0

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.epochs += 1

    def state_dict(self) -> dict[str, int]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.epochs = state_dict["epochs"]


class Stop(Callback):
    """Ends the run after its first epoch."""

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        trainer.should_stop = True


def noise_factory() -> Any:
    return noise


def not_a_callback() -> int:
    return 1


@pytest.mark.slow
def test_resumed_with_callback_and_transform_equals_undisturbed(tiny: Options, tmp_path: Path) -> None:
    """The callback's state of an epoch is in the checkpoint of that epoch; the transform's noise is by sample."""
    options = {**tiny, "ema": 0.9, "transform": f"{HERE}:noise_factory", "callbacks": [f"{HERE}:Counter"]}
    whole = fit(**{**options, "output": tmp_path / "whole", "epochs": 3})
    halves = {**options, "output": tmp_path / "halves", "epochs": 3}
    fit(**{**halves, "callbacks": [f"{HERE}:Counter", Stop()]})
    saved = torch.load(tmp_path / "halves" / "last.ckpt", weights_only=True)["callbacks"]
    assert saved["Counter"] == {"epochs": 1}
    # A run that a callback has stopped is over: a resumed one stops again. Here the stop is taken back.
    checkpoint = torch.load(tmp_path / "halves" / "last.ckpt", weights_only=True)
    checkpoint["callbacks"]["Checkpoints"]["stopped"] = False
    torch.save(checkpoint, tmp_path / "halves" / "last.ckpt")
    counter = Counter()
    fit(**{**halves, "callbacks": [counter], "resume": True})
    assert counter.epochs == 3
    assert_same_weights(whole.last, tmp_path / "halves" / "last.ckpt")


def assert_same_weights(first: Path, second: Path) -> None:
    a, b = (torch.load(path, weights_only=True)["state_dict"] for path in (first, second))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_objects_are_described_in_config_yaml_and_asked_for_on_resume(tiny: Options) -> None:
    fit(**tiny, epochs=1, transform=noise, callbacks=[Counter()], logger=False)
    folder = tiny["output"]
    assert isinstance(folder, Path)
    written = yaml.safe_load((folder / "config.yaml").read_text())
    assert written["transform"] == "Python object of tests.data.test_user_transform.noise"
    assert written["callbacks"] == [f"Python object of {HERE}.Counter"]
    assert written["logger"] == "none"
    assert not (folder / "tensorboard").exists()
    with pytest.raises(ConfigError, match=r"resume=True, transform=\.\.\."):
        fit(**tiny, epochs=2, transform=written["transform"], resume=True)
    with pytest.raises(ConfigError, match=r"resume=True, callbacks=\.\.\."):
        fit(**tiny, epochs=2, callbacks=written["callbacks"], resume=True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"logger": "mlfow"}, "Did you mean 'mlflow'"),
        ({"logger": f"{HERE}:not_a_callback"}, "expected a Lightning logger"),
        ({"logger": [Counter()]}, "expected a Lightning logger"),
        ({"callbacks": [f"{HERE}:not_a_callback"]}, "expected a lightning.pytorch.callbacks.Callback"),
        ({"callbacks": [ModelCheckpoint()]}, "ModelCheckpoint is not supported"),
        ({"transform": f"{HERE}:nothing"}, "has no 'nothing'"),
    ],
)
def test_what_is_refused_before_any_data_is_read(tiny: Options, options: Options, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        fit(**{**tiny, "train": "no such file", **options})
