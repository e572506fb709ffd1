"""Which folders an annotation file may lead to."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinanet.files import AllowedFolders, is_file, is_folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The file project/annotations/a.json."""
    path = tmp_path / "project" / "annotations" / "a.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    return path


@pytest.mark.parametrize(
    ("name", "is_allowed"),
    [
        ("a.png", True),
        ("../a.png", True),
        ("../images/a.png", True),
        ("../../a.png", False),
        ("../../project/images/a.png", True),
        ("x/../../../a.png", False),
        ("/etc/a.png", True),
        ("/etc/../a.png", False),
    ],
)
def test_a_relative_path_stays_below_the_folder_above(name: str, is_allowed: bool, source: Path) -> None:
    allowed = AllowedFolders.around(source)
    assert allowed.contains(source.parent / name) == is_allowed
    assert AllowedFolders.around(source.parent).contains(source.parent / name) == is_allowed
    assert AllowedFolders.around(source, allow_outside=True).contains(source.parent / name)


def test_the_folder_of_the_images_is_allowed(source: Path, tmp_path: Path) -> None:
    path = source.parent / ".." / ".." / "images" / "a.png"
    assert not AllowedFolders.around(source).contains(path)
    assert AllowedFolders.around(source, tmp_path / "images").contains(path)


def test_dots_after_a_link_lead_above_its_target(source: Path, tmp_path: Path) -> None:
    (tmp_path / "private" / "deep").mkdir(parents=True)
    (source.parent / "link").symlink_to(tmp_path / "private" / "deep")
    allowed = AllowedFolders.around(source)
    assert allowed.contains(source.parent / "link" / "a.png")
    assert not allowed.contains(source.parent / "link" / ".." / "a.png")
    (source.parent / "circle").symlink_to(source.parent / "circle")
    assert not allowed.contains(source.parent / "circle" / ".." / "a.png")


def test_a_name_that_no_disk_holds_is_no_file(tmp_path: Path) -> None:
    assert not is_file(tmp_path / ("a" * 5000))
    assert not is_folder(tmp_path / "\0")
