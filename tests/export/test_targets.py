"""A user can add an export target with one class and one line in the table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from retinanet.errors import ConfigError
from retinanet.export import exporter
from retinanet.export.base_target import ExportTarget
from retinanet.export.exporter import export
from retinanet.export.targets import TARGETS
from tests.export.made import model_and_images
from tests.export.made_target import TextTarget


@pytest.fixture
def exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    targets: Mapping[str, ExportTarget] = {**TARGETS, "text": TextTarget()}
    monkeypatch.setattr(exporter, "TARGETS", targets)
    model_and_images(tmp_path)
    return tmp_path


def test_an_added_target_is_used(exports: Path) -> None:
    summary = export(exports / "model.ckpt", output=exports / "m.txt", compare_images=(str(exports / "images"),))
    assert summary.path.read_text() == summary.about.to_json()
    assert summary.size == summary.path.stat().st_size
    assert summary.comparison.title == "text reader"
    with pytest.raises(ConfigError, match=r"^int8 is not possible for a \.txt file: give --format onnx or openvino$"):
        export(exports / "model.ckpt", output=exports / "n.txt", int8=True, calibrate=exports)
