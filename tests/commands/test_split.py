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


@pytest.mark.parametrize("format", ["coco", "yolo"])
def test_folds(many: DetectionData, tmp_path: Path, capsys: pytest.CaptureFixture[str], format: str) -> None:
    """Each fold is a folder with a train part and a val part, in every format."""
    folder = tmp_path / "folds"
    arguments = ["split", str(many.source), "--folds", "4", "-o", str(folder), "--to", format]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--image-files", "link"])
    assert ended.value.code == 0
    assert "fold4: 10 images" in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == ["fold1", "fold2", "fold3", "fold4"]
    held_out = []
    for fold in sorted(folder.iterdir()):
        if format == "coco":
            train, val = (data.load(fold / f"{name}.json") for name in ("train", "val"))
        else:
            train, val = (data.load(fold / "data.yaml", split=name) for name in ("train", "val"))
        assert names(train) | names(val) == names(many)
        held_out += sorted(names(val))
    assert sorted(held_out) == sorted(names(many))
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code != 0, "the folder is not empty"
