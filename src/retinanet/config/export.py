"""Options of `retinanet export`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Gt

from retinanet.config.annotations import Flag
from retinanet.config.data import ClassesConfig
from retinanet.config.inference import NmsConfig
from retinanet.config.output import ExistingConfig
from retinanet.config.validation import check_options
from retinanet.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Options of `retinanet export MODEL`."""

    output: Annotated[Path | None, Flag("-o")] = None
    """File to write: .onnx, .xml (OpenVINO, with a .bin file beside it) or .pt2 (torch.export)."""
    format: str | None = None
    """Export format: onnx, openvino or torch. Default: taken from the suffix of `output`."""
    uint8: bool = False
    """Take images as bytes from 0 to 255 instead of floats in [0, 1]. The input is a quarter of the size."""
    input_defaults: bool = True
    """ONNX only: store default values of the thresholds and frames, so that callers may leave out these inputs.
    onnxsim and onnxslim replace inputs that have default values by constants: use `--no-input-defaults` before these
    tools."""
    raw: bool = False
    """Leave out the decoding: the exported model returns logits and box offsets of every anchor, one pair per feature
    level."""
    bf16: bool = False
    """OpenVINO only: compute in bfloat16 if the processor supports it. Faster; scores differ in the third digit."""
    int8: bool = False
    """Quantise the network to int8. Requires `calibrate`."""
    calibrate: Path | None = None
    """Dataset whose images set the value ranges of int8 quantisation; use training data."""
    calibration_images: Annotated[int, Gt(0)] = 100
    """Number of images used for int8 calibration."""
    max_ap_drop: Annotated[float, Ge(0)] = 0.01
    """Largest accepted drop of AP on `data` from the checkpoint to the export. An export with a larger drop is
    refused."""
    compare_images: tuple[str, ...] = ()
    """Images on which the export is compared with the checkpoint: files, folders or globs."""
    data: Path | None = None
    """Dataset on which the export is compared with the checkpoint and the AP of both is measured. Its format is
    recognised. Default: the validation data of the training run."""
    triton: Path | None = None
    """Folder of a model repository for Triton Inference Server. The exported model is written into this repository."""
    nms: NmsConfig = field(default_factory=NmsConfig)
    selection: ClassesConfig = field(default_factory=ClassesConfig)
    existing: ExistingConfig = field(default_factory=ExistingConfig)

    def __post_init__(self) -> None:
        check_options(self)
        if self.int8 and self.calibrate is None:
            raise ConfigError("int8 requires images to calibrate on: give --calibrate DATA")
        if self.int8 and (self.raw or self.bf16):
            raise ConfigError("int8 cannot be combined with raw or bf16: remove one of these options")
        if self.triton is not None and not self.input_defaults:
            raise ConfigError("triton requires input defaults: remove --no-input-defaults")
