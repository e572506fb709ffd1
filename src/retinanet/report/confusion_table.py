"""The confusion matrix as an HTML table, with counts and the share of each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.evaluate.per_image import MATCH_IOU
from retinanet.report.html import render

if TYPE_CHECKING:
    import numpy.typing as npt
    from markupsafe import Markup

    from retinanet.analysis.outcomes import Outcomes

    Counts = npt.NDArray[np.int64]

TABLE_CLASSES: Final = 30
"""Maximum number of classes in the table. With more classes, those with the most errors are shown."""
MISTAKES: Final = 5
"""Number of frequent mistakes in the text."""


def confusion_table(outcomes: Outcomes, *, name: str = "", number: int = 0) -> Markup:
    """Return the confusion matrix at the threshold of a run as a table, which a script updates.

    Args:
        outcomes: outcomes of the run.
        name: name of the run, if the report compares runs.
        number: number of the run in the report.
    """
    counts_RR = outcomes.confusion()
    chosen = table_classes(counts_RR)
    K = len(outcomes.classes)
    return render(
        "confusion.html",
        name=name,
        number=number,
        step=outcomes.step,
        iou=MATCH_IOU,
        classes=[outcomes.classes[k] for k in chosen],
        rows=[
            ("background" if i == K else outcomes.classes[i], _cells(counts_RR[i], i, [*chosen, K]))
            for i in [*chosen, K]
        ],
        limited=f"Of {K:,} classes, the {len(chosen)} with the most errors are shown. " if len(chosen) < K else "",
    )


def table_classes(counts_RR: Counts) -> list[int]:
    """Return the classes in the table: those with the most errors, by ascending class id."""
    errors = _errors(counts_RR)
    total = (errors.sum(axis=0) + errors.sum(axis=1))[:-1]
    return sorted(np.argsort(-total, kind="stable")[:TABLE_CLASSES].tolist())


def intro(outcomes: Outcomes) -> str:
    """Return a sentence on the most frequent mistakes."""
    errors = _errors(outcomes.confusion())
    names = [*outcomes.classes, "background"]
    places = zip(*np.unravel_index(np.argsort(-errors, axis=None, kind="stable")[:MISTAKES], errors.shape), strict=True)
    mistakes = [_mistake(names, int(i), int(j), int(errors[i, j])) for i, j in places if errors[i, j]]
    where = f"at score threshold {outcomes.step / 100:.2f}"
    return f"Most frequent mistakes {where}: {'; '.join(mistakes)}." if mistakes else f"There are no mistakes {where}."


def _errors(counts_RR: Counts) -> Counts:
    errors = counts_RR.copy()
    np.fill_diagonal(errors, 0)
    return errors


def _mistake(names: Sequence[str], i: int, j: int, count: int) -> str:
    if j == len(names) - 1:
        return f"{count:,} of class {names[i]} missed"
    if i == len(names) - 1:
        return f"{count:,} detected as {names[j]} on background"
    return f"{count:,} of class {names[i]} detected as {names[j]}"


def _cells(counts_R: Counts, row: int, columns: Sequence[int]) -> list[tuple[int, float, str]]:
    """Return the count, the share of the row, and the kind of each cell of a row."""
    total = max(1, int(counts_R.sum()))
    return [(int(counts_R[j]), float(counts_R[j]) / total, "right" if j == row else "wrong") for j in columns]
