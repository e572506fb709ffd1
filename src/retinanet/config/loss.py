"""The classification loss, the box loss and how they are summed."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Interval

from retinanet.config.part_tables import BOX_LOSSES, LOSSES
from retinanet.config.validation import check_options
from retinanet.plugins import check_part


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The two losses and how they are summed."""

    loss: str = "focal"
    """Classification loss: focal; cross-entropy (ce), alpha-balanced (balanced_ce) or with the negatives turned down
    (weighted, as YOLO); of the hardest examples only (hard_negative_mining as SSD, ohem); or towards the IoU of the
    predicted box (quality_focal, varifocal). Or package.module:Class, a loss of your own."""
    alpha: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.75
    """Weight of the positives; the negatives have 1 - alpha. The paper's best on COCO is 0.25."""
    class_alpha: tuple[Annotated[float, Interval(ge=0, le=1)], ...] = ()
    """An alpha for each class, in the order of the class ids, instead of `alpha`."""
    gamma: Annotated[float, Ge(0)] = 2.0
    """How strongly focal loss turns down what is already classified well; 0 gives alpha-balanced cross-entropy."""
    negative_weight: Annotated[float, Ge(0)] = 0.5
    """Weight of the negatives in the loss `weighted`; the positives have 1."""
    negatives_per_positive: Annotated[float, Gt(0)] = 3.0
    """How many negatives hard example mining keeps for each positive of an image."""
    ohem_examples: Annotated[int, Gt(0)] = 512
    """How many anchors of an image the loss `ohem` keeps at the most."""
    ohem_nms: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.7
    """Of two anchors that overlap by more than this IoU, `ohem` considers the one with the higher loss."""
    ohem_balanced: bool = False
    """Let `ohem` keep no more than `negatives_per_positive` negatives for each positive."""
    label_smoothing: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """What is taken off the target 1 of the positives; the background's target stays 0."""
    box_loss: str = "smooth_l1"
    """Box loss: on the offsets (smooth_l1, l1) or on the boxes themselves (giou). Or package.module:Class, a box loss
    of your own."""
    smooth_l1_beta: Annotated[float, Gt(0)] = 1 / 9
    """Where smooth L1 turns from square to straight."""
    box_loss_weight: Annotated[float, Ge(0)] = 1.0
    """Weight of the box loss in the sum."""
    normaliser: Literal["batch", "image"] = "batch"
    """Divide by the positives of the whole batch on all ranks, or of each image on its own (torchvision's way)."""

    def __post_init__(self) -> None:
        check_options(self)
        check_part("loss", self.loss, LOSSES)
        check_part("box_loss", self.box_loss, BOX_LOSSES)
