"""Tests of format recognition."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from retinanet import data
from retinanet.formats import recognise
from tests.formats.conftest import Install
from tests.formats.samples import EXPECTED, EXPORTS, OBJECTS, Write, boxes, labelme, voc_xml


def test_a_guessed_format_is_noted_and_can_be_overridden(tmp_path: Path, write_image: Write) -> None:
    root = labelme(tmp_path / "set", write_image)
    (root / "boxes.csv").write_text("a.jpg,5,5,9,9,cow\n")
    guessed = data.read(root)
    assert guessed.classes == ("cow",)
    assert "was read as CSV by its boxes.csv; it could also be labelme (--format overrides)" in " ".join(guessed.notes)
    assert boxes(data.read(root, format="labelme")) == EXPECTED


@pytest.mark.parametrize("export", EXPORTS, ids=lambda f: f.__name__)
def test_a_named_format_gives_the_recognised_source(
    export: Callable[..., Path], tmp_path: Path, write_image: Write
) -> None:
    path = export(tmp_path / "set", write_image)
    folder = path / "train" if not any(path.glob("*.*")) and (path / "train").is_dir() else path
    found = recognise(folder)
    assert recognise(folder, found.format.name).source.path == found.source.path


def test_a_failing_format_does_not_stop_other_formats(
    install: Install, write_voc: Write, caplog: pytest.LogCaptureFixture
) -> None:
    install(failing="lines_plugin:FAILING")
    root = write_voc({"a": [("cat", (1, 2, 30, 40))]})
    with caplog.at_level(logging.WARNING):
        assert data.load(root).num_objects == 1
    assert "'failing' of another package failed to recognise" in caplog.text
    assert "no luck" in caplog.text


def test_hidden_copies_are_no_evidence_and_subfolders_are(tmp_path: Path, write_image: Write) -> None:
    for day in ("mon", "tue"):
        write_image(tmp_path / day / "a.jpg", 64, 48)
        (tmp_path / day / "a.xml").write_text(voc_xml("a.jpg", OBJECTS))
    for name in ("._a.json", "._b.csv", "._c.xml"):
        (tmp_path / name).write_bytes(b"\0\5\x16\xff")
    found = data.read(tmp_path)
    assert [record.path.parent.name for record in found.records] == ["mon", "tue"]
    assert found.num_objects == 4
