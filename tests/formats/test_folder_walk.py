"""Tests of the search through folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from retinanet.formats.folder_walk import walk


def made(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in walk(root, {".jpg"}).files]


def test_loops_of_links_end_and_every_file_is_found_once(tmp_path: Path) -> None:
    made(tmp_path, "in/a.jpg", "in/sub/b.jpg")
    for link, target in (
        ("latest", "."),
        ("current", "."),
        ("sub/up", ".."),
        ("above", "../.."),
        ("again", "sub"),
        ("c.jpg", "a.jpg"),
        ("self", "self"),
    ):
        (tmp_path / "in" / link).symlink_to(target)
    assert found(tmp_path / "in") == ["a.jpg", "sub/b.jpg"]
    repeated, broken = walk(tmp_path / "in", {".jpg"}).left_out.sentences()
    assert repeated.startswith("not read, links to files and folders that are read already: 6 (")
    assert "lead nowhere: 1" in broken


def test_linked_folders_and_files_are_found(tmp_path: Path) -> None:
    made(tmp_path, "store/night/n.jpg", "store/one.jpg", "in/a.jpg")
    (tmp_path / "in" / "night").symlink_to("../store/night")
    (tmp_path / "in" / "one.jpg").symlink_to("../store/one.jpg")
    (tmp_path / "in" / "gone.jpg").symlink_to("../store/gone.jpg")
    assert found(tmp_path / "in") == ["a.jpg", "night/n.jpg", "one.jpg"]
    assert "gone.jpg" in walk(tmp_path / "in", {".jpg"}).left_out.sentences()[0]


def test_hidden_copies_are_left_out_but_not_a_hidden_folder_that_the_user_names(tmp_path: Path) -> None:
    made(tmp_path, "a.jpg", "._a.jpg", ".ipynb_checkpoints/a-checkpoint.jpg", "__MACOSX/._a.jpg", "@eaDir/a.jpg/T.jpg")
    assert found(tmp_path) == ["a.jpg"]
    (sentence,) = walk(tmp_path, {".jpg"}).left_out.sentences()
    assert sentence.startswith("not read, hidden files and folders: 4 (")
    assert found(tmp_path / ".ipynb_checkpoints") == ["a-checkpoint.jpg"]


def test_other_files_and_closed_folders_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, "a.jpg", "b.raw", "c.raw", "note.txt", "README", "closed/d.jpg")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    left_out = walk(tmp_path, {".jpg"}).left_out
    assert left_out.sentences(expected_suffixes={".txt"}) == [
        "not read, files of other kinds: 3 (.raw: 2, no suffix: 1)",
        f"not read, folders that cannot be opened: 1 ({tmp_path / 'closed'})",
    ]
