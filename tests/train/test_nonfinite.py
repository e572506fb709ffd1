"""A loss that is not finite."""

import pytest

from retinanet.train import NonFiniteError, fit


def test_a_non_finite_loss_stops_with_the_files(tiny):
    with pytest.raises(NonFiniteError, match=r"at step \d+ of epoch 0, on .*\.png"):
        fit(**{**tiny, "lr": 1e30, "clip_gradients": 0, "warmup_steps": 0, "optimizer": "sgd"}, epochs=3)
