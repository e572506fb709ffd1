"""`retinanet check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from retinanet.commands.options import Flags
from retinanet.commands.terminal import print_faults, print_findings, result_console, write_json
from retinanet.config import CheckConfig
from retinanet.files import STDOUT, require_writable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from retinanet.analysis.data_check import DataCheck
    from retinanet.formats.records import DetectionData


def check(
    model_or_data: Annotated[Path, Parameter(help="Dataset; or checkpoint or COCO results (.json), and a dataset.")],
    data: Annotated[Path | None, Parameter(help="Dataset to check the model or the results on.")] = None,
    /,
    *,
    options: Flags[CheckConfig] | None = None,
) -> int:
    """Check a dataset, or a trained model on a dataset: faults, statistics, anchor coverage, hard examples.

    `retinanet check data/train.json --val data/val.json --preset small --report check.html`
    `retinanet check runs/first/best.ckpt data/val.json --hard`
    """
    options = options or CheckConfig()
    require_writable(options.files.json, options.files.report)
    if data is None:
        return _check_data(model_or_data, options)
    from retinanet.commands.check_model import check_model, check_results

    if model_or_data.suffix.lower() == ".json":
        return check_results(model_or_data, data, options)
    return check_model(model_or_data, data, options)


def _check_data(data: Path, config: CheckConfig) -> int:
    """Check a dataset and print the results. Return the exit status: 1 if the dataset has faults."""
    from retinanet.analysis.data_check import check_data

    result = check_data(data, config)
    datasets = [result.data, *result.other_splits.values()]
    faults = sum(len(dataset.faults) for dataset in datasets)
    console = result_console(config.files.json)
    write_json(result.to_json(), config.files.json)
    if config.files.json != STDOUT:
        _print(console, result, datasets)
    if config.files.report is not None:
        from retinanet.report.data_check import check_report

        path = check_report(result, config, config.files.report)
        console.print(f"report: {path}", markup=False, highlight=False)
    return 1 if faults and not config.dataset.selection.skip_invalid else 0


def _print(console: Console, result: DataCheck, datasets: list[DetectionData]) -> None:
    for note in (note for data in datasets for note in data.notes):
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    print_faults(console, datasets)
    from retinanet.analysis.assigner_coverage import NOTE
    from retinanet.analysis.data_check import data_sentences

    for sentence in data_sentences(result):
        console.print(sentence, markup=False, highlight=False)
    console.print(class_table(result))
    console.print(assigner_table(result))
    console.print(NOTE, markup=False, highlight=False)
    if result.findings:
        console.print()
    print_findings(console, result.findings)


def assigner_table(result: DataCheck) -> Table:
    """Return a table with one row per assigner: share of objects with a positive anchor, positives per object."""
    from rich.table import Table

    title = "Assigners before training: objects with a positive anchor, positive anchors per object"
    table = Table(title=title, title_justify="left")
    for name in ("assigner", "objects", "median", "minimum"):
        table.add_column(name, justify="left" if name == "assigner" else "right")
    for row in result.assigners:
        numbers = (f"{row.share:.1%}", f"{row.median_positives:g}", f"{row.min_positives}")
        table.add_row(row.assigner.replace("[", r"\["), *numbers)
    return table


def class_table(result: DataCheck) -> Table:
    """Return a table with one row per class: objects, images, median side, objects without a positive anchor."""
    from rich.table import Table

    counts, missed = result.statistics, {name: n for name, n, _ in result.coverage.per_class()}
    table = Table(title="Classes", title_justify="left")
    for name in ("class", "objects", "images", "median side, px", "no positive anchor"):
        table.add_column(name, justify="left" if name == "class" else "right")
    for k, name in enumerate(counts.classes):
        of_class = counts.label_O == k
        sides = (counts.width_O[of_class] * counts.height_O[of_class]) ** 0.5
        table.add_row(
            name.replace("[", r"\["),
            f"{counts.objects_K[k]:,}",
            f"{counts.images_K[k]:,}",
            f"{sorted(sides)[len(sides) // 2]:.0f}" if len(sides) else "–",
            f"{missed[name]:,}" if missed.get(name) else "",
        )
    return table
