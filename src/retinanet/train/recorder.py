"""The flight recorder: at the first loss, gradient or output that is NaN or infinite, one file with all that led to it.

`replay` runs that step again, on the CPU, and says the same. Shape suffixes: N batch, A anchors, K classes, G objects.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback

from retinanet.config import (
    LossConfig,
    MatchConfig,
    ModelConfig,
    TrainConfig,
    UserError,
    section_from_dict,
    some_of,
    to_dict,
)
from retinanet.data import Batch
from retinanet.images import Frame
from retinanet.losses import DetectionLoss
from retinanet.matching import match
from retinanet.model import RetinaNet
from retinanet.train.callbacks import put_in_place, writing
from retinanet.train.folder import RECORD
from retinanet.train.optim import restore_randomness, state_of_randomness
from retinanet.train.precision import autocast
from retinanet.train.start import freeze_parts
from retinanet.types import HeadOutputs, Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    import lightning as L
    from torch import Tensor, nn

    from retinanet.losses import DetectionLosses
    from retinanet.train.module import DetectionModule

FORMAT: Final = 1
KEY: Final = "retinanet flight record"
ADVICE: Final = (
    "A lower --lr, a longer --warmup-steps or --clip-gradients 1 usually help; --prior 0.01 must not be 0.5."
)


class NonFiniteError(UserError):
    """A loss, a gradient or an output became NaN or infinite; training on would only destroy the weights."""


class RecordError(UserError):
    """A file that is no flight record, is damaged, or was written by a later version."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """Where a step first went wrong.

    Args:
        kind: input, weight, output, loss or gradient.
        module: the first module, in the order of the computation, or "loss".
        said: what is not finite there, a clause.
        pictures: places in the batch of the pictures at fault; empty where no picture alone is.
    """

    kind: str
    module: str
    said: str
    pictures: tuple[int, ...]


def health(losses: DetectionLosses, outputs: HeadOutputs) -> Tensor:
    """Return a number that is finite if the loss and all outputs are: one pass over the outputs, no waiting."""
    with torch.no_grad():
        return losses.total + outputs.logits_NAK.sum(dtype=torch.float32) + outputs.deltas_NA4.sum(dtype=torch.float32)


class FlightRecorder(Callback):
    """Checks every step before the optimiser takes it, and stops the run or skips the step.

    Args:
        config: the run's.
        classes: of the training data.
    """

    def __init__(self, *, config: TrainConfig, classes: Sequence[str]) -> None:
        self.config = config
        self.classes = tuple(classes)
        self.path = config.output / RECORD
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
            if self.config.on_nonfinite == "skip":
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
        skipping = self.config.on_nonfinite == "skip"
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
        too_many = self.skipped > self.config.max_skipped or self.in_a_row > self.config.max_skipped_in_a_row
        where = f"step {step} of epoch {epoch}"
        files = ", ".join(str(pl_module.data.train.records[i].path) for i in batch.indices)
        written = self._write(trainer, record) if "said" in record else ""
        if skipping and not too_many:
            self._restore(pl_module)
            if trainer.is_global_zero:
                print(f"skipped {where}: not finite, on {some_of(files.split(', '))} {sentence}{written}", flush=True)
            return
        if skipping:
            raise NonFiniteError(
                f"{self.in_a_row} steps in a row and {self.skipped} in all were not finite, which is more than "
                f"--max-skipped-in-a-row {self.config.max_skipped_in_a_row} or "
                f"--max-skipped {self.config.max_skipped}; the first is in {self.path}. {ADVICE}"
            )
        raise NonFiniteError(f"not finite at {where}, on {files}: {sentence}{written}\n{ADVICE}")

    def _restore(self, pl_module: DetectionModule) -> None:
        for name, buffer in pl_module.model.named_buffers():
            buffer.copy_(self._buffers[name])

    def _record(
        self, pl_module: DetectionModule, batch: Batch, randomness: dict[str, Any], *, step: int, epoch: int
    ) -> dict[str, Any]:
        """Return what the file holds: tensors and plain values."""
        from retinanet import __version__

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
        temporary = path.with_name(path.name + ".part")
        with writing(path):
            torch.save(record, temporary)
            put_in_place(temporary, path)
        return f"\nrecorded: {path}; `retinanet replay {path}` runs this step again, on the CPU"


def sentence_of(cause: Cause | None, record: dict[str, Any]) -> str:
    """Return the cause as a sentence with module and picture."""
    files = record["files"]
    if cause is None:
        return "run again, the same step is finite."
    if not cause.pictures:
        where = "in no picture alone"
    elif len(cause.pictures) == len(files) and len(files) > 1:
        where = f"in all {len(files)} pictures, first in {files[cause.pictures[0]]}"
    else:
        where = "in " + some_of([files[n] for n in cause.pictures])
    return f"the first that is not finite is {cause.said}, {where}."


def find_cause(model: RetinaNet, batch: Batch, record: dict[str, Any], *, device: torch.device | str) -> Cause | None:
    """Run a step again and return where it first is not finite; None where all is.

    Forward first: each module's output in the order of the computation. Then the loss of each picture. Then the
    gradients, from the loss backwards. Gradients of the weights are left as they were, random states too.
    """
    config = record["config"]
    found = _bad_tensors(model, batch)
    if found is not None:
        return found
    was, before = state_of_randomness(), [p.grad for p in model.parameters()]
    try:
        restore_randomness(record["randomness"])
        return _forward_backward(model, batch, config, str(torch.device(device).type))
    finally:
        restore_randomness(was)
        for parameter, gradient in zip(model.parameters(), before, strict=True):
            parameter.grad = gradient


def _bad_tensors(model: nn.Module, batch: Batch) -> Cause | None:
    """Return what is wrong before the first computation: pixels or weights. A bad box matches no anchor."""
    pictures = _bad_rows(batch.images_N3HW)
    if pictures:
        return Cause(kind="input", module="input", said="the input: pixels", pictures=pictures)
    for name, value in model.named_parameters():
        if not torch.isfinite(value).all():
            count = int((~torch.isfinite(value)).sum())
            said = f"the weight {name} ({count:,} of {value.numel():,} values): an earlier step made it so"
            everyone = tuple(range(len(batch)))
            return Cause(kind="weight", module=name.rpartition(".")[0], said=said, pictures=everyone)
    return None


def _forward_backward(model: RetinaNet, batch: Batch, config: dict[str, Any], device: str) -> Cause | None:
    loss = DetectionLoss(config=section_from_dict(LossConfig, config), distributed=False)
    match_config = section_from_dict(MatchConfig, config)
    for parameter in model.parameters():
        parameter.grad = None
    with _Watch(model, len(batch)) as watch:
        with autocast(config["precision"], device):
            outputs = model(batch.images_N3HW.to(memory_format=torch.channels_last))
        if watch.found is not None:
            return watch.found
        targets = match(outputs.anchors_A4, batch.targets, match_config)
        losses = loss(outputs, targets)
        if not torch.isfinite(losses.total):
            return _bad_loss(loss, outputs, batch, match_config, losses)
        outputs.logits_NAK.register_hook(watch.gradient("loss", "the gradient of the loss at the class scores"))
        outputs.deltas_NA4.register_hook(watch.gradient("loss", "the gradient of the loss at the box offsets"))
        torch.autograd.backward(losses.total)
        return watch.found


def _bad_loss(
    loss: DetectionLoss, outputs: HeadOutputs, batch: Batch, match_config: MatchConfig, losses: DetectionLosses
) -> Cause:
    """Return which of the two losses it is, and the pictures whose own loss is not finite."""
    pictures = []
    for n, target in enumerate(batch.targets):
        one = HeadOutputs(
            logits_NAK=outputs.logits_NAK[n : n + 1],
            deltas_NA4=outputs.deltas_NA4[n : n + 1],
            anchors_A4=outputs.anchors_A4,
            anchors_per_level=outputs.anchors_per_level,
        )
        if not torch.isfinite(loss(one, match(one.anchors_A4, [target], match_config)).total):
            pictures.append(n)
    names = {"classification": losses.classification, "box": losses.box}
    bad = [name for name, value in names.items() if not torch.isfinite(value)] or ["summed"]
    values = ", ".join(f"{name} {float(value.detach()):g}" for name, value in names.items())
    return Cause(
        kind="loss", module="loss", said=f"the {' and the '.join(bad)} loss ({values})", pictures=tuple(pictures)
    )


class _Watch:
    """Hooks on every module: the first output that is not finite, then the first gradient, is `found`."""

    def __init__(self, model: nn.Module, batch_size: int) -> None:
        self.model = model
        self.batch_size = batch_size
        self.found: Cause | None = None
        self._handles: list[Any] = []

    def __enter__(self) -> _Watch:
        for name, module in self.model.named_modules():
            if not any(True for _ in module.children()):
                self._handles.append(module.register_forward_hook(self._output(name)))
                for part, parameter in module.named_parameters(recurse=False):
                    if parameter.requires_grad:
                        said = f"the gradient of {name}'s {part}"
                        self._handles.append(parameter.register_post_accumulate_grad_hook(self._weight(name, said)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _output(self, name: str) -> Any:
        def look(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if self.found is not None or not isinstance(output, torch.Tensor):
                return
            if not torch.isfinite(output).all():
                said = f"the output of {name} ({int((~torch.isfinite(output)).sum()):,} of {output.numel():,} values)"
                pictures = _bad_rows(output) if len(output) == self.batch_size else ()
                self.found = Cause(kind="output", module=name, said=said, pictures=pictures)
            elif output.requires_grad:
                hook = self.gradient(name, f"the gradient at the output of {name}")
                output.register_hook(hook)  # type: ignore[no-untyped-call]

        return look

    def gradient(self, name: str, said: str) -> Any:
        """Return a hook that looks at a gradient of a tensor whose first dimension is the pictures."""

        def look(gradient: Tensor) -> None:
            if self.found is None and not torch.isfinite(gradient).all():
                pictures = _bad_rows(gradient) if len(gradient) == self.batch_size else ()
                self.found = Cause(kind="gradient", module=name, said=said, pictures=pictures)

        return look

    def _weight(self, name: str, said: str) -> Any:
        def look(parameter: Tensor) -> None:
            if self.found is None and parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                self.found = Cause(kind="gradient", module=name, said=said, pictures=())

        return look


def _bad_rows(values: Tensor) -> tuple[int, ...]:
    return tuple(torch.nonzero(~torch.isfinite(values).flatten(1).all(dim=1)).flatten().tolist())


def read_record(path: Path) -> dict[str, Any]:
    """Return a flight record's content.

    Raises:
        RecordError: missing, damaged, not ours, or holding anything but tensors and plain values.
    """
    if not path.is_file():
        raise RecordError(f"no flight record {path}")
    try:
        record = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError) as error:
        raise RecordError(f"{path} cannot be read as a flight record: {error}") from error
    if not isinstance(record, dict) or KEY not in record:
        raise RecordError(f"{path} is no flight record: `train` writes one, {RECORD}, when a step is not finite")
    if not isinstance(record[KEY], int) or record[KEY] > FORMAT:
        raise RecordError(f"{path} has format {record[KEY]}, this version reads up to {FORMAT}: update retinanet")
    return record


def replay(path: Path | str) -> tuple[str, bool]:
    """Run a recorded step again on the CPU: `replay("runs/first/nonfinite.pt")`.

    Returns:
        What was found, a sentence, and whether it is the module and the kind that the record names.

    Raises:
        RecordError: no such file, or no flight record.
    """
    record = read_record(Path(path))
    config = record["config"]
    model = RetinaNet(num_classes=len(record["classes"]), config=section_from_dict(ModelConfig, config))
    model.load_state_dict(record["weights"])
    freeze_parts(model, section_from_dict(TrainConfig, config))
    model.train().to(memory_format=torch.channels_last)
    parts = zip(record["boxes"], record["labels"], record["crowds"], strict=True)
    batch = Batch(
        images_N3HW=record["images_N3HW"],
        targets=tuple(Target(boxes_G4=b, labels_G=k, crowd_G=c) for b, k, c in parts),
        frames=tuple(Frame(*frame) for frame in record["frames"]),
        indices=tuple(record["indices"]),
    )
    cause = find_cause(model, batch, record, device="cpu")
    found = (cause.module, cause.kind) if cause else ("", "")
    return sentence_of(cause, record), found == (record["module"], record["kind"])


def run(path: Path) -> int:
    """Do what `retinanet replay` does: print both sentences; 0 if they name the same module, else 1."""
    record = read_record(path)
    said, same = replay(path)
    print(f"step {record['step']} of epoch {record['epoch']}, on {record['device']}, retinanet {record['version']}")
    print(f"recorded: {record['said']}\nreplayed: {said}")
    if not same and record["device"] != "cpu":
        print(f"note: it was recorded on {record['device']}, whose rounding and random numbers a CPU does not have")
    return 0 if same else 1
