"""`retinanet check`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from retinanet.commands.options import Flags
from retinanet.commands.terminal import print_faults, print_findings
from retinanet.config import CheckConfig
from retinanet.files import write_atomically

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from retinanet.analysis.data_check import DataCheck
    from retinanet.formats.records import DetectionData


def check(model_or_data: Path, data: Path | None = None, /, *, options: Flags[CheckConfig] | None = None) -> int:
    """Check data, or a trained model on data: faults, statistics, anchor coverage, hard examples.

    `retinanet check data/train.json --val data/val.json --preset small --report check.html`
    `retinanet check runs/first/best.ckpt data/val.json --hard`
    """
    options = options or CheckConfig()
    if data is None:
        return _check_data(model_or_data, options)
    from retinanet.commands.check_model import check_model

    return check_model(model_or_data, data, options)


def _check_data(data: Path, config: CheckConfig) -> int:
    """Check a dataset, print what was found, and return the exit status: 1 if data is faulty."""
    from rich.console import Console

    from retinanet.analysis.data_check import check_data

    found = check_data(data, config)
    sets = [found.data, *found.others.values()]
    faults = sum(len(one.faults) for one in sets)
    if config.files.json is not None:
        text = json.dumps(found.to_json(), indent=2, ensure_ascii=False) + "\n"
        if str(config.files.json) == "-":
            print(text, end="")
        else:
            write_atomically(config.files.json, text)
    if config.files.json is None or str(config.files.json) != "-":
        _print(Console(), found, sets)
    if config.files.report is not None:
        from retinanet.report.data_check import check_report

        path = check_report(found, config, config.files.report)
        Console(stderr=str(config.files.json) == "-").print(f"report: {path}", markup=False, highlight=False)
    return 1 if faults and not config.dataset.selection.skip_invalid else 0


def _print(console: Console, found: DataCheck, sets: list[DetectionData]) -> None:
    for note in (note for data in sets for note in data.notes):
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    print_faults(console, sets)
    from retinanet.analysis.data_check import data_sentences

    for sentence in data_sentences(found):
        console.print(sentence, markup=False, highlight=False)
    console.print(class_table(found))
    if found.findings:
        console.print()
    print_findings(console, found.findings)


def class_table(found: DataCheck) -> Table:
    """Return objects, images and reach of each class."""
    from rich.table import Table

    counts, missed = found.statistics, {name: n for name, n, _ in found.coverage.per_class()}
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
