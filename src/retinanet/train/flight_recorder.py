"""Flight recorder: it stores the first training step with a NaN or infinite loss, gradient or output in one file."""

from __future__ import annotations

import math
from dataclasses import dataclass
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Step:
    """A training step whose checks are on the device: one entry of `checks` and `random_states` for each batch.

    Args:
        step: number of optimiser steps before this step.
        epoch: epoch of the step.
        batches: position of each batch in its epoch.
        checks: results of `finite_check`.
        is_finite: bool scalar, true if losses, outputs and gradients are finite on all ranks.
        random_states: random states before each batch.
        loss_states: states of the loss before each batch.
    """

    step: int
    epoch: int
    batches: tuple[int, ...]
    checks: tuple[Tensor, ...]
    is_finite: Tensor
    random_states: tuple[dict[str, Any], ...]
    loss_states: tuple[dict[str, Tensor], ...]


class FlightRecorder(Callback):
    """Check each step before the optimiser changes the weights; stop or skip the step at a NaN or infinite value.

    On a GPU, a run that stops at such a value reads the checks only when a log entry is due, before an evaluation or
    a checkpoint, and at the end of an epoch, because the GPU would wait for each reading. The first bad step and all
    later steps until then do not change the weights: the optimiser's kernel reads the check on the device.

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
        self._batches: list[tuple[int, Batch, dict[str, Any], dict[str, Tensor]]] = []
        self._finite_checks: list[Tensor] = []
        self._buffers: dict[str, Tensor] = {}
        self._unread: list[_Step] = []
        self._has_stopped: Tensor | None = None

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
        self._batches.append((batch_idx, batch, get_random_state(), pl_module.loss.state_dict()))

    def on_after_backward(self, trainer: L.Trainer, pl_module: DetectionModule) -> None:  # type: ignore[override]
        """Store the finite check of this batch, without a transfer from the device."""
        assert pl_module.finite_check is not None  # noqa: S101
        self._finite_checks.append(pl_module.finite_check)

    def on_before_optimizer_step(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: DetectionModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Check losses, outputs and gradients of the step, and read the result now or when a log entry is due."""
        is_finite = torch.stack(self._finite_checks).all()
        scaler = getattr(trainer.precision_plugin, "scaler", None)
        gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
        # With float16, an overflow of the gradients is normal: the scaler skips the step and lowers the scale.
        if scaler is None and gradients:
            # The largest absolute value. The sum of squares could overflow.
            is_finite = is_finite & torch.isfinite(torch.nn.utils.get_total_norm(gradients, norm_type=math.inf))
        if dist.is_available() and dist.is_initialized():
            bad_ranks = (~is_finite).float()
            dist.all_reduce(bad_ranks)  # all ranks stop, or skip, together
            is_finite = bad_ranks == 0
        indices, _, random_states, loss_states = zip(*self._batches, strict=True)
        step = _Step(
            step=trainer.global_step,
            epoch=trainer.current_epoch,
            batches=indices,
            checks=tuple(self._finite_checks),
            is_finite=is_finite,
            random_states=random_states,
            loss_states=loss_states,
        )
        if self.config.nonfinite.on_nonfinite == "skip" or scaler is not None or not _is_fused(optimizer):
            if is_finite:
                self.consecutive_skips = 0
            else:
                self._handle(trainer, pl_module, step)
            return
        stopped = ~is_finite if self._has_stopped is None else self._has_stopped | ~is_finite
        self._has_stopped = stopped
        # The fused kernel does not change the weights if this value is 1, as after an overflow of a gradient scaler.
        optimizer.found_inf = stopped.float()  # type: ignore[attr-defined]
        self._unread.append(step)
        if (trainer.global_step + 1) % self.config.run.log_every == 0:
            self._read(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Release the batches of the step, because the next step needs the memory."""
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            self._batches = []

    def on_validation_start(self, trainer: L.Trainer, pl_module: DetectionModule) -> None:  # type: ignore[override]
        """Read the checks before an evaluation, which may write checkpoints."""
        self._read(trainer, pl_module)

    def on_save_checkpoint(  # type: ignore[override]
        self, trainer: L.Trainer, pl_module: DetectionModule, checkpoint: dict[str, Any]
    ) -> None:
        """Read the checks before a checkpoint is written, and check the weights: the last step may have destroyed them.

        The steps after a bad step change BatchNorm's statistics, which a checkpoint must not hold.
        """
        self._read(trainer, pl_module)
        for name, value in pl_module.model.named_parameters():
            if not torch.isfinite(value).all():
                raise NonFiniteError(
                    f"the weight {name} is NaN or infinite after step {trainer.global_step - 1} of epoch "
                    f"{trainer.current_epoch}. No checkpoint was written. {ADVICE}"
                )

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: DetectionModule) -> None:  # type: ignore[override]
        """Read the checks before the sampler continues with the next epoch."""
        self._read(trainer, pl_module)

    def _read(self, trainer: L.Trainer, pl_module: DetectionModule) -> None:
        """Copy the checks of all unread steps from the device at once, and stop at the first bad step."""
        unread, self._unread = self._unread, []
        if not unread:
            return
        finite = torch.stack([step.is_finite for step in unread]).tolist()
        if not all(finite):
            self._handle(trainer, pl_module, unread[finite.index(False)])

    def _handle(self, trainer: L.Trainer, pl_module: DetectionModule, bad: _Step) -> None:
        skipping = self.config.nonfinite.on_nonfinite == "skip"
        position = next((i for i, check in enumerate(bad.checks) if not check), len(bad.checks) - 1)
        batch = self._batch(trainer, pl_module, bad.batches[position])
        step, epoch = bad.step, bad.epoch
        record: dict[str, Any] = {}
        sentence = "The record holds the first such step only."
        if not self.skipped or not skipping:
            sentence = "The cause is on another rank."
            if skipping:
                self._restore_buffers(pl_module)
            record = self._record(pl_module, batch, step=step, epoch=epoch)
            record["randomness"] = bad.random_states[position]
            record["loss_state"] = {name: value.cpu() for name, value in bad.loss_states[position].items()}
            cause = find_cause(pl_module.model, batch, record, device=batch.images_N3HW.device)
            if cause is not None or trainer.world_size == 1:
                sentence = describe_cause(cause, record)
                record["said"] = sentence
                record["module"], record["kind"] = (cause.module, cause.kind) if cause else ("", "")
        pl_module.zero_grad()
        self.skipped, self.consecutive_skips = self.skipped + 1, self.consecutive_skips + 1
        limits = self.config.nonfinite
        too_many = self.consecutive_skips > limits.max_skipped_steps
        where = f"step {step} of epoch {epoch}"
        files = [str(pl_module.data.train.records[i].path) for i in batch.indices]
        written = self._write(trainer, record) if "said" in record else ""
        if skipping and not too_many:
            self._restore_buffers(pl_module)
            pl_module.loss.load_state_dict(bad.loss_states[0])
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

    def _batch(self, trainer: L.Trainer, pl_module: DetectionModule, position: int) -> Batch:
        """Return a batch by its position in the epoch. A batch of an earlier step is loaded again."""
        for index, batch, *_ in self._batches:
            if index == position:
                return batch
        loader: Any = trainer.train_dataloader
        keys = loader.batch_sampler.all_batches()[position]
        again: Batch = loader.collate_fn([loader.dataset[key] for key in keys]).to(pl_module.device)
        return again

    def _restore_buffers(self, pl_module: DetectionModule) -> None:
        for name, buffer in pl_module.model.named_buffers():
            buffer.copy_(self._buffers[name])

    def _record(self, pl_module: DetectionModule, batch: Batch, *, step: int, epoch: int) -> dict[str, Any]:
        """Return the content of the flight record without the states before the step: tensors and plain values."""
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
        }

    def _write(self, trainer: L.Trainer, record: dict[str, Any]) -> str:
        """Write the flight record, and return a line for the message that names the file."""
        path = self.path if trainer.is_global_zero else self.path.with_stem(f"nonfinite-rank{trainer.global_rank}")
        with translate_os_errors(path), atomic_path(path) as partial:
            torch.save(record, partial)
        return f"\nThe step is recorded in {path}. Run it again on the CPU with: retinanet replay {path}"


def _is_fused(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether the optimiser skips a step if `found_inf` is 1."""
    return all(group.get("fused") for group in optimizer.param_groups)
