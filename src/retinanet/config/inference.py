"""How a trained model is applied to images."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Interval

from retinanet.config.validation import check_options

Precision = Literal["32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class NmsConfig:
    """Non-maximum suppression (NMS) of a trained model."""

    PANEL: ClassVar = "Model"

    nms_threshold: Annotated[float, Interval(ge=0.0, le=1.0)] | None = None
    """IoU threshold of NMS: of two boxes of a class that overlap more, the box with the lower score is dropped.
    Default: the threshold of the model."""
    agnostic_nms: bool | None = None
    """Class-agnostic NMS: a box suppresses overlapping boxes of every class, not of its own class only. Default: the
    setting of the model, which is off unless training or export set it. An exported model contains one setting and
    refuses the other."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How a trained model is applied to images."""

    PANEL: ClassVar = "Model"

    tta: bool = False
    """Test-time augmentation: also predict on the flipped image and at 0.8 and 1.25 times its size, and merge the
    detections. Takes about six times as long."""
    precision: Precision = "32"
    """Number format of the network in prediction: 32 (float32) or bf16 (bfloat16). bfloat16 takes about half the time
    on processors that support it."""
    compile: bool = False
    """On a GPU: compile the network of a checkpoint with torch.compile, and record it as a CUDA graph for each input
    size. The first image of each size takes some seconds to a minute."""

    def __post_init__(self) -> None:
        check_options(self)
