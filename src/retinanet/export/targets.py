"""The table of export targets: one line per kind of file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from retinanet.export.onnx import OnnxTarget
from retinanet.export.openvino import OpenVinoTarget
from retinanet.export.torch_export import TorchExportTarget

if TYPE_CHECKING:
    from collections.abc import Mapping

    from retinanet.export.base_target import ExportTarget

TARGETS: Final[Mapping[str, ExportTarget]] = {
    "onnx": OnnxTarget(),
    "openvino": OpenVinoTarget(),
    "torch": TorchExportTarget(),
}
"""Export targets by the value of `--format`. The first is the default."""
