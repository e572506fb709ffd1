"""Where a training step first becomes NaN or infinite.

Shape suffixes: N batch, A anchors, K classes, G objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from retinanet.config import LossConfig, MatchConfig, section_from_dict
from retinanet.data import Batch
from retinanet.errors import list_names
from retinanet.losses import DetectionLoss
from retinanet.matching import Assigner, make_assigner
from retinanet.model import RetinaNet
from retinanet.train.precision import autocast
from retinanet.train.random_state import restore_randomness, state_of_randomness
from retinanet.types import HeadOutputs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from retinanet.losses import DetectionLosses


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """Where a step first went wrong.

    Args:
        kind: input, weight, output, loss or gradient.
        module: the first module, in the order of the computation, or "loss".
        said: what is not finite there, a clause.
        images: places in the batch of the images at fault; empty where no image alone is.
    """

    kind: str
    module: str
    said: str
    images: tuple[int, ...]


def health(losses: DetectionLosses, outputs: HeadOutputs) -> Tensor:
    """Return a number that is finite if the loss and all outputs are: one pass over the outputs, no waiting."""
    with torch.no_grad():
        return losses.total + outputs.logits_NAK.sum(dtype=torch.float32) + outputs.deltas_NA4.sum(dtype=torch.float32)


def sentence_of(cause: Cause | None, record: dict[str, Any]) -> str:
    """Return the cause as a sentence with module and image."""
    files = record["files"]
    if cause is None:
        return "run again, the same step is finite."
    if not cause.images:
        where = "in no image alone"
    elif len(cause.images) == len(files) and len(files) > 1:
        where = f"in all {len(files)} images, first in {files[cause.images[0]]}"
    else:
        where = "in " + list_names([files[n] for n in cause.images])
    return f"the first that is not finite is {cause.said}, {where}."


def find_cause(model: RetinaNet, batch: Batch, record: dict[str, Any], *, device: torch.device | str) -> Cause | None:
    """Run a step again and return where it first is not finite; None where all is.

    Forward first: each module's output in the order of the computation. Then the loss of each image. Then the
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
    images = _bad_rows(batch.images_N3HW)
    if images:
        return Cause(kind="input", module="input", said="the input: pixels", images=images)
    for name, value in model.named_parameters():
        if not torch.isfinite(value).all():
            count = int((~torch.isfinite(value)).sum())
            said = f"the weight {name} ({count:,} of {value.numel():,} values): an earlier step made it so"
            everyone = tuple(range(len(batch)))
            return Cause(kind="weight", module=name.rpartition(".")[0], said=said, images=everyone)
    return None


def _forward_backward(model: RetinaNet, batch: Batch, config: dict[str, Any], device: str) -> Cause | None:
    loss = DetectionLoss(config=section_from_dict(LossConfig, config), distributed=False)
    assign = make_assigner(section_from_dict(MatchConfig, config))
    for parameter in model.parameters():
        parameter.grad = None
    with _Watch(model, len(batch)) as watch:
        with autocast(config["precision"], device):
            outputs = model(batch.images_N3HW.to(memory_format=torch.channels_last))
        if watch.found is not None:
            return watch.found
        targets = assign(outputs.anchors_A4, batch.targets, anchors_per_level=outputs.anchors_per_level)
        losses = loss(outputs, targets)
        if not torch.isfinite(losses.total):
            return _bad_loss(loss, outputs, batch, assign, losses)
        outputs.logits_NAK.register_hook(watch.gradient("loss", "the gradient of the loss at the class scores"))
        outputs.deltas_NA4.register_hook(watch.gradient("loss", "the gradient of the loss at the box offsets"))
        torch.autograd.backward(losses.total)
        return watch.found


def _bad_loss(
    loss: DetectionLoss, outputs: HeadOutputs, batch: Batch, assign: Assigner, losses: DetectionLosses
) -> Cause:
    """Return which of the two losses it is, and the images whose own loss is not finite."""
    images = []
    for n, target in enumerate(batch.targets):
        one = HeadOutputs(
            logits_NAK=outputs.logits_NAK[n : n + 1],
            deltas_NA4=outputs.deltas_NA4[n : n + 1],
            anchors_A4=outputs.anchors_A4,
            anchors_per_level=outputs.anchors_per_level,
        )
        targets = assign(one.anchors_A4, [target], anchors_per_level=one.anchors_per_level)
        if not torch.isfinite(loss(one, targets).total):
            images.append(n)
    names = {"classification": losses.classification, "box": losses.box}
    bad = [name for name, value in names.items() if not torch.isfinite(value)] or ["summed"]
    values = ", ".join(f"{name} {float(value.detach()):g}" for name, value in names.items())
    return Cause(kind="loss", module="loss", said=f"the {' and the '.join(bad)} loss ({values})", images=tuple(images))


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
                images = _bad_rows(output) if len(output) == self.batch_size else ()
                self.found = Cause(kind="output", module=name, said=said, images=images)
            elif output.requires_grad:
                hook = self.gradient(name, f"the gradient at the output of {name}")
                output.register_hook(hook)  # type: ignore[no-untyped-call]

        return look

    def gradient(self, name: str, said: str) -> Any:
        """Return a hook that looks at a gradient of a tensor whose first dimension is the images."""

        def look(gradient: Tensor) -> None:
            if self.found is None and not torch.isfinite(gradient).all():
                images = _bad_rows(gradient) if len(gradient) == self.batch_size else ()
                self.found = Cause(kind="gradient", module=name, said=said, images=images)

        return look

    def _weight(self, name: str, said: str) -> Any:
        def look(parameter: Tensor) -> None:
            if self.found is None and parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                self.found = Cause(kind="gradient", module=name, said=said, images=())

        return look


def _bad_rows(values: Tensor) -> tuple[int, ...]:
    return tuple(torch.nonzero(~torch.isfinite(values).flatten(1).all(dim=1)).flatten().tolist())
