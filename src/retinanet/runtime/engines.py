"""One interface to ONNX Runtime and OpenVINO. This module never imports torch."""

from __future__ import annotations

import functools
import json
import re
import threading
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from retinanet.errors import ConfigError
from retinanet.runtime.description import KEY, ExportError, GraphInput

Arrays = list[npt.NDArray[Any]]

_ONNX_CPU: Final = "CPUExecutionProvider"
_ONNX_CUDA: Final = "CUDAExecutionProvider"


class Engine(Protocol):
    """A runtime with a loaded graph. Several threads may call it at once."""

    description: str
    """Description of the model: the JSON in the file's metadata."""
    device: str
    """Device in use, in the runtime's words: CPUExecutionProvider, CUDAExecutionProvider, OpenVINO CPU, ..."""
    inputs: Mapping[str, GraphInput]
    """Inputs of the graph by name, with and without default values."""
    outputs: Collection[str]
    """Names of the graph's outputs."""

    def run(self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the graph, and return the named outputs."""


class OnnxEngine:
    """ONNX Runtime with a loaded .onnx file.

    Args:
        path: .onnx file.
        device: auto (CUDA if ONNX Runtime can start it, otherwise the CPU), cpu, cuda or cuda:1.
        threads: number of threads of one call; 0: all cores.

    Raises:
        ConfigError: the device is not available.
        ExportError: `retinanet export` did not write the file.
    """

    def __init__(self, path: Path, *, device: str, threads: int) -> None:
        import onnxruntime as ort

        providers = _onnx_providers(device, ort.get_available_providers())
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(str(path), options, providers=[*providers, _ONNX_CPU])
        except Exception as error:  # onnxruntime's exception classes have no common base class
            raise ExportError(f"{path} cannot be read as an ONNX model: {error}") from error
        self._session.disable_fallback()  # otherwise a failing call moves the model to the CPU
        self.device = self._session.get_providers()[0]
        if providers and self.device != _ONNX_CUDA:  # ONNX Runtime has printed the reason on stderr
            found = (
                f"{path}: expected {_ONNX_CUDA} (device {device}), found {self.device}: ONNX Runtime could not start "
                "CUDA. Its lines above state the reason, such as a missing driver, CUDA or cuDNN library"
            )
            if device != "auto":
                raise ConfigError(f"{found}. Give --device cpu to run on the CPU")
            warnings.warn(f"{found}. The model runs on the CPU", stacklevel=2)
        self.description = _require_description(self._session.get_modelmeta().custom_metadata_map.get(KEY), path)
        values = [*self._session.get_inputs(), *self._session.get_overridable_initializers()]
        self.inputs: Mapping[str, GraphInput] = {value.name: _onnx_input(value) for value in values}
        self.outputs: Collection[str] = frozenset(value.name for value in self._session.get_outputs())

    def run(self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the graph, and return the named outputs."""
        return list(self._session.run(list(outputs), dict(inputs)))


def _onnx_providers(device: str, available: Sequence[str]) -> list[Any]:
    """Return the execution providers of ONNX Runtime for a device, without the CPU. Raises `ConfigError`."""
    if device == "cpu" or (device == "auto" and _ONNX_CUDA not in available):
        return []
    if device != "auto" and not re.fullmatch(r"cuda(:[0-9]+)?", device):
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N for an .onnx file, found {device!r}")
    if _ONNX_CUDA not in available:
        raise ConfigError(
            f"device {device} is not available: this ONNX Runtime has only {', '.join(available)}: "
            "install onnxruntime-gpu, or give --device cpu"
        )
    return [(_ONNX_CUDA, {"device_id": int(device.partition(":")[2] or 0)})]


def _onnx_input(value: Any) -> GraphInput:
    """Return the element type and shape of an input of ONNX Runtime, such as tensor(float) and ["N", 3, "H", "W"]."""
    dtype = str(value.type).removeprefix("tensor(").removesuffix(")")
    shape = tuple(size if isinstance(size, int) else None for size in value.shape)
    return GraphInput("float32" if dtype == "float" else dtype, shape)


@functools.cache
def openvino_core() -> Any:
    """Return the only OpenVINO Core of this process, which is never freed.

    A second Core can crash the process. OpenVINO's CPU plugin installs a signal stack in the thread that loads it, and
    frees this stack together with its Core. If the first of two Cores is freed first, the thread keeps a freed signal
    stack. The next signal then kills the process, for example the one that a data loader sends when a worker ends.
    """
    import openvino as ov

    return ov.Core()


class OpenVinoEngine:
    """OpenVINO with a loaded .xml file. Each combination of outputs is compiled at its first use.

    Args:
        path: .xml file, with the .bin file beside it.
        device: auto or cpu (the CPU), or an OpenVINO device name such as GPU.
        threads: number of threads of one call; 0: all cores.
        precision: float32 or bf16; None: the hint in the file.

    Raises:
        ConfigError: the device is not available.
        ExportError: `retinanet export` did not write the file.
    """

    def __init__(self, path: Path, *, device: str, threads: int, precision: str | None) -> None:
        self._core = openvino_core()
        self._device = {"auto": "CPU", "cpu": "CPU"}.get(device, device.upper())
        present = self._core.available_devices  # CPU, GPU, or GPU.0 and GPU.1: then GPU stands for the first
        if self._device not in {*present, *(name.partition(".")[0] for name in present)}:
            available = ", ".join(present)
            raise ConfigError(f"device {device!r} is not available: OpenVINO has only {available} on this machine")
        self._options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if threads:
            self._options["INFERENCE_NUM_THREADS"] = threads
        try:
            self._model = self._core.read_model(path)
        except RuntimeError as error:
            raise ExportError(f"{path} cannot be read as an OpenVINO model: {error}") from error
        has_description = self._model.has_rt_info([KEY])
        self.description = _require_description(self._model.get_rt_info([KEY]).value if has_description else None, path)
        self.device = f"OpenVINO {self._device}"
        self.inputs: Mapping[str, GraphInput] = {
            port.get_any_name(): _openvino_input(port) for port in self._model.inputs
        }
        self.outputs: Collection[str] = frozenset(name for port in self._model.outputs for name in port.get_names())
        hint = precision or json.loads(self.description).get("precision")
        self._options["INFERENCE_PRECISION_HINT"] = "bf16" if hint == "bf16" else "f32"
        self._compiled: dict[tuple[str, ...], Any] = {}
        self._lock = threading.Lock()
        self._local = threading.local()

    def run(self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the graph, and return the named outputs. Each combination of outputs is compiled at its first use."""
        requests = self._local.__dict__.setdefault(
            "requests", {}
        )  # per thread: OpenVINO's requests are not thread-safe
        key = tuple(outputs)
        if key not in requests:
            with self._lock:
                if key not in self._compiled:
                    self._compiled[key] = self._compile(key)
            requests[key] = self._compiled[key].create_infer_request()
        input_names = {port.get_any_name() for port in requests[key].model_inputs}
        results = requests[key].infer({name: array for name, array in inputs.items() if name in input_names})
        return [np.array(results[name]) for name in outputs]

    def _compile(self, outputs: Sequence[str]) -> Any:
        import openvino as ov

        ports = [self._model.output(name) for name in outputs]
        part = ov.Model([port.get_node() for port in ports], self._model.get_parameters(), "retinanet")
        return self._core.compile_model(part, self._device, self._options)


def _openvino_input(port: Any) -> GraphInput:
    """Return the element type and shape of an input of OpenVINO."""
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.get_partial_shape())
    return GraphInput(np.dtype(port.get_element_type().to_dtype()).name, shape)


def _require_description(description: str | None, path: Path) -> str:
    """Return the description. Raises `ExportError` if the file has none."""
    if not description:
        raise ExportError(
            f"{path}: expected a file written by `retinanet export`, found no metadata entry {KEY!r}: export the model "
            "again. If another tool rewrote the exported file, copy the metadata of the exported file"
        )
    return str(description)
