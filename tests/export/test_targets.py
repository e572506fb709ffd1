"""A new export target is one class and one line of the table; the command prints what the export returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from retinanet.cli import main
from retinanet.errors import ConfigError
from retinanet.export import exporter
from retinanet.export.exporter import Comparison, ExportMismatchError, export
from retinanet.export.parity import Difference
from retinanet.export.target import ExportTarget
from retinanet.export.targets import TARGETS
from tests.export.made import model_and_pictures


class TextTarget(ExportTarget):
    """The description alone."""

    suffix = ".txt"
    title = "reading aloud"
    off = 0.0

    def write(self, source: Any, about: Any, path: Path) -> None:
        path.write_text(about.to_json())

    def compare(self, loaded: Any, about: Any, path: Path, images: Sequence[Path]) -> list[Difference]:
        return [Difference(image_size=64, batch_size=1, pictures=len(images), compared=5, boxes=self.off, scores=0.0)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    targets: Mapping[str, ExportTarget] = {**TARGETS, "text": TextTarget()}
    monkeypatch.setattr(exporter, "TARGETS", targets)
    model_and_pictures(tmp_path)
    return tmp_path


def test_a_target_of_ones_own(folder: Path) -> None:
    summary = export(folder / "model.ckpt", output=folder / "m.txt", pictures=(str(folder / "pictures"),))
    assert summary.path.read_text() == summary.about.to_json()
    assert summary.size == summary.path.stat().st_size
    assert summary.comparison.title == "reading aloud"
    with pytest.raises(ConfigError, match=r"^int8 is not possible for a \.txt file: give --format onnx or openvino$"):
        export(folder / "model.ckpt", output=folder / "n.txt", int8=True, calibrate=folder)


def test_the_command_prints_the_comparison(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["export", str(folder / "model.ckpt"), "-o", str(folder / "m.txt"), "--pictures", str(folder / "pictures")]
    with pytest.raises(SystemExit) as stop:
        main(words)
    found = capsys.readouterr().out
    assert stop.value.code == 0
    assert "reading aloud against the checkpoint" in found
    assert f"written: {folder / 'm.txt'}" in found.replace("\n", "")
    monkeypatch.setattr(TextTarget, "off", 0.5)
    with pytest.raises(SystemExit) as stop:
        main([*words, "--overwrite"])
    found = capsys.readouterr()
    assert stop.value.code == 1
    assert "5.0e-01" in found.out, "also of an export that is refused"
    assert "boxes differ by up to 0.5 px" in found.err.replace("\n", " ")


def test_a_refusal_carries_the_numbers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TextTarget, "off", 0.5)
    with pytest.raises(ExportMismatchError) as refused:
        export(folder / "model.ckpt", output=folder / "m.txt", pictures=(str(folder / "pictures"),))
    assert isinstance(refused.value.comparison, Comparison)
    assert refused.value.comparison.differences[0].boxes == 0.5
    assert not (folder / "m.txt").exists()
