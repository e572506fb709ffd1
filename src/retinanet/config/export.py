"""Options of `retinanet export`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt

from retinanet.config.annotations import Flag
from retinanet.config.data import ClassesConfig
from retinanet.config.output import ExistingConfig
from retinanet.config.validation import check_options
from retinanet.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What `retinanet export MODEL` can be told."""

    output: Annotated[Path | None, Flag("-o")] = None
    """File to write: .onnx, .xml (OpenVINO, with a .bin beside it) or .pt2 (torch.export)."""
    format: str | None = None
    """onnx, openvino or torch; by the file's name unless given."""
    uint8: bool = False
    """Take images as bytes, 0 to 255, rather than as float in [0, 1]: a quarter of the input."""
    raw: bool = False
    """Leave out the decoding: logits and offsets of every anchor, level by level."""
    bf16: bool = False
    """OpenVINO: compute in bfloat16 where the processor can; faster, with scores that differ in the third digit."""
    int8: bool = False
    """Quantise the network to int8; needs `calibrate`."""
    calibrate: Path | None = None
    """Data on whose images the ranges for int8 are measured: training data."""
    calibration_images: Annotated[int, Gt(0)] = 100
    """Number of images used for int8 calibration."""
    max_ap_drop: Annotated[float, Ge(0)] = 0.01
    """Refuse an export whose AP on `data` is lower than the checkpoint's by more than this."""
    compare_images: tuple[str, ...] = ()
    """Images on which export and checkpoint are compared: files, folders, globs."""
    data: Path | None = None
    """Data on which they are compared, and the AP of both is measured; the training run's validation data unless
    given. Its format is recognised."""
    triton: Path | None = None
    """Folder of a model repository for Triton Inference Server, in which the model gets its place."""
    selection: ClassesConfig = field(default_factory=ClassesConfig)
    existing: ExistingConfig = field(default_factory=ExistingConfig)

    def __post_init__(self) -> None:
        check_options(self)
        if self.int8 and self.calibrate is None:
            raise ConfigError("int8 measures the ranges of the activations on real images: give --calibrate DATA")
        if self.int8 and (self.raw or self.bf16):
            raise ConfigError("int8 goes with neither raw nor bf16")
