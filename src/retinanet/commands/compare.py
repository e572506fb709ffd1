"""`retinanet compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from retinanet.commands.options import Flags
from retinanet.config import CompareConfig

if TYPE_CHECKING:
    from rich.table import Table

    from retinanet.evaluate.comparison import ComparedModel, ModelComparison


def compare(
    *models: Annotated[Path, Parameter(help="Checkpoints, exported models or COCO results files (.json).")],
    options: Flags[CompareConfig],
) -> None:
    """Compare models on the same images: differences with intervals, objects that only one finds, speed.

    `retinanet compare runs/first/best.ckpt runs/second/best.ckpt --data data/test.json --report compare.html`
    """
    from retinanet.commands.terminal import progress_bar, result_console, write_json
    from retinanet.evaluate.comparison import compare as compare_models

    found = compare_models(models, options, progress=progress_bar)
    console = result_console(options.files.json)
    for model in found.models[1:]:
        console.print(difference_table(found, model))
    for sentence in found.sentences():
        console.print(sentence, markup=False, highlight=False)
    for model in found.models:
        for note in model.evaluation.notes:
            console.print(f"note: {model.name}: {note}", markup=False, highlight=False, soft_wrap=True)
    write_json(found.to_json(), options.files.json)
    if options.files.report is not None:
        from retinanet.analysis.next_steps import data_flags
        from retinanet.report.comparison import comparison_report

        page = comparison_report(found, options.files.report, flags=data_flags(options.dataset))
        console.print(f"report: {page}", markup=False, highlight=False)


def difference_table(found: ModelComparison, model: ComparedModel) -> Table:
    """Return the differences between a model and the first one as a table for the terminal."""
    from rich.table import Table

    from retinanet.evaluate.comparison import column_titles, difference_rows

    table = Table(title=f"{model.name} compared with {found.models[0].name}", title_justify="left")
    for place, name in enumerate(column_titles(found, model)):
        table.add_column(name, justify="right" if place in (1, 2, 3) else "left")
    for row in difference_rows(model):
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    return table
