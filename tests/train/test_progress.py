"""Progress bar of a training run."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import TQDMProgressBar

from retinanet.train import fit

Options = dict[str, Any]


def test_the_users_own_progress_bar_is_accepted(tiny: Options) -> None:
    fit(**tiny, epochs=1, max_steps=1, callbacks=[TQDMProgressBar(refresh_rate=0)])
