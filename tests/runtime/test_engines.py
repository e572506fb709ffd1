"""Files that the engines refuse."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

import retinanet
from retinanet.errors import ConfigError
from retinanet.runtime.description import ExportError


def test_files_that_are_not_exports_are_refused(exports: Path, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    model = onnx.load(exports / "m.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "foreign.onnx")
    for name, message in (
        ("text.onnx", "cannot be read as an ONNX model"),
        ("foreign.onnx", "expected a file written by `retinanet export`"),
    ):
        with pytest.raises(ExportError, match=message):
            retinanet.load(tmp_path / name)
    with pytest.raises(ConfigError, match="device"):
        retinanet.load(exports / "m.onnx", device="mps")
