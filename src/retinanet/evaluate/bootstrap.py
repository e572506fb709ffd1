"""Bootstrap the difference of two set-ups over the images of the ground truth, with hotcoco."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import hotcoco
import numpy as np

RESAMPLES: Final = 500
"""Number of random resamples of the images."""


def image_interval(
    evaluations: Sequence[Any], references: Sequence[Any], *, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Return the 95 % interval of the mean difference in AP over random resamples of the images (percentiles).

    Each resample draws as many images as the ground truth has, with replacement. All evaluations are resampled with
    the same images. The interval shows how much the difference depends on the choice of the validation images. The
    interval does not contain the chance of training.

    Args:
        evaluations: evaluation of each run of a set-up, see `coco.coco_eval`.
        references: evaluation of the run of the reference with the same seed, on the same ground truth.
        resamples: number of resamples.

    Raises:
        ValueError: the numbers of evaluations differ, or there is no evaluation.
    """
    if len(evaluations) != len(references) or not evaluations:
        raise ValueError(f"expected pairs of evaluations, found {len(evaluations)} and {len(references)} evaluations")
    # hotcoco returns the bounds of one comparison, not its resamples. With a single resample, both bounds are the
    # difference of that resample. The seed determines the resample, so that all pairs use the same images.
    differences_RS = [
        [
            hotcoco.compare(reference, run, n_bootstrap=1, seed=seed)["ci"]["AP"]["lower"]
            for run, reference in zip(evaluations, references, strict=True)
        ]
        for seed in range(resamples)
    ]
    low, high = np.percentile(np.mean(differences_RS, axis=1), [2.5, 97.5])
    return float(low), float(high)
