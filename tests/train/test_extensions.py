"""The user's own callbacks and transforms in a training run."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback, LambdaCallback, ModelCheckpoint

from retinanet.errors import ConfigError
from retinanet.train import fit
from tests.data.test_user_transform import noise

Options = dict[str, Any]
HERE = "tests.train.test_extensions"


class Counter(Callback):
    """Count epochs, and store the count in the checkpoint."""

    def __init__(self) -> None:
        self.epochs = 0

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.epochs += 1

    def state_dict(self) -> dict[str, int]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.epochs = state_dict["epochs"]


class Stop(Callback):
    """Stop training after the first epoch."""

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        trainer.should_stop = True


class Failing(Callback):
    """Raise an exception in the third training batch."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == 2:
            raise self.error


def fail_on_one_image(sample: Any) -> Any:
    raise LookupError("no such colour")


def noise_factory() -> Any:
    return noise


def not_a_callback() -> int:
    return 1


@pytest.mark.slow
def test_a_resumed_run_with_callback_and_transform_equals_an_uninterrupted_run(tiny: Options, tmp_path: Path) -> None:
    """A checkpoint stores the state of the callback after its epoch. The noise depends on the sample key only."""
    options = {**tiny, "ema": 0.9, "transform": f"{HERE}:noise_factory", "callbacks": [f"{HERE}:Counter"]}
    uninterrupted = fit(**{**options, "output": tmp_path / "uninterrupted", "epochs": 3})
    halves = {**options, "output": tmp_path / "halves", "epochs": 3}
    fit(**{**halves, "callbacks": [f"{HERE}:Counter", Stop()]})
    saved = torch.load(tmp_path / "halves" / "last.ckpt", weights_only=True)["callbacks"]
    assert saved["Counter"] == {"epochs": 1}
    # A resumed run stops at once if a callback had stopped it, so the stored stop is removed.
    checkpoint = torch.load(tmp_path / "halves" / "last.ckpt", weights_only=True)
    checkpoint["callbacks"]["Checkpoints"]["stopped"] = False
    torch.save(checkpoint, tmp_path / "halves" / "last.ckpt")
    counter = Counter()
    fit(**{**halves, "callbacks": [counter], "resume": True})
    assert counter.epochs == 3
    assert_same_weights(uninterrupted.last, tmp_path / "halves" / "last.ckpt")


def assert_same_weights(first: Path, second: Path) -> None:
    a, b = (torch.load(path, weights_only=True)["state_dict"] for path in (first, second))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_config_yaml_describes_objects_and_a_resume_requires_them(tiny: Options) -> None:
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
        fit(**tiny, epochs=2, transform=noise, callbacks=written["callbacks"], resume=True)


def test_an_exception_of_a_callback_names_the_callback_and_the_step(tiny: Options) -> None:
    """A PermissionError of the callback does not become the error that the run folder cannot be written."""
    callback = Failing(PermissionError(13, "Permission denied"))
    with pytest.raises(PermissionError) as caught:
        fit(**tiny, callbacks=[Counter(), callback])
    assert caught.value.__notes__ == [
        f"raised by callback {HERE}:Failing in on_train_batch_end at optimiser step 3, in epoch 1"
    ]
    assert "raise self.error" in "".join(traceback.format_exception(caught.value))


@pytest.mark.slow
def test_an_exception_of_a_lambda_callback_and_of_a_transform_in_a_worker(tiny: Options) -> None:
    def fail(*_: Any) -> None:
        raise LookupError("no such metric")

    with pytest.raises(LookupError) as caught:
        fit(**tiny, callbacks=[LambdaCallback(on_train_epoch_start=fail)])
    (note,) = caught.value.__notes__
    assert "lambda_function:LambdaCallback in on_train_epoch_start at optimiser step 0, in epoch 1" in note
    with pytest.raises(LookupError, match=r"no such colour\nraised by transform .*fail_on_one_image on .*\.png"):
        fit(**{**tiny, "workers": 1}, transform=fail_on_one_image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"logger": "mlfow"}, "Did you mean 'mlflow'"),
        ({"logger": f"{HERE}:not_a_callback"}, "expected a Lightning logger"),
        ({"logger": [Counter()]}, "expected a Lightning logger"),
        ({"callbacks": [f"{HERE}:not_a_callback"]}, "expected a lightning.pytorch.callbacks.Callback"),
        ({"callbacks": [ModelCheckpoint()]}, "ModelCheckpoint is not supported"),
        ({"transform": f"{HERE}:nothing"}, "has no 'nothing'"),
    ],
)
def test_wrong_objects_are_refused_before_the_data_is_read(tiny: Options, options: Options, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(**{**tiny, "train": "no such file", **options})
