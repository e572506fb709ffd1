"""Progress bar of a training run, and its end without a better AP."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, TQDMProgressBar

from retinanet.train import fit
from retinanet.train.progress import Patience

Options = dict[str, Any]


@pytest.mark.slow
def test_the_users_own_progress_bar_is_accepted(tiny: Options) -> None:
    fit(**tiny, epochs=1, max_steps=1, callbacks=[TQDMProgressBar(refresh_rate=0)])


def test_patience_reads_the_state_of_lightnings_class_and_keeps_its_own_number() -> None:
    earlier = EarlyStopping("AP", mode="max", patience=1)
    earlier.wait_count, earlier.best_score = 1, torch.tensor(0.25)
    patience = Patience(3)
    assert patience.state_key == earlier.state_key
    patience.load_state_dict(earlier.state_dict())
    assert (patience.patience, patience.wait_count, float(patience.best_score)) == (3, 1, 0.25)
