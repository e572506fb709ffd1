"""Stop of training by a signal: finish the current step, save a checkpoint, print the command that resumes, exit."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Callback

from retinanet.errors import UserError
from retinanet.train.output_files import report_progress, resume_command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import lightning as L

    from retinanet.train.checkpointing import Checkpoints


def _existing_signals(*names: str) -> tuple[signal.Signals, ...]:
    """Return the signals of these names that the operating system has. Windows lacks most."""
    return tuple(signal.Signals[name] for name in names if name in signal.Signals.__members__)


STOPS: Final = _existing_signals("SIGTERM", "SIGINT", "SIGHUP", "SIGXCPU")
"""Signals that stop training: of a user or a scheduler, Ctrl-C, a closed terminal, and a limit of CPU time."""
REQUEUE: Final = _existing_signals("SIGUSR1")
"""Signal with which SLURM announces the end of a job's time."""


class StopRequest(SystemExit):  # an exit, as SystemExit is
    """A signal stopped training after a checkpoint was saved. `code` is the exit status: 128 plus the signal number."""


class GracefulStop(Callback):
    """Save a checkpoint and stop at a signal of `STOPS`; a second Ctrl-C stops at once, without a checkpoint.

    Lightning's signal handlers act within a step, when no consistent state can be saved. The handlers of this callback
    only store the signal. The callback acts on the signal after the step, on all ranks after the same step. SLURM's
    requeue signal (SIGUSR1) is then passed on to Lightning.

    Args:
        checkpoints: callback that writes the checkpoints. It must come before this callback in the trainer's list.
        folder: run folder.
    """

    def __init__(self, *, checkpoints: Checkpoints, folder: Path) -> None:
        self.checkpoints = checkpoints
        self.folder = folder
        self._signal = 0
        self._between_steps = False
        self._evaluating = False
        self._requeue: Any = None

    @contextmanager
    def restored_handlers(self) -> Iterator[None]:
        """Restore the previous signal handlers on exit."""
        if threading.current_thread() is not threading.main_thread():  # Python sets handlers in the main thread only
            yield
            return
        before = {signum: signal.getsignal(signum) for signum in (*STOPS, *REQUEUE)}
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Replace the signal handlers that Lightning has just set. A signal that `nohup` ignores stays ignored."""
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in REQUEUE:
            if SLURMEnvironment.detect() and callable(handler := signal.getsignal(signum)):
                self._requeue = handler
                signal.signal(signum, lambda signum, _: self._store_signal(signum))
        for signum in STOPS:
            if signum in {signal.SIGTERM, signal.SIGINT} or signal.getsignal(signum) != signal.SIG_IGN:
                signal.signal(signum, lambda signum, _: self._store_signal(signum))

    def _store_signal(self, signum: int) -> None:
        if signum == signal.SIGINT and self._signal:
            raise KeyboardInterrupt
        self._signal = signum

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Record that a step has started, so that no consistent state can be saved."""
        self._between_steps = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop after a signal. After the last batch of an epoch, the evaluation or the epoch's end does so."""
        signum = self._signal_of_all_ranks(trainer)
        if trainer.should_stop or trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            return
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        self._between_steps = True
        if signum:
            self._handle_signal(trainer, save=True)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record that an evaluation has started, so that a resumed run repeats an interrupted evaluation."""
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
        """Save and stop after a signal if there is one rank. Several ranks finish the evaluation first.

        Ranks may have different numbers of evaluation batches, so they cannot stop after the same batch.
        """
        if self._evaluating and self._signal and trainer.world_size == 1:
            self._handle_signal(trainer, save=True)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record that the evaluation has ended."""
        self._evaluating = False

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop after a signal, without saving: `Checkpoints` has just saved the epoch."""
        self._between_steps = False
        if self._signal_of_all_ranks(trainer):
            self._handle_signal(trainer, save=False)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Save a checkpoint if training fails between two steps or in an evaluation, for example at a lost image."""
        if not (self._between_steps or self._evaluating) or trainer.world_size > 1:
            return
        cannot_save = isinstance(exception, (OSError, StopRequest)) or isinstance(exception.__cause__, OSError)
        if cannot_save or not isinstance(exception, (UserError, KeyboardInterrupt)):
            return
        self._between_steps = self._evaluating = False
        self.checkpoints.save(trainer)

    def _signal_of_all_ranks(self, trainer: L.Trainer) -> int:
        """Return the signal that any rank has received, the same number on all ranks; 0 for none."""
        if trainer.world_size > 1 and dist.is_available() and dist.is_initialized():
            signum = torch.tensor(self._signal, device=trainer.strategy.root_device)
            dist.all_reduce(signum, op=dist.ReduceOp.MAX)
            self._signal = int(signum)
        return self._signal

    def _handle_signal(self, trainer: L.Trainer, *, save: bool) -> None:
        signum, self._signal = self._signal, 0
        if save:
            self.checkpoints.save(trainer)
        if signum in REQUEUE:
            self._requeue(signum, None)  # Lightning calls scontrol, and writes a checkpoint that is not needed
            for file in self.folder.glob("hpc_ckpt_*.ckpt"):
                file.unlink(missing_ok=True)
            return
        self._between_steps = self._evaluating = False
        report_progress(
            f"{signal.Signals(signum).name}: training stopped after step {trainer.global_step} and saved "
            f"{self.folder / 'last.ckpt'}; resume with: {resume_command(self.folder)}"
        )
        raise StopRequest(128 + signum)
