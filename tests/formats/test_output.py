"""What the writers of the formats share."""

from pathlib import Path

import pytest

from retinanet.formats.output import exact_number, relative_path


@pytest.mark.parametrize(("value", "text"), [(3.0, "3"), (-0.5, "-0.5"), (0.1 + 0.2, "0.30000000000000004")])
def test_a_number_is_read_back_exactly_from_the_shortest_text(value: float, text: str):
    assert exact_number(value) == text
    assert float(text) == value


def test_paths_are_relative_unless_they_climb_two_folders():
    assert relative_path(Path("/data/set/images/a.png"), Path("/data/set")) == "images/a.png"
    assert relative_path(Path("/data/images/a.png"), Path("/data/set")) == "../images/a.png"
    assert relative_path(Path("/data/images/a.png"), Path("/data/set/labels")) == "/data/images/a.png"
