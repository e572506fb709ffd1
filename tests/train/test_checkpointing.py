"""Checkpoints of a training run."""

import pytest
import torch

from retinanet.errors import ConfigError
from retinanet.train import CheckpointError, fit, load_checkpoint
from retinanet.train.detection_module import DetectionModule
from tests.train.run_files import assert_same_weights, metrics_rows


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["focal", "eql_v2", "ghm_c"])
def test_a_resumed_run_equals_an_uninterrupted_run(tiny, tmp_path, loss):
    """Three epochs give the same weights and rows, also when training is killed after epoch 1 and resumed.

    The test covers momentum, schedule, running average, sampler, augmentation, evaluation and the state of the loss.
    """
    options = {
        **tiny,
        "loss": loss,
        "color_jitter": 0.3,
        "crop": 0.5,
        "scale_jitter": (0.8, 1.2),
        "multi_scale": (64, 80),
        "copy_paste": 0.5,
        "mosaic": 0.5,
        "mixup": 0.5,
        "close_augment": 1,
        "epochs": 3,
    }
    fit(**options)
    other = {**options, "output": tmp_path / "other"}
    train_and_die_after(1, other)
    assert len([row for row in metrics_rows(tmp_path / "other") if row["AP"]]) == 1
    fit(**other, resume=True)
    assert_same_weights(options["output"] / "last.ckpt", tmp_path / "other" / "last.ckpt")
    assert metrics_rows(options["output"]) == metrics_rows(tmp_path / "other")
    uninterrupted, resumed = (torch.load(o["output"] / "last.ckpt", weights_only=True) for o in (options, other))
    for name, value in uninterrupted["current_model_state"].items():
        assert torch.equal(value, resumed["current_model_state"][name]), name
    assert bool(uninterrupted["loss_state"]) == (loss != "focal")
    for name, value in uninterrupted["loss_state"].items():
        assert torch.equal(value, resumed["loss_state"][name]), name


def test_the_state_of_the_loss_is_beside_the_weights_and_loads_with_them(tiny, tmp_path):
    """An analysis uses the loss of the last step. Checkpoints of earlier versions have no state."""
    path = fit(**tiny, loss="ghm_c", max_steps=1, measure_imbalance=0).last
    content = torch.load(path, weights_only=True)
    assert all(name.startswith("model.") for name in content["state_dict"])
    state = load_checkpoint(path).make_loss().state_dict()
    assert state.keys() == {"counts_M", "positives"}
    assert all(torch.equal(value, content["loss_state"][name]) for name, value in state.items())
    former = tmp_path / "former.ckpt"
    torch.save({name: value for name, value in content.items() if name != "loss_state"}, former)
    assert load_checkpoint(former).make_loss().state_dict() == {}
    torch.save({**content, "loss_state": {"counts_M": 3}}, former)
    with pytest.raises(CheckpointError, match="expected loss_state to be a dictionary of tensors"):
        load_checkpoint(former)


def train_and_die_after(epochs: int, options: dict[str, object]) -> None:
    """Train `epochs` epochs of a longer training run, and raise an error within the next epoch."""
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


@pytest.mark.slow
def test_max_steps_within_an_epoch_gives_a_best_checkpoint(tiny):
    result = fit(**tiny, max_steps=2)
    assert result.best.exists()
    assert result.ap >= 0


def test_resume_without_a_run_is_an_error(tiny):
    with pytest.raises(ConfigError, match="nothing to resume"):
        fit(**tiny, resume=True)
