"""The configs that `train` was called with, and a dataset of many small images."""

import pytest

import retinanet.train
from retinanet.config import TrainConfig
from tests.data.conftest import many

__all__ = ["many", "seen"]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[TrainConfig]:
    """Return the configs that `train` was called with, instead of training."""
    configs: list[TrainConfig] = []
    monkeypatch.setattr(retinanet.train, "fit", lambda config, **_: configs.append(config))
    monkeypatch.setattr("retinanet.train.output_files.is_rank_zero", lambda: False)  # nothing is printed or reported
    return configs
