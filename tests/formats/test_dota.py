"""Tests of the DOTA reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinanet import data
from retinanet.data import DataError
from retinanet.formats import recognise
from tests.formats.samples import CAT, DOG, EXPECTED, Write, boxes, dota, dota_line


def test_a_rotated_box_becomes_the_upright_box_around_it(tmp_path: Path, write_image: Write) -> None:
    """The corners (20, 5), (35, 20), (25, 30), (10, 15) lie in x from 10 to 35 and in y from 5 to 30."""
    root = dota(tmp_path / "dota", write_image)
    (root / "train" / "labelTxt" / "b.txt").write_text("20 5 35 20 25 30 10 15 small-vehicle 0\n")
    found = data.load(root)
    assert boxes(found)["b.jpg"] == [("small-vehicle", (10, 5, 35, 30))]
    assert "1 rotated boxes of DOTA were replaced by their bounding boxes" in found.notes
    assert found.classes == ("cat", "dog", "small-vehicle")


def test_difficult_objects_are_ignored_and_the_flag_may_be_missing(tmp_path: Path, write_image: Write) -> None:
    root = dota(tmp_path / "dota", write_image)
    without_flag = dota_line("cat", CAT).rpartition(" ")[0]
    (root / "train" / "labelTxt" / "b.txt").write_text(
        f"'imagesource':GF-2\ngsd:null\n{dota_line('dog', DOG, 1)}{dota_line('dog', DOG, 2)}{without_flag}\n"
    )
    found = data.load(root)
    assert found.records[1].crowd_G.tolist() == [True, True, False]
    assert boxes(found)["b.jpg"] == [("dog", DOG), ("dog", DOG), ("cat", CAT)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 2 3 4 cat 0", "expected 8 coordinates, a category and a difficult flag, found 6 columns: '1 2 3 4 cat 0'"),
        ("1 2 3 x 5 6 7 8 cat 0", "expected 8 finite coordinates, found '1 2 3 x 5 6 7 8'"),
        ("1 2 30 2 30 40 1 40 cat no", "expected a difficult flag of 0 or more, found 'no'"),
        ("1 2 1 2 1 40 1 40 cat 0", "expected a box with an area above 0, found"),
        ("100 2 130 2 130 40 100 40 cat 0", "expected a box within the 64x48 image, found"),
    ],
)
def test_faults_name_file_and_line(line: str, message: str, tmp_path: Path, write_image: Write) -> None:
    root = dota(tmp_path / "dota", write_image)
    (root / "train" / "labelTxt" / "b.txt").write_text(f"gsd:0.1\n{dota_line('dog', DOG)}{line}\n")
    with pytest.raises(DataError, match=rf"labelTxt/b\.txt, line 3: {message}"):
        data.load(root)
    assert boxes(data.load(root, skip_invalid=True)) == {**EXPECTED, "b.jpg": [("dog", DOG)]}


@pytest.mark.parametrize("folder", ["labelTxt-v1.0/labelTxt", "labelTxt-v1.5", "annfiles"])
def test_the_folders_of_other_downloads(folder: str, tmp_path: Path, write_image: Write) -> None:
    root = dota(tmp_path / "dota", write_image) / "train"
    (root / folder).parent.mkdir(exist_ok=True)
    (root / "labelTxt").rename(root / folder)
    assert recognise(root).format.name == "dota"
    assert boxes(data.load(root)) == EXPECTED
    assert boxes(data.load(root / folder)) == EXPECTED


def test_every_split_of_the_download(tmp_path: Path, write_image: Write) -> None:
    root = dota(tmp_path / "dota", write_image)
    dota(tmp_path / "other", write_image).joinpath("train").rename(root / "val")
    (root / "val" / "labelTxt" / "a.txt").write_text(dota_line("cat", CAT))
    assert [data.load(root, split=split).num_objects for split in ("train", "val")] == [2, 1]
