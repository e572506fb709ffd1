"""Detection in files and folders: written files, options and the output folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from retinanet.errors import ConfigError, UserError
from retinanet.predict.files import image_ids, predict_files
from tests.evaluate.block_detector_fake import block_detector, made_image
from tests.predict.made_video import write_video

TALL = ((100, 300), {1: (20, 200, 80, 260)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("in/b.PNG", "in/a.png", "in/sub/a.png", "in/sub/deep/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        made_image(*TALL).save(tmp_path / name)
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    return tmp_path / "in"


@pytest.mark.parametrize("format", ["coco", "csv", "voc", "yolo"])
def test_predict_files_writes_detections_and_drawn_images(folder: Path, tmp_path: Path, format: str) -> None:
    (folder / "broken.jpg").write_bytes(b"no")
    output = tmp_path / "out"
    summary = predict_files(block_detector(), [folder], output=output, format=format, batch_size=2)
    assert (summary.images, summary.detections) == (4, 4)
    assert [path.name for path, _ in summary.failed] == ["broken.jpg"]
    assert summary.results.exists()
    drawn = sorted(path.relative_to(output).as_posix() for path in output.rglob("*.jpg"))
    assert drawn == ["drawn/a.jpg", "drawn/b.jpg", "drawn/sub/a.jpg", "drawn/sub/deep/c.jpg"]
    with Image.open(output / "drawn" / "a.jpg") as image:
        assert image.size == (100, 300)
    if format == "coco":
        rows = json.loads(summary.results.read_text())
        assert [(row["image_id"], Path(row["file_name"]).name) for row in rows] == [
            (1, "a.png"),
            (2, "b.PNG"),
            (4, "a.png"),
            (5, "c.png"),
        ]
        assert {row["category_id"] for row in rows} == {7}
        assert rows[0]["bbox"] == pytest.approx([20, 200, 60, 60], abs=1e-3)


@pytest.mark.parametrize("format", ["coco", "csv", "voc", "yolo"])
def test_other_classes_are_left_out_of_all_results(tmp_path: Path, format: str) -> None:
    made_image((100, 100), {0: (0, 0, 30, 30), 1: (40, 40, 90, 90)}).save(tmp_path / "a.png")
    video = write_video(tmp_path / "clip.mp4")  # a green block in all frames, a blue block in some
    inputs, output = [tmp_path / "a.png", video], tmp_path / "out"
    every = predict_files(block_detector(), inputs, output=tmp_path / "all", format=format)
    green = predict_files(block_detector(), inputs, output=output, format=format, classes=["green"])
    assert (every.detections, green.detections) == (2, 1)
    assert 0 < green.videos[0].detections < every.videos[0].detections
    written = "".join(path.read_text() for path in output.rglob("*.*") if path.suffix in {".csv", ".json", ".xml"})
    assert '"category_id": 3' not in written.replace('"id": 3', "")
    assert "blue" not in (output / "clip.csv").read_text()
    with Image.open(output / "drawn" / "a.jpg") as image:
        assert image.getpixel((15, 0)) == pytest.approx((254, 0, 0), abs=12)  # no box around the red block
    with pytest.raises(ConfigError, match="Did you mean 'red'"):
        predict_files(block_detector(), inputs, output=tmp_path / "no", classes=["rad"])
    assert not (tmp_path / "no").exists()


def test_a_font_that_cannot_be_read_is_refused_before_prediction(folder: Path, tmp_path: Path) -> None:
    for file, what in ((folder / "notes.txt", "is no font"), (folder / "no.ttf", "does not exist")):
        with pytest.raises(ConfigError, match=f"the file that font names {what}: .*{file.name}"):
            predict_files(block_detector(), [folder], output=tmp_path / "out", font=file)
    assert not (tmp_path / "out").exists()


def test_draw_and_threshold(folder: Path, tmp_path: Path) -> None:
    detector, output = block_detector(), tmp_path / "out"
    summary = predict_files(detector, [folder / "a.png"], output=output, draw=False, threshold=0.999)
    assert (summary.images, summary.detections, summary.drawn) == (1, 0, None)
    assert [path.name for path in output.iterdir()] == ["detections.json"]


def test_existing_results_are_not_overwritten(folder: Path, tmp_path: Path) -> None:
    detector, output = block_detector(), tmp_path / "out"
    predict_files(detector, [folder], output=output, format="voc", draw=False)
    with pytest.raises(ConfigError, match=r"already contains Annotations: give --overwrite"):
        predict_files(detector, [folder], output=output, format="voc")
    predict_files(detector, [folder], output=output, format="voc", overwrite=True)
    predict_files(detector, [folder], output=output, format="csv", draw=False)
    with pytest.raises(ConfigError, match="is a file"):
        predict_files(detector, [folder], output=folder / "a.png")


def test_images_in_the_output_folder_are_no_input(folder: Path) -> None:
    output = folder / "out"
    predict_files(block_detector(), [folder], output=output)
    assert predict_files(block_detector(), [folder], output=output, overwrite=True).images == 4


def test_image_ids_from_a_dataset_whose_images_lie_elsewhere(tmp_path: Path) -> None:
    """The rules are those of the readers: longest matching end, back-slashes, Unicode forms, one image for one name."""
    names = ("C:\\data\\cam1\\a.jpg", "cam2/a.jpg", "Zu\u0308ge.JPG", "once.jpg")
    images = [{"id": 10 * i, "file_name": name, "width": 9, "height": 9} for i, name in enumerate(names, 1)]
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"images": images, "annotations": [], "categories": [{"id": 7, "name": "green"}]}))
    paths = [Path("copy") / name for name in ("cam1/a.jpg", "cam2/a.jpg", "Z\u00fcge.jpg", "sub/once.jpg")]
    assert image_ids(paths, truth) == [10, 20, 30, 40]
    with pytest.raises(UserError, match=r"one image for 'copy/a.jpg', found 2 that match equally: .*cam1/a.jpg"):
        image_ids([Path("copy/a.jpg")], truth)
    with pytest.raises(UserError, match=r"once.jpg', found 2 that match equally: x/once.jpg, y/once.jpg"):
        image_ids([Path("x/once.jpg"), Path("y/once.jpg")], truth)
    with pytest.raises(UserError, match=r"does not contain other.jpg"):
        image_ids([*paths, Path("other.jpg")], truth)
    truth.write_text(truth.read_text().replace("once.jpg", "sub/once.jpg"))
    with pytest.raises(UserError, match=r"does not contain x/once.jpg"):  # sub/once.jpg matches a longer end
        image_ids([*paths, Path("x/once.jpg")], truth)


def test_image_ids_from_a_dataset(folder: Path, tmp_path: Path) -> None:
    images = [
        {"id": i, "file_name": name, "width": 100, "height": 300}
        for i, name in ((70, "sub/a.png"), (8, "b.PNG"), (900, "a.png"))
    ]
    truth = folder / "truth.json"
    truth.write_text(json.dumps({"images": images, "annotations": [], "categories": [{"id": 7, "name": "green"}]}))
    summary = predict_files(
        block_detector(), [folder / "a.png", folder / "b.PNG", folder / "sub" / "a.png"], output=tmp_path / "out",
        ids_from=truth,
    )  # fmt: skip
    assert [row["image_id"] for row in json.loads(summary.results.read_text())] == [900, 8, 70]
    with pytest.raises(UserError, match=r"truth\.json does not contain .*c\.png"):
        predict_files(block_detector(), [folder], output=tmp_path / "out2", ids_from=truth)


def test_drawings_of_an_earlier_prediction_are_no_inputs(tmp_path: Path) -> None:
    """A second run with another output folder below the inputs would detect the boxes that the first one drew."""
    folder = tmp_path / "in"
    folder.mkdir()
    made_image(*TALL).save(folder / "a.png")
    write_video(folder / "clip.mp4", count=1)
    (folder / "data" / "drawn").mkdir(parents=True)  # not beside results: the user's own folder
    made_image(*TALL).save(folder / "data" / "drawn" / "b.png")
    for name in ("first", "second"):
        found = predict_files(block_detector(), [folder], output=folder / name)
        assert (found.images, len(found.videos)) == (2, 1)
    assert any("that an earlier prediction drew: 3" in sentence for sentence in found.left_out)
    named = predict_files(block_detector(), [folder / "first" / "drawn"], output=tmp_path / "out")
    assert (named.images, len(named.videos)) == (2, 1), "a folder that the user names is read"
