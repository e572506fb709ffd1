"""A loss that is NaN or infinite."""

import pytest

from retinanet.train import NonFiniteError, fit


def test_a_nan_loss_stops_training_and_names_the_images(tiny):
    with pytest.raises(NonFiniteError, match=r"at step \d+ of epoch 0. Batch: .*\.png"):
        fit(**{**tiny, "lr": 1e30, "clip_gradients": 0, "warmup_steps": 0, "optimizer": "sgd"}, epochs=3)
