"""The first words of an error name its cause; the file or value and what to do come after it."""

from pathlib import Path

import pytest

from tests.commands.made import run

LONG = "a folder with a name that is much too long to stand at the start of a message"


@pytest.mark.parametrize(
    ("words", "cause", "advice"),
    [
        (
            ("check", "{long}/annotatoins.json"),
            "the dataset does not exist: no 'annotatoins.json' in",
            "annotations.json",
        ),
        (("check", "{long}/text.doc"), "the file is no dataset of a known format: ", "a YOLO data.yaml"),
        (("check", "{long}"), "the folder holds no dataset of a known format: ", "Give the file itself"),
        (
            ("check", "{long}/list.json", "--format", "coco"),
            "the file holds no COCO ground truth, found a list",
            "lists",
        ),
        (("check", "{data}", "--classes", "squares"), "classes names 'squares', but the classes of ", "'square'"),
        (("check", "{data}", "--images", "{long}/text.txt"), "images is no folder", "text.txt"),
        (("check", "{data}", "--report", "{long}"), "the file to write is a folder: ", "Give a file in the folder"),
        (("check", "{data}", "--config", "{long}/a.yaml"), "the option file cannot be read (No such file", "a.yaml"),
        (("evaluate", "{long}/best.ckpt", "--data", "{data}"), "no such file or folder: ", "best.ckpt"),
        (("predict", "m.ckpt", "{long}/no.jpg", "-o", "{long}/out"), "no such file or folder: ", "no.jpg"),
        (("predict", "m.ckpt", "{long}/none", "-o", "{long}/out"), "no image or video in ", ".jpg"),
        (
            ("predict", "m.ckpt", "{image}", "-o", "{long}/out", "--font", "{long}/text.txt"),
            "the file that font names",
            ".ttf",
        ),
    ],
)
def test_an_error_starts_with_its_cause(
    squares: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    cause: str,
    advice: str,
) -> None:
    folder = tmp_path / LONG
    (folder / "none").mkdir(parents=True)
    (folder / "annotations.json").write_text("{}")
    (folder / "text.txt").write_text("no dataset\n")
    (folder / "text.doc").write_text("no dataset\n")
    (folder / "list.json").write_text("[]")
    image = squares[0].parent / "images" / "0.png"
    assert run(*(word.format(long=folder, data=squares[0], image=image) for word in words)) in {1, 2}
    message = capsys.readouterr().err
    assert message.startswith(f"error: {cause}"), message
    assert advice in message
