"""Files that grow during training, and the error for a folder that cannot be written."""

import errno
from pathlib import Path

import pytest

from retinanet.train.output_files import CsvTable, OutputError, output_error, write_output


def test_a_table_is_truncated_to_an_earlier_size(tmp_path: Path):
    table = CsvTable(tmp_path / "metrics.csv", ("step", "loss"))
    table.write_header()
    table.append({"step": 1, "loss": 0.5})
    size = table.size()
    table.append({"step": 2})
    assert table.path.read_bytes() == b"step,loss\r\n1,0.5\r\n2,\r\n"
    table.truncate(size)
    assert table.path.read_bytes() == b"step,loss\r\n1,0.5\r\n"
    assert size == len(b"step,loss\r\n1,0.5\r\n")


def test_a_table_with_other_line_ends_keeps_its_complete_lines(tmp_path: Path):
    """An editor has replaced the line ends of 3 lines with 25 bytes; a crash has cut another table."""
    table = CsvTable(tmp_path / "metrics.csv", ("step", "loss"))
    table.path.write_bytes(b"step,loss\n1,0.5\n2,0.4\n")
    table.truncate(25)
    assert table.path.read_bytes() == b"step,loss\n1,0.5\n2,0.4\n"
    table.path.write_bytes(b"step,loss\r\n1,0.5\r\n2,0")
    table.truncate(25)
    assert table.path.read_bytes() == b"step,loss\r\n1,0.5\r\n"


@pytest.mark.parametrize("content", [None, "step,loss\r\n", "", "step,l", "step;loss\r\n1;0.5\r\n"])
def test_a_table_without_its_header_is_replaced_by_the_header(tmp_path: Path, content: str | None):
    table = CsvTable(tmp_path / "metrics.csv", ("step", "loss"))
    if content is not None:
        table.path.write_text(content, newline="")
    table.truncate(100)
    assert table.path.read_bytes() == b"step,loss\r\n"


def test_a_table_without_a_file_has_size_0(tmp_path: Path):
    assert CsvTable(tmp_path / "absent.csv", ("step",)).size() == 0


def test_the_error_names_file_reason_checkpoint_and_command(tmp_path: Path):
    full_disk = OSError(errno.ENOSPC, "No space left on device")
    path = tmp_path / "metrics.csv"
    assert str(output_error(full_disk, path)) == (
        f"{path} cannot be written: No space left on device. No checkpoint was saved yet. "
        f"Free disk space or allow writing, then resume with: retinanet train --resume -o {tmp_path}"
    )
    (tmp_path / "last.ckpt").touch()
    assert f"{tmp_path / 'last.ckpt'} is complete." in str(output_error(full_disk, path))


def test_a_folder_that_cannot_be_created_is_an_output_error(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write_output(tmp_path / "file" / "config.yaml", "epochs: 1\n")
