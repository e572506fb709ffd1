"""Search for the first NaN or infinite value of a training step.

Shape suffixes: N batch, A anchors, K classes, H, W."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from retinanet.analysis.model_outputs import DenseBatch, run_by_shape, split_for
from retinanet.config import ImageConfig, LossConfig, MatchConfig, section_from_dict
from retinanet.data import Batch
from retinanet.errors import list_names
from retinanet.losses import DetectionLoss
from retinanet.matching import Assigner, make_assigner
from retinanet.model import RetinaNet
from retinanet.train.precision import autocast
from retinanet.train.random_state import get_random_state, set_random_state
from retinanet.types import HeadOutputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from retinanet.losses import DetectionLosses


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """First NaN or infinite values of a training step.

    Args:
        kind: input, weight, output, loss or gradient.
        module: name of the first module with such a value, in the order of the computation; "input" or "loss" if the
            value is not in a module.
        description: noun phrase that names the tensor with such a value.
        images: batch indices of the images with such a value; empty if the value belongs to no single image.
    """

    kind: str
    module: str
    description: str
    images: tuple[int, ...]


def finite_check(losses: DetectionLosses, parts: Sequence[HeadOutputs]) -> Tensor:
    """Return whether the loss and all outputs are finite: a bool scalar on their device, not copied to the CPU.

    The smallest and the largest value of a tensor are finite only if all its values are. A sum could overflow.
    """
    with torch.no_grad():
        values = [losses.total]
        for outputs in parts:
            values += [*torch.aminmax(outputs.logits_NAK), *torch.aminmax(outputs.deltas_NA4)]
        return torch.isfinite(torch.stack([value.float() for value in values])).all()


def describe_cause(cause: Cause | None, record: dict[str, Any]) -> str:
    """Return a sentence that names the first NaN or infinite values and their image files."""
    files = record["files"]
    if cause is None:
        return "All values are finite when the step is run again."
    if not cause.images:
        where = "not in a single image"
    elif len(cause.images) == len(files) and len(files) > 1:
        where = f"in all {len(files)} images, first in {files[cause.images[0]]}"
    else:
        where = "in " + list_names([files[n] for n in cause.images])
    return f"First NaN or infinite values: {cause.description}, {where}."


def find_cause(model: RetinaNet, batch: Batch, record: dict[str, Any], *, device: torch.device | str) -> Cause | None:
    """Run a training step again and return its first NaN or infinite values; None if all values are finite.

    The search goes through the input pixels and the weights, then the outputs of the modules in the order of the
    computation, then the loss of each image, then the gradients from the loss backwards. The gradients of the weights
    and the random states are restored afterwards.

    Args:
        model: network in training mode.
        batch: batch of the step, on the device of the network.
        record: flight record, or its part with "config", "files" and "randomness", and "loss_state" if there is one.
        device: device of the network.
    """
    cause = _check_input_and_weights(model, batch)
    if cause is not None:
        return cause
    random_state, gradients = get_random_state(), [p.grad for p in model.parameters()]
    try:
        set_random_state(record["randomness"])
        return _forward_backward(model, batch, record, str(torch.device(device).type))
    finally:
        set_random_state(random_state)
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient


def _check_input_and_weights(model: nn.Module, batch: Batch) -> Cause | None:
    """Return NaN or infinite pixels or weights. A NaN or infinite box needs no check, because it matches no anchor."""
    images = _bad_images(batch.images_N3HW, range(len(batch)))
    if images:
        return Cause(kind="input", module="input", description="the input pixels", images=images)
    for name, value in model.named_parameters():
        if not torch.isfinite(value).all():
            count = int((~torch.isfinite(value)).sum())
            description = f"the weight {name} ({count:,} of {value.numel():,} values) after an earlier step"
            all_images = tuple(range(len(batch)))
            return Cause(kind="weight", module=name.rpartition(".")[0], description=description, images=all_images)
    return None


def _forward_backward(model: RetinaNet, batch: Batch, record: dict[str, Any], device: str) -> Cause | None:
    config = record["config"]
    loss = DetectionLoss(config=section_from_dict(LossConfig, config), distributed=False)
    loss.load_state_dict(record.get("loss_state", {}))
    assigner = make_assigner(section_from_dict(MatchConfig, config))
    for parameter in model.parameters():
        parameter.grad = None
    divisor = section_from_dict(ImageConfig, config).size_divisor
    with _NonFiniteHooks(model) as hooks:
        parts: list[DenseBatch] = []
        for part in split_for(model, batch, divisor=divisor):
            hooks.images = tuple(batch.indices.index(i) for i in part.indices)
            with autocast(config["precision"], device):
                parts += run_by_shape(model, part, assigner, divisor=divisor)
            if hooks.cause is not None:
                return hooks.cause
            for name, values in (
                ("logits", parts[-1].outputs.logits_NAK),
                ("box offsets", parts[-1].outputs.deltas_NA4),
            ):
                description = f"the gradient of the loss with respect to {name}"
                values.register_hook(hooks.gradient_hook("loss", description))  # type: ignore[no-untyped-call]
        losses = loss.over_parts([(part.outputs, part.targets) for part in parts])
        if not torch.isfinite(losses.total):
            return _describe_loss(loss, parts, batch, assigner, losses)
        torch.autograd.backward(losses.total)
        return hooks.cause


def _describe_loss(
    loss: DetectionLoss, parts: Sequence[DenseBatch], batch: Batch, assigner: Assigner, losses: DetectionLosses
) -> Cause:
    """Return which of the two losses is NaN or infinite, and the images whose own loss is NaN or infinite."""
    images = []
    for part, n in [(each, n) for each in parts for n in range(len(each.batch))]:
        image_outputs = HeadOutputs(
            logits_NAK=part.outputs.logits_NAK[n : n + 1],
            deltas_NA4=part.outputs.deltas_NA4[n : n + 1],
            anchors_A4=part.outputs.anchors_A4,
            anchors_per_level=part.outputs.anchors_per_level,
        )
        targets = assigner.assign(image_outputs, part.batch.targets[n : n + 1])
        if not torch.isfinite(loss(image_outputs, targets).total):
            images.append(batch.indices.index(part.batch.indices[n]))
    names = {"classification": losses.classification, "box": losses.box}
    bad = [name for name, value in names.items() if not torch.isfinite(value)] or ["summed"]
    values = ", ".join(f"{name} {float(value.detach()):g}" for name, value in names.items())
    description = f"the {' and the '.join(bad)} loss ({values})"
    return Cause(kind="loss", module="loss", description=description, images=tuple(sorted(images)))


class _NonFiniteHooks:
    """Hooks on every module that store the first NaN or infinite output, or else gradient, as `cause`."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.images: tuple[int, ...] = ()
        """Batch indices of the images that the network is processing."""
        self.cause: Cause | None = None
        self._handles: list[Any] = []

    def __enter__(self) -> _NonFiniteHooks:
        for name, module in self.model.named_modules():
            if not any(True for _ in module.children()):
                self._handles.append(module.register_forward_hook(self._output_hook(name)))
                for part, parameter in module.named_parameters(recurse=False):
                    if parameter.requires_grad:
                        hook = self._weight_hook(name, f"the gradient of {name}.{part}")
                        self._handles.append(parameter.register_post_accumulate_grad_hook(hook))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _output_hook(self, name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if self.cause is not None or not isinstance(output, torch.Tensor):
                return
            if not torch.isfinite(output).all():
                count = int((~torch.isfinite(output)).sum())
                description = f"the output of {name} ({count:,} of {output.numel():,} values)"
                images = _bad_images(output, self.images)
                self.cause = Cause(kind="output", module=name, description=description, images=images)
            elif output.requires_grad:
                gradient_hook = self.gradient_hook(name, f"the gradient with respect to the output of {name}")
                output.register_hook(gradient_hook)  # type: ignore[no-untyped-call]

        return hook

    def gradient_hook(self, name: str, description: str) -> Any:
        """Return a hook that checks the gradient of a tensor whose first dimension is the batch."""

        processed = self.images

        def hook(gradient: Tensor) -> None:
            if self.cause is None and not torch.isfinite(gradient).all():
                images = _bad_images(gradient, processed)
                self.cause = Cause(kind="gradient", module=name, description=description, images=images)

        return hook

    def _weight_hook(self, name: str, description: str) -> Any:
        def hook(parameter: Tensor) -> None:
            if self.cause is None and parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                self.cause = Cause(kind="gradient", module=name, description=description, images=())

        return hook


def _bad_images(values: Tensor, images: Sequence[int]) -> tuple[int, ...]:
    """Return which of the images have NaN or infinite values; none if the first dimension does not hold the images."""
    if len(values) != len(images):
        return ()
    return tuple(images[n] for n in torch.nonzero(~torch.isfinite(values).flatten(1).all(dim=1)).flatten().tolist())
