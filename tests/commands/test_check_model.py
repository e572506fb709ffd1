"""`check MODEL`: the hard examples and the page that it writes."""

import html
import json

import pytest

from retinanet.cli import main
from tests.report.test_html import assert_self_contained


def test_check_of_a_model(trained_run, squares, tmp_path, capsys):
    """Through the command line: numbers, diagnosis, CSV and page."""
    words = ["check", trained_run / "best.ckpt", squares[1], "--hard", "-o", tmp_path / "hard", "--hard-examples", 5]
    words += ["--json", tmp_path / "check.json"]
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "AP50" in said
    assert "hard.csv" in said
    page = (tmp_path / "hard" / "report.html").read_text()
    assert_self_contained(page)
    assert "Background with the highest loss" in page
    errors = json.loads((tmp_path / "check.json").read_text())["errors"]
    assert "Each error has one cause" in " ".join(said.split())
    assert "Causes of the errors" in page
    for cause, numbers in errors["causes"].items():
        assert f"{cause[0].upper()}{cause[1:]}. What can help: {numbers['advice']}." in html.unescape(page)
    shown = errors["missed"] + errors["false"]
    assert len(shown) == sum(numbers["missed"] + numbers["false"] for numbers in errors["causes"].values()) > 0
    assert any(html.escape(error["why"]) in page for error in shown)
    assert "Figure 4" in page
    assert json.loads((tmp_path / "hard" / "imbalance.json").read_text())["images"] == 6
