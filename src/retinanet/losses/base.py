"""Base classes of the classification and the box losses, and functions that build the losses that a config names.

To add a loss, write a subclass in any importable module and pass `--loss package.module:Class` or
`--box-loss package.module:Class`. The constructor of the class receives an option of `LossConfig` if it declares a
keyword parameter of the option's name, for example `gamma`. Every other parameter needs a default.

Shape suffixes: N batch, A anchors, K classes, P positive anchors of the batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal

from retinanet.config import BOX_LOSSES, LOSSES
from retinanet.plugins import find_class, make_part

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from retinanet.config import LossConfig
    from retinanet.ops.box_loss import BoxTerms
    from retinanet.ops.focal_terms import FocalTerms
    from retinanet.types import AnchorTargets, HeadOutputs


class ClassificationLoss(ABC):
    """Base class of the classification losses. A subclass must define `__call__`; everything else has a default.

    The network scores each anchor for each class with one logit. An example is one (anchor, class) pair. Its target
    is above 0 if the anchor is positive and the class is that of its matched object; otherwise the target is 0.
    `DetectionLoss` calls the loss on all examples of a batch, sums the results and normalises the sum.
    """

    label: ClassVar[str] = ""
    """Name of the loss in reports. The default is the name of the class."""
    target: ClassVar[Literal["one", "iou"]] = "one"
    """Target of a positive example: "one" is 1; "iou" is the IoU of the predicted box with the ground-truth box."""
    mines: ClassVar[bool] = False
    """Whether the loss selects anchors by hard example mining: `keep` then drops more than the ignored anchors."""
    depends_on_batch: ClassVar[bool] = False
    """Whether the loss of an example depends on the other examples of the batch, also in the first step."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "label" not in cls.__dict__:
            cls.label = cls.__name__
        if "__call__" in cls.__dict__ and "fused_terms" not in cls.__dict__:
            # An inherited fused_terms would make the kernels compute the parent's loss instead of this __call__.
            cls.fused_terms = ClassificationLoss.fused_terms  # type: ignore[method-assign]

    @abstractmethod
    def __call__(self, logits: Tensor, targets: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the loss of each example: float32, in the shape of the logits, without any sum or mean.

        Args:
            logits: class scores before the sigmoid, any shape and float type.
            targets: numbers in [0, 1] in the shape of the logits, or a scalar for all of them; 0 is background.
            classes: int64 class id of each logit. None: the last dimension of `logits` runs over the classes.
        """

    @property
    def focusing(self) -> float:
        """Return gamma if the loss is a multiple of (1 - p_t)^gamma times cross-entropy, else 0.

        Training uses this number to log which share of the loss the hardest negatives cause.
        """
        return 0.0

    def settings(self) -> tuple[str, ...]:
        """Return the settings that distinguish two training runs with this loss, as text for labels: "gamma 2"."""
        values = {name: getattr(self, name, None) for name in ("gamma", "alpha")}
        return tuple(f"{name} {value:g}" for name, value in values.items() if isinstance(value, int | float))

    def keep(self, loss_NA: Tensor, outputs: HeadOutputs, targets: AnchorTargets) -> Tensor:
        """Return keep_NA, bool: the anchors whose loss enters the sum. The default keeps all but the ignored anchors.

        `DetectionLoss` calls this method only if `mines` is true.

        Args:
            loss_NA: loss of each anchor, summed over the classes, without gradient.
            outputs: outputs of the network.
            targets: targets of the anchors.
        """
        return ~targets.ignored_NA

    @cached_property
    def state(self) -> dict[str, Tensor]:
        """Tensors that `update` stores, by name. Checkpoints store them, too. Empty before the first step."""
        return {}

    def update(  # noqa: B027 - most losses have no state
        self,
        parts: Sequence[tuple[HeadOutputs, AnchorTargets]],
        *,
        target: float,
        sum_over_ranks: Callable[[Tensor], Tensor],
    ) -> None:
        """Change `state` before the loss of a training step. The default has no state and does nothing.

        `DetectionLoss` calls this method once for each batch, and not while gradients are disabled, as in evaluations.
        A tensor of `state` must be replaced, not changed in place, because a skipped step restores the
        earlier tensors.

        Args:
            parts: outputs of the network and targets of the anchors of each part of the batch.
            target: target of a positive example: 1 minus the label smoothing.
            sum_over_ranks: function that returns the sum of a tensor over all ranks. All ranks must call it.
        """

    def fused_terms(self, logits_NAK: Tensor, target: float) -> FocalTerms | None:
        """Return the parameters with which the fused focal-loss kernels compute this loss; None if they cannot.

        Args:
            logits_NAK: logits whose class count and device the parameters must match.
            target: target of a positive example: 1 minus the label smoothing.
        """
        return None


class BoxLoss(ABC):
    """Base class of the box losses. A subclass must define `__call__`; everything else has a default."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "__call__" in cls.__dict__ and "fused_terms" not in cls.__dict__:
            # An inherited fused_terms would make the kernel compute the parent's loss instead of this __call__.
            cls.fused_terms = BoxLoss.fused_terms  # type: ignore[method-assign]

    @abstractmethod
    def __call__(self, deltas_P4: Tensor, boxes_P4: Tensor, anchors_P4: Tensor) -> Tensor:
        """Return the loss of each positive anchor, float32, shape (P,).

        Args:
            deltas_P4: predicted offsets (dx, dy, dw, dh) from the anchor to the box; see `boxes.encode`.
            boxes_P4: matched ground-truth boxes, xyxy, input pixels.
            anchors_P4: anchors, xyxy, input pixels.
        """

    def fused_terms(self) -> BoxTerms | None:
        """Return the parameters with which the fused kernel computes this loss; None if it cannot."""
        return None


def loss_class(name: str) -> type[ClassificationLoss]:
    """Return the class of a classification loss.

    Args:
        name: name in the table `config.part_tables.LOSSES`, or `package.module:Class`.

    Raises:
        ConfigError: the name does not exist, or the class is not a `ClassificationLoss`.
    """
    found: type[ClassificationLoss] = find_class("loss", name, LOSSES, ClassificationLoss)
    return found


def make_classification_loss(config: LossConfig) -> ClassificationLoss:
    """Build the classification loss that a config names, with the config's options.

    Raises:
        ConfigError: the name does not exist, or the class does not fit.
    """
    loss: ClassificationLoss = make_part("loss", loss_class(config.loss), config)
    return loss


def make_box_loss(config: LossConfig) -> BoxLoss:
    """Build the box loss that a config names, with the config's options.

    Raises:
        ConfigError: the name does not exist, or the class does not fit.
    """
    loss: BoxLoss = make_part("box_loss", find_class("box_loss", config.box_loss, BOX_LOSSES, BoxLoss), config)
    return loss
