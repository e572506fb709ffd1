"""What an export target is: a kind of file, how it is written, and how it is compared with its checkpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from retinanet.export.torch_network import dense_onnx
from retinanet.runtime.description import ExportError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx

    from retinanet.checkpoint.loaded_model import LoadedModel
    from retinanet.export.parity import Difference
    from retinanet.predict.runtime_detector import RuntimeDetector
    from retinanet.runtime.description import Description


class ExportSource:
    """The model to export.

    Args:
        loaded: the checkpoint's content, on the CPU.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded = loaded

    @cached_property
    def network(self) -> onnx.ModelProto:
        """The network as ONNX, from `onnx_graph.NORMALISED` to the dense outputs; made once, which takes a while."""
        return dense_onnx(self.loaded.model)


class ExportTarget(ABC):
    """One kind of file. A new one is a subclass in a file of its own and a line in `targets.TARGETS`."""

    suffix: ClassVar[str]
    """Of the file's name, lower case."""
    title: ClassVar[str]
    """Name of what runs the file in the comparison."""
    options: ClassVar[frozenset[str]] = frozenset()
    """Options of `ExportConfig` that not every target has: int8, bf16, raw, triton."""
    companions: ClassVar[tuple[str, ...]] = ()
    """Suffixes of the files that are written beside the file."""
    triton_backend: ClassVar[str] = ""
    """Name of the backend of Triton Inference Server; needed for the option triton."""

    @abstractmethod
    def write(self, source: ExportSource, about: Description, path: Path) -> None:
        """Write the model in float32. Raises `ExportError` if the model cannot be exported."""

    @abstractmethod
    def compare(self, loaded: LoadedModel, about: Description, path: Path, images: Sequence[Path]) -> list[Difference]:
        """Return how far the written float32 file is from the checkpoint, for each image size and batch size."""

    def write_int8(self, source: ExportSource, about: Description, path: Path, images: Sequence[Path]) -> None:
        """Write the model in int8; the ranges of the activations are measured on `images`."""
        raise ExportError(f"{self.suffix} has no int8")

    def open(self, path: Path) -> RuntimeDetector | None:
        """Return the detector of a written file, to measure its AP; None if the file gives no detections."""
        return None
