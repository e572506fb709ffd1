"""A detector from any file that holds a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from retinanet.config import InferenceConfig, Precision
from retinanet.errors import ConfigError, explain_missing
from retinanet.files import existing_path
from retinanet.predict.detector import BaseDetector
from retinanet.predict.torch_detector import Detector

if TYPE_CHECKING:
    import torch


EXPORTED: Final = frozenset((".onnx", ".xml"))
"""What `retinanet export` writes and the runtime without torch reads."""


def load(
    path: str | Path,
    device: str | torch.device = "auto",
    precision: Precision = InferenceConfig.precision,
    *,
    threads: int = 0,
    allow: Sequence[str] = (),
) -> BaseDetector:
    """Return the detector of a checkpoint: `retinanet.load("runs/cells/best.ckpt").predict("image.jpg")`.

    Of a model that `retinanet export` wrote (.onnx, .xml) it is a `RuntimeDetector`, which needs no torch.

    Args:
        path: a checkpoint, or .onnx or .xml.
        device: see `Detector` and `RuntimeDetector.from_file`.
        precision: 32, or bf16: half the time on a processor that has bfloat16, and less memory. Of exported models,
            OpenVINO's take it.
        allow: modules of your own that a checkpoint's backbone may come from: see `plugins.allowed`.
        threads: that an exported model computes with; 0: all cores.

    Raises:
        UserError: no such file, not a model, or a package that is missing for it.
    """
    path = existing_path(Path(path))
    try:
        if path.suffix.lower() in EXPORTED:
            from retinanet.predict.runtime_detector import RuntimeDetector

            if precision == "bf16" and path.suffix.lower() != ".xml":
                raise ConfigError(f"precision bf16 is for checkpoints and OpenVINO's .xml, found {path}")
            hint = "bf16" if precision == "bf16" else None
            return RuntimeDetector.from_file(path, device=str(device), threads=threads, precision=hint)
        return Detector.from_checkpoint(path, device, precision, allow=allow)
    except ModuleNotFoundError as error:
        raise explain_missing(error, f"{path}") from error
