"""Callback that measures the imbalance during training, and checks the loss of the first step."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import torch
from lightning.pytorch.callbacks import Callback

from retinanet.analysis.expected_loss import expected_loss, explain
from retinanet.analysis.imbalance import Imbalance
from retinanet.analysis.imbalance_meter import ImbalanceMeter
from retinanet.losses import make_classification_loss
from retinanet.train.output_files import CsvTable, is_rank_zero, report_progress, write_output

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import lightning as L

    from retinanet.analysis.model_outputs import DenseBatch
    from retinanet.config import TrainConfig
    from retinanet.losses import DetectionLosses
    from retinanet.train.detection_module import DetectionModule
    from retinanet.types import AnchorTargets

KINDS: Final = ("easy_positive", "hard_positive", "easy_negative", "hard_negative")
COLUMNS: Final = (
    *("epoch", "step", "positive_anchors", "ignored_anchors", "negative_anchors"),
    *(f"{kind}_loss" for kind in KINDS),
    *(f"{kind}_gradient" for kind in KINDS),
    *("effective_negatives", "hardest_hundredth"),
)
"""Columns of imbalance.csv. Anchors and `effective_negatives` are counted per image. `_loss` and `_gradient` are shares
of the total. `hardest_hundredth` is the share of the background loss in the hardest 1 % of background examples."""


class ImbalanceFile(Callback):
    """Write RUN/imbalance.csv: `measure_imbalance` rows per epoch, each measured on the batch of one training step.

    The measurement reuses the outputs of the training step and needs no forward pass of its own. A resumed training run
    drops the rows of the steps that it repeats. In the first step of a run, the callback also compares the loss with
    the expected loss, and writes RUN/start.json.

    Args:
        folder: run folder.
        config: options of the training run.
        classes: class names of the training data.
    """

    def __init__(self, *, folder: Path, config: TrainConfig, classes: Sequence[str]) -> None:
        self.table = CsvTable(folder / "imbalance.csv", COLUMNS)
        self.start_file = folder / "start.json"
        self.config = config
        self.loss_config = config.loss
        self.classes = tuple(classes)
        self._resumed = False

    def state_dict(self) -> dict[str, Any]:
        """Return the size of imbalance.csv, bytes."""
        return {"size": self.table.size()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Drop the rows that were written after the checkpoint."""
        self._resumed = True
        if is_rank_zero() and self.config.run.measure_imbalance:
            self.table.truncate(state_dict["size"])

    def on_fit_start(self, trainer: L.Trainer, pl_module: DetectionModule) -> None:  # type: ignore[override]
        """Register as observer of the training steps, and write the header in a new training run."""
        pl_module.step_observer = self.measure
        if trainer.is_global_zero and self.config.run.measure_imbalance and not self._resumed:
            self.table.write_header()

    def measure(
        self,
        pl_module: DetectionModule,
        batch_idx: int,
        parts: list[DenseBatch],
        losses: DetectionLosses,
    ) -> None:
        """Measure the imbalance of a training step, if a row is due, and write the row."""
        trainer = pl_module.trainer
        if not trainer.is_global_zero:
            return
        if trainer.global_step == 0 and batch_idx == 0:
            self._check_start([part.targets for part in parts], losses)
        if not self.config.run.measure_imbalance:
            return
        every = max(1, -(-int(trainer.num_training_batches) // self.config.run.measure_imbalance))
        if batch_idx % every or not torch.isfinite(losses.total):  # the flight recorder reports a loss that is NaN
            return
        meter = ImbalanceMeter(
            classes=self.classes,
            levels=self.config.model.levels,
            loss_config=self.loss_config,
            easy_from=self.config.imbalance.easy_from,
            loss=pl_module.loss,
        )
        for part in parts:
            meter.add(part.outputs, part.targets, part.batch.targets, part.batch.frames)
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, **row_of(meter.result())}
        self.table.append(row)

    def _check_start(self, targets: list[AnchorTargets], losses: DetectionLosses) -> None:
        positives = sum(int(part.positive_NA.sum()) for part in targets)
        negatives = sum(int((~part.positive_NA & ~part.ignored_NA).sum()) for part in targets)
        expected = expected_loss(
            positives=positives,
            negatives=negatives,
            num_classes=len(self.classes),
            prior=self.config.model.prior,
            loss_config=self.loss_config,
        )
        if expected is None:
            return
        measured = float(losses.classification.detach())
        sentence = explain(expected, measured)
        report_progress(f"start: {sentence}")
        numbers = {"positives": positives, "negatives": negatives, "expected": expected.total, "found": measured}
        write_output(self.start_file, json.dumps({**numbers, "said": sentence}, indent=2).encode())


def row_of(imbalance: Imbalance) -> dict[str, Any]:
    """Return a row of imbalance.csv without the columns epoch and step."""
    images = max(1, imbalance.images)
    loss, gradient = imbalance.loss_shares_SE.flatten(), imbalance.gradient_shares_SE.flatten()
    gamma = make_classification_loss(imbalance.loss_config).focusing
    values = {
        "positive_anchors": imbalance.positive_anchors / images,
        "ignored_anchors": imbalance.ignored_anchors / images,
        "negative_anchors": imbalance.negative_anchors / images,
        **{f"{kind}_loss": float(share) for kind, share in zip(KINDS, loss, strict=True)},
        **{f"{kind}_gradient": float(share) for kind, share in zip(KINDS, gradient, strict=True)},
        "effective_negatives": imbalance.effective_negatives,
        "hardest_hundredth": imbalance.hardest_share(gamma, 0.01, positive=False),
    }
    return {name: f"{value:.6g}" for name, value in values.items()}
