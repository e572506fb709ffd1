"""Train a set-up with one seed, or read the result of an earlier run."""

from __future__ import annotations

import gc
import json
import time
from pathlib import Path
from typing import Any, Final

from retinanet.config import TrainConfig, with_options
from retinanet.evaluate import evaluate
from retinanet.study.outcomes import EARLY_STEP, Run, Variant
from retinanet.study.variants import with_changes
from retinanet.train import NonFiniteError, fit
from retinanet.train.metrics_table import read_metrics
from retinanet.train.output_files import report_progress, write_output

RUN_FILE: Final = "run.json"
"""Name of the file with the result of a finished run, in the run folder."""
ONLY_AT_THE_END: Final = 10**9
"""Number of epochs between two evaluations that leaves the evaluation at the end of a training run only."""


def train_set_up(
    base: TrainConfig,
    set_up: Variant,
    *,
    seed: int,
    folder: Path,
    keep_best: bool = True,
    train_sample: Path | None = None,
) -> Run:
    """Train a set-up with one seed and evaluate it after the last step. Return the result.

    A finished run is read from its folder and not repeated. An unfinished run is resumed. A run whose loss became NaN
    or infinite is a result too: it counts as AP 0. The folder keeps evaluation.json (metrics) and detections.json
    (COCO results on the validation data).

    Args:
        base: options of the run, with training and validation data; the set-up changes some of these.
        set_up: options to change.
        seed: random seed.
        folder: run folder.
        keep_best: keep best.ckpt after the run. last.ckpt is always deleted.
        train_sample: COCO file with some of the training images, on which the network is evaluated, too.

    Raises:
        ConfigError: an option of the set-up does not exist or has an invalid value.
        DataError: the data has faults.
    """
    result_file = folder / RUN_FILE
    if not result_file.exists():
        options = with_changes(base, {**set_up.options, "seed": seed, "output": folder})
        resumable = (folder / "last.ckpt").exists()
        every = options.schedule.epochs if options.schedule.time_budget is None else ONLY_AT_THE_END
        options = with_options(options, evaluate_every=every, resume=resumable, overwrite=not resumable)
        folder.mkdir(parents=True, exist_ok=True)
        diverged, start = "", time.monotonic()
        try:
            seconds = fit(options).seconds
        except NonFiniteError as error:
            diverged, seconds = str(error), time.monotonic() - start
            report_progress(f"diverged: {error}")
        result = {
            "seed": seed,
            "seconds": seconds,
            "metrics": {} if diverged else json.loads((folder / "evaluation.json").read_text()),
            "diverged": diverged,
            "early_loss": _early_loss(folder),
            "train_metrics": {} if diverged or train_sample is None else _metrics(options, train_sample),
        }
        write_output(result_file, json.dumps(result, indent=2).encode())
        (folder / "last.ckpt").unlink(missing_ok=True)
        if not keep_best:
            (folder / "best.ckpt").unlink(missing_ok=True)
        gc.collect()
    return Run(**json.loads(result_file.read_text()), folder=folder)


def _metrics(config: TrainConfig, data: Path) -> dict[str, Any]:
    """Return the metrics of the network that a run left in best.ckpt, as `Metrics.to_json()`."""
    model, device, workers = config.folder.output / "best.ckpt", config.hardware.device, config.loading.workers
    return evaluate(model, data=data, device=device, workers=workers).metrics.to_json()


def _early_loss(folder: Path) -> float | None:
    """Return the last logged training loss up to step `EARLY_STEP`."""
    rows = read_metrics(folder / "metrics.csv")
    losses = [(row["step"], row["loss"]) for row in rows if row.get("loss") is not None]
    reached = [loss for step, loss in losses if step is not None and step <= EARLY_STEP]
    return reached[-1] if reached else None
