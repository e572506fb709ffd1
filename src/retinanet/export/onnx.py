"""The export target ONNX: one graph from images to detections, run by ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from retinanet.export.base_target import ExportSource, ExportTarget
from retinanet.export.comparison import compare_runtime
from retinanet.export.onnx_graph import join
from retinanet.export.quantise import quantise_onnx
from retinanet.predict.runtime_detector import RuntimeDetector

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from retinanet.checkpoint.loaded_model import LoadedModel
    from retinanet.export.parity import Difference
    from retinanet.runtime.description import Description


class OnnxTarget(ExportTarget):
    """ONNX."""

    suffix = ".onnx"
    title = "ONNX Runtime"
    options = frozenset({"int8", "raw", "triton"})
    triton_backend = "onnxruntime"

    def write(self, source: ExportSource, about: Description, path: Path) -> None:
        """Write the graph; thresholds and frames have defaults."""
        onnx.save(join(source.network, about, defaults=True), path)

    def compare(self, loaded: LoadedModel, about: Description, path: Path, images: Sequence[Path]) -> list[Difference]:
        """Compare what ONNX Runtime finds with what the checkpoint finds."""
        return compare_runtime(loaded, self.open(path), images)

    def write_int8(self, source: ExportSource, about: Description, path: Path, images: Sequence[Path]) -> None:
        """Quantise with ONNX Runtime."""
        onnx.save(join(quantise_onnx(source.network, about, images), about, defaults=True), path)

    def open(self, path: Path) -> RuntimeDetector:
        """Return the detector that runs the file with ONNX Runtime, on the CPU."""
        return RuntimeDetector.from_file(path, device="cpu")
