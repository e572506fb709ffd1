"""Measures while training: where the loss comes from, a few times an epoch, and whether it starts where it should."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import torch
from lightning.pytorch.callbacks import Callback

from retinanet.analysis.expected_loss import expected_loss, explain
from retinanet.analysis.imbalance import Imbalance
from retinanet.analysis.imbalance_meter import ImbalanceMeter
from retinanet.losses import make_classification_loss
from retinanet.train.output_files import Table, rank_zero, report_progress, write_output

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import lightning as L

    from retinanet.config import TrainConfig
    from retinanet.data import Batch
    from retinanet.losses import DetectionLosses
    from retinanet.train.detection_module import DetectionModule
    from retinanet.types import AnchorTargets, HeadOutputs

KINDS: Final = ("easy_positive", "hard_positive", "easy_negative", "hard_negative")
COLUMNS: Final = (
    *("epoch", "step", "positive_anchors", "ignored_anchors", "negative_anchors"),
    *(f"{kind}_loss" for kind in KINDS),
    *(f"{kind}_gradient" for kind in KINDS),
    *("effective_negatives", "hardest_hundredth"),
)
"""Of imbalance.csv. Anchors are per image, `_loss` and `_gradient` shares of the whole, `effective_negatives` per
image, `hardest_hundredth` the share of the background's loss that its hardest 1 % of examples makes up."""


class ImbalanceFile(Callback):
    """RUN/imbalance.csv: a row `per_epoch` times an epoch, of the batch that training has just computed.

    Nothing goes through the network twice: the outputs are those of the training step. A resumed run cuts off what it
    repeats. In the first step of a run it also compares the loss with the expected one, and writes start.json.

    Args:
        folder: the run's.
        config: the run's.
        classes: of the training data.
    """

    def __init__(self, *, folder: Path, config: TrainConfig, classes: Sequence[str]) -> None:
        self.table = Table(folder / "imbalance.csv", COLUMNS)
        self.start = folder / "start.json"
        self.config = config
        self.loss_config = config.loss
        self.classes = tuple(classes)
        self._resumed = False

    def state_dict(self) -> dict[str, Any]:
        """Return how far the file is written."""
        return {"size": self.table.size()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Cut off the rows after that."""
        self._resumed = True
        if rank_zero() and self.config.run.measure_imbalance:
            self.table.cut(state_dict["size"])

    def on_fit_start(self, trainer: L.Trainer, pl_module: DetectionModule) -> None:  # type: ignore[override]
        """Begin to watch; write the header of a new run's file."""
        pl_module.watch = self.watch
        if trainer.is_global_zero and self.config.run.measure_imbalance and not self._resumed:
            self.table.begin()

    def watch(
        self,
        pl_module: DetectionModule,
        batch_idx: int,
        batch: Batch,
        outputs: HeadOutputs,
        targets: AnchorTargets,
        losses: DetectionLosses,
    ) -> None:
        """Look at what a training step has computed."""
        trainer = pl_module.trainer
        if not trainer.is_global_zero:
            return
        if trainer.global_step == 0 and batch_idx == 0:
            self._check_start(targets, losses)
        if not self.config.run.measure_imbalance:
            return
        every = max(1, -(-int(trainer.num_training_batches) // self.config.run.measure_imbalance))
        if batch_idx % every or not torch.isfinite(losses.total):  # the flight recorder is about to say why
            return
        meter = ImbalanceMeter(
            classes=self.classes,
            levels=self.config.model.levels,
            loss_config=self.loss_config,
            easy_from=self.config.imbalance.easy_from,
        )
        meter.add(outputs, targets, batch.targets, batch.frames)
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, **row_of(meter.result())}
        self.table.add(row)

    def _check_start(self, targets: AnchorTargets, losses: DetectionLosses) -> None:
        positives = int(targets.positive_NA.sum())
        negatives = int((~targets.positive_NA & ~targets.ignored_NA).sum())
        expected = expected_loss(
            positives=positives,
            negatives=negatives,
            num_classes=len(self.classes),
            prior=self.config.model.prior,
            loss_config=self.loss_config,
        )
        if expected is None:
            return
        found = float(losses.classification.detach())
        said = explain(expected, found)
        report_progress(f"start: {said}")
        numbers = {"positives": positives, "negatives": negatives, "expected": expected.total, "found": found}
        write_output(self.start, json.dumps({**numbers, "said": said}, indent=2).encode())


def row_of(found: Imbalance) -> dict[str, Any]:
    """Return the columns of imbalance.csv but epoch and step."""
    images = max(1, found.images)
    loss, gradient = found.loss_shares_SE.flatten(), found.gradient_shares_SE.flatten()
    gamma = make_classification_loss(found.loss_config).focusing
    values = {
        "positive_anchors": found.positive_anchors / images,
        "ignored_anchors": found.ignored_anchors / images,
        "negative_anchors": found.negative_anchors / images,
        **{f"{kind}_loss": float(share) for kind, share in zip(KINDS, loss, strict=True)},
        **{f"{kind}_gradient": float(share) for kind, share in zip(KINDS, gradient, strict=True)},
        "effective_negatives": found.effective_negatives,
        "hardest_hundredth": found.hardest_share(gamma, 0.01, positive=False),
    }
    return {name: f"{value:.6g}" for name, value in values.items()}
