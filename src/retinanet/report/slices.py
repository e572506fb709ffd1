"""Show the slices of an evaluation, worst first, and the metrics in addition to COCO's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retinanet.evaluate.slices import COLUMN_TITLES, MIN_IMAGES, MIN_OBJECTS, slice_rows
from retinanet.report import figures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinanet.evaluate.further_metrics import FurtherMetrics
    from retinanet.evaluate.slices import Slice
    from retinanet.report.html import Section


def slices_section(section: Section, slices: Sequence[Slice]) -> None:
    """Add the slices as bars and as a table, in their order."""
    reliable = [row for row in slices if row.is_reliable and row.AP >= 0]
    if reliable:
        worst, best = reliable[0], reliable[-1]
        section.text(f"The slice with the lowest AP is {worst.label}: AP {worst.AP:.3f} on {worst.objects:,} objects.")
        section.figure(
            figures.class_bars({row.label: (row.AP, max(0.0, row.AP50)) for row in reliable}),
            alt=f"Bar chart of AP and AP50 by slice. AP: {worst.AP:.3f} ({worst.label}) to {best.AP:.3f} "
            f"({best.label}).",
            caption=f"AP of the reliable slices, at most {figures.MAX_BARS} with the lowest AP.",
        )
    section.table(
        COLUMN_TITLES,
        slice_rows(slices),
        caption="vs all: AP of the slice minus AP of all data. AP is the mean over the classes with objects in the "
        f"slice, so that slices with other classes differ for this reason, too. few: fewer than {MIN_IMAGES} "
        f"images or {MIN_OBJECTS} objects.",
    )


def further_section(section: Section, further: FurtherMetrics) -> None:
    """Add a table for each of the metrics in addition to COCO's."""
    for table in further.tables():
        section.table(table.columns, table.rows, caption=f"{table.title}.")
