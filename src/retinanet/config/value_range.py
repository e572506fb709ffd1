"""How 16-bit images become images of 8 bits."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval

from retinanet.config.annotations import Word
from retinanet.config.validation import check_options
from retinanet.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ValueRangeConfig:
    """How 16-bit images become images of 8 bits."""

    PANEL: ClassVar = "Data"

    bit_depth: Annotated[int, Interval(ge=0, le=16), Word("auto", 0)] = 0
    """Number of bits that 16-bit images use, 8 to 16: the value 2^bit_depth - 1 is white, and larger values are white
    too. Images of 8 bits do not change. In training and `check`, auto (0) is the smallest of 8, 10, 12, 14 and 16 bits
    that holds the largest value of all 16-bit images; training writes the number into config.yaml and the checkpoint.
    In prediction, auto is the number of the model's training."""

    def __post_init__(self) -> None:
        check_options(self)
        if 0 < self.bit_depth < 8:
            raise ConfigError(f"bit_depth must be auto or 8 to 16, found {self.bit_depth}")
