"""Finding images in files, folders and globs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from retinanet.errors import UserError
from retinanet.files import existing_path, local_path
from retinanet.predict.inputs import expand_inputs, find_inputs
from tests.evaluate.block_detector_fake import made_image

TALL = ((100, 300), {1: (20, 200, 80, 260)})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("in/b.PNG", "in/a.png", "in/sub/a.png", "in/sub/deep/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        made_image(*TALL).save(tmp_path / name)
    (tmp_path / "in" / "notes.txt").write_text("not an image")
    return tmp_path / "in"


def names(paths: list[Path], folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def test_files_folders_and_globs_are_expanded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = ["a.png", "b.PNG", "sub/a.png", "sub/deep/c.png"]
    assert names(expand_inputs([folder]), folder) == everything
    assert names(expand_inputs([str(folder / "**" / "*.png"), str(folder)]), folder) == everything  # each file once
    assert names(expand_inputs([str(folder / "*")]), folder) == ["a.png", "b.PNG"]
    assert names(expand_inputs([folder / "notes.txt"]), folder) == [
        "notes.txt"
    ]  # a named file is accepted with any suffix
    assert names(expand_inputs([folder], exclude=folder / "sub"), folder) == ["a.png", "b.PNG"]
    made_image(*TALL).save(folder / "a[1].png")
    assert names(expand_inputs([str(folder / "a[1].png")]), folder) == ["a[1].png"]  # an existing file is not a glob
    monkeypatch.chdir(folder)
    assert expand_inputs(["./a.png", "a.png"]) == [Path("a.png")]


def test_missing_inputs_raise_errors_with_a_suggestion(folder: Path) -> None:
    with pytest.raises(UserError, match=r"no such file or folder: .*aa\.png\. Did you mean 'a\.png'\?"):
        expand_inputs([folder / "aa.png"])
    with pytest.raises(UserError, match=r"there is no folder .*nowhere"):
        expand_inputs([folder / "nowhere" / "a.png"])
    with pytest.raises(UserError, match=r"no image or video in .*\. Expected files with the suffixes .*\.jpg"):
        expand_inputs([str(folder / "*.jpg")])
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match=r"no image or video in .*empty"):
        expand_inputs([folder / "empty"])


def test_every_file_once_whatever_links_lead_to_it(folder: Path) -> None:
    for link in ("latest", "current"):
        (folder / link).symlink_to(".")
    everything = ["a.png", "b.PNG", "sub/a.png", "sub/deep/c.png"]
    for inputs in ([folder], [str(folder / "**")], [str(folder / "**" / "*")], sorted(folder.iterdir())):
        found = find_inputs([str(entry) for entry in inputs if Path(entry).name != "notes.txt"])
        assert names(found.files, folder) == everything
        assert any("links to files and folders that are read already" in text for text in found.left_out.sentences())
    assert names(expand_inputs([str(folder / "**" / "deep" / "*.png")]), folder) == ["sub/deep/c.png"]


def test_what_is_left_out_is_counted(folder: Path) -> None:
    (folder / ".ipynb_checkpoints").mkdir()
    made_image(*TALL).save(folder / ".ipynb_checkpoints" / "a-checkpoint.png")
    (folder / "._a.png").write_bytes(b"\0\5\26\7")
    found = find_inputs([folder], exclude=folder / "sub")
    assert names(found.files, folder) == ["a.png", "b.PNG"]
    assert [text.partition("(")[0] for text in found.left_out.sentences()] == [
        "not read, hidden files and folders: 2 ",
        "not read, files of other kinds: 1 ",
        "not read, images and videos in the output folder: 2 ",
    ]
    assert any("folders that a pattern matches" in text for text in find_inputs([f"{folder}/*"]).left_out.sentences())


def test_addresses_of_files_are_read_and_all_others_are_refused_in_words(folder: Path) -> None:
    made_image(*TALL).save(folder / "a b.png")
    for address in (f"file://{folder}/a%20b.png", f"file://localhost{folder}/a%20b.png", f"FILE://{folder}/a%20b.png"):
        assert names(expand_inputs([address]), folder) == ["a b.png"]
    assert names(expand_inputs([f"file://{folder}"]), folder) == [
        "a b.png",
        "a.png",
        "b.PNG",
        "sub/a.png",
        "sub/deep/c.png",
    ]
    assert expand_inputs(str(folder / "a.png")) == [folder / "a.png"]  # one path, not its letters
    for address in ("http://127.0.0.1:9/a.jpg", "https://host", "rtsp://127.0.0.1:9/live", "s3://bucket/a.jpg"):
        with pytest.raises(UserError, match=rf"^an address .* is no file on this machine: {address}"):
            expand_inputs([address])
        with pytest.raises(UserError, match="is no file on this machine"):
            existing_path(Path(address))  # pathlib removes a slash
    with pytest.raises(UserError, match="is no file on this machine: file://elsewhere/a.jpg"):
        expand_inputs(["file://elsewhere/a.jpg"])
    with pytest.raises(UserError, match="no such file or folder: 0. The number of a camera is no input"):
        expand_inputs(["0"])
    assert local_path("C:/images/a.jpg") == Path("C:/images/a.jpg")


@pytest.mark.parametrize("name", ["[2024] set", "a[1]", "what?", "star*"])
def test_special_characters_in_the_name_of_a_folder(name: str, folder: Path) -> None:
    """ultralytics#24257: brackets in the path of a folder are no pattern."""
    if os.name == "nt" and set(name) & set("?*"):
        pytest.skip("Windows does not allow this name")
    moved = folder.rename(folder.with_name(name))
    assert names(expand_inputs([str(moved / "*.png")]), moved) == ["a.png"]
    assert names(expand_inputs([str(moved / "**" / "*.png")]), moved) == [
        "a.png",
        "sub/a.png",
        "sub/deep/c.png",
    ]
    assert names(expand_inputs([moved / "sub"]), moved) == ["sub/a.png", "sub/deep/c.png"]


@pytest.mark.parametrize("pattern", ["*.png", "**/*.png"])
def test_brackets_of_an_existing_folder_are_no_pattern(tmp_path: Path, pattern: str) -> None:
    """Windows and browsers add [1] and (1) to names. A pattern in front of the folder remains a pattern."""
    for name in ("run [1]/a.png", "run 1/b.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert expand_inputs([str(tmp_path / "run [1]" / pattern)]) == [tmp_path / "run [1]" / "a.png"]
    assert expand_inputs([str(tmp_path / "run [12]" / pattern)]) == [tmp_path / "run 1" / "b.png"]
