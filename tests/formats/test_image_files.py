"""Tests of the search for image files."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from retinanet import images
from retinanet.files import AllowedFolders
from retinanet.formats.image_files import ImageFinder, image_size, images_below, is_list_of_images, outside_fault
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
