"""`retinanet prescribe`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from retinanet.commands.options import Flags
from retinanet.config import PrescribeConfig

ON_TERMINAL = ("Change", "Metric", "Difference", "Interval", "Decision")
"""Columns shown on the terminal; report.html holds all columns."""

if TYPE_CHECKING:
    from rich.table import Table


def prescribe(
    data: Annotated[Path, Parameter(help="Dataset to train on.")], /, *, options: Flags[PrescribeConfig]
) -> None:
    """Find out which settings a dataset needs: measure, compare a few candidates in short runs, write config.yaml.

    `retinanet prescribe data/train.json --val data/val.json -o runs/prescription --preset small`
    """
    from rich.console import Console

    from retinanet.train.run_lock import locked_run_folder

    with locked_run_folder(options.folder.output):  # before the imports below, which take seconds
        from retinanet.report.prescription import prescription_report
        from retinanet.study.prescribe import prescribe as run_probe

        found = run_probe(data, options)
        report = prescription_report(found, options.folder.output / "report.html")
    console = Console()
    console.print()
    if rows := found.rows():
        console.print(comparison_table(rows))
    for sentence in found.sentences():
        console.print(sentence, markup=False, highlight=False)
    console.print(f"report: {report}\nnext:   {found.command()}", markup=False, highlight=False, soft_wrap=True)


def comparison_table(rows: list[list[str]]) -> Table:
    """Return the comparisons with the default as a table for the terminal."""
    from rich.table import Table

    from retinanet.study.prescription import COLUMN_TITLES

    table = Table(title="Changes compared with the default", title_justify="left")
    shown = [place for place, name in enumerate(COLUMN_TITLES) if name in ON_TERMINAL]
    for place in shown:
        table.add_column(COLUMN_TITLES[place], justify="right" if COLUMN_TITLES[place] == "Difference" else "left")
    for row in rows:
        table.add_row(*(row[place].replace("[", r"\[") for place in shown))
    return table
