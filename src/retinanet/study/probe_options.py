"""Options of the training runs of `retinanet prescribe`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from retinanet.config import (
    PRESETS,
    PrescribeConfig,
    ScheduleConfig,
    TrainConfig,
    given_options,
    options_of,
    section_from_dict,
    to_dict,
)

MOST_EPOCHS: Final = 1_000_000
"""Epochs of a run, which its number of steps ends."""
NETWORK: Final = ("backbone", "fpn_width", "head_width", "head_depth", "head_norm")
OPTIMISATION: Final = (
    *("batch_size", "optimizer", "lr", "lr_batch_size", "weight_decay", "schedule", "warmup_steps", "ema"),
)
"""Options that a probe takes from the preset `small`, unless the user gave them."""


def probe_options(config: PrescribeConfig, train: Path, val: Path) -> TrainConfig:
    """Return the options of the default runs: those of the user, with the network and optimiser of the preset `small`.

    The anchors of the default runs are the configured ones. `as_needed` would fit the anchors in every run where few
    objects match, and the probe could not show what this gains. Fitted anchors are a candidate instead.

    The size of the images stays, because it determines which objects the anchors reach. Options that the user gave
    stay, too. A given learning rate belongs to its optimiser, and given weights to their network.

    Args:
        config: options of the probe.
        train, val: the datasets as COCO files, which need no option for reading.
    """
    given = given_options(config)
    replaced: tuple[str, ...] = ()
    fitted = {"anchors": "given"} if config.fitted.anchors == "as_needed" and "anchors" not in given else {}
    if not {"backbone", "backbone_weights", "start_from"} & given:
        replaced += NETWORK
    if not {"optimizer", "lr", "lr_batch_size", "weight_decay"} & given:
        replaced += OPTIMISATION
    values = to_dict(config) | {name: PRESETS["small"][name] for name in replaced if name not in given}
    values |= {"train": train, "val": val, "images": None, "val_images": None, "format": None, "skip_invalid": False}
    values |= {"classes": (), "ignore_classes": (), "ignore_regions": (), "rename": ()}
    values |= {"resume": False, "overwrite": False}
    length = {name: option.default for name, option in options_of(ScheduleConfig).items() if name not in OPTIMISATION}
    values |= {**length, **fitted, "epochs": MOST_EPOCHS, "measure_imbalance": 0}
    return section_from_dict(TrainConfig, values, given=given)
