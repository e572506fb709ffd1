"""The classification loss, the box loss and how they are summed."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Interval

from retinanet.config.annotations import MostUsed
from retinanet.config.part_tables import BOX_LOSSES, LOSSES
from retinanet.config.validation import check_options
from retinanet.plugins import check_part


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The classification loss, the box loss and their sum."""

    PANEL: ClassVar = "Loss"

    loss: Annotated[str, MostUsed()] = "focal"
    """Classification loss. Focal loss: focal. Cross-entropy: ce, balanced_ce with alpha, weighted as in YOLO. Hard
    example mining: hard_negative_mining as in SSD, ohem. IoU-aware: quality_focal, varifocal. Balanced by gradients:
    eql_v2 per class, ghm_c per difficulty. No measurement supports a gain of eql_v2 or ghm_c yet. Your own loss:
    package.module:Class."""
    alpha: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.75
    """Weight of positive examples in the classification loss; negative examples have the weight 1 - alpha. The paper
    uses 0.25 on COCO."""
    class_alpha: tuple[Annotated[float, Interval(ge=0, le=1)], ...] = ()
    """One alpha per class, in the order of the class ids, instead of `alpha`."""
    gamma: Annotated[float, Ge(0)] = 2.0
    """Focusing parameter of focal loss: a larger gamma gives easy examples less weight. 0 gives alpha-balanced
    cross-entropy."""
    negative_weight: Annotated[float, Ge(0)] = 0.5
    """Weight of negative examples in the loss `weighted`; positive examples have the weight 1."""
    negatives_per_positive: Annotated[float, Gt(0)] = 3.0
    """Number of negative anchors that hard negative mining keeps per positive anchor of an image."""
    ohem_examples: Annotated[int, Gt(0)] = 512
    """Greatest number of anchors per image that the loss `ohem` keeps."""
    ohem_nms: Annotated[float, Interval(ge=0.0, le=1.0)] = 0.7
    """IoU threshold of the loss `ohem`: of two anchors that overlap more, only the anchor with the higher loss is
    considered."""
    ohem_balanced: bool = False
    """Limit the negative anchors in the loss `ohem` to `negatives_per_positive` per positive anchor."""
    eql_alpha: Annotated[float, Ge(0)] = 4.0
    """Largest addition to the weight 1 of positive examples in the loss `eql_v2`."""
    eql_gamma: Annotated[float, Gt(0)] = 12.0
    """Steepness with which the weights of the loss `eql_v2` follow the ratio of positive to negative gradients of a
    class."""
    eql_mu: Annotated[float, Ge(0)] = 0.8
    """Ratio of positive to negative gradients of a class at which the loss `eql_v2` gives negative examples the weight
    0.5."""
    ghm_bins: Annotated[int, Gt(0)] = 10
    """Number of intervals of the gradient norm in which the loss `ghm_c` counts examples."""
    ghm_momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.75
    """Weight of the earlier steps in the counts of the loss `ghm_c`. 0 uses the counts of the step alone."""
    label_smoothing: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Amount subtracted from the target 1 of positive examples. The target of negative examples stays 0."""
    box_loss: str = "smooth_l1"
    """Box loss: smooth_l1 or l1 on the box offsets, or giou on the boxes. Or your own, as package.module:Class."""
    smooth_l1_beta: Annotated[float, Gt(0)] = 1 / 9
    """Difference of offsets at which smooth L1 changes from quadratic to linear."""
    box_loss_weight: Annotated[float, Ge(0)] = 1.0
    """Weight of the box loss in the total loss."""
    normaliser: Literal["batch", "image"] = "batch"
    """Number that divides the losses: the positive anchors of the whole batch on all ranks (batch), or of each image
    (image, as in torchvision)."""

    def __post_init__(self) -> None:
        check_options(self)
        check_part("loss", self.loss, LOSSES)
        check_part("box_loss", self.box_loss, BOX_LOSSES)
