"""What an evaluation came to, as sections of a page and as a page: numbers, curves, confusion, images, diagnosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from retinanet.evaluate import confusion_matrix, precision_recall
from retinanet.evaluate.per_image import MATCH_IOU, ImageResults, best_threshold, items_from_results
from retinanet.report import figures, summary
from retinanet.report.gallery import choose, draw_pair
from retinanet.report.hard_examples import hard_sections
from retinanet.report.html import Report, Section
from retinanet.report.imbalance import imbalance_section

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from retinanet.analysis.finding import Finding
    from retinanet.analysis.hard_examples import HardExamples
    from retinanet.analysis.imbalance import Imbalance
    from retinanet.data import DetectionData
    from retinanet.evaluate import ConfusionMatrix
    from retinanet.evaluate.curves import PrecisionRecall

SIZES: Final = {
    "AP": "AP, mean over IoU 0.50 to 0.95",
    "AP50": "AP50, at IoU 0.50",
    "AP75": "AP75, at IoU 0.75",
    "APs": "APs, small objects (below 32² pixels)",
    "APm": "APm, medium objects",
    "APl": "APl, large objects (above 96² pixels)",
    "AR1": "AR1, recall with 1 detection an image",
    "AR10": "AR10, with 10 detections",
    "AR100": "AR100, with 100 detections",
    "ARs": "ARs, recall of small objects",
    "ARm": "ARm, of medium ones",
    "ARl": "ARl, of large ones",
}
HEADINGS: Final = {"worst": "with the most mistakes", "best": "that went best", "random": "picked at random"}
MOST_PLACES: Final = 200
"""Files listed for a finding."""
MOST_CLASSES: Final = 30
"""A larger confusion matrix is shown for its most confused classes."""


def model_report(
    path: Path,
    *,
    data: DetectionData,
    metrics: Mapping[str, Any],
    results: Sequence[Mapping[str, Any]],
    title: str,
    notes: Sequence[str] = (),
    findings: Sequence[Finding] = (),
    imbalance: Imbalance | None = None,
    hard: HardExamples | None = None,
    confusion_threshold: float | None = None,
) -> Path:
    """Write the page of a model (or of a file of results) on a dataset. Return its path.

    Args:
        path: of the page.
        data: images and objects. Where images are missing, none are shown, and the page says so.
        metrics: `Metrics.to_json()`.
        results: COCO results, by the data's ids.
        title: of the page.
        notes: sentences for the top.
        findings: what the diagnosis found.
        imbalance: where the loss comes from.
        hard: the hardest examples.
        confusion_threshold: score from which a detection counts in the confusion matrix; by default the one with
            the highest F1.
    """
    report = Report(title=title, subtitle=f"On {data.source}")
    items = items_from_results(data, results)
    threshold = best_threshold(items)
    report.in_short += summary.overall(metrics, "images")
    report.in_short += summary.weaknesses(metrics)
    report.in_short += summary.images(items, threshold)
    report.in_short += [f"{finding.severity.capitalize()}: {finding.what}." for finding in findings]
    report.in_short += hard.sentences() if hard is not None else []
    report.in_short += notes
    truth, rows = data.to_coco(), [dict(row) for row in results]
    curves = precision_recall(truth, rows) if rows else None
    evaluation_section(report.section("Evaluation"), metrics, curves)
    if rows:
        score = threshold if confusion_threshold is None else confusion_threshold
        confusion_section(report.section("Which class is taken for which"), confusion_matrix(truth, rows, score=score))
    if findings:
        findings_section(report.section("Diagnosis"), findings)
    if hard is not None:
        hard_sections(report, hard)
    if imbalance is not None:
        imbalance_section(report, imbalance)
    there = [item for item, record in zip(items, data.records, strict=True) if record.path.is_file()]
    if there:
        gallery_section(report.section("Detections beside ground truth"), there, data.classes, threshold, 0)
    if len(there) < len(items):
        report.in_short.append(f"{len(items) - len(there)} images are not there, and so not shown.")
    return report.write(path)


def findings_section(section: Section, findings: Sequence[Finding]) -> None:
    """Add findings with cause and advice, and where they are."""
    for finding in findings:
        head = f"{finding.severity.capitalize()}, {finding.kind}"
        section.text(f"{head}: {finding.what}. {finding.cause}. What to do: {finding.advice}.")
        if finding.where:
            more = len(finding.where) - MOST_PLACES
            text = "\n".join(finding.where[:MOST_PLACES]) + (f"\nand {more} more" if more > 0 else "")
            section.details(f"{finding.kind}: where", text)


def confusion_section(section: Section, matrix: ConfusionMatrix) -> None:
    """Add the confusion matrix, with a row and a column for the background."""
    counts = np.asarray(matrix.counts)
    off = counts.copy()
    np.fill_diagonal(off, 0)
    names = [*matrix.classes, "background"]
    worst = [
        (names[i], names[j], int(off[i, j]))
        for i, j in zip(*np.unravel_index(np.argsort(-off, axis=None)[:5], off.shape), strict=True)
        if off[i, j]
    ]
    said = [_mistake(*mistake) for mistake in worst]
    section.text(
        f"With detections of a score of {matrix.score:.2f} or more, at IoU {matrix.iou:g}. "
        + (f"Most often: {'; '.join(said)}." if said else "Nothing is confused.")
    )
    chosen = list(range(len(matrix.classes)))
    if len(chosen) > MOST_CLASSES:
        errors = off.sum(axis=0) + off.sum(axis=1)
        chosen = sorted(np.argsort(-errors[:-1], kind="stable")[:MOST_CLASSES].tolist())
    places = [*chosen, len(matrix.classes)]
    part = counts[np.ix_(places, places)]
    section.figure(
        heat_map(part, [names[i] for i in places]),
        alt="Confusion matrix, objects down, detections across. " + ("; ".join(said) or "Nothing is confused."),
        caption="Rows: what is there; columns: what was found. Last column: missed objects. Last row: detections where "
        "nothing is. The darker, the larger the share of the row."
        + (f" The {MOST_CLASSES} most confused classes." if len(places) <= len(matrix.classes) else ""),
    )


def _mistake(there: str, found: str, count: int) -> str:
    if found == "background":
        return f"{count} {there} not found"
    if there == "background":
        return f"{count} times {found} found where nothing is"
    return f"{count} {there} taken for {found}"


def heat_map(counts_RR: np.ndarray[tuple[int, ...], np.dtype[np.int64]], names: Sequence[str]) -> Figure:
    """Draw a square matrix of counts; each cell is shaded by its share of its row."""
    R = len(names)
    figure, axes = figures.new_axes(x="found", y="there", height=max(2.4, 0.9 + 0.32 * R))
    share_RR = counts_RR / np.maximum(counts_RR.sum(axis=1, keepdims=True), 1)
    for i in range(R):
        for j in range(R):
            if not counts_RR[i, j]:
                continue
            colour = figures.SERIES[0] if i == j else figures.SERIES[1]
            # A shade by opacity looks right on a light and on a dark page.
            axes.barh(i, 1, left=j - 0.5, height=1, color=colour, alpha=0.12 + 0.6 * float(share_RR[i, j]), linewidth=0)
            axes.text(
                j, i, f"{counts_RR[i, j]:,}", ha="center", va="center", color=figures.INK, fontsize=8 if R <= 10 else 5
            )
    shown = [figures.shorten(name, 14).replace("$", r"\$") for name in names]
    small = 9 if R <= 10 else 6
    axes.set_xticks(range(R), [*shown[:-1], "missed"], rotation=90 if R > 5 else 0, fontsize=small)
    axes.set_yticks(range(R), [*shown[:-1], "nothing"], fontsize=small)
    axes.set_xlim(-0.5, R - 0.5)
    axes.set_ylim(R - 0.5, -0.5)
    axes.grid(visible=False)
    return figure


def evaluation_section(section: Section, metrics: Mapping[str, Any], curves: PrecisionRecall | None) -> None:
    """Add COCO's numbers, those of each class, and precision over recall."""
    per_class: Mapping[str, Mapping[str, Any]] = metrics.get("per_class") or {}
    bars = {
        name: (float(row["AP"]), max(0.0, float(row.get("AP50", 0))))
        for name, row in per_class.items()
        if row.get("AP") is not None and row["AP"] >= 0
    }
    if bars:
        some = f" The {figures.MAX_BARS} weakest of {len(bars)} classes." if len(bars) > figures.MAX_BARS else ""
        low, high = min(bars, key=lambda name: bars[name][0]), max(bars, key=lambda name: bars[name][0])
        section.figure(
            figures.class_bars(bars),
            alt=f"Bar chart by class: AP from {bars[low][0]:.3f} ({low}) to {bars[high][0]:.3f} ({high}), and AP50.",
            caption=f"Average precision of each class, the best on top.{some}",
        )
    if curves is not None:
        lines = {
            name: (curves.recall_R.tolist(), curves.precision_RK[:, k].tolist())
            for k, name in enumerate(curves.classes)
            if not np.isnan(curves.precision_RK[0, k])  # NaN: a class without objects
        }
        if lines:
            section.figure(
                figures.precision_recall(lines),
                alt=f"Precision over recall at IoU {curves.iou:.2f} of {len(lines)} classes.",
                caption=f"Of the detections, how many are right (precision), against how much of what is there they "
                f"find (recall), as the score threshold goes down. IoU {curves.iou:.2f}.",
            )
    numbers = [(label, float(metrics[name])) for name, label in SIZES.items() if name in metrics]
    section.table(["Measure", "Value"], numbers, caption="COCO's numbers, 0 to 1; – where there are no such objects.")
    if per_class:
        section.table(
            ["Class", "Objects", "AP", "AP50"],
            [(name, row.get("objects"), row.get("AP"), row.get("AP50")) for name, row in per_class.items()],
            caption="Each class.",
        )


def gallery_section(
    section: Section, items: Sequence[ImageResults], classes: Sequence[str], threshold: float, seed: int
) -> None:
    """Add the worst, the best and other images, ground truth beside detections from a score of `threshold` on."""
    best = threshold == best_threshold(items)
    why = ", the score that best balances missed and wrong ones on these images (highest F1)" if best else ""
    section.text(
        f"Drawn are detections with a score of {threshold:.2f} or more{why}. Blue: object and detection agree "
        f"(same class, IoU of at least {MATCH_IOU:g}). "
        "Orange with a ×: an object that was missed, or a detection that is wrong."
    )
    chosen = choose(items, threshold=threshold, seed=seed)
    for group, heading in HEADINGS.items():
        images = [draw_pair(item, classes, threshold=threshold) for item in chosen if item.group == group]
        if images:
            section.text(f"Images {heading}:")
            section.gallery(images)
