"""`retinanet study`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from retinanet.commands.options import Flags
from retinanet.config import StudyConfig

if TYPE_CHECKING:
    from rich.table import Table

    from retinanet.study.results import Study

ON_TERMINAL = ("Set-up", "AP", "Difference", "Paired interval", "Verdict")
"""Columns shown on the terminal, which fit 80 characters; study.md holds all columns."""


def study(data: Annotated[Path, Parameter(help="Dataset to train on.")], /, *, options: Flags[StudyConfig]) -> None:
    """Compare losses: train each on the same data with several seeds, and test which differences are significant.

    `retinanet study data/train.json --val data/val.json -o runs/study --preset small --epochs 12`
    """
    from rich.console import Console

    from retinanet.train.run_lock import locked_run_folder

    with locked_run_folder(options.folder.output):  # before the imports below, which take seconds
        from retinanet.report.study import study_report
        from retinanet.study.runner import study as run_study

        found = run_study(data, options)
        report = study_report(found, options.folder.output / "report.html")
    console = Console()
    console.print(study_table(found))
    for sentence in found.sentences():
        console.print(sentence, markup=False, highlight=False)
    console.print(f"report: {report}", markup=False, highlight=False)


def study_table(found: Study) -> Table:
    """Return the comparison of the set-ups as a table for the terminal."""
    from rich.table import Table

    from retinanet.study.results import COLUMN_TITLES

    table = Table(
        title="Study: differences to the first set-up in AP points (all columns: study.md)", title_justify="left"
    )
    shown = [place for place, name in enumerate(COLUMN_TITLES) if name in ON_TERMINAL]
    for place in shown:
        table.add_column(
            COLUMN_TITLES[place], justify="left" if place == 0 else "right", min_width=len(COLUMN_TITLES[place])
        )
    for row in found.rows():
        table.add_row(*(row[place] for place in shown))
    return table
