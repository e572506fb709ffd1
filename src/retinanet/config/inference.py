"""How a trained model is applied to images."""

from dataclasses import dataclass
from typing import Literal

from retinanet.config.validation import check_options

Precision = Literal["32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """How a trained model is applied to images."""

    tta: bool = False
    """Test-time augmentation: look at each image flipped and at 0.8 and 1.25 times its size too."""
    precision: Precision = "32"
    """Number format of the network: 32, or bf16 (bfloat16), which takes half the time where the processor has it."""

    def __post_init__(self) -> None:
        check_options(self)
