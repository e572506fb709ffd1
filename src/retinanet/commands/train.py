"""`retinanet train`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from retinanet.commands.options import Flags
from retinanet.commands.terminal import print_next_steps
from retinanet.config import TrainConfig

if TYPE_CHECKING:
    from retinanet.train import TrainResult


def train(*, options: Flags[TrainConfig]) -> None:
    """Train a detector. Writes best.ckpt, last.ckpt, metrics.csv, config.yaml and report.html.

    `retinanet train --train data/train.json --val data/val.json -o runs/first --preset small`
    """
    started = time.monotonic()
    from retinanet.train.run_lock import locked_run_folder

    with locked_run_folder(options.folder.output):  # before the imports below, which take seconds
        from retinanet.commands.live_status import live_status
        from retinanet.train import fit
        from retinanet.train.output_files import is_rank_zero

        result = fit(options, started=started, live=live_status)
        if is_rank_zero():
            _print_result(result, write_report(result))


def _print_result(result: TrainResult, report: Path) -> None:
    """Print where the files of a finished run are, and the next commands."""
    from retinanet.analysis.next_steps import after_training
    from retinanet.train.metrics_table import read_metrics

    metrics = result.config.folder.output / "metrics.csv"
    try:
        steps = after_training(result.config, read_metrics(metrics))
    except ValueError:  # a user has damaged the file, which must not fail a finished run
        steps = []
    print(f"best AP {result.ap:.3f}: {result.best}\nreport:  {report}\nmetrics: {metrics}")
    print_next_steps(steps)


def write_report(result: TrainResult) -> Path:
    """Write report.html into the run folder of a finished run. Return its path."""
    from retinanet.analysis.miss_map import miss_map
    from retinanet.analysis.miss_remedies import model_files
    from retinanet.analysis.next_steps import after_training
    from retinanet.analysis.result_errors import errors_from_results
    from retinanet.evaluate import precision_recall
    from retinanet.evaluate.per_image import best_threshold, items_from_results
    from retinanet.report import training_report
    from retinanet.train.metrics_table import read_metrics

    config, val_data = result.config, result.val_data
    detections = json.loads((config.folder.output / "detections.json").read_text())
    items = items_from_results(val_data, detections)
    errors = errors_from_results(val_data, items, threshold=best_threshold(items))
    files = model_files(result.best, config.val, config.dataset, images=config.validation.val_images)
    return training_report(
        config.folder.output,
        gallery=items,
        classes=val_data.classes,
        curves=precision_recall(val_data.to_coco(), detections) if detections else None,
        seconds=result.seconds,
        command=f"retinanet train --config {config.folder.output / 'config.yaml'} -o NEW_FOLDER",
        seed=config.random.seed,
        next_steps=after_training(config, read_metrics(config.folder.output / "metrics.csv")),
        misses=miss_map(errors, items, files),
        first_images=result.first_images,
        augment=config.augmentation,
    )
