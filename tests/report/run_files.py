"""Write metrics.csv of a run folder, for tests of the training report."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

COLUMNS = (
    *("epoch", "step", "lr", "loss", "classification_loss", "box_loss", "positives_per_image"),
    *("AP", "AP50", "AP75", "APs", "APm", "APl", "val_loss", "val_classification_loss", "val_box_loss", "seconds"),
)


def metrics_rows(
    aps: list[float], losses: list[float] | None = None, val_losses: list[float] | None = None
) -> list[dict[str, Any]]:
    """Return two rows per epoch: one with the losses, one with the APs. The default losses are 1, 1/2, 1/3, ...

    Without `val_losses`, the rows have no validation losses, as in files of earlier versions.
    """
    rows: list[dict[str, Any]] = []
    for epoch, ap in enumerate(aps):
        loss = losses[epoch] if losses else 1 / (epoch + 1)
        step = {"epoch": epoch, "step": 10 * epoch + 10, "lr": 0.01, "seconds": 60.0 * epoch + 60}
        rows.append(
            {**step, "loss": loss, "classification_loss": loss / 2, "box_loss": loss / 2, "positives_per_image": 9}
        )
        evaluation = {**step, "AP": ap, "AP50": ap, "AP75": ap, "APs": -1, "APm": ap, "APl": ap}
        if val_losses:
            half = val_losses[epoch] / 2
            evaluation |= {"val_loss": 2 * half, "val_classification_loss": half, "val_box_loss": half}
        rows.append(evaluation)
    return rows


def write_metrics(run: Path, rows: list[dict[str, Any]], columns: tuple[str, ...] = COLUMNS) -> Path:
    """Write the rows to metrics.csv in the folder `run`. Return the folder."""
    run.mkdir(exist_ok=True)
    with (run / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return run


def coco_metrics(**changes: Any) -> dict[str, Any]:
    """Return COCO metrics of two classes as in `Metrics.to_json()`, all 0.5 overall, with `changes`."""
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    per_class = {"<b>cat</b>": {"AP": 0.4, "AP50": 0.6, "objects": 50}, "dog": {"AP": 0.6, "AP50": 0.8, "objects": 70}}
    return {**dict.fromkeys(names, 0.5), "per_class": per_class, **changes}
