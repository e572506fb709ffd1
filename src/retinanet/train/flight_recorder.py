"""Flight recorder: it stores the first training step with a NaN or infinite loss, gradient or output in one file."""

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
from retinanet.train.nonfinite import describe_cause, find_cause
from retinanet.train.output_files import report_progress, translate_os_errors
from retinanet.train.random_state import get_random_state
from retinanet.train.run_folder import FLIGHT_RECORD_FILE
from retinanet.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    import lightning as L
    from torch import Tensor

    from retinanet.train.detection_module import DetectionModule


ADVICE: Final = (
    "Lower --lr, raise --warmup-steps or set --clip-gradients 1. Keep --prior at 0.01: with a prior of 0.5, training "
    "may diverge."
)


class NonFiniteError(UserError):
    """A loss, gradient or output became NaN or infinite. The next optimiser step would destroy the weights."""


class FlightRecorder(Callback):
    """Check each step before the optimiser changes the weights; stop or skip the step at a NaN or infinite value.

    Args:
        config: options of the training run.
        classes: class names of the training data.
    """

    def __init__(self, *, config: TrainConfig, classes: Sequence[str]) -> None:
        self.config = config
        self.classes = tuple(classes)
        self.path = config.folder.output / FLIGHT_RECORD_FILE
        self.skipped = 0
        self.consecutive_skips = 0
        self._batches: list[tuple[Batch, dict[str, Any]]] = []
        self._finite_checks: list[Tensor] = []
        self._buffers: dict[str, Tensor] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the number of skipped steps, in all and consecutive."""
        return {"skipped": self.skipped, "in_a_row": self.consecutive_skips}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state that `state_dict` returned."""
        self.skipped, self.consecutive_skips = state_dict["skipped"], state_dict["in_a_row"]

    def on_train_batch_start(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: DetectionModule, batch: Any, batch_idx: int
    ) -> None:
        """Store the batch and the random states of the step, and the buffers if `on_nonfinite` is "skip"."""
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._batches, self._finite_checks = [], []
            if self.config.nonfinite.on_nonfinite == "skip":
                # A trained BatchNorm updates its statistics in the forward pass, also with a batch that is skipped.
                self._buffers = {name: buffer.clone() for name, buffer in pl_module.model.named_buffers()}
        self._batches.append((batch, get_random_state()))

    def on_after_backward(self, trainer: L.Trainer, pl_module: DetectionModule) -> None:  # type: ignore[override]
        """Store the finite check of this batch, without a transfer from the device."""
        assert pl_module.finite_check is not None  # noqa: S101
        self._finite_checks.append(pl_module.finite_check)

    def on_before_optimizer_step(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: DetectionModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Check losses, outputs and gradients of the step. They are summed first: one value is read from the device."""
        total = torch.stack(self._finite_checks).sum()
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        # With float16, an overflow of the gradients is normal: the scaler skips the step and lowers the scale.
        if scaler is None and gradients:
            total = total + torch.nn.utils.get_total_norm(gradients)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(total)  # all ranks stop, or skip, together
        if torch.isfinite(total) or self._only_sums_overflowed(pl_module, gradients, has_scaler=scaler is not None):
            self.consecutive_skips = 0
            return
        self._handle(trainer, pl_module, optimizer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Release the batches of the step, because the next step needs the memory."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._batches = []

    def _only_sums_overflowed(self, pl_module: DetectionModule, gradients: list[Tensor], *, has_scaler: bool) -> bool:
        """Return whether only the sums of the check overflow, and all losses, outputs and gradients are finite."""
        if has_scaler or (dist.is_available() and dist.is_initialized()):
            return False
        outputs_finite = all(bool(torch.isfinite(check)) for check in self._finite_checks)
        return outputs_finite and all(bool(torch.isfinite(g).all()) for g in gradients)

    def _handle(self, trainer: L.Trainer, pl_module: DetectionModule, optimizer: torch.optim.Optimizer) -> None:
        skipping = self.config.nonfinite.on_nonfinite == "skip"
        bad = next((i for i, check in enumerate(self._finite_checks) if not torch.isfinite(check)), None)
        batch, random_state = self._batches[len(self._batches) - 1 if bad is None else bad]
        step, epoch = trainer.global_step, trainer.current_epoch
        record: dict[str, Any] = {}
        sentence = "The record holds the first such step only."
        if not self.skipped or not skipping:
            sentence = "The cause is on another rank."
            if skipping:
                self._restore_buffers(pl_module)
            record = self._record(pl_module, batch, random_state, step=step, epoch=epoch)
            cause = find_cause(pl_module.model, batch, record, device=batch.images_N3HW.device)
            if cause is not None or trainer.world_size == 1:
                sentence = describe_cause(cause, record)
                record["said"] = sentence
                record["module"], record["kind"] = (cause.module, cause.kind) if cause else ("", "")
        optimizer.zero_grad()
        self.skipped, self.consecutive_skips = self.skipped + 1, self.consecutive_skips + 1
        limits = self.config.nonfinite
        too_many = self.consecutive_skips > limits.max_skipped_steps
        where = f"step {step} of epoch {epoch}"
        files = [str(pl_module.data.train.records[i].path) for i in batch.indices]
        written = self._write(trainer, record) if "said" in record else ""
        if skipping and not too_many:
            self._restore_buffers(pl_module)
            report_progress(
                f"skipped {where}: a loss, gradient or output is NaN or infinite. "
                f"Batch: {list_names(files)}. {sentence}{written}"
            )
            return
        if skipping:
            raise NonFiniteError(
                f"{self.consecutive_skips} consecutive steps had a NaN or infinite loss, gradient or output, "
                f"{self.skipped} in all; expected at most {limits.max_skipped_steps} consecutive steps "
                f"(--max-skipped-steps). Record of the first step: {self.path}. {ADVICE}"
            )
        raise NonFiniteError(
            f"a loss, gradient or output is NaN or infinite at {where}. "
            f"Batch: {', '.join(files)}. {sentence}{written}\n{ADVICE}"
        )

    def _restore_buffers(self, pl_module: DetectionModule) -> None:
        for name, buffer in pl_module.model.named_buffers():
            buffer.copy_(self._buffers[name])

    def _record(
        self, pl_module: DetectionModule, batch: Batch, random_state: dict[str, Any], *, step: int, epoch: int
    ) -> dict[str, Any]:
        """Return the content of the flight record: tensors and plain values."""
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
            "randomness": random_state,
        }

    def _write(self, trainer: L.Trainer, record: dict[str, Any]) -> str:
        """Write the flight record, and return a line for the message that names the file."""
        path = self.path if trainer.is_global_zero else self.path.with_stem(f"nonfinite-rank{trainer.global_rank}")
        with translate_os_errors(path), atomic_path(path) as partial:
            torch.save(record, partial)
        return f"\nThe step is recorded in {path}. Run it again on the CPU with: retinanet replay {path}"
