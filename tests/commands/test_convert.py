"""`convert`: its files and its messages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from retinanet import data
from retinanet.cli import main

Write = Callable[..., Path]


def test_the_command(write_voc: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_voc({"a": [("dog", (1, 2, 30, 40)), ("cat", (1, 2, 30, 40))], "b": []})
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as ended:
        main(["convert", str(root), str(out), "--format", "yolo", "--rename", "dog=wolf", "--ignore-classes", "cat"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "1 objects of class cat were left out by --classes or --ignore-classes" in said
    assert "dog was renamed wolf" in said
    assert "2 images, 1 objects" in said
    assert data.load(out).classes == ("wolf",)
    with pytest.raises(SystemExit) as ended:
        main(["convert", str(root), str(out), "--format", "yolo"])
    assert ended.value.code == 1
    assert "already exists" in capsys.readouterr().err
