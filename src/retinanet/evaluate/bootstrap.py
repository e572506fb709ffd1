"""Bootstrap the difference of two set-ups over the images of the ground truth, with hotcoco."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import hotcoco

from retinanet.evaluate.coco import coco_eval

RESAMPLES: Final = 500
"""Number of random resamples of the images."""

Rows = Sequence[Mapping[str, Any]]


def image_interval(
    ground_truth: Mapping[str, Any], runs: Sequence[Rows], references: Sequence[Rows], *, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Return the 95 % interval of the mean difference in AP over random resamples of the images (percentiles).

    Each resample draws as many images as the ground truth has, with replacement, the same images for all runs. The
    interval shows how much the difference depends on the choice of the validation images. It does not contain the
    chance of training.

    Args:
        ground_truth: COCO dictionary.
        runs: COCO results of each run of a set-up.
        references: COCO results of the run of the reference with the same seed.
        resamples: number of resamples.

    Raises:
        ValueError: the numbers of runs differ, or there is no run.
        EvaluationError: see `coco.evaluate_results`.
    """
    if len(runs) != len(references) or not runs:
        raise ValueError(f"expected pairs of runs, found {len(runs)} and {len(references)} runs")
    truth = with_categories_of_runs(ground_truth, len(runs))
    reference, run = (coco_eval(truth, in_categories_of_runs(ground_truth, rows)) for rows in (references, runs))
    bounds = hotcoco.compare(reference, run, n_bootstrap=resamples)["ci"]["AP"]
    return float(bounds["lower"]), float(bounds["upper"])


def with_categories_of_runs(ground_truth: Mapping[str, Any], count: int) -> dict[str, Any]:
    """Return the ground truth with categories of its own for each run.

    AP is the mean over the categories, so that AP over the categories of all runs is the mean of the runs' AP. hotcoco
    resamples the images of one evaluation; here, one evaluation holds all runs.
    """
    offset = _offset(ground_truth)
    annotations = [
        {**row, "category_id": row["category_id"] + run * offset}
        for run in range(count)
        for row in ground_truth["annotations"]
    ]
    return {
        "images": ground_truth["images"],
        "categories": [
            {"id": row["id"] + run * offset, "name": f"{row['id']} of run {run}"}
            for run in range(count)
            for row in ground_truth["categories"]
        ],
        "annotations": [{**row, "id": number} for number, row in enumerate(annotations, start=1)],
    }


def in_categories_of_runs(ground_truth: Mapping[str, Any], runs: Sequence[Rows]) -> list[dict[str, Any]]:
    """Return the results of all runs, each in the categories of its run."""
    offset = _offset(ground_truth)
    return [
        {**row, "category_id": row["category_id"] + number * offset} for number, rows in enumerate(runs) for row in rows
    ]


def _offset(ground_truth: Mapping[str, Any]) -> int:
    return int(max(row["id"] for row in ground_truth["categories"])) + 1
