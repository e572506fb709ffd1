"""Tests of the search for image files."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from retinanet import data, images
from retinanet.files import AllowedFolders
from retinanet.formats.image_files import (
    AmbiguousImageError,
    ImageFinder,
    image_size,
    images_below,
    is_list_of_images,
    outside_fault,
)
from retinanet.predict.inputs import expand_inputs


@pytest.mark.parametrize(("suffix", "format"), [(".jp2", "JPEG2000"), (".avif", "AVIF"), (".jfif", "JPEG")])
def test_training_and_prediction_find_the_same_images(suffix: str, format: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (64, 48), (200, 30, 30)).save(path, format)
    assert images.decode(path).size == (64, 48)
    assert images_below(tmp_path) == [path]
    assert expand_inputs([tmp_path]) == [path]


def test_the_finder_tries_three_names_in_order(tmp_path: Path):
    for name in ("images/sub/a.png", "images/b.png", "c.png", "images/deep/er/d.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    finder = ImageFinder.for_file(tmp_path / "labels.json", None)
    assert finder.find("sub\\a.png").path == tmp_path / "images/sub/a.png"
    assert finder.find("elsewhere/b.png").path == tmp_path / "images/b.png"
    assert finder.find("0123abcd-c.png").path == tmp_path / "c.png"
    assert finder.find("d.png").path == tmp_path / "images/deep/er/d.png"  # found by the recursive search
    assert finder.find("absent.png").path == tmp_path / "absent.png"  # the expected path
    assert finder.find(str(tmp_path / "images/b.png")).path == tmp_path / "images/b.png"


def test_a_given_image_folder_replaces_the_default_folders(tmp_path: Path):
    (tmp_path / "a.png").touch()
    (tmp_path / "other").mkdir()
    finder = ImageFinder.for_file(tmp_path / "labels.json", tmp_path / "other")
    assert finder.find("a.png").path == tmp_path / "other/a.png"


@pytest.mark.parametrize(
    ("text", "is_list"), [("\n./images/a.JPG\n", True), ("images\\a.png", True), ("a.png", False), ("", False)]
)
def test_a_list_of_images_is_recognised(tmp_path: Path, text: str, is_list: bool):
    (tmp_path / "train.txt").write_text(text)
    assert is_list_of_images(tmp_path / "train.txt") is is_list


def test_an_invalid_annotated_size_is_read_from_the_image(tmp_path: Path):
    path = tmp_path / "a.png"
    Image.new("RGB", (7, 5)).save(path)
    assert image_size(path, "64", 48.0) == (64, 48)
    for width, height in ((None, 48), (0, 48), ("wide", 48), (2**31, 48)):
        assert image_size(path, width, height) == (7, 5)


def test_an_image_outside_the_allowed_folders_is_a_fault(tmp_path: Path):
    labels = tmp_path / "data" / "annotations"
    labels.mkdir(parents=True)
    allowed = AllowedFolders.around(labels / "a.json")
    assert outside_fault(allowed, labels / "../images/a.png") is None
    assert "is outside of it" in str(outside_fault(allowed, labels / "../../secret/a.png"))


def found_in(root: Path, *names: str) -> ImageFinder:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return ImageFinder.for_file(root / "labels.json", None)


@pytest.mark.parametrize(
    "written",
    [
        "C:\\Users\\ann\\cam 1\\a#2.jpg",
        "/home/ann/data/cam 1/a#2.jpg",
        "file:///home/ann/cam%201/a%232.jpg",
        "s3://bucket/data/cam 1/a#2.jpg",
        "https://host/data/cam%201/a%232.jpg?token=1",
        "/data/local-files/?d=data%2Fcam%201%2Fa%232.jpg",
        "../../media/upload/4/cam 1/0a1b2c3d-a#2.jpg",
        "Cam 1/A#2.JPG",
        "./cam 1/a#2.jpg",
    ],
)
def test_the_readings_of_a_written_path(tmp_path: Path, written: str):
    finder = found_in(tmp_path, "images/cam 1/a#2.jpg", "images/cam 2/a#2.jpg")
    assert finder.find(written).path == tmp_path / "images/cam 1/a#2.jpg"


def test_a_bare_name_that_several_images_have_lists_them(tmp_path: Path):
    finder = found_in(tmp_path, "images/cam1/a.jpg", "images/cam2/a.jpg", "images/cam2/b.jpg")
    with pytest.raises(AmbiguousImageError, match=r"expected one image for 'x/a\.jpg', found 2 .*cam1/a.*cam2/a"):
        finder.find("x/a.jpg")
    assert finder.find("x/a.jpg", near=tmp_path / "images/cam2").path == tmp_path / "images/cam2/a.jpg"
    assert not finder.find("x/b.jpg").is_whole
    assert finder.find("cam2/b.jpg").is_whole


def test_a_written_name_with_special_characters_is_tried_first(tmp_path: Path):
    finder = found_in(tmp_path, "a%20b.jpg", "a b.jpg", "0a1b2c3d-c.jpg", "c.jpg", "x\\y.jpg", "y.jpg")
    for name in ("a%20b.jpg", "a b.jpg", "0a1b2c3d-c.jpg", "x\\y.jpg"):
        assert finder.find(name).path == tmp_path / name


def test_two_names_for_one_image_are_faults_if_one_was_found_by_its_end(tmp_path: Path):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    (tmp_path / "x.csv").write_text("cam1/a.png,1,2,9,9,cat\ncam2/a.png,3,4,9,9,cat\n")
    found = data.read(tmp_path / "x.csv")
    assert not found.records
    assert [fault.where for fault in found.faults] == ["line 1", "line 2"]
    assert "which is also the image of 'cam2/a.png'" in found.faults[0].what
    (tmp_path / "cam1").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "cam1" / "a.png")
    found = data.read(tmp_path / "x.csv")
    assert [record.path for record in found.records] == [tmp_path / "cam1" / "a.png"]
    assert [fault.where for fault in found.faults] == ["line 2"]


def test_an_image_of_another_unicode_form_stays_if_a_second_name_matches_only_its_end(tmp_path: Path):
    on_disk = tmp_path / "e\u0301.png"
    Image.new("RGB", (64, 48)).save(on_disk)
    (tmp_path / "x.csv").write_text("\u00e9.png,1,2,9,9,cat\ncam2/\u00e9.png,3,4,9,9,cat\n", encoding="utf-8")
    found = data.read(tmp_path / "x.csv")
    assert [record.path for record in found.records] == [on_disk]
    assert [fault.where for fault in found.faults] == ["line 2"]


def test_one_image_with_several_spellings_of_its_path_is_one_record(tmp_path: Path):
    (tmp_path / "i").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "i" / "a.png")
    (tmp_path / "x.csv").write_text("i/a.png,1,2,9,9,cat\n./i/a.png,3,4,9,9,cat\ni\\a.png,5,6,9,9,cat\n")
    (record,) = data.read(tmp_path / "x.csv").records
    assert len(record.boxes_G4) == 3


def test_images_without_annotations_are_counted(tmp_path: Path):
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (64, 48)).save(tmp_path / name)
    (tmp_path / "x.csv").write_text("a.png,1,2,9,9,cat\n")
    assert any(
        note.startswith(f"not read, no annotations in {tmp_path / 'x.csv'}: 2 images")
        for note in data.read(tmp_path / "x.csv").notes
    )
