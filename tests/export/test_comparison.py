"""Comparison of an export with its checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from retinanet.export import exporter
from retinanet.export.base_target import ExportTarget
from retinanet.export.exporter import Comparison, ExportMismatchError, export
from retinanet.export.targets import TARGETS
from tests.export.made import model_and_images
from tests.export.made_target import TextTarget


@pytest.fixture
def exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    targets: Mapping[str, ExportTarget] = {**TARGETS, "text": TextTarget()}
    monkeypatch.setattr(exporter, "TARGETS", targets)
    model_and_images(tmp_path)
    return tmp_path


def test_a_mismatch_error_contains_the_differences(exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TextTarget, "box_difference", 0.5)
    with pytest.raises(ExportMismatchError) as refused:
        export(exports / "model.ckpt", output=exports / "m.txt", compare_images=(str(exports / "images"),))
    assert isinstance(refused.value.comparison, Comparison)
    assert refused.value.comparison.differences[0].boxes == 0.5
    assert not (exports / "m.txt").exists()
