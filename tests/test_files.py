"""Tests of allowed folders and of atomic file writing."""

from __future__ import annotations

from pathlib import Path

import pytest

from retinanet.errors import UserError
from retinanet.files import (
    AllowedFolders,
    atomic_path,
    existing_path,
    is_file,
    is_folder,
    partial_path,
    write_atomically,
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Write project/annotations/a.json."""
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
def test_relative_paths_are_allowed_up_to_the_parent_folder(name: str, is_allowed: bool, source: Path) -> None:
    allowed = AllowedFolders.around(source)
    assert allowed.contains(source.parent / name) == is_allowed
    assert AllowedFolders.around(source.parent).contains(source.parent / name) == is_allowed
    assert AllowedFolders.around(source, allow_outside=True).contains(source.parent / name)


def test_the_image_folder_is_allowed(source: Path, tmp_path: Path) -> None:
    path = source.parent / ".." / ".." / "images" / "a.png"
    assert not AllowedFolders.around(source).contains(path)
    assert AllowedFolders.around(source, tmp_path / "images").contains(path)


def test_dots_after_a_link_mean_the_parent_of_its_target(source: Path, tmp_path: Path) -> None:
    (tmp_path / "private" / "deep").mkdir(parents=True)
    (source.parent / "link").symlink_to(tmp_path / "private" / "deep")
    allowed = AllowedFolders.around(source)
    assert allowed.contains(source.parent / "link" / "a.png")
    assert not allowed.contains(source.parent / "link" / ".." / "a.png")
    (source.parent / "loop").symlink_to(source.parent / "loop")
    assert not allowed.contains(source.parent / "loop" / ".." / "a.png")


def test_an_impossible_file_name_does_not_exist(tmp_path: Path) -> None:
    assert not is_file(tmp_path / ("a" * 5000))
    assert not is_folder(tmp_path / "\0")


def test_write_atomically_replaces_a_file(tmp_path: Path):
    path = tmp_path / "new" / "a.txt"
    write_atomically(path, "é")
    assert path.read_bytes() == b"\xc3\xa9"
    write_atomically(path, b"second")
    assert path.read_bytes() == b"second"
    assert [entry.name for entry in path.parent.iterdir()] == ["a.txt"]


def test_an_error_while_writing_keeps_the_old_file(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half() -> None:
        with atomic_path(path) as partial:
            partial.write_text("half")
            assert partial == partial_path(path) == tmp_path / "a.txt.partial"
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_half()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_existing_path_suggests_the_nearest_name(tmp_path: Path):
    (tmp_path / "train.json").touch()
    assert existing_path(tmp_path / "train.json") == tmp_path / "train.json"
    with pytest.raises(UserError, match=r"no such file or folder\. Did you mean 'train\.json'"):
        existing_path(tmp_path / "trian.json")
    with pytest.raises(UserError, match="there is no folder"):
        existing_path(tmp_path / "absent" / "a.json")
