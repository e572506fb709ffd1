"""Compare the AP of a network on images that it was trained on with its AP on validation images.

A network that knows its training images but not others has seen too few. The ratio of the two APs shows this in a short
run, too. Their difference does not: it grows with the progress of the run, which varies between seeds. Neither does a
comparison with runs on half of the images, of which the same number of steps repeats each more often.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retinanet.data import Record
from retinanet.study.measurements import LEARNT
from retinanet.study.outcomes import Run
from retinanet.study.statistics import PairedDifference, paired_difference


@dataclass(frozen=True, kw_only=True)
class Generalization:
    """AP of one set-up on training and on validation images.

    Args:
        train: AP on images that the runs were trained on, without augmentation, for each seed.
        val: AP on the validation images, for each seed.
        change: relative change from training to validation images, AP(val) / AP(train) - 1: mean over the seeds, and
            interval. 0 for a run that has hardly begun to learn.
    """

    train: tuple[float, ...]
    val: tuple[float, ...]
    change: PairedDifference

    def to_json(self) -> dict[str, Any]:
        """Return all numbers as plain values for JSON."""
        return dataclasses.asdict(self)

    def sentence(self) -> str:
        """Return the two APs and their relative change in words."""
        found = self.change
        return (
            f"AP is {np.mean(self.train):.3f} on images that the default was trained on and {np.mean(self.val):.3f} on "
            f"validation images: {found.mean:+.0%} ({found.low:+.0%} to {found.high:+.0%})."
        )


def generalization(runs: Sequence[Run]) -> Generalization:
    """Return the AP of runs with different seeds on both kinds of images.

    AP is the mean over the classes with objects in both, since the training images are a sample. A run that diverged
    has AP 0.

    Args:
        runs: runs with `train_metrics`.

    Raises:
        ValueError: there is no run.
    """
    pairs = [_aps(run) for run in runs]
    train, val = tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs)
    changes = [v / t - 1 if t >= LEARNT else 0.0 for t, v in pairs]
    change = paired_difference(changes, [0.0] * len(pairs))
    return Generalization(train=train, val=val, change=change)


def sample(records: Sequence[Record], count: int, *, seed: int) -> list[Record]:
    """Return up to `count` random images, in their order."""
    chosen = np.random.default_rng(seed).permutation(len(records))[:count]
    return [records[i] for i in sorted(chosen.tolist())]


def _aps(run: Run) -> tuple[float, float]:
    """Return the AP on training and on validation images."""
    both = [
        (values["AP"], ap)
        for name, values in run.train_metrics.get("per_class", {}).items()
        if values["AP"] >= 0 and (ap := run.class_ap(name)) is not None
    ]
    train, val = np.mean(both, axis=0).tolist() if both else (0.0, 0.0)
    return train, val
