"""`check MODEL`: the hard examples and the page that it writes."""

import html
import json
import re

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
    document = json.loads((tmp_path / "check.json").read_text())
    check_microscope(document["loss_microscope"], document["imbalance"], page)
    errors = document["errors"]
    assert "Each error has one cause" in " ".join(said.split())
    assert "Causes of the errors" in page
    for cause, numbers in errors["causes"].items():
        assert f"{cause[0].upper()}{cause[1:]}. What can help: {numbers['advice']}." in html.unescape(page)
    shown = errors["missed"] + errors["false"]
    assert len(shown) == sum(numbers["missed"] + numbers["false"] for numbers in errors["causes"].values()) > 0
    assert any(html.escape(error["why"]) in page for error in shown)
    assert "Figure 4" in page
    assert json.loads((tmp_path / "hard" / "imbalance.json").read_text())["images"] == 6


def check_microscope(microscope, imbalance, page):
    """The loss microscope measures the loss of training: its shares are those of the imbalance report."""
    assert microscope["is_training_setting"]
    (focal, *others) = microscope["losses"]
    assert len(others) == 5
    for what in ("loss", "gradient"):
        shares, exact = focal[f"{what}_shares"], imbalance[f"{what}_shares"]
        assert shares["hard_background"] == pytest.approx(exact["hard_negative"], rel=2.5e-3, abs=1e-6)
        assert shares["easy_background"] == pytest.approx(exact["easy_negative"], rel=2.5e-3, abs=1e-6)
        assert sum(shares.values()) == pytest.approx(1)
    assert 1 <= len(microscope["places"]) <= 12
    places = re.search(r'<ol class="places">.*?</ol>', page, re.DOTALL).group()
    shown = [item for item in re.findall(r"<li .*?</li>", places, re.DOTALL) if " hidden" not in item]
    assert len(shown) == len(microscope["places"])
    assert all("data:image/jpeg;base64," in item for item in shown), "without JavaScript, the first places are visible"
    assert shown[0].count("1. ") == 1
    assert "--loss focal --alpha 0.75 --gamma 2" in page
    assert "config.yaml -o" in page, "the run folder has a configuration"
