"""`retinanet evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from retinanet.commands.options import Flags
from retinanet.config import EvaluateConfig

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from retinanet.evaluate import ConfusionMatrix, Evaluation, Metrics
    from retinanet.evaluate.further_metrics import FurtherMetrics
    from retinanet.evaluate.slices import Slice

SHOWN_SLICES = 20
"""Maximum number of slices that the terminal shows. `--json` and `--report` contain all slices."""


def evaluate(
    model: Annotated[Path, Parameter(help="Checkpoint, exported model, or COCO results (.json).")],
    *,
    options: Flags[EvaluateConfig],
) -> None:
    """Evaluate a model or a COCO results file: the 12 COCO metrics and the AP of each class.

    `retinanet evaluate runs/first/best.ckpt --data data/test.json --json out.json`
    """
    from retinanet.analysis.next_steps import check_errors, data_flags
    from retinanet.commands.terminal import print_next_steps, progress_bar, result_console, write_json
    from retinanet.evaluate import confusion_matrix
    from retinanet.evaluate import evaluate as measure
    from retinanet.files import STDOUT

    found = measure(model, options, progress=progress_bar)
    console = result_console(options.files.json)
    if options.files.json == STDOUT:
        write_json(found.to_json(), options.files.json)
    console.print(metrics_table(found.metrics))
    for table in further_tables(found.further):
        console.print(table)
    if found.slices:
        console.print(slices_table(found.slices))
    if options.confusion:
        matrix = confusion_matrix(found.ground_truth, found.results, score=options.confusion_threshold)
        console.print(confusion_table(matrix))
    if options.files.report is not None:
        report = _write_report(model, options, found)
        console.print(f"report: {report}", markup=False, highlight=False, soft_wrap=True)
    if options.files.json not in {None, STDOUT}:
        console.print(f"metrics: {options.files.json}", markup=False, highlight=False, soft_wrap=True)
    for note in found.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    if model.suffix == ".ckpt":
        flags, report = data_flags(options.dataset), model.with_name("check.html")
        print_next_steps([check_errors(model, options.data, flags, report=report)], console)


def metrics_table(metrics: Metrics) -> Group:
    """Return the metrics as two tables, of the dataset and of each class; "-" stands for a metric without objects."""
    from rich.console import Group
    from rich.table import Table

    from retinanet.evaluate.coco import COCO_MAX_DETECTIONS, MEANING, NOT_COMPUTED, SUMMARY

    def cell(value: float) -> str:
        return "-" if value == NOT_COMPUTED else f"{value:.3f}"

    summary = Table("", "", title="COCO metrics", title_justify="left", show_header=False)
    summary.add_column(justify="right")
    for name in SUMMARY:
        summary.add_row(name, MEANING[name], cell(getattr(metrics, name)), end_section=name == "APl")
        if name == "AR100" and metrics.max_detections != COCO_MAX_DETECTIONS:
            summary.add_row("AR", f"{metrics.max_detections} detections per image and class", cell(metrics.AR))
    classes = Table("class", title="Classes", title_justify="left")
    for name in ("objects", "AP", "AP50", "AP75", "AR"):
        classes.add_column(name, justify="right")
    for name, row in metrics.per_class.items():
        # A class may be called "[red]": that is its name, not rich's markup.
        cells = [cell(value) for value in (row.AP, row.AP50, row.AP75, row.AR)]
        classes.add_row(name.replace("[", r"\["), f"{row.objects:,}", *cells)
    return Group(summary, classes)


def further_tables(further: FurtherMetrics) -> list[Table]:
    """Return a table for each of the metrics in addition to COCO's; "-" stands for a metric without objects."""
    return [_table(table.title, table.columns, table.rows) for table in further.tables()]


def slices_table(slices: Sequence[Slice]) -> Table:
    """Return the slices with the lowest AP as a table, at most `SHOWN_SLICES`; "-" stands for no objects."""
    from retinanet.evaluate.slices import COLUMN_TITLES, MIN_IMAGES, MIN_OBJECTS, slice_rows

    title = "Slices, lowest AP first"
    if len(slices) > SHOWN_SLICES:
        title += f" ({SHOWN_SLICES} of {len(slices)}: --json or --report lists all)"
    table = _table(title, COLUMN_TITLES, slice_rows(slices[:SHOWN_SLICES]))
    table.caption = f"vs all: AP minus AP of all data. few: fewer than {MIN_IMAGES} images or {MIN_OBJECTS} objects"
    table.caption_justify = "left"
    return table


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str | int | float | None]]) -> Table:
    """Return a table with names in its first column and numbers in the other columns."""
    from rich.table import Table

    def text(cell: str | int | float | None) -> str:
        if cell is None:
            return "-"
        if isinstance(cell, str):
            return cell.replace("[", r"\[")
        return f"{cell:,}" if isinstance(cell, int) else f"{cell:.3f}"

    table = Table(columns[0], title=title, title_justify="left")
    for name in columns[1:]:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*map(text, row))
    return table


def confusion_table(matrix: ConfusionMatrix) -> Table:
    """Return the confusion matrix as a table for the terminal; zeros are left blank."""
    from rich.table import Table

    title = f"Confusion at IoU {matrix.iou:g}, score {matrix.score:g}: objects down, detections across"
    names = [name.replace("[", r"\[") for name in matrix.classes]
    table = Table("", title=title, title_justify="left")
    for name in [*names, "missed"]:
        table.add_column(name, justify="right")
    for name, row in zip([*names, "background"], matrix.counts.tolist(), strict=True):
        table.add_row(name, *(f"{count:,}" if count else "" for count in row))
    return table


def _write_report(model: Path, config: EvaluateConfig, found: Evaluation) -> Path:
    from retinanet.analysis.miss_map import miss_map
    from retinanet.analysis.miss_remedies import model_files
    from retinanet.analysis.next_steps import after_evaluation, data_flags
    from retinanet.analysis.result_errors import errors_from_results
    from retinanet.data import read
    from retinanet.evaluate.per_image import best_threshold, items_from_results
    from retinanet.report.evaluation import model_report

    assert config.files.report is not None  # noqa: S101
    data = read(config.data, images=config.dataset.selection.images, split="val", **config.dataset.reading)
    items = items_from_results(data, found.results)
    threshold = config.confusion_threshold if config.confusion else best_threshold(items)
    errors = errors_from_results(data, items, threshold=threshold)
    return model_report(
        config.files.report,
        data=data,
        metrics=found.metrics.to_json(),
        results=found.results,
        title=f"Evaluation of {Path(model).name} on {config.data.name}",
        notes=found.notes,
        confusion_threshold=config.confusion_threshold if config.confusion else None,
        further=found.further,
        slices=found.slices,
        misses=miss_map(errors, items, model_files(Path(model), config.data, config.dataset)),
        next_steps=after_evaluation(Path(model), config.data, data_flags(config.dataset)),
    )
