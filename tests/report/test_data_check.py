"""The page of `check DATA`."""

import pytest

from retinanet.cli import main
from tests.report.test_html import assert_self_contained


def test_the_page(squares, tmp_path):
    """Through the command line, with a preset that sets options which `check` does not have."""
    words = ["check", squares[0], "--val", squares[1], "--preset", "small", "--image-size", 64, "--max-size", 96]
    words += ["--prior", 0.5, "--report", tmp_path / "check.html"]
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert stop.value.code == 0
    page = (tmp_path / "check.html").read_text()
    assert_self_contained(page)
    for words in ("no prior", "What the anchors reach", "12 images"):
        assert words in page, words
