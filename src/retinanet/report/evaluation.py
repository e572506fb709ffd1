"""Write the report of an evaluated model, and its sections: metrics, curves, diagnosis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from retinanet.analysis.outcomes import Outcomes
from retinanet.evaluate import precision_recall
from retinanet.evaluate.coco import COCO_MAX_DETECTIONS
from retinanet.evaluate.per_image import best_threshold, items_from_results
from retinanet.report import figures, summary
from retinanet.report.error_causes import causes_sections
from retinanet.report.explorer import Explorer, Run
from retinanet.report.gallery import pluralise
from retinanet.report.hard_examples import hard_sections
from retinanet.report.html import Report, Section
from retinanet.report.imbalance import imbalance_section
from retinanet.report.loss_microscope import microscope_section
from retinanet.report.miss_map import miss_map_section
from retinanet.report.slices import further_section, slices_section
from retinanet.report.threshold_curve import f1_figure
from retinanet.report.verdict import verdict

if TYPE_CHECKING:
    from pathlib import Path

    from retinanet.analysis.error_causes import ErrorCauses
    from retinanet.analysis.finding import Finding
    from retinanet.analysis.hard_examples import HardExamples
    from retinanet.analysis.imbalance import Imbalance
    from retinanet.analysis.loss_microscope import LossMicroscope
    from retinanet.analysis.miss_map import MissMap
    from retinanet.analysis.next_steps import NextStep
    from retinanet.data import DetectionData
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
MAX_LOCATIONS: Final = 200
"""Maximum number of files, objects or classes listed for a finding."""


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
    microscope: LossMicroscope | None = None,
    run: Path | None = None,
    confusion_threshold: float | None = None,
    further: FurtherMetrics | None = None,
    slices: Sequence[Slice] = (),
    next_steps: Sequence[NextStep] = (),
    misses: MissMap | None = None,
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
        microscope: measured histograms of the loss microscope; needs `imbalance`.
        run: run folder of the model, for commands that train again; None if it is unknown.
        confusion_threshold: score threshold of the report. Default: the threshold with the highest F1.
        further: metrics in addition to COCO's.
        slices: metrics of classes, object sizes and image attributes, worst first.
        next_steps: most useful next commands.
        misses: the funnel of each class, with the losses and their remedies.
    """
    report = Report(title=title, subtitle=f"Dataset: {data.source}")
    items = items_from_results(data, results)
    threshold = best_threshold(items) if confusion_threshold is None else confusion_threshold
    outcomes = Outcomes(items, data.classes, threshold=threshold, causes=causes)
    explorer = Explorer(report, [Run(name="model", outcomes=outcomes)])
    explorer.first_screen(verdict(outcomes), next_steps)
    explorer.images_section(report.section("Images"))
    if misses is not None:
        miss_map_section(report, misses)
    explorer.confusion_section(report.section("Confusion matrix"))
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
    section = report.section("Evaluation")
    evaluation_section(section, metrics, curves)
    f1_figure(section, items)
    if slices:
        slices_section(report.section("Slices"), slices)
    if further is not None:
        further_section(report.section("Further metrics"), further)
    if findings:
        findings_section(report.section("Diagnosis"), findings)
    if causes is not None:
        causes_sections(report, causes, with_misses=misses is None)
    if hard is not None:
        hard_sections(report, hard)
    if imbalance is not None:
        imbalance_section(report, imbalance)
        if microscope is not None:
            microscope_section(report, microscope, imbalance, data, run=run)
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
