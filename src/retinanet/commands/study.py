"""`retinanet study`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from retinanet.commands.options import Flags
from retinanet.config import StudyConfig

if TYPE_CHECKING:
    from rich.table import Table

    from retinanet.study.runner import StudyResult

ON_TERMINAL = ("Set-up", "AP", "Difference", "Paired interval", "Verdict")
"""Columns shown on the terminal, which fit 80 characters; study.md holds all columns."""


def study(data: Annotated[Path, Parameter(help="Dataset to train on.")], /, *, options: Flags[StudyConfig]) -> None:
    """Compare losses and other options: train each on the same data with several seeds, and state which differ.

    `retinanet study data/train.json --val data/val.json -o runs/study --preset small --epochs 12`
    `retinanet study data/train.json -o runs/folds --preset small --cross-validate 5`
    `retinanet study data/train.json --val data/val.json -o runs/curve --preset small --fractions 0.1 0.25 0.5 1`
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


def study_table(found: StudyResult) -> Table:
    """Return the results as a table for the terminal: set-ups, folds, or fractions of the images."""
    from rich.table import Table

    from retinanet.study.results import Study

    title = "Study (all numbers: study.json)"
    titles, rows = found.table()
    if isinstance(found, Study):
        title = "Study: differences to the first set-up in AP points (all columns: study.md)"
        places = [titles.index(name) for name in ON_TERMINAL]
        titles, rows = list(ON_TERMINAL), [[row[place] for place in places] for row in rows]
    table = Table(title=title, title_justify="left")
    for place, name in enumerate(titles):
        table.add_column(name, justify="left" if place == 0 else "right", min_width=len(name))
    for row in rows:
        table.add_row(*row)
    return table
