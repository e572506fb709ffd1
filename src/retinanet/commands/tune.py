"""`retinanet tune`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from retinanet.commands.options import Flags
from retinanet.config import TuneConfig

if TYPE_CHECKING:
    from rich.table import Table

    from retinanet.analysis.tuning_result import TuningResult


def tune(
    model: Annotated[Path, Parameter(help="Checkpoint of the model.")],
    data: Annotated[Path, Parameter(help="Dataset that the model was not trained on, in any format of `train`.")],
    /,
    *,
    options: Flags[TuneConfig],
) -> None:
    """Calibrate the scores of a model, and choose its score thresholds for an aim.

    `retinanet tune runs/first/best.ckpt data/val.json --aim recall=0.95 -o tuned.ckpt`
    `retinanet predict tuned.ckpt images/ --threshold tuned -o out`
    """
    from retinanet.analysis.next_steps import serve_model
    from retinanet.analysis.tuning import tune as tune_model
    from retinanet.commands.terminal import print_next_steps, progress_bar, result_console, write_json

    found = tune_model(model, data, options, progress=progress_bar)
    console = result_console(options.files.json)
    console.print(class_table(found))
    for sentence in found.sentences():
        console.print(sentence, markup=False, highlight=False)
    console.print(f"model: {options.output}", markup=False, highlight=False, soft_wrap=True)
    write_json(found.to_json(), options.files.json)
    if options.files.report is not None:
        from retinanet.report.tuning import tuning_report

        report = tuning_report(found, options.files.report, model=model, data=data)
        console.print(f"report: {report}", markup=False, highlight=False, soft_wrap=True)
    print_next_steps([serve_model(options.output, "See the detections at the tuned thresholds")], console)


def class_table(found: TuningResult) -> Table:
    """Return the thresholds and calibrations of the classes as a table for the terminal."""
    from rich.table import Table

    from retinanet.analysis.tuning_result import COLUMN_TITLES

    shown = 5 if found.calibrations else 4  # the log losses are in the report
    table = Table(title=f"Thresholds for {found.tuned.aim}", title_justify="left")
    for place, title in enumerate(COLUMN_TITLES[:shown]):
        table.add_column(title, justify="right" if 0 < place < 4 else "left")
    for row in found.rows():
        table.add_row(*(cell.replace("[", r"\[") for cell in row[:shown]))
    return table
