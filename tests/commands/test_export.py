"""`export`: the comparison that it prints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from retinanet.cli import main
from retinanet.export import exporter
from retinanet.export.base_target import ExportTarget
from retinanet.export.targets import TARGETS
from tests.export.made import model_and_images
from tests.export.made_target import TextTarget


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    targets: Mapping[str, ExportTarget] = {**TARGETS, "text": TextTarget()}
    monkeypatch.setattr(exporter, "TARGETS", targets)
    model_and_images(tmp_path)
    return tmp_path


def test_the_command_prints_the_comparison(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = str(folder / "images")
    words = ["export", str(folder / "model.ckpt"), "-o", str(folder / "m.txt"), "--compare-images", images]
    with pytest.raises(SystemExit) as stop:
        main(words)
    found = capsys.readouterr().out
    assert stop.value.code == 0
    assert "text reader against the checkpoint" in found
    assert f"written: {folder / 'm.txt'}" in found.replace("\n", "")
    monkeypatch.setattr(TextTarget, "box_difference", 0.5)
    with pytest.raises(SystemExit) as stop:
        main([*words, "--overwrite"])
    found = capsys.readouterr()
    assert stop.value.code == 1
    assert "5.0e-01" in found.out, "also of an export that is refused"
    assert "boxes differ by up to 0.5 px" in found.err.replace("\n", " ")
