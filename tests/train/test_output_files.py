"""Files that grow while a run trains, and the error for a folder that cannot be written."""

import errno
from pathlib import Path

import pytest

from retinanet.train.output_files import OutputError, Table, output_error, write_output


def test_a_table_is_cut_to_the_size_that_a_checkpoint_remembers(tmp_path: Path):
    table = Table(tmp_path / "metrics.csv", ("step", "loss"))
    table.begin()
    table.add({"step": 1, "loss": 0.5})
    size = table.size()
    table.add({"step": 2})
    assert table.path.read_bytes() == b"step,loss\r\n1,0.5\r\n2,\r\n"
    table.cut(size)
    assert table.path.read_bytes() == b"step,loss\r\n1,0.5\r\n"
    assert size == len(b"step,loss\r\n1,0.5\r\n")


@pytest.mark.parametrize("content", [None, "step,loss\r\n"])
def test_a_table_that_was_removed_or_is_too_short_begins_again(tmp_path: Path, content: str | None):
    table = Table(tmp_path / "metrics.csv", ("step", "loss"))
    if content is not None:
        table.path.write_text(content, newline="")
    table.cut(100)
    assert table.path.read_bytes() == b"step,loss\r\n"


def test_a_table_without_a_file_has_no_bytes(tmp_path: Path):
    assert Table(tmp_path / "absent.csv", ("step",)).size() == 0


def test_the_error_names_the_file_the_reason_what_is_safe_and_how_to_go_on(tmp_path: Path):
    full = OSError(errno.ENOSPC, "No space left on device")
    path = tmp_path / "metrics.csv"
    assert str(output_error(full, path)) == (
        f"{path} cannot be written: No space left on device. nothing was saved yet; "
        f"when it can be written again, `retinanet train --resume -o {tmp_path}` goes on"
    )
    (tmp_path / "last.ckpt").touch()
    assert f"{tmp_path / 'last.ckpt'} is whole" in str(output_error(full, path))


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write_output(tmp_path / "file" / "config.yaml", "epochs: 1\n")
