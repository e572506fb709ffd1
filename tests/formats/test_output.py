"""Tests of the functions shared by the writers."""

from pathlib import Path

import pytest

from retinanet.formats.output import exact_number, relative_path


@pytest.mark.parametrize(("value", "text"), [(3.0, "3"), (-0.5, "-0.5"), (0.1 + 0.2, "0.30000000000000004")])
def test_exact_number_is_the_shortest_exact_text(value: float, text: str):
    assert exact_number(value) == text
    assert float(text) == value


def test_paths_are_relative_up_to_the_parent_folder():
    assert relative_path(Path("/data/set/images/a.png"), Path("/data/set")) == "images/a.png"
    assert relative_path(Path("/data/images/a.png"), Path("/data/set")) == "../images/a.png"
    assert relative_path(Path("/data/images/a.png"), Path("/data/set/labels")) == "/data/images/a.png"
