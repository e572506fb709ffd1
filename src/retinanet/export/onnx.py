"""The export target ONNX: one graph from images to detections, which ONNX Runtime runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from retinanet.export.base_target import ExportSource, ExportTarget
from retinanet.export.comparison import compare_runtime
from retinanet.export.onnx_graph import join_graphs
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
        """Write the graph, with defaults for thresholds and frames unless the source excludes them."""
        onnx.save(join_graphs(source.network, about, defaults=source.input_defaults), path)

    def compare(self, loaded: LoadedModel, about: Description, path: Path, images: Sequence[Path]) -> list[Difference]:
        """Return the differences between the detections of ONNX Runtime and those of the checkpoint."""
        return compare_runtime(loaded, self.open(path), images)

    def write_int8(self, source: ExportSource, about: Description, path: Path, images: Sequence[Path]) -> None:
        """Write the model in int8, quantised with ONNX Runtime."""
        onnx.save(
            join_graphs(quantise_onnx(source.network, about, images), about, defaults=source.input_defaults), path
        )

    def open(self, path: Path) -> RuntimeDetector:
        """Return the detector that runs the file with ONNX Runtime, on the CPU."""
        return RuntimeDetector.from_file(path, device="cpu")
