"""Load a detector from a checkpoint or an exported model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from retinanet.config import InferenceConfig, NmsConfig, Precision, with_options
from retinanet.errors import ConfigError, explain_missing
from retinanet.files import existing_path
from retinanet.predict.detector import BaseDetector
from retinanet.predict.torch_detector import Detector

if TYPE_CHECKING:
    import torch

    from retinanet.config import DeviceConfig, ValueRangeConfig


EXPORTED: Final = frozenset((".onnx", ".xml"))
"""Suffixes of exported models that run without torch."""


class ModelOptions(Protocol):
    """Config of a command that runs a model."""

    @property
    def hardware(self) -> DeviceConfig: ...  # noqa: D102
    @property
    def inference(self) -> InferenceConfig: ...  # noqa: D102
    @property
    def value_range(self) -> ValueRangeConfig: ...  # noqa: D102
    @property
    def nms(self) -> NmsConfig: ...  # noqa: D102


def load_with_options(path: str | Path, config: ModelOptions) -> BaseDetector:
    """Return the detector of a model file with the options of a command: see `load`."""
    return load(
        path,
        config.hardware.device,
        config.inference.precision,
        bit_depth=config.value_range.bit_depth,
        agnostic_nms=config.nms.agnostic_nms,
        nms_threshold=config.nms.nms_threshold,
        compile=config.inference.compile,
    )


def load(
    path: str | Path,
    device: str | torch.device = "auto",
    precision: Precision = InferenceConfig.precision,
    *,
    threads: int = 0,
    bit_depth: int = 0,
    agnostic_nms: bool | None = None,
    nms_threshold: float | None = None,
    allow: Sequence[str] = (),
    compile: bool = InferenceConfig.compile,
) -> BaseDetector:
    """Return the detector of a model file: `retinanet.load("runs/cells/best.ckpt").predict("image.jpg")`.

    The detector of an exported model (.onnx, .xml) is a `RuntimeDetector`, which does not need torch.

    Args:
        path: checkpoint, or exported model (.onnx, or .xml with its .bin).
        device: device that runs the model, see `Detector` and `RuntimeDetector.from_file`.
        precision: 32 or bf16. bf16 halves the time on a processor with bfloat16 arithmetic, and needs less memory.
            Among exported models, only OpenVINO's support bf16.
        allow: modules that a checkpoint's backbone may be imported from, see `plugins.is_allowed`.
        bit_depth: number of bits that 16-bit images use, 8 to 16; 0: as in training.
        agnostic_nms: whether a box suppresses overlapping boxes of every class; None: the setting of the model, which
            an exported model requires.
        nms_threshold: IoU threshold of NMS; None: the threshold of the model.
        threads: number of threads of an exported model; 0: all cores.
        compile: True to compile the network of a checkpoint on a GPU, see `Detector`.

    Raises:
        UserError: the file does not exist or is not a model, a required package is not installed, or an exported model
            contains another NMS than `agnostic_nms`.
    """
    path = existing_path(Path(path))
    if path.suffix.lower() == ".pt2":
        raise ConfigError(
            f"{path}: expected a checkpoint, an .onnx or an .xml file, found a .pt2 file, which torch.export.load "
            "runs: see docs/reference/exported-model.md, or export the checkpoint to .onnx"
        )
    try:
        if path.suffix.lower() in EXPORTED:
            if compile:
                raise ConfigError(f"compile expects a checkpoint, found the exported model {path}: leave it out")
            from retinanet.predict.runtime_detector import RuntimeDetector

            if precision == "bf16" and path.suffix.lower() != ".xml":
                raise ConfigError(
                    f"precision bf16 expects a checkpoint or an OpenVINO .xml file, found {path}: leave out --precision"
                )
            hint = "bf16" if precision == "bf16" else None
            detector: BaseDetector = RuntimeDetector.from_file(
                path, device=str(device), threads=threads, precision=hint
            )
        else:
            detector = Detector.from_checkpoint(path, device, precision, allow=allow, compile=compile)
    except ModuleNotFoundError as error:
        raise explain_missing(error, f"{path}") from error
    if bit_depth:
        image_config = with_options(detector.image_config, bit_depth=bit_depth)
        detector.info = dataclasses.replace(detector.info, image_config=image_config)
    detector.info = detector.info.with_nms(NmsConfig(agnostic_nms=agnostic_nms, nms_threshold=nms_threshold))
    detector.check_nms(detector.postprocess_config)
    return detector
