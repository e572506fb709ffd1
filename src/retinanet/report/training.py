"""RUN/report.html: what a training run came to, from the files it wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from retinanet.report import figures, summary
from retinanet.report.gallery import MATCH_IOU, GalleryItem, best_threshold, choose, draw_pair
from retinanet.report.html import Report, Section

if TYPE_CHECKING:
    from retinanet.evaluate.curves import PrecisionRecall

LOSSES: Final = {"loss": "total", "classification_loss": "classification", "box_loss": "box"}
SIZES: Final = {
    "AP": "AP, mean over IoU 0.50 to 0.95",
    "AP50": "AP50, at IoU 0.50",
    "AP75": "AP75, at IoU 0.75",
    "APs": "APs, small objects (below 32² pixels)",
    "APm": "APm, medium objects",
    "APl": "APl, large objects (above 96² pixels)",
    "AR1": "AR1, recall with 1 detection a picture",
    "AR10": "AR10, with 10 detections",
    "AR100": "AR100, with 100 detections",
    "ARs": "ARs, recall of small objects",
    "ARm": "ARm, of medium ones",
    "ARl": "ARl, of large ones",
}
HEADINGS: Final = {"worst": "with the most mistakes", "best": "that went best", "random": "picked at random"}


def training_report(
    run: Path,
    *,
    gallery: Sequence[GalleryItem] = (),
    classes: Sequence[str] = (),
    metrics: Mapping[str, Any] | None = None,
    curves: PrecisionRecall | None = None,
    pictures: str = "validation pictures",
    seconds: float | None = None,
    command: str | None = None,
    title: str | None = None,
    notes: Sequence[str] = (),
    threshold: float | None = None,
    seed: int = 0,
) -> Path:
    """Write RUN/report.html from metrics.csv and config.yaml in RUN, as far as they are there. Return its path.

    Args:
        run: the run's folder.
        gallery: ALL evaluated pictures; the report counts them, and shows some of the best, the worst and others.
        classes: names by class id, for the gallery.
        metrics: `Metrics.to_json()` of the best weights; by default RUN/evaluation.json.
        curves: precision over recall.
        pictures: what `metrics` and `gallery` were measured on, in words.
        seconds: how long the training took; by default what metrics.csv says.
        command: what was typed.
        title: of the page.
        notes: further sentences for the top.
        threshold: score from which a detection counts in the gallery; by default the one with the highest F1.
        seed: for the random pictures.
    """
    rows = summary.read_metrics(run / "metrics.csv")
    given = metrics is not None or not rows
    if metrics is None and (run / "evaluation.json").exists():
        metrics = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    if seconds is None:
        seconds = max((value for row in rows if (value := row.get("seconds")) is not None), default=None)
    report = Report(title=title or f"Training run {run.resolve().name}", subtitle="RetinaNet: how the training went")
    report.in_short += summary.course(rows)
    if metrics:
        # The evaluation that training itself wrote is the one that `course` has named.
        report.in_short += summary.overall(metrics, pictures) if given else []
        report.in_short += summary.weaknesses(metrics)
    threshold = best_threshold(gallery) if threshold is None else threshold
    report.in_short += summary.pictures(gallery, threshold)
    report.in_short += [f"Training took {summary.duration(seconds)}."] if seconds is not None else []
    report.in_short += notes
    _course(report.section("Training"), rows)
    if metrics:
        _evaluation(report.section(f"Evaluation on the {pictures}"), metrics, curves)
    if gallery:
        _gallery(report.section("Detections beside ground truth"), gallery, classes, threshold, seed)
    repeat = report.section("How to repeat it")
    if command:
        repeat.details("Command", command)
    if (run / "config.yaml").exists():
        repeat.details("All options (config.yaml)", (run / "config.yaml").read_text(encoding="utf-8"))
    return report.write(run / "report.html")


def _course(section: Section, rows: Sequence[summary.Row]) -> None:
    losses = {label: summary.points(rows, "step", name) for name, label in LOSSES.items()}
    losses = {label: line for label, line in losses.items() if line[0]}
    if losses:
        said = "; ".join(f"{label} from {ys[0]:.3f} to {ys[-1]:.3f}" for label, (_, ys) in losses.items())
        section.figure(
            figures.loss_curves(losses),
            alt=f"Line chart of the losses over {losses[next(iter(losses))][0][-1]:.0f} optimiser steps: {said}.",
            caption="Loss of the training batches. The pale lines are single values, the others their running mean."
            if max(len(xs) for xs, _ in losses.values()) >= figures.SMOOTH_FROM
            else "Loss of the training batches.",
        )
    scores = {name: summary.points(rows, "epoch", name) for name in ("AP", "AP50", "AP75")}
    scores = {name: line for name, line in scores.items() if line[0] and max(line[1]) >= 0}
    if scores:
        said = "; ".join(f"{name} from {ys[0]:.3f} to {ys[-1]:.3f}" for name, (_, ys) in scores.items())
        section.figure(
            figures.ap_curves(scores),
            alt=f"Line chart of average precision over epochs: {said}.",
            caption="Average precision on the validation pictures after each evaluated epoch.",
        )
    rate = summary.points(rows, "step", "lr")
    if rate[0]:
        section.figure(
            figures.learning_rate(rate),
            alt=f"Line chart of the learning rate, at most {max(rate[1]):.2g} and {rate[1][-1]:.2g} at the end.",
            caption="Learning rate.",
        )
    positives = summary.points(rows, "step", "positives_per_image")
    if positives[0]:
        mean = sum(positives[1]) / len(positives[1])
        section.figure(
            figures.line_chart({"positive anchors": positives}, x="optimiser step", y="positive anchors per picture"),
            alt=f"Line chart of the positive anchors in a training picture, {mean:.1f} on average.",
            caption="Positive anchors in a training picture: those that answer for an object.",
        )
    if not section.blocks:
        section.text("The run has left no numbers of its training (metrics.csv is missing or empty).")


def _evaluation(section: Section, metrics: Mapping[str, Any], curves: PrecisionRecall | None) -> None:
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


def _gallery(
    section: Section, items: Sequence[GalleryItem], classes: Sequence[str], threshold: float, seed: int
) -> None:
    best = threshold == best_threshold(items)
    why = ", the score that best balances missed and wrong ones on these pictures (highest F1)" if best else ""
    section.text(
        f"Drawn are detections with a score of {threshold:.2f} or more{why}. Blue: object and detection agree "
        f"(same class, IoU of at least {MATCH_IOU:g}). "
        "Orange with a ×: an object that was missed, or a detection that is wrong."
    )
    chosen = choose(items, threshold=threshold, seed=seed)
    for group, heading in HEADINGS.items():
        pictures = [draw_pair(item, classes, threshold=threshold) for item in chosen if item.group == group]
        if pictures:
            section.text(f"Pictures {heading}:")
            section.gallery(pictures)
