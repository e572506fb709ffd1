"""One interface to ONNX Runtime and OpenVINO. This module never imports torch."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from retinanet.errors import ConfigError
from retinanet.runtime.description import KEY, ExportError

Arrays = list[npt.NDArray[Any]]


class Engine(Protocol):
    """A runtime with a loaded graph. Several threads may call it at once."""

    description: str
    """Description of the model: the JSON in the file's metadata."""
    on_cpu: bool
    """Whether the graph runs on the CPU."""

    def run(self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the graph, and return the named outputs."""


class OnnxEngine:
    """ONNX Runtime with a loaded .onnx file.

    Args:
        path: .onnx file.
        device: auto (CUDA if ONNX Runtime supports it, otherwise the CPU), cpu, cuda or cuda:1.
        threads: number of threads of one call; 0: all cores.

    Raises:
        ConfigError: the device is not available.
        ExportError: `retinanet export` did not write the file.
    """

    def __init__(self, path: Path, *, device: str, threads: int) -> None:
        import onnxruntime as ort

        available = ort.get_available_providers()
        cuda = device.startswith("cuda") or (device == "auto" and "CUDAExecutionProvider" in available)
        if not cuda and device not in {"auto", "cpu"}:
            raise ConfigError(f"device must be auto, cpu or cuda for an .onnx file, found {device!r}")
        if cuda and "CUDAExecutionProvider" not in available:
            raise ConfigError(
                f"device {device} is not available: this ONNX Runtime has only {', '.join(available)}: "
                "install onnxruntime-gpu"
            )
        self.on_cpu = not cuda
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        providers: list[Any] = ["CPUExecutionProvider"]
        if cuda:
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(device.partition(":")[2] or 0)}))
        try:
            self._session = ort.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime's exception classes have no common base class
            raise ExportError(f"{path} cannot be read as an ONNX model: {error}") from error
        self.description = _require_description(self._session.get_modelmeta().custom_metadata_map.get(KEY), path)

    def run(self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the graph, and return the named outputs."""
        return list(self._session.run(list(outputs), dict(inputs)))


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
        if self._device.partition(".")[0] not in {d.partition(".")[0] for d in self._core.available_devices}:
            available = ", ".join(self._core.available_devices)
            raise ConfigError(f"device {device!r} is not available: OpenVINO has only {available} on this machine")
        self.on_cpu = self._device == "CPU"
        self._options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if threads:
            self._options["INFERENCE_NUM_THREADS"] = threads
        try:
            self._model = self._core.read_model(path)
        except RuntimeError as error:
            raise ExportError(f"{path} cannot be read as an OpenVINO model: {error}") from error
        has_description = self._model.has_rt_info([KEY])
        self.description = _require_description(self._model.get_rt_info([KEY]).value if has_description else None, path)
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


def _require_description(description: str | None, path: Path) -> str:
    """Return the description. Raises `ExportError` if the file has none."""
    if not description:
        raise ExportError(
            f"{path}: expected a file written by `retinanet export`, found no metadata entry {KEY!r}: export the model "
            "again"
        )
    return str(description)
