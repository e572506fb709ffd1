"""A run's checkpoints."""

import pytest
import torch

from retinanet.errors import ConfigError
from retinanet.train import fit
from retinanet.train.detection_module import DetectionModule
from tests.train.made_trainer import assert_same_weights, rows


@pytest.mark.slow
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


@pytest.mark.slow
def test_max_steps_within_an_epoch_still_gives_a_best_checkpoint(tiny):
    result = fit(**tiny, max_steps=2)
    assert result.best.exists()
    assert result.ap >= 0


def test_nothing_to_resume_is_said(tiny):
    with pytest.raises(ConfigError, match="nothing to resume"):
        fit(**tiny, resume=True)
