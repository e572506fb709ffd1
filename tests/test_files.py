"""Tests of allowed folders and of atomic file writing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from retinanet.errors import UserError
from retinanet.files import (
    STDOUT,
    AllowedFolders,
    atomic_path,
    existing_path,
    is_file,
    is_folder,
    partial_path,
    path_from_text,
    path_text,
    read_text,
    require_writable,
    valid_text,
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
    with pytest.raises(UserError, match=r"no such file or folder: .*trian\.json\. Did you mean 'train\.json'"):
        existing_path(tmp_path / "trian.json")
    with pytest.raises(UserError, match="there is no folder"):
        existing_path(tmp_path / "absent" / "a.json")


LATIN_1 = Path("in") / os.fsdecode(b"bild_\xfc.jpg")


def test_a_path_that_is_not_utf8_is_written_as_text_and_read_back(tmp_path: Path) -> None:
    assert path_text(LATIN_1) == "in/bild_%FC.jpg"
    assert path_text(Path("in/a\n\x1b.jpg")) == "in/a%0A%1B.jpg"
    assert path_text(Path("in/写真 100%.jpg")) == "in/写真 100%.jpg"
    assert valid_text("\udce5\udc87\xba".encode("utf-8", "surrogateescape").decode("latin-1")) == "å\x87Âº"
    assert valid_text("half \ud83d") == "half %ED%A0%BD"  # of a UTF-16 character, as names on Windows may contain
    for name in (LATIN_1.name, "100%25.jpg"):
        (tmp_path / name).touch()
        assert path_from_text(path_text(tmp_path / name)) == tmp_path / name
    assert path_from_text("absent_%FC.jpg") == Path("absent_%FC.jpg")
    write_atomically(tmp_path / "list.txt", f"{LATIN_1}\n")
    assert (tmp_path / "list.txt").read_text(encoding="utf-8") == "in/bild_%FC.jpg\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le with mark", "utf-16-be with mark"])
def test_text_is_read_with_any_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    path, text = tmp_path / "t.csv", "größe,写真\r\n1,2\r\n"
    name, _, mark = encoding.partition(" ")
    path.write_bytes((("\ufeff" if mark else "") + text).encode(name))
    assert read_text(path) == text
    path.write_bytes(b"")
    assert read_text(path) == ""


def test_a_partial_file_has_a_name_that_file_systems_accept(tmp_path: Path) -> None:
    assert partial_path(Path("a/b.json")) == Path("a/b.json.partial")
    write_atomically(tmp_path / ("写" * 83 + ".json"), "[]")
    assert [path.name for path in tmp_path.iterdir()] == ["写" * 83 + ".json"]


def test_an_output_file_that_cannot_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    require_writable(None, STDOUT, tmp_path / "new" / "a.json")
    assert [path.name for path in tmp_path.rglob("*")] == ["new"], "the folder is created, the file is not"
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write \((Not a directory|File exists)\): .*b\.json"):
        require_writable(tmp_path / "file" / "b.json")
    with pytest.raises(UserError, match="the file to write is a folder: .*new"):
        require_writable(tmp_path / "new")
