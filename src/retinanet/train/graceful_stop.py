"""A run that is told to stop: it ends the step it is in, saves, says how to go on, and leaves with the usual status."""

from __future__ import annotations

import os
import shlex
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Callback

from retinanet.errors import UserError
from retinanet.train.output_files import report_progress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import lightning as L

    from retinanet.train.checkpointing import Checkpoints

RESTART_COUNTS: Final = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
"""What SLURM after a requeue and torchrun after `--max-restarts` tell a command that they run again."""


class StopRequest(SystemExit):  # an exit, as SystemExit is
    """A signal ended the run, after it saved; `code` is the exit status, 128 and the signal's number."""


def restarted() -> bool:
    """Return whether SLURM or torchrun runs this very command once more: it then goes on where it was."""
    return any(os.environ.get(name, "0") not in {"", "0"} for name in RESTART_COUNTS)


class GracefulStop(Callback):
    """SIGTERM and Ctrl-C end the run with a checkpoint; a second Ctrl-C ends it at once.

    Lightning's own handlers act within a step, where no consistent state can be saved. These note the signal and act
    when the step is over, on all ranks at the same one. SLURM's requeue signal is passed on to Lightning then.

    Args:
        checkpoints: what saves; this comes after it in the list of callbacks.
        folder: of the run.
    """

    def __init__(self, *, checkpoints: Checkpoints, folder: Path) -> None:
        self.checkpoints = checkpoints
        self.folder = folder
        self._noted = 0
        self._between_steps = False
        self._evaluating = False
        self._requeue: Any = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Put the handlers back that were there."""
        if threading.current_thread() is not threading.main_thread():  # only the main thread may have handlers
            yield
            return
        before = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take over from the handlers that Lightning has just set."""
        if threading.current_thread() is not threading.main_thread():
            return
        if SLURMEnvironment.detect() and callable(handler := signal.getsignal(signal.SIGUSR1)):
            self._requeue = handler
            signal.signal(signal.SIGUSR1, lambda signum, _: self._note(signum))
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda signum, _: self._note(signum))

    def _note(self, signum: int) -> None:
        if signum == signal.SIGINT and self._noted:
            raise KeyboardInterrupt
        self._noted = signum

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """From here to the end of the step no state is consistent."""
        self._between_steps = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop, if told to. After the last batch of an epoch, its evaluation or its end sees to that."""
        noted = self._agreed(trainer)
        if trainer.should_stop or trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        self._between_steps = True
        if noted:
            self._act(trainer, save=True)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A checkpoint that is saved from here on says that the evaluation is to come."""
        self._evaluating = trainer.state.fn == "fit" and not trainer.should_stop

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Save and stop, if told to; several ranks, which may have different numbers of batches, go on to its end."""
        if self._evaluating and self._noted and trainer.world_size == 1:
            self._act(trainer, save=True)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The evaluation is over."""
        self._evaluating = False

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop, if told to: the epoch has just been saved."""
        self._between_steps = False
        if self._agreed(trainer):
            self._act(trainer, save=False)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save what was done where an error comes between two steps or in an evaluation: an image that is gone."""
        if not (self._between_steps or self._evaluating) or trainer.world_size > 1:
            return
        writes = isinstance(exception, (OSError, StopRequest)) or isinstance(exception.__cause__, OSError)
        if writes or not isinstance(exception, (UserError, KeyboardInterrupt)):
            return
        self._between_steps = self._evaluating = False
        self.checkpoints.save(trainer)

    def _agreed(self, trainer: L.Trainer) -> int:
        """Return the signal that any rank has noted, the same on all."""
        if trainer.world_size > 1 and dist.is_available() and dist.is_initialized():
            noted = torch.tensor(self._noted, device=trainer.strategy.root_device)
            dist.all_reduce(noted, op=dist.ReduceOp.MAX)
            self._noted = int(noted)
        return self._noted

    def _act(self, trainer: L.Trainer, *, save: bool) -> None:
        noted, self._noted = self._noted, 0
        if save:
            self.checkpoints.save(trainer)
        if noted == signal.SIGUSR1:
            self._requeue(noted, None)  # Lightning saves its own file, which we never read, and calls scontrol
            for file in self.folder.glob("hpc_ckpt_*.ckpt"):
                file.unlink(missing_ok=True)
            return
        self._between_steps = self._evaluating = False
        report_progress(
            f"{signal.Signals(noted).name}: saved after step {trainer.global_step} in {self.folder / 'last.ckpt'}; "
            f"go on with: {resume_command(self.folder)}"
        )
        raise StopRequest(128 + noted)


def resume_command(folder: Path) -> str:
    """Return the command that resumes a run."""
    return f"retinanet train --resume -o {shlex.quote(str(folder))}"
