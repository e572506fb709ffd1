from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import supervision as sv
from PIL import Image

from retinanet.commands.predict import predict
from retinanet.config import PredictConfig, resolve
from retinanet.errors import ConfigError, UserError
from retinanet.images import ImageError
from retinanet.predict.files import predict_files
from retinanet.predict.inputs import expand_inputs
from retinanet.predict.loading import load
from retinanet.predict.torch_detector import pick_device
from tests.evaluate.fakes import CLASSES, block_detector, picture

WIDE = ((400, 100), {2: (200, 20, 360, 80)})
TALL = ((100, 300), {1: (20, 200, 80, 260)})


def xyxy(found: sv.Detections) -> list[list[float]]:
    return [list(map(float, box)) for box in found.xyxy]


def test_boxes_are_in_original_pixels() -> None:
    """A quarter of the size on the network's side, neither square nor a multiple of 32."""
    detector = block_detector(image_size=25)
    found = detector.predict(picture(*WIDE))
    assert xyxy(found)[0] == pytest.approx([200, 20, 360, 80], abs=1e-3)
    assert found.class_id is not None
    assert found.class_id.tolist() == [2]  # the last class: nothing is shifted
    assert found.data["class_name"].tolist() == ["blue"]
    wide, tall = detector.predict([picture(*WIDE), picture(*TALL)])
    assert xyxy(wide) == [pytest.approx([200, 20, 360, 80], abs=1e-3)]
    assert xyxy(tall) == [pytest.approx([20, 200, 80, 260], abs=1e-3)]


def test_any_source(tmp_path: Path) -> None:
    detector, image = block_detector(), picture(*TALL)
    path = tmp_path / "tall.png"
    image.save(path)
    rotated = tmp_path / "rotated.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: a viewer turns it a quarter clockwise
    image.transpose(Image.Transpose.ROTATE_90).save(rotated, exif=exif)
    for source in (image, path, str(path), path.read_bytes(), np.asarray(image), rotated):
        assert xyxy(detector.predict(source)) == [pytest.approx([20, 200, 80, 260], abs=1e-3)]


def test_nothing_found() -> None:
    found = block_detector().predict(picture((80, 60), {}))
    assert (len(found), found.xyxy.shape) == (0, (0, 4))
    assert found.data["class_name"].tolist() == []
    assert block_detector().predict([]) == []


def test_best_first_and_threshold() -> None:
    """The network's score is sigmoid(6 x brightness): 0.997 for the green block, 0.95 for the red one."""
    pixels = np.asarray(picture((100, 100), {1: (20, 20, 60, 60)})).copy()
    pixels[60:90, 60:90, 0] = 128
    detector = block_detector()
    found = detector.predict(pixels)
    assert found.data["class_name"].tolist() == ["green", "red"]
    assert found.confidence is not None
    assert found.confidence.tolist() == pytest.approx(
        [1 / (1 + np.exp(-6)), 1 / (1 + np.exp(-6 * 128 / 255))], abs=1e-4
    )
    assert len(detector.predict(pixels, threshold=0.96)) == 1
    assert len(detector.predict(pixels, threshold=0.999)) == 0
    assert len(detector.predict(pixels)) == 2


def test_a_picture_that_does_not_decode(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG no more")
    good = picture(*TALL)
    detector = block_detector()
    with pytest.raises(ImageError, match=r"broken\.png"):
        detector.predict([good, broken])
    for workers in (0, 2):
        for batch_size in (1, 2, 10):
            sources = [good, broken, tmp_path / "missing.png", good, good]
            outcome = list(detector.predict_batches(sources, batch_size=batch_size, workers=workers))
            assert [source for source, _ in outcome] == sources
            assert [isinstance(found, ImageError) for _, found in outcome] == [False, True, True, False, False]
            assert all(len(found) == 1 for _, found in outcome if isinstance(found, sv.Detections))


def test_pictures_are_taken_as_they_are_needed() -> None:
    """A million pictures must not be read before the first result comes out."""
    taken = 0

    def endless() -> Iterator[Image.Image]:
        nonlocal taken
        while True:
            taken += 1
            yield picture(*TALL)

    results = block_detector().predict_batches(endless(), batch_size=2, workers=2)
    for _ in range(5):
        next(results)
    assert taken <= 5 + 2 * (2 + 1)
    results.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("retinanet-load")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("in/b.PNG", "in/a.png", "in/sub/a.png", "in/sub/deep/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(*TALL).save(tmp_path / name)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    return tmp_path / "in"


def names(paths: list[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def test_expand_inputs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = ["a.png", "b.PNG", "sub/a.png", "sub/deep/c.png"]
    assert names(expand_inputs([folder]), folder) == everything
    assert names(expand_inputs([str(folder / "**" / "*.png"), str(folder)]), folder) == everything  # each one once
    assert names(expand_inputs([str(folder / "*")]), folder) == ["a.png", "b.PNG"]
    assert names(expand_inputs([folder / "notes.txt"]), folder) == ["notes.txt"]  # named: taken at its word
    assert names(expand_inputs([folder], exclude=folder / "sub"), folder) == ["a.png", "b.PNG"]
    picture(*TALL).save(folder / "a[1].png")
    assert names(expand_inputs([str(folder / "a[1].png")]), folder) == ["a[1].png"]  # a file before a pattern
    monkeypatch.chdir(folder)
    assert expand_inputs(["./a.png", "a.png"]) == [Path("a.png")]


def test_expand_inputs_says_what_is_wrong(folder: Path) -> None:
    with pytest.raises(UserError, match=r"aa\.png: no such file or folder\. Did you mean 'a\.png'\?"):
        expand_inputs([folder / "aa.png"])
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        expand_inputs([folder / "nowhere" / "a.png"])
    with pytest.raises(UserError, match=r"no pictures or videos there .*\.jpg"):
        expand_inputs([str(folder / "*.jpg")])
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="no pictures or videos there"):
        expand_inputs([folder / "empty"])


@pytest.mark.parametrize("format", ["coco", "csv", "voc", "yolo"])
def test_predict_files(folder: Path, tmp_path: Path, format: str) -> None:
    (folder / "broken.jpg").write_bytes(b"no")
    output = tmp_path / "out"
    done = predict_files(block_detector(), [folder], output=output, format=format, batch_size=2)
    assert (done.pictures, done.detections) == (4, 4)
    assert [path.name for path, _ in done.failed] == ["broken.jpg"]
    assert done.results.exists()
    drawn = sorted(path.relative_to(output).as_posix() for path in output.rglob("*.jpg"))
    assert drawn == ["drawn/a.jpg", "drawn/b.jpg", "drawn/sub/a.jpg", "drawn/sub/deep/c.jpg"]
    with Image.open(output / "drawn" / "a.jpg") as image:
        assert image.size == (100, 300)
    if format == "coco":
        rows = json.loads(done.results.read_text())
        assert [(row["image_id"], Path(row["file_name"]).name) for row in rows] == [
            (1, "a.png"),
            (2, "b.PNG"),
            (4, "a.png"),
            (5, "c.png"),
        ]
        assert {row["category_id"] for row in rows} == {7}
        assert rows[0]["bbox"] == pytest.approx([20, 200, 60, 60], abs=1e-3)


def test_options(folder: Path, tmp_path: Path) -> None:
    detector, output = block_detector(), tmp_path / "out"
    done = predict_files(detector, [folder / "a.png"], output=output, draw=False, threshold=0.999)
    assert (done.pictures, done.detections, done.drawn) == (1, 0, None)
    assert [path.name for path in output.iterdir()] == ["detections.json"]


def test_nothing_is_written_over(folder: Path, tmp_path: Path) -> None:
    detector, output = block_detector(), tmp_path / "out"
    predict_files(detector, [folder], output=output, format="voc", draw=False)
    with pytest.raises(ConfigError, match=r"already holds Annotations: give --overwrite"):
        predict_files(detector, [folder], output=output, format="voc")
    predict_files(detector, [folder], output=output, format="voc", overwrite=True)
    predict_files(detector, [folder], output=output, format="csv", draw=False)
    with pytest.raises(ConfigError, match="is a file"):
        predict_files(detector, [folder], output=folder / "a.png")


def test_its_own_drawings_are_not_taken_for_input(folder: Path) -> None:
    output = folder / "out"
    predict_files(block_detector(), [folder], output=output)
    assert predict_files(block_detector(), [folder], output=output, overwrite=True).pictures == 4


def test_ids_from_a_data_set(folder: Path, tmp_path: Path) -> None:
    images = [
        {"id": i, "file_name": name, "width": 100, "height": 300}
        for i, name in ((70, "sub/a.png"), (8, "b.PNG"), (900, "a.png"))
    ]
    truth = folder / "truth.json"
    truth.write_text(json.dumps({"images": images, "annotations": [], "categories": [{"id": 7, "name": "green"}]}))
    done = predict_files(
        block_detector(), [folder / "a.png", folder / "b.PNG", folder / "sub" / "a.png"], output=tmp_path / "out",
        ids_from=truth,
    )  # fmt: skip
    assert [row["image_id"] for row in json.loads(done.results.read_text())] == [900, 8, 70]
    with pytest.raises(UserError, match=r"truth\.json has no picture .*c\.png"):
        predict_files(block_detector(), [folder], output=tmp_path / "out2", ids_from=truth)


def test_the_command_says_what_failed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("retinanet.predict.files.load", lambda *_: block_detector())
    model = tmp_path / "model.ckpt"
    assert predict(model, [str(folder / "a.png")], options=resolve(PredictConfig, {"output": tmp_path / "one"})) == 0
    assert "1 detections in 1 pictures" in capsys.readouterr().out
    (folder / "broken.jpg").write_bytes(b"no")
    assert predict(model, [str(folder)], options=resolve(PredictConfig, {"output": tmp_path / "two"})) == 1
    assert "broken.jpg" in capsys.readouterr().err


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "best.ckpt").touch()
    with pytest.raises(UserError, match=r"best\.ckp: no such file or folder\. Did you mean 'best\.ckpt'"):
        load(tmp_path / "best.ckp")


def test_devices() -> None:
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type in {"cpu", "cuda", "mps"}
    with pytest.raises(ConfigError, match="'gpu7' is not there"):
        pick_device("gpu7")


def test_classes_and_ids_are_kept() -> None:
    assert block_detector().classes == CLASSES
    assert block_detector().category_ids == (3, 7, 90)
