"""One interface to ONNX Runtime and OpenVINO. This module never imports torch."""

from __future__ import annotations

import ctypes
import functools
import json
import os
import re
import threading
import warnings
import weakref
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from retinanet.config import torch_device_name
from retinanet.errors import ConfigError
from retinanet.files import content_of
from retinanet.runtime.description import KEY, ExportError, GraphInput

Arrays = list[npt.NDArray[Any]]

_ONNX_CPU: Final = "CPUExecutionProvider"
_ONNX_CUDA: Final = "CUDAExecutionProvider"


class Engine(Protocol):
    """A runtime with a loaded graph. Several threads may call it at once."""

    description: str
    """Description of the model: the JSON in the file's metadata."""
    on_cpu: bool
    """Whether the graph runs on the CPU."""
    device: str
    """Device in use, in the runtime's words: CPUExecutionProvider, CUDAExecutionProvider, OpenVINO CPU, ..."""
    inputs: Mapping[str, GraphInput]
    """Inputs of the graph by name, with and without default values."""
    outputs: Collection[str]
    """Names of the graph's outputs."""

    def run(self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the graph, and return the named outputs."""


class ModelFiles:
    """The files of a model. A pickled copy contains their content, so that it works on a machine without the files.

    Args:
        paths: files of the model. A file that does not exist is left out.
    """

    def __init__(self, *paths: Path) -> None:
        self.paths = [path for path in paths if path.exists()] or [paths[0]]
        self.content: tuple[bytes, ...] = ()
        """Content of each file in a copy; empty in the original."""
        self._stamps = [_stamp(path) for path in self.paths]

    def __getstate__(self) -> dict[str, Any]:
        """Return the paths and the content of the files. Raises `ExportError` if a file changed after it was loaded."""
        for path, stamp in zip(self.paths, self._stamps, strict=True):
            if not self.content and (stamp is None or _stamp(path) != stamp):
                raise ExportError(
                    f"{path}: expected the file that was loaded, found that it was changed or removed since: load the "
                    "model again before it is copied or sent to a process"
                )
        return {**self.__dict__, "content": self.content or tuple(path.read_bytes() for path in self.paths)}


def _stamp(path: Path) -> tuple[int, int] | None:
    """Return the size and the time of change of a file; None without a file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


_engines: weakref.WeakSet[Any] = weakref.WeakSet()
"""Engines of this process. Each has the method `after_fork`."""


def forget_parent_at_fork(engine: OnnxEngine | OpenVinoEngine) -> None:
    """Let a forked child call `engine.after_fork()` before any other code of the child runs."""
    if not _engines and hasattr(os, "register_at_fork"):
        _register_once()
    _engines.add(engine)


@functools.cache
def _register_once() -> None:
    os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    """Give every engine its own threads. Skip the C libraries' exit handlers, which wait for the parent's threads.

    Python's own exit handlers run before the C libraries' handlers, so only the destructors of C libraries are skipped.
    """
    for engine in list(_engines):
        engine.after_fork()
    libc = ctypes.CDLL(None)
    if _engines and hasattr(libc, "on_exit"):  # glibc; handlers run in reverse order, so this one is the first
        libc.on_exit(libc._exit, None)


def keep_forever(*objects: Any) -> None:
    """Keep objects alive until the process ends, without calling their destructors."""
    for item in objects:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(item))


class OnnxEngine:
    """ONNX Runtime with a loaded .onnx file. A copy, also in another process, opens the content of the file again.

    Args:
        path: .onnx file.
        device: auto (CUDA if ONNX Runtime can start it, otherwise the CPU), cpu, cuda (or gpu) or cuda:1.
        threads: number of threads of one call; 0: all cores.

    Raises:
        ConfigError: the device is not available.
        ExportError: `retinanet export` did not write the file.
    """

    def __init__(self, path: Path, *, device: str, threads: int) -> None:
        self._files, self._device, self._threads = ModelFiles(path), device, threads
        self._session: Any = None
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        """Return the content of the file and the options, without the session, which cannot be copied."""
        return {"_files": self._files, "_device": self._device, "_threads": self._threads}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the content of the file."""
        self.__dict__.update(state)
        self._open()

    def after_fork(self) -> None:
        """Keep the parent's session alive in a forked child, and open another one at the next call.

        ONNX Runtime would wait for the session's threads, which the child does not have, when the session ends.
        """
        keep_forever(self._session)
        self._session = None

    def _open(self) -> None:
        import onnxruntime as ort

        path, threads, device = self._files.paths[0], self._threads, torch_device_name(self._device)
        providers = _onnx_providers(device, ort.get_available_providers())
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            source = self._files.content[0] if self._files.content else str(path)
            self._session = ort.InferenceSession(source, options, providers=[*providers, _ONNX_CPU])
        except Exception as error:  # onnxruntime's exception classes have no common base class
            raise ExportError(f"{path} cannot be read as an ONNX model: {_reason(error, path)}") from error
        self._session.disable_fallback()  # otherwise a failing call moves the model to the CPU
        self.device = self._session.get_providers()[0]
        self.on_cpu = self.device == _ONNX_CPU
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
        forget_parent_at_fork(self)

    def run(self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the graph, and return the named outputs."""
        if self._session is None:
            self._open()
        return list(self._session.run(list(outputs), dict(inputs)))


def _reason(error: Exception, path: Path) -> str:
    """Return why a runtime cannot read a model: what the file contains instead, or the last line of the error."""
    found, weights = content_of(path), path.with_suffix(".bin")
    if found and not found.startswith(("XML", "an ONNX")):
        return f"found {found}"
    if path.suffix.lower() == ".xml" and not weights.exists():
        return f"expected its weights in {weights}, found no such file: keep both files in one folder"
    text = str(error).strip().rpartition("\n")[2] or type(error).__name__
    return f"{text.rstrip('.')}. If the file is damaged or incomplete, copy or export it again"


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


@functools.cache
def _first_openvino_process() -> int:
    """Return the id of the process that first compiled an OpenVINO graph: this one, or one that it is forked from."""
    return os.getpid()


class OpenVinoEngine:
    """OpenVINO with a loaded .xml file. Each combination of outputs is compiled at its first use.

    A copy, also in another process, opens the content of the files again.

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
        self._files = ModelFiles(path, path.with_suffix(".bin"))
        self._arguments: dict[str, Any] = {"device": device, "threads": threads, "precision": precision}
        self._open(**self._arguments)

    def __getstate__(self) -> dict[str, Any]:
        """Return the content of the files and the options, without the model, which cannot be copied."""
        return {"_files": self._files, "_arguments": self._arguments}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the content of the files."""
        self.__dict__.update(state)
        self._open(**self._arguments)

    def after_fork(self) -> None:
        """Keep the parent's compiled graphs alive in a forked child, and do not use them.

        OpenVINO would wait for the threads of these graphs, which the child does not have, when the graphs end.
        """
        keep_forever(self._core, *self._compiled.values(), *self._local.__dict__.get("requests", {}).values())
        self._forget_compiled()

    def _forget_compiled(self) -> None:
        self._compiled: dict[tuple[str, ...], Any] = {}
        self._lock = threading.Lock()
        self._local = threading.local()

    def _open(self, *, device: str, threads: int, precision: str | None) -> None:
        path, content = self._files.paths[0], self._files.content
        self._core = openvino_core()
        self._device = {"auto": "CPU", "cpu": "CPU"}.get(device, device.upper())
        present = self._core.available_devices  # CPU, GPU, or GPU.0 and GPU.1: then GPU stands for the first
        if self._device not in {*present, *(name.partition(".")[0] for name in present)}:
            available = ", ".join(present)
            raise ConfigError(f"device {device!r} is not available: OpenVINO has only {available} on this machine")
        self.on_cpu = self._device == "CPU"
        self._options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
        if threads:
            self._options["INFERENCE_NUM_THREADS"] = threads
        try:
            self._model = self._core.read_model(*(content or (path,)))
        except RuntimeError as error:
            raise ExportError(f"{path} cannot be read as an OpenVINO model: {_reason(error, path)}") from error
        has_description = self._model.has_rt_info([KEY])
        self.description = _require_description(self._model.get_rt_info([KEY]).value if has_description else None, path)
        self.device = f"OpenVINO {self._device}"
        self.inputs: Mapping[str, GraphInput] = {
            port.get_any_name(): _openvino_input(port) for port in self._model.inputs
        }
        self.outputs: Collection[str] = frozenset(name for port in self._model.outputs for name in port.get_names())
        hint = precision or json.loads(self.description).get("precision")
        self._options["INFERENCE_PRECISION_HINT"] = "bf16" if hint == "bf16" else "f32"
        self._forget_compiled()
        forget_parent_at_fork(self)

    def run(self, outputs: Sequence[str], inputs: Mapping[str, npt.NDArray[Any]]) -> Arrays:
        """Run the graph, and return the named outputs. Each combination of outputs is compiled at its first use."""
        # Each thread has its own requests, because OpenVINO's requests are not thread-safe.
        requests = self._local.__dict__.setdefault("requests", {})
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

        if _first_openvino_process() != os.getpid():
            # OpenVINO keeps idle threads for later graphs, so also a graph that the child compiles may wait for them.
            raise ConfigError(
                "expected a process of its own for OpenVINO, found a child that was forked from a process that had "
                "run an OpenVINO model, whose threads the child lacks. Start the child with spawn or forkserver, or "
                "run the model only in children"
            )
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
