"""What a classification loss and a box loss are: the base classes, and how a config's names become objects.

A loss of your own is a subclass in any importable module, named by `--loss package.module:Class` or
`--box-loss package.module:Class`. Its constructor takes an option of `LossConfig` by declaring a keyword parameter of
the option's name, for example `gamma`; every other parameter needs a default.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from retinanet.config import BOX_LOSSES, LOSSES
from retinanet.plugins import find_class, make_part

if TYPE_CHECKING:
    from torch import Tensor

    from retinanet.config import LossConfig
    from retinanet.ops.focal_terms import FocalTerms
    from retinanet.types import AnchorTargets, HeadOutputs


class ClassificationLoss(ABC):
    """Base class of the classification losses. A subclass has to define `__call__` only."""

    label: ClassVar[str] = ""
    """Name in reports; the name of the class unless given."""
    target: ClassVar[Literal["one", "iou"]] = "one"
    """Target of a positive anchor for its own class: 1, or the IoU of the predicted box with its object."""
    mines: ClassVar[bool] = False
    """Whether `keep` leaves out anchors besides the ignored ones."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "label" not in cls.__dict__:
            cls.label = cls.__name__
        if "__call__" in cls.__dict__ and "fused_terms" not in cls.__dict__:
            # The kernels would compute the loss of the parent class instead.
            cls.fused_terms = ClassificationLoss.fused_terms  # type: ignore[method-assign]

    @abstractmethod
    def __call__(self, logits: Tensor, targets: Tensor, classes: Tensor | None = None) -> Tensor:
        """Return the loss of each logit, float32, in the shape of the logits.

        Args:
            logits: of any shape and dtype.
            targets: in [0, 1], a shape that broadcasts to the logits; 0 for the background.
            classes: class id of each logit, int64; None: the last dimension of `logits` is the classes.
        """

    @property
    def focusing(self) -> float:
        """gamma, if the loss is cross-entropy times (1 - p_t)^gamma; else 0."""
        return 0.0

    def settings(self) -> tuple[str, ...]:
        """Return the settings that tell two runs of this loss apart, as text for labels."""
        values = {name: getattr(self, name, None) for name in ("gamma", "alpha")}
        return tuple(f"{name} {value:g}" for name, value in values.items() if isinstance(value, int | float))

    def keep(self, loss_NA: Tensor, outputs: HeadOutputs, targets: AnchorTargets) -> Tensor:
        """Return keep_NA, bool: the anchors whose loss counts. All but the ignored ones, unless `mines`.

        Args:
            loss_NA: of every anchor, summed over the classes, without gradient.
            outputs: of the network.
            targets: of the anchors.
        """
        return ~targets.ignored_NA

    def fused_terms(self, logits_NAK: Tensor, target: float) -> FocalTerms | None:
        """Return the loss as the fused focal kernels take it; None if they cannot compute it.

        Args:
            logits_NAK: gives the number of classes and the device.
            target: of a positive anchor for its own class, 1 less the label smoothing.
        """
        return None


class BoxLoss(ABC):
    """Base class of the box losses. A subclass has to define `__call__` only."""

    @abstractmethod
    def __call__(self, deltas_P4: Tensor, boxes_P4: Tensor, anchors_P4: Tensor) -> Tensor:
        """Return the loss of each positive anchor, float32, shape (P,).

        Args:
            deltas_P4: predicted offsets, see `boxes.encode`.
            boxes_P4: matched ground truth, xyxy, input pixels.
            anchors_P4: xyxy, input pixels.
        """


def loss_class(name: str) -> type[ClassificationLoss]:
    """Return the class of a classification loss, by its name in the table or `package.module:Class`.

    Raises:
        ConfigError: no such name, or a class that is no `ClassificationLoss`.
    """
    found: type[ClassificationLoss] = find_class("loss", name, LOSSES, ClassificationLoss)
    return found


def make_classification_loss(config: LossConfig) -> ClassificationLoss:
    """Return the classification loss that a config names, with its options. Raises `ConfigError`."""
    loss: ClassificationLoss = make_part("loss", loss_class(config.loss), config)
    return loss


def make_box_loss(config: LossConfig) -> BoxLoss:
    """Return the box loss that a config names, with its options. Raises `ConfigError`."""
    loss: BoxLoss = make_part("box_loss", find_class("box_loss", config.box_loss, BOX_LOSSES, BoxLoss), config)
    return loss
