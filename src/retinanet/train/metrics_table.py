"""Reading of metrics.csv and imbalance.csv."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def read_metrics(path: Path) -> list[dict[str, float | None]]:
    """Return the rows of metrics.csv or imbalance.csv: column name -> number, or None for an empty cell.

    A missing file has no rows.

    Raises:
        ValueError: a cell is no number, or a row has more cells than the header. The message names line and column.
    """
    if not path.exists():
        return []
    rows: list[dict[str, float | None]] = []
    with path.open(newline="", encoding="utf-8") as file:
        for line, cells in enumerate(csv.DictReader(file, restval=""), start=2):
            row: dict[str, float | None] = {}
            for name, cell in cells.items():
                if name is None:
                    raise ValueError(f"{path}, line {line}: more cells than the header has columns; correct the line")
                try:
                    row[name] = float(cell) if cell else None
                except ValueError as error:
                    raise ValueError(f"{path}, line {line}, {name}: expected a number, found {cell!r}") from error
            rows.append(row)
    return rows
