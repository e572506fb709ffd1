"""The flight recorder: one file with all that led to the first loss, gradient or output that is NaN or infinite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from retinanet.config import TrainConfig, to_dict
from retinanet.data import Batch
from retinanet.errors import UserError, list_names
from retinanet.files import atomic_path
from retinanet.train.flight_record import FORMAT, KEY
from retinanet.train.nonfinite import find_cause, sentence_of
from retinanet.train.output_files import report_progress, writing
from retinanet.train.random_state import state_of_randomness
from retinanet.train.run_folder import RECORD
from retinanet.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    import lightning as L
    from torch import Tensor

    from retinanet.train.detection_module import DetectionModule


ADVICE: Final = (
    "A lower --lr, a longer --warmup-steps or --clip-gradients 1 usually help; --prior 0.01 must not be 0.5."
)


class NonFiniteError(UserError):
    """A loss, a gradient or an output became NaN or infinite; training on would only destroy the weights."""


class FlightRecorder(Callback):
    """Checks every step before the optimiser takes it, and stops the run or skips the step.

    Args:
        config: the run's.
        classes: of the training data.
    """

    def __init__(self, *, config: TrainConfig, classes: Sequence[str]) -> None:
        self.config = config
        self.classes = tuple(classes)
        self.path = config.folder.output / RECORD
        self.skipped = 0
        self.in_a_row = 0
        self._batches: list[tuple[Batch, dict[str, Any]]] = []
        self._healths: list[Tensor] = []
        self._buffers: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the steps skipped."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them back."""
        self.skipped, self.in_a_row = state_dict["skipped"], state_dict["in_a_row"]

    def on_train_batch_start(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: DetectionModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep what the step starts from: the batch and the random states, and for `skip` what it will change."""
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._batches, self._healths = [], []
            if self.config.nonfinite.on_nonfinite == "skip":
                # BatchNorm that learns takes its statistics from every batch, a bad one too.
                self._buffers = {name: buffer.clone() for name, buffer in pl_module.model.named_buffers()}
        self._batches.append((batch, state_of_randomness()))

    def on_after_backward(self, trainer: L.Trainer, pl_module: DetectionModule) -> None:  # type: ignore[override]
        """Note this batch's health, on its device."""
        assert pl_module.health is not None  # noqa: S101
        self._healths.append(pl_module.health)

    def on_before_optimizer_step(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: DetectionModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Look at the health of the step's batches and at its gradient: one number, read once."""
        signs = torch.stack(self._healths).sum()
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        if scaler is None and gradients:  # float16 overflows now and then; its scaler skips the step and scales less
            signs = signs + torch.nn.utils.get_total_norm(gradients)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(signs)  # all ranks stop, or skip, together
        if torch.isfinite(signs) or self._only_overflowed(pl_module, gradients, has_scaler=scaler is not None):
            self.in_a_row = 0
            return
        self._handle(trainer, pl_module, optimizer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let go of the step's batches: the next one needs the memory."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._batches = []

    def _only_overflowed(self, pl_module: DetectionModule, gradients: list[Tensor], *, has_scaler: bool) -> bool:
        """Return whether only the sums that were to find it are too large for float32: nothing is wrong then."""
        if has_scaler or (dist.is_available() and dist.is_initialized()):
            return False
        whole = all(bool(torch.isfinite(h)) for h in self._healths)
        return whole and all(bool(torch.isfinite(g).all()) for g in gradients)

    def _handle(self, trainer: L.Trainer, pl_module: DetectionModule, optimizer: torch.optim.Optimizer) -> None:
        skipping = self.config.nonfinite.on_nonfinite == "skip"
        bad = next((i for i, h in enumerate(self._healths) if not torch.isfinite(h)), None)
        batch, randomness = self._batches[len(self._batches) - 1 if bad is None else bad]
        step, epoch = trainer.global_step, trainer.current_epoch
        record: dict[str, Any] = {}
        sentence = "another process has the cause"
        if not self.skipped or not skipping:
            if skipping:
                self._restore(pl_module)
            record = self._record(pl_module, batch, randomness, step=step, epoch=epoch)
            cause = find_cause(pl_module.model, batch, record, device=batch.images_N3HW.device)
            if cause is not None or trainer.world_size == 1:
                sentence = sentence_of(cause, record)
                record["said"] = sentence
                record["module"], record["kind"] = (cause.module, cause.kind) if cause else ("", "")
        optimizer.zero_grad()
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        limits = self.config.nonfinite
        too_many = self.in_a_row > limits.max_skipped_steps
        where = f"step {step} of epoch {epoch}"
        files = ", ".join(str(pl_module.data.train.records[i].path) for i in batch.indices)
        written = self._write(trainer, record) if "said" in record else ""
        if skipping and not too_many:
            self._restore(pl_module)
            names = list_names(files.split(", "))
            report_progress(f"skipped {where}: not finite, on {names} {sentence}{written}")
            return
        if skipping:
            raise NonFiniteError(
                f"{self.in_a_row} consecutive steps were not finite, expected at most --max-skipped-steps "
                f"{limits.max_skipped_steps} ({self.skipped} steps were skipped in all); the record of the first is "
                f"{self.path}. {ADVICE}"
            )
        raise NonFiniteError(f"not finite at {where}, on {files}: {sentence}{written}\n{ADVICE}")

    def _restore(self, pl_module: DetectionModule) -> None:
        for name, buffer in pl_module.model.named_buffers():
            buffer.copy_(self._buffers[name])

    def _record(
        self, pl_module: DetectionModule, batch: Batch, randomness: dict[str, Any], *, step: int, epoch: int
    ) -> dict[str, Any]:
        """Return what the file holds: tensors and plain values."""
        records = pl_module.data.train.records
        return {
            KEY: FORMAT,
            "version": __version__,
            "step": step,
            "epoch": epoch,
            "device": str(batch.images_N3HW.device),
            "classes": list(self.classes),
            "config": to_dict(self.config),
            "files": [str(records[i].path) for i in batch.indices],
            "images_N3HW": batch.images_N3HW.detach().cpu(),
            "boxes": [target.boxes_G4.cpu() for target in batch.targets],
            "labels": [target.labels_G.cpu() for target in batch.targets],
            "crowds": [target.crowd_G.cpu() for target in batch.targets],
            "frames": [list(frame) for frame in batch.frames],
            "indices": list(batch.indices),
            "weights": {name: value.detach().cpu() for name, value in pl_module.model.state_dict().items()},
            "randomness": randomness,
        }

    def _write(self, trainer: L.Trainer, record: dict[str, Any]) -> str:
        """Write the file, and return a clause that says so."""
        path = self.path if trainer.is_global_zero else self.path.with_stem(f"nonfinite-rank{trainer.global_rank}")
        with writing(path), atomic_path(path) as partial:
            torch.save(record, partial)
        return f"\nrecorded: {path}; `retinanet replay {path}` runs this step again, on the CPU"
