"""Test the report of `retinanet check DATA`."""

import pytest

from retinanet.cli import main
from tests.report.test_html import assert_self_contained


def test_report_of_check_data(squares, tmp_path):
    """Run the command with a preset that sets options which `check` does not have."""
    arguments = ["check", squares[0], "--val", squares[1], "--preset", "small", "--image-size", 64, "--max-size", 96]
    arguments += ["--prior", 0.5, "--report", tmp_path / "check.html"]
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    assert stop.value.code == 0
    page = (tmp_path / "check.html").read_text()
    assert_self_contained(page)
    for text in ("no prior", "Anchor coverage", "12 images", "task_aligned"):
        assert text in page, text
