"""`predict`: its messages and its exit status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from retinanet.cli import main
from retinanet.commands.predict import predict
from retinanet.config import PredictConfig, resolve
from retinanet.predict.detector import BaseDetector
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
    monkeypatch.setattr("retinanet.predict.files.load_with_options", lambda *_, **__: block_detector())
    model = tmp_path / "model.ckpt"
    assert predict(model, [str(folder / "a.png")], options=resolve(PredictConfig, {"output": tmp_path / "one"})) == 0
    assert "1 detections in 1 images" in capsys.readouterr().out
    (folder / "broken.jpg").write_bytes(b"no")
    assert predict(model, [str(folder)], options=resolve(PredictConfig, {"output": tmp_path / "two"})) == 1
    assert "broken.jpg" in capsys.readouterr().err


def test_the_command_says_what_it_did(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retinanet.predict.files.load_with_options", lambda *_, **__: block_detector())
    config = resolve(PredictConfig, {"output": tmp_path / "out"})
    assert predict(tmp_path / "any.ckpt", [str(write_video(tmp_path / "clip.mp4"))], options=config) == 0
    said = capsys.readouterr().out
    assert f"20 detections in 12 frames: {tmp_path / 'out' / 'clip.csv'}" in said
    assert "clip.mp4" in said


@pytest.mark.slow
def test_commands_pass_the_kind_of_nms_to_the_model(
    folder: Path, tmp_path: Path, trained_run: Path, squares: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kind of NMS of each model that `predict`, `evaluate` and `check` use, by the option that is given."""
    used: list[bool] = []
    stream = BaseDetector.stream

    def recorded(detector: BaseDetector, *arguments: Any, **options: Any) -> Any:
        used.append(detector.postprocess_config.agnostic_nms)
        return stream(detector, *arguments, **options)

    monkeypatch.setattr(BaseDetector, "stream", recorded)
    model, data = trained_run / "best.ckpt", squares[1]
    for words in (
        ["predict", model, folder / "a.png", "-o", tmp_path / "out", "--overwrite"],
        ["evaluate", model, "--data", data],
        ["check", model, data],
    ):
        used.clear()
        for option in ([], ["--agnostic-nms"], ["--no-agnostic-nms"]):
            with pytest.raises(SystemExit) as stop:
                main([str(word) for word in [*words, *option]])
            assert stop.value.code == 0
        assert used == [False, True, False], words[0]
