"""Reading of metrics.csv."""

from pathlib import Path

import pytest

from retinanet.train.metrics_table import read_metrics


def test_empty_and_missing_cells_are_none(tmp_path: Path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss,AP\r\n1,2.5,\r\n2,,0.25\r\n3\r\n")
    assert read_metrics(path) == [
        {"step": 1.0, "loss": 2.5, "AP": None},
        {"step": 2.0, "loss": None, "AP": 0.25},
        {"step": 3.0, "loss": None, "AP": None},
    ]


def test_a_missing_file_has_no_rows(tmp_path: Path):
    assert read_metrics(tmp_path / "absent.csv") == []


@pytest.mark.parametrize(
    ("rows", "message"),
    [("1,high\n", "line 2, loss: expected a number, found 'high'"), ("1,2\n1,2,3\n", "line 3: more cells than")],
)
def test_the_error_names_the_line_of_an_invalid_cell(tmp_path: Path, rows: str, message: str):
    (tmp_path / "metrics.csv").write_text("step,loss\n" + rows)
    with pytest.raises(ValueError, match=message):
        read_metrics(tmp_path / "metrics.csv")
