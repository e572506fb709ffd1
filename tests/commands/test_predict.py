"""`predict`: its messages and its exit status."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinanet.commands.predict import predict
from retinanet.config import PredictConfig, resolve
from tests.evaluate.block_detector_fake import block_detector, made_image
from tests.predict.made_video import write_video

TALL = ((100, 300), {1: (20, 200, 80, 260)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("in/b.PNG", "in/a.png", "in/sub/a.png", "in/sub/deep/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        made_image(*TALL).save(tmp_path / name)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    return tmp_path / "in"


def test_the_command_says_what_failed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("retinanet.predict.files.load", lambda *_, **__: block_detector())
    model = tmp_path / "model.ckpt"
    assert predict(model, [str(folder / "a.png")], options=resolve(PredictConfig, {"output": tmp_path / "one"})) == 0
    assert "1 detections in 1 images" in capsys.readouterr().out
    (folder / "broken.jpg").write_bytes(b"no")
    assert predict(model, [str(folder)], options=resolve(PredictConfig, {"output": tmp_path / "two"})) == 1
    assert "broken.jpg" in capsys.readouterr().err


def test_the_command_says_what_it_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retinanet.predict.files.load", lambda *_, **__: block_detector())
    config = resolve(PredictConfig, {"output": tmp_path / "out"})
    assert predict(tmp_path / "any.ckpt", [str(write_video(tmp_path / "clip.mp4"))], options=config) == 0
    said = capsys.readouterr().out
    assert f"20 detections in 12 frames: {tmp_path / 'out' / 'clip.csv'}" in said
    assert "clip.mp4" in said
