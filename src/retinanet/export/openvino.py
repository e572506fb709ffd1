"""The export target OpenVINO: the ONNX graph, converted to .xml and .bin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinanet.export.base_target import ExportSource, ExportTarget
from retinanet.export.comparison import compare_runtime
from retinanet.export.onnx_graph import join_graphs
from retinanet.export.quantise import quantise_openvino, read_onnx, save_openvino
from retinanet.predict.runtime_detector import RuntimeDetector

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from retinanet.checkpoint.loaded_model import LoadedModel
    from retinanet.export.parity import Difference
    from retinanet.runtime.description import Description


class OpenVinoTarget(ExportTarget):
    """OpenVINO."""

    suffix = ".xml"
    title = "OpenVINO in float32"
    options = frozenset({"int8", "raw", "triton", "bf16"})
    companions = (".bin",)
    triton_backend = "openvino"

    def write(self, source: ExportSource, about: Description, path: Path) -> None:
        """Write the graph. Every input must be given, because OpenVINO has no defaults for inputs."""
        save_openvino(read_onnx(join_graphs(source.network, about, defaults=False)), about, path)

    def compare(self, loaded: LoadedModel, about: Description, path: Path, images: Sequence[Path]) -> list[Difference]:
        """Return the differences between export and checkpoint, both in float32, even if the file asks for bfloat16."""
        return compare_runtime(loaded, RuntimeDetector.from_file(path, device="cpu", precision="float32"), images)

    def write_int8(self, source: ExportSource, about: Description, path: Path, images: Sequence[Path]) -> None:
        """Write the model in int8, quantised with NNCF."""
        quantise_openvino(source.network, about, path, images)

    def open(self, path: Path) -> RuntimeDetector:
        """Return the detector that runs the file with OpenVINO on the CPU, in the precision of the file's hint."""
        return RuntimeDetector.from_file(path, device="cpu")
