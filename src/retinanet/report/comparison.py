"""Write the report of a comparison of models: their detections side by side, and differences with intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinanet.analysis.next_steps import after_evaluation
from retinanet.analysis.outcomes import Outcomes
from retinanet.evaluate.comparison import column_titles, difference_rows
from retinanet.evaluate.per_image import best_threshold, items_from_results
from retinanet.report import figures
from retinanet.report.explorer import Explorer, Run
from retinanet.report.html import Report

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from retinanet.evaluate.comparison import ComparedModel, ModelComparison
    from retinanet.report.html import Section


def comparison_report(found: ModelComparison, path: Path, *, flags: Sequence[str] = ()) -> Path:
    """Write the report of a comparison. Return its path.

    Args:
        found: compared models; the first one is the reference.
        path: path of the HTML file.
        flags: flags of a command line that read the dataset.
    """
    first = found.models[0]
    report = Report(
        title=f"Comparison of {len(found.models)} models",
        subtitle=f"Dataset: {found.data.source}. Reference: {first.name}",
    )
    sentences = found.sentences()
    explorer = Explorer(report, [_run(found, model) for model in found.models])
    best = max(found.models, key=lambda model: model.evaluation.metrics.AP)
    explorer.first_screen([sentences[0], _only_one(found)], after_evaluation(best.path, found.data.source, flags))
    explorer.images_section(report.section("Images: the same image with the detections of both models"))
    explorer.confusion_section(report.section("Confusion matrices"))
    report.in_short += sentences[1:]
    for model in found.models[1:]:
        _differences(report.section(f"{model.name} compared with {first.name}"), found, model)
    return report.write(path)


def _run(found: ModelComparison, model: ComparedModel) -> Run:
    """Return a model with its outcomes at its threshold with the highest F1."""
    items = items_from_results(found.data, model.evaluation.results)
    return Run(name=model.name, outcomes=Outcomes(items, found.data.classes, threshold=best_threshold(items)))


def _only_one(found: ModelComparison) -> str:
    """Return how many objects only the first model finds, and how many only the second."""
    first, second = found.models[:2]
    assert second.found is not None  # noqa: S101
    return (
        f"Only {second.name} finds {len(second.found.only_second):,} objects; only {first.name} finds "
        f"{len(second.found.only_first):,}."
    )


def _differences(section: Section, found: ModelComparison, model: ComparedModel) -> None:
    """Add the differences between a model and the first one as a chart and as a table."""
    first, rows = found.models[0], difference_rows(model)
    intervals: list[tuple[str, tuple[float, float, float], Sequence[float]]] = [
        (row[0], (d.low, d.mean, d.high), ()) for row, d in zip(rows, model.differences, strict=True)
    ]
    section.figure(
        figures.interval_chart(intervals, x=f"difference, {model.name} minus {first.name}"),
        alt="Chart of the differences with their intervals: "
        + "; ".join(f"{row[0]} {row[3]} ({row[4]})" for row in rows),
        caption="Differences with their 99 % intervals over random resamples of the images. An interval without 0 "
        "shows a clear difference on images of this kind. The chance of training is not included: another seed "
        "would give another model.",
    )
    section.table(column_titles(found, model), rows)
