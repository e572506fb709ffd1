"""The progress bar of a run."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import TQDMProgressBar

from retinanet.train import fit

Options = dict[str, Any]


def test_a_progress_bar_of_ones_own(tiny: Options) -> None:
    fit(**tiny, epochs=1, max_steps=1, callbacks=[TQDMProgressBar(refresh_rate=0)])
