"""Options of `retinanet export`."""

from dataclasses import dataclass
from pathlib import Path

from retinanet.config.data import ClassesConfig
from retinanet.config.validation import check_positive
from retinanet.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ExportConfig(ClassesConfig):
    """What `retinanet export MODEL` can be told."""

    output: Path | None = None
    """File to write: .onnx, .xml (OpenVINO, with a .bin beside it) or .pt2 (torch.export)."""
    format: str | None = None
    """onnx, openvino or torch; by the file's name unless given."""
    uint8: bool = False
    """Take pictures as bytes, 0 to 255, rather than as float in [0, 1]: a quarter of the input."""
    raw: bool = False
    """Leave out the decoding: logits and offsets of every anchor, level by level."""
    bf16: bool = False
    """OpenVINO: compute in bfloat16 where the processor can; faster, with scores that differ in the third digit."""
    int8: bool = False
    """Quantise the network to int8; needs `calibrate`."""
    calibrate: Path | None = None
    """Data on whose pictures the ranges for int8 are measured: training data."""
    calibration_pictures: int = 100
    """How many of them."""
    max_ap_drop: float = 0.01
    """Refuse an export whose AP on `data` is lower than the checkpoint's by more than this."""
    pictures: tuple[str, ...] = ()
    """Pictures on which export and checkpoint are compared: files, folders, globs."""
    data: Path | None = None
    """Data on which they are compared, and the AP of both is measured; the training run's validation data unless
    given. Its format is recognised."""
    triton: Path | None = None
    """Folder of a model repository for Triton Inference Server, in which the model gets its place."""
    overwrite: bool = False
    """Replace a file that is there."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "calibration_pictures")
        if self.int8 and self.calibrate is None:
            raise ConfigError("int8 measures the ranges of the activations on real pictures: give --calibrate DATA")
        if self.int8 and (self.raw or self.bf16):
            raise ConfigError("int8 goes with neither raw nor bf16")
        if not self.max_ap_drop >= 0:
            raise ConfigError(f"max_ap_drop must be 0 or more, found {self.max_ap_drop}")
