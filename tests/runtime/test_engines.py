"""Files and devices that the engines refuse, and files that other tools rewrote."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import retinanet
from retinanet.errors import ConfigError
from retinanet.runtime.description import Description, ExportError, GraphInput

INPUTS = ("images", "frames", "score_threshold", "nms_threshold", "max_detections")


def test_files_that_are_not_exports_are_refused(exports: Path, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    shutil.copy(exports / "model.ckpt", tmp_path / "renamed.onnx")
    model = onnx.load(exports / "m.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    for name, message in (
        ("text.onnx", "cannot be read as an ONNX model: found text"),
        ("renamed.onnx", "cannot be read as an ONNX model: found a ZIP archive, as a checkpoint"),
        ("foreign.onnx", "expected a file written by `retinanet export`"),
    ):
        with pytest.raises(ExportError, match=message):
            retinanet.load(tmp_path / name)
    with pytest.raises(ConfigError, match="device"):
        retinanet.load(exports / "m.onnx", device="mps")


def _save(model: onnx.ModelProto, path: Path, defaults: set[str]) -> Path:
    """Write a model of which only the named inputs have default values."""
    kept = [value for value in model.graph.initializer if value.name not in INPUTS or value.name in defaults]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    onnx.save(model, path)
    return path


def test_a_file_whose_inputs_became_constants_is_refused(exports: Path, tmp_path: Path) -> None:
    """onnxsim and onnxslim remove inputs that have default values."""
    model = onnx.load(exports / "m.onnx")
    kept = [value for value in model.graph.input if value.name not in INPUTS[1:]]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    onnx.save(model, tmp_path / "slim.onnx")
    with pytest.raises(ExportError, match=r"found no frames, score_threshold, .* --no-input-defaults"):
        retinanet.load(tmp_path / "slim.onnx")


def test_a_file_without_input_defaults_gives_equal_detections(exports: Path, tmp_path: Path) -> None:
    path = _save(onnx.load(exports / "m.onnx"), tmp_path / "required.onnx", set())
    image = next((exports / "images").iterdir())
    expected, found = (retinanet.load(name).predict(image) for name in (exports / "m.onnx", path))
    assert len(expected) > 0
    np.testing.assert_array_equal(found.xyxy, expected.xyxy)
    np.testing.assert_array_equal(found.confidence, expected.confidence)


def test_a_file_that_onnx_runtime_optimised_gives_equal_detections(exports: Path, tmp_path: Path) -> None:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(str(exports / "m.onnx"), options, providers=["CPUExecutionProvider"])
    image = next((exports / "images").iterdir())
    expected, found = (retinanet.load(f).predict(image) for f in (exports / "m.onnx", tmp_path / "optimised.onnx"))
    np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=1e-4)


def test_files_with_other_types_sizes_or_outputs_are_refused(exports: Path, tmp_path: Path) -> None:
    def other_type(graph: onnx.GraphProto) -> None:
        graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.UINT8

    def fixed(graph: onnx.GraphProto) -> None:
        graph.input[0].type.tensor_type.shape.dim[2].dim_value = 640

    def trimmed(graph: onnx.GraphProto) -> None:
        del graph.output[3:]

    for change, message in (
        (other_type, r"input images of type float32 .*, found uint8, any x 3 x any x any"),
        (fixed, "found float32, any x 3 x 640 x any"),
        (trimmed, "expected the output counts, found boxes, labels, scores"),
    ):
        model = onnx.load(exports / "m.onnx")
        change(model.graph)
        about = Description.from_json(model.metadata_props[0].value, "m")
        inputs = {value.name: _graph_input(value) for value in model.graph.input}
        with pytest.raises(ExportError, match=rf"^m: .*{message}.*Another tool"):
            about.check_graph(inputs, {value.name for value in model.graph.output}, "m")


def _graph_input(value: onnx.ValueInfoProto) -> GraphInput:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return GraphInput(dtype, tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim))


class _Session:
    """ONNX Runtime that offers CUDA and cannot start it, as onnxruntime-gpu does without a driver."""

    def __init__(self, path: str, options: ort.SessionOptions, *, providers: list) -> None:
        self.session = ort_session(path, options, providers=["CPUExecutionProvider"])

    def __getattr__(self, name: str):
        return getattr(self.session, name)


ort_session = ort.InferenceSession


def test_the_device_in_use_is_stated_and_never_replaced_silently(exports: Path, monkeypatch) -> None:
    path = exports / "m.onnx"
    assert retinanet.load(path, device="cpu").device == "CPUExecutionProvider"
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "InferenceSession", _Session)
    for device in ("cuda", "cuda:0", "gpu", "gpu:0"):
        with pytest.raises(ConfigError, match=r"expected CUDAExecutionProvider .*, found CPUExecutionProvider"):
            retinanet.load(path, device=device)
    with pytest.warns(UserWarning, match="The model runs on the CPU"):
        assert retinanet.load(path).device == "CPUExecutionProvider"
    assert retinanet.load(path, device="cpu").device == "CPUExecutionProvider"
    for device in ("cuda:x", "cuda:", "cuda:-1", "gpu:x"):
        with pytest.raises(ConfigError, match="device must be"):
            retinanet.load(path, device=device)
