"""ONNX Runtime and OpenVINO behind one protocol. Never imports torch."""

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
from retinanet.runtime.description import (
    KEY,
    ExportError,
)

Arrays = list[npt.NDArray[Any]]


class Engine(Protocol):
    """What runs a graph. It may be called from several threads."""

    description: str
    """The JSON that the file brings."""

    def run(self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Return the named outputs."""


class OnnxEngine:
    """ONNX Runtime."""

    def __init__(self, path: Path, *, device: str, threads: int) -> None:
        import onnxruntime as ort

        there = ort.get_available_providers()
        cuda = device.startswith("cuda") or (device == "auto" and "CUDAExecutionProvider" in there)
        if not cuda and device not in {"auto", "cpu"}:
            raise ConfigError(f"device must be auto, cpu or cuda for an .onnx file, found {device!r}")
        if cuda and "CUDAExecutionProvider" not in there:
            raise ConfigError(f"device {device}: this ONNX Runtime has {', '.join(there)}; install onnxruntime-gpu")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        providers: list[Any] = ["CPUExecutionProvider"]
        if cuda:
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": int(device.partition(":")[2] or 0)}))
        try:
            self._session = ort.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime has a class for each of its status codes, with no common base
            raise ExportError(f"{path} cannot be read as an ONNX model: {error}") from error
        self.description = _own_description(self._session.get_modelmeta().custom_metadata_map.get(KEY), path)

    def run(self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Return the named outputs."""
        return list(self._session.run(list(outputs), dict(inputs)))


@functools.cache
def openvino_core() -> Any:
    """Return the one Core of this process, which is never freed.

    OpenVINO's CPU plugin gives the thread that loads it a stack for signals, and frees that when it goes. With two
    Cores, the first of which goes first, the thread is left with a stack that is no more, and the next signal, such as
    that of a data loader's worker that ends, kills the process.
    """
    import openvino as ov

    return ov.Core()


class OpenVinoEngine:
    """OpenVINO. The dense outputs are compiled when they are first asked for."""

    def __init__(self, path: Path, *, device: str, threads: int, precision: str | None) -> None:
        self._core = openvino_core()
        self._device = {"auto": "CPU", "cpu": "CPU"}.get(device, device.upper())
        if self._device.partition(".")[0] not in {d.partition(".")[0] for d in self._core.available_devices}:
            found = ", ".join(self._core.available_devices)
            raise ConfigError(f"device {device!r} is not there: this OpenVINO has {found}")
        self._options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if threads:
            self._options["INFERENCE_NUM_THREADS"] = threads
        try:
            self._model = self._core.read_model(path)
        except RuntimeError as error:
            raise ExportError(f"{path} cannot be read as an OpenVINO model: {error}") from error
        has = self._model.has_rt_info([KEY])
        self.description = _own_description(self._model.get_rt_info([KEY]).value if has else None, path)
        hint = precision or json.loads(self.description).get("precision")
        self._options["INFERENCE_PRECISION_HINT"] = "bf16" if hint == "bf16" else "f32"
        self._compiled: dict[tuple[str, ...], Any] = {}
        self._lock = threading.Lock()
        self._local = threading.local()

    def run(self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Return the named outputs; each combination is compiled at its first use."""
        requests = self._local.__dict__.setdefault("requests", {})  # a request serves one thread at a time
        key = tuple(outputs)
        if key not in requests:
            with self._lock:
                if key not in self._compiled:
                    self._compiled[key] = self._compile(key)
            requests[key] = self._compiled[key].create_infer_request()
        wanted = {port.get_any_name() for port in requests[key].model_inputs}
        found = requests[key].infer({name: array for name, array in inputs.items() if name in wanted})
        return [np.array(found[name]) for name in outputs]

    def _compile(self, outputs: Sequence[str]) -> Any:
        import openvino as ov

        ports = [self._model.output(name) for name in outputs]
        part = ov.Model([port.get_node() for port in ports], self._model.get_parameters(), "retinanet")
        return self._core.compile_model(part, self._device, self._options)


def _own_description(description: str | None, path: Path) -> str:
    if not description:
        raise ExportError(f"{path} is no export of retinanet's: its metadata has no entry {KEY!r}")
    return str(description)
