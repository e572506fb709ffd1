"""Write the report of a comparison of models: differences with intervals, and images where only one finds an object."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from retinanet.evaluate.comparison import column_titles, difference_rows
from retinanet.evaluate.per_image import items_from_results
from retinanet.report import figures
from retinanet.report.gallery import draw_pair
from retinanet.report.html import Report, ReportImage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from retinanet.evaluate.comparison import ComparedModel, ModelComparison
    from retinanet.report.html import Section

MAX_IMAGES: Final = 6
"""Maximum number of images that are drawn for each further model."""


def comparison_report(found: ModelComparison, path: Path) -> Path:
    """Write the report of a comparison. Return its path.

    Args:
        found: compared models; the first one is the reference.
        path: path of the HTML file.
    """
    first = found.models[0]
    report = Report(
        title=f"Comparison of {len(found.models)} models",
        subtitle=f"Dataset: {found.data.source}. Reference: {first.name}",
    )
    report.in_short += found.sentences()
    for model in found.models[1:]:
        section = report.section(f"{model.name} compared with {first.name}")
        rows = difference_rows(model)
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
        _images(report.section(f"Images where only {model.name} or only {first.name} finds an object"), found, model)
    return report.write(path)


def _images(section: Section, found: ModelComparison, model: ComparedModel) -> None:
    """Draw the images with most objects that only one of the two models finds: first the reference, then the model."""
    assert model.found is not None  # noqa: S101
    first = found.models[0]
    counts = Counter(image for image, _ in (*model.found.only_first, *model.found.only_second))
    chosen = [image for image, _ in counts.most_common() if found.data.records[image].path.is_file()][:MAX_IMAGES]
    if not chosen:
        section.text("None.")
        return
    section.text(
        "Missed objects and false detections are orange, marked with ×. Probably unlabelled objects are purple, "
        "marked with ?."
    )
    pairs = [
        (name, items_from_results(found.data, results), threshold)
        for name, results, threshold in zip(
            (first.name, model.name),
            (first.evaluation.results, model.evaluation.results),
            model.found.thresholds,
            strict=True,
        )
    ]
    images = []
    for image in chosen:
        for name, items, threshold in pairs:
            drawn = draw_pair(items[image], found.data.classes, threshold=threshold)
            images.append(
                ReportImage(image=drawn.image, alt=f"{name}: {drawn.alt}", caption=f"{name}: {drawn.caption}")
            )
    section.gallery(images, small=True)
