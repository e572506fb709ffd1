"""A model repository for the Triton server."""

from __future__ import annotations

from pathlib import Path

import pytest

import retinanet
from retinanet.predict.runtime_detector import RuntimeDetector

ort = pytest.importorskip("onnxruntime")


def test_a_model_is_added_to_the_repository(exports: Path, tmp_path: Path) -> None:
    from retinanet.export import triton_repository as triton

    detector = retinanet.load(exports / "u.onnx")
    assert isinstance(detector, RuntimeDetector)
    config = triton.write(tmp_path, exports / "u.onnx", detector.description, backend="onnxruntime")
    assert config == tmp_path / "u" / "config.pbtxt"
    assert (tmp_path / "u" / "1" / "model.onnx").read_bytes() == (exports / "u.onnx").read_bytes()
    assert (tmp_path / "u" / "labels.txt").read_text() == "square\nbar\ndot\n"
    lines = config.read_text().splitlines()
    assert lines[:3] == ['name: "u"', 'backend: "onnxruntime"', "max_batch_size: 8"]
    assert 'input [ { name: "images" data_type: TYPE_UINT8 dims: [ 3, -1, -1 ] } ]' in lines
    input_names = {i.name for i in ort.InferenceSession(str(exports / "u.onnx")).get_overridable_initializers()} | {
        "images"
    }
    assert all(line.split('"')[1] in input_names for line in lines if line.startswith("input"))
