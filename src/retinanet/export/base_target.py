"""The base class of export targets. A target writes one kind of file and compares it with the checkpoint."""

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
        loaded: content of the checkpoint, on the CPU.
        input_defaults: option of `ExportConfig`.
    """

    def __init__(self, loaded: LoadedModel, *, input_defaults: bool = True) -> None:
        self.loaded = loaded
        self.input_defaults = input_defaults

    @cached_property
    def network(self) -> onnx.ModelProto:
        """ONNX graph of the network, from normalised image to logits and offsets. It is converted once."""
        return dense_onnx(self.loaded.model)


class ExportTarget(ABC):
    """One kind of exported file. To add a kind, write a subclass in a new file and add it to `targets.TARGETS`."""

    suffix: ClassVar[str]
    """Suffix of the file name, lower case."""
    title: ClassVar[str]
    """Name of the runtime that runs the file in the comparison."""
    options: ClassVar[frozenset[str]] = frozenset()
    """Options of `ExportConfig` that this target supports, among those not common to all: int8, bf16, raw, triton."""
    companions: ClassVar[tuple[str, ...]] = ()
    """Suffixes of the additional files that are written beside the main file."""
    triton_backend: ClassVar[str] = ""
    """Name of the Triton Inference Server backend. The option `triton` requires it."""

    @abstractmethod
    def write(self, source: ExportSource, about: Description, path: Path) -> None:
        """Write the model in float32. Raises `ExportError` if the model cannot be exported."""

    @abstractmethod
    def compare(self, loaded: LoadedModel, about: Description, path: Path, images: Sequence[Path]) -> list[Difference]:
        """Return the differences of the written float32 file from the checkpoint, per image size and batch size."""

    def write_int8(self, source: ExportSource, about: Description, path: Path, images: Sequence[Path]) -> None:
        """Write the model in int8. The ranges of the activations are measured on `images`."""
        raise ExportError(f"a {self.suffix} file cannot hold an int8 model: leave out --int8")

    def open(self, path: Path) -> RuntimeDetector | None:
        """Return a detector that runs a written file, for measuring AP. None if the file gives no detections."""
        return None
