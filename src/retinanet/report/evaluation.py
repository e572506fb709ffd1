"""Write the report of an evaluated model, and its sections: metrics, curves, confusion matrix, images, diagnosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from retinanet.evaluate import confusion_matrix, precision_recall
from retinanet.evaluate.coco import COCO_MAX_DETECTIONS
from retinanet.evaluate.per_image import MATCH_IOU, ImageResults, best_threshold, items_from_results
from retinanet.report import figures, summary
from retinanet.report.error_causes import causes_sections
from retinanet.report.gallery import choose_images, draw_pair, pluralise
from retinanet.report.hard_examples import hard_sections
from retinanet.report.html import Report, Section
from retinanet.report.imbalance import imbalance_section
from retinanet.report.slices import further_section, slices_section

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from retinanet.analysis.error_causes import ErrorCauses
    from retinanet.analysis.finding import Finding
    from retinanet.analysis.hard_examples import HardExamples
    from retinanet.analysis.imbalance import Imbalance
    from retinanet.data import DetectionData
    from retinanet.evaluate import ConfusionMatrix
    from retinanet.evaluate.curves import PrecisionRecall
    from retinanet.evaluate.further_metrics import FurtherMetrics
    from retinanet.evaluate.slices import Slice

METRICS: Final = {
    "AP": "AP, mean over IoU 0.50 to 0.95",
    "AP50": "AP50, AP at IoU 0.50",
    "AP75": "AP75, AP at IoU 0.75",
    "APs": "APs, AP of small objects (below 32² pixels)",
    "APm": "APm, AP of medium objects",
    "APl": "APl, AP of large objects (above 96² pixels)",
    "AR1": "AR1, recall with 1 detection per image and class",
    "AR10": "AR10, recall with 10 detections per image and class",
    "AR100": "AR100, recall with 100 detections per image and class",
    "ARs": "ARs, recall of small objects",
    "ARm": "ARm, recall of medium objects",
    "ARl": "ARl, recall of large objects",
}
"""COCO metrics and their names in the report."""
HEADINGS: Final = {
    "worst": "Images with the lowest F1",
    "best": "Images with the highest F1",
    "random": "Random images",
}
MAX_LOCATIONS: Final = 200
"""Maximum number of files, objects or classes listed for a finding."""
MAX_CLASSES: Final = 30
"""Maximum number of classes in the drawn confusion matrix. With more classes, the most confused ones are drawn."""


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
    causes: ErrorCauses | None = None,
    confusion_threshold: float | None = None,
    further: FurtherMetrics | None = None,
    slices: Sequence[Slice] = (),
) -> Path:
    """Write the report of a model, or of a file of COCO results, on a dataset. Return its path.

    Args:
        path: path of the HTML file.
        data: images and ground truth. Missing image files are counted in the report and not shown.
        metrics: COCO metrics, as returned by `Metrics.to_json()`.
        results: detections as COCO results, with the image and category ids of `data`.
        title: title of the report.
        notes: additional sentences for the summary.
        findings: findings of the diagnosis.
        imbalance: measured class imbalance of the loss.
        hard: hardest examples.
        causes: causes of the errors.
        confusion_threshold: minimum score of a detection in the confusion matrix. Default: the threshold with the
            highest F1.
        further: metrics in addition to COCO's.
        slices: metrics of classes, object sizes and image attributes, worst first.
    """
    report = Report(title=title, subtitle=f"Dataset: {data.source}")
    items = items_from_results(data, results)
    threshold = best_threshold(items)
    report.in_short += summary.overall_metrics(metrics, "images")
    report.in_short += summary.weaknesses(metrics)
    report.in_short += summary.image_counts(items, threshold)
    report.in_short += [f"{finding.severity.capitalize()}: {finding.what}." for finding in findings]
    report.in_short += causes.best_mend() if causes is not None else []
    report.in_short += hard.sentences() if hard is not None else []
    report.in_short += notes
    truth, rows = data.to_coco(), [dict(row) for row in results]
    limit = metrics.get("max_detections", COCO_MAX_DETECTIONS)
    curves = precision_recall(truth, rows, max_detections=limit) if rows else None
    evaluation_section(report.section("Evaluation"), metrics, curves)
    if slices:
        slices_section(report.section("Slices"), slices)
    if further is not None:
        further_section(report.section("Further metrics"), further)
    if rows:
        score = threshold if confusion_threshold is None else confusion_threshold
        confusion_section(report.section("Confusion matrix"), confusion_matrix(truth, rows, score=score))
    if findings:
        findings_section(report.section("Diagnosis"), findings)
    if causes is not None:
        causes_sections(report, causes)
    if hard is not None:
        hard_sections(report, hard)
    if imbalance is not None:
        imbalance_section(report, imbalance)
    present = [item for item, record in zip(items, data.records, strict=True) if record.path.is_file()]
    if present:
        gallery_section(report.section("Detections and ground truth"), present, data.classes, threshold, 0)
    if len(present) < len(items):
        number = len(items) - len(present)
        report.in_short.append(f"{pluralise(number, 'image file')} could not be found. The images are not shown.")
    return report.write(path)


def findings_section(section: Section, findings: Sequence[Finding]) -> None:
    """Add each finding with its cause, its advice and its locations."""
    for finding in findings:
        head = f"{finding.severity.capitalize()}, {finding.kind}"
        section.text(f"{head}: {finding.what}. {finding.cause}. What to do: {finding.advice}.")
        if finding.where:
            more = len(finding.where) - MAX_LOCATIONS
            text = "\n".join(finding.where[:MAX_LOCATIONS]) + (f"\nand {more} more" if more > 0 else "")
            section.details(f"{finding.kind}: locations", text)


def confusion_section(section: Section, matrix: ConfusionMatrix) -> None:
    """Add the confusion matrix, with one row and one column for the background."""
    counts = np.asarray(matrix.counts)
    off = counts.copy()
    np.fill_diagonal(off, 0)
    names = [*matrix.classes, "background"]
    worst = [
        (names[i], names[j], int(off[i, j]))
        for i, j in zip(*np.unravel_index(np.argsort(-off, axis=None)[:5], off.shape), strict=True)
        if off[i, j]
    ]
    sentences = [_mistake(*mistake) for mistake in worst]
    mistakes = f"Most frequent mistakes: {'; '.join(sentences)}." if sentences else "The matrix contains no mistakes."
    section.text(
        f"The matrix counts detections with a score of at least {matrix.score:.2f}. A detection belongs to an object "
        f"if their IoU is at least {matrix.iou:g}. {mistakes}"
    )
    chosen = list(range(len(matrix.classes)))
    if len(chosen) > MAX_CLASSES:
        errors = off.sum(axis=0) + off.sum(axis=1)
        chosen = sorted(np.argsort(-errors[:-1], kind="stable")[:MAX_CLASSES].tolist())
    rows = [*chosen, len(matrix.classes)]
    part = counts[np.ix_(rows, rows)]
    section.figure(
        heat_map(part, [names[i] for i in rows]),
        alt=f"Confusion matrix: ground-truth classes in rows, detected classes in columns. {mistakes}",
        caption="Rows: ground-truth class. Columns: detected class. Last column: missed objects. Last row: detections "
        "on background. A darker cell has a larger share of its row."
        + (f" Only the {MAX_CLASSES} most confused classes are shown." if len(rows) <= len(matrix.classes) else ""),
    )


def _mistake(true_class: str, detected_class: str, count: int) -> str:
    if detected_class == "background":
        return f"{count} of class {true_class} missed"
    if true_class == "background":
        return f"{count} detected as {detected_class} on background"
    return f"{count} of class {true_class} detected as {detected_class}"


def heat_map(counts_RR: np.ndarray[tuple[int, ...], np.dtype[np.int64]], names: Sequence[str]) -> Figure:
    """Draw a square matrix of counts. The shade of a cell is its share of the row."""
    R = len(names)
    figure, axes = figures.new_axes(x="detected class", y="ground-truth class", height=max(2.4, 0.9 + 0.32 * R))
    share_RR = counts_RR / np.maximum(counts_RR.sum(axis=1, keepdims=True), 1)
    for i in range(R):
        for j in range(R):
            if not counts_RR[i, j]:
                continue
            colour = figures.SERIES[0] if i == j else figures.SERIES[1]
            # Opacity, unlike a lighter colour, works on a light and on a dark page.
            axes.barh(i, 1, left=j - 0.5, height=1, color=colour, alpha=0.12 + 0.6 * float(share_RR[i, j]), linewidth=0)
            axes.text(
                j, i, f"{counts_RR[i, j]:,}", ha="center", va="center", color=figures.INK, fontsize=8 if R <= 10 else 5
            )
    labels = [figures.shorten(name, 14).replace("$", r"\$") for name in names]
    small = 9 if R <= 10 else 6
    axes.set_xticks(range(R), [*labels[:-1], "missed"], rotation=90 if R > 5 else 0, fontsize=small)
    axes.set_yticks(range(R), [*labels[:-1], "background"], fontsize=small)
    axes.set_xlim(-0.5, R - 0.5)
    axes.set_ylim(R - 0.5, -0.5)
    axes.grid(visible=False)
    return figure


def evaluation_section(section: Section, metrics: Mapping[str, Any], curves: PrecisionRecall | None) -> None:
    """Add the COCO metrics, the metrics of each class, and precision-recall curves."""
    per_class: Mapping[str, Mapping[str, Any]] = metrics.get("per_class") or {}
    bars = {
        name: (float(row["AP"]), max(0.0, float(row.get("AP50", 0))))
        for name, row in per_class.items()
        if row.get("AP") is not None and row["AP"] >= 0
    }
    if bars:
        limited = (
            f" Only the {figures.MAX_BARS} classes with the lowest AP of {len(bars)} are shown."
            if len(bars) > figures.MAX_BARS
            else ""
        )
        low, high = min(bars, key=lambda name: bars[name][0]), max(bars, key=lambda name: bars[name][0])
        section.figure(
            figures.class_bars(bars),
            alt=f"Bar chart of AP and AP50 by class. AP: {bars[low][0]:.3f} ({low}) to {bars[high][0]:.3f} ({high}).",
            caption=f"Average precision (AP) of each class, highest on top.{limited}",
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
                alt=f"Precision-recall curves at IoU {curves.iou:.2f} for {pluralise(len(lines), 'class')}.",
                caption="Precision: share of the detections that are correct. Recall: share of the objects that are "
                f"detected. Each point of a curve is one score threshold. IoU {curves.iou:.2f}.",
            )
    numbers = [(label, float(metrics[name])) for name, label in METRICS.items() if name in metrics]
    section.table(["Metric", "Value"], numbers, caption="COCO metrics, from 0 to 1. –: no objects of this kind.")
    if per_class:
        section.table(
            ["Class", "Objects", "AP", "AP50"],
            [(name, row.get("objects"), row.get("AP"), row.get("AP50")) for name, row in per_class.items()],
            caption="Metrics of each class.",
        )


def gallery_section(
    section: Section, items: Sequence[ImageResults], classes: Sequence[str], threshold: float, seed: int
) -> None:
    """Add images with low F1, with high F1 and at random, with ground truth beside detections.

    Detections with a score below `threshold` are not drawn.
    """
    best = threshold == best_threshold(items)
    reason = " This threshold has the highest F1 on these images." if best else ""
    section.text(
        f"The images show detections with a score of at least {threshold:.2f}.{reason} Blue: an object and a "
        f"detection that match (same class, IoU of at least {MATCH_IOU:g}). Orange with a ×: a missed object or a "
        "false detection. Purple with a ?: a detection that is probably an unlabelled object."
    )
    chosen = choose_images(items, threshold=threshold, seed=seed)
    for group, heading in HEADINGS.items():
        images = [draw_pair(item, classes, threshold=threshold) for item in chosen if item.group == group]
        if images:
            section.text(f"{heading}:")
            section.gallery(images)
