"""`split`: its files and its messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinanet import data
from retinanet.cli import main
from retinanet.data import DetectionData
from tests.data.helpers import names


def test_the_command(many: DetectionData, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["split", str(many.source), "--val", "0.25", "-o", str(tmp_path / "parts")])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "val: 10 images" in said
    train, val = (data.load(tmp_path / "parts" / f"{name}.json") for name in ("train", "val"))
    assert names(train) | names(val) == names(many)
    assert train.records[0].path.resolve().parent == (many.source / "JPEGImages").resolve()
