"""RUN/report.html: what a training run came to, from the files it wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from retinanet.evaluate.per_image import ImageResults, best_threshold
from retinanet.report import figures, summary
from retinanet.report.evaluation import confusion_section, evaluation_section, gallery_section
from retinanet.report.html import Report, Section
from retinanet.report.imbalance import shares_over_time, shares_sentence
from retinanet.train.metrics_table import read_metrics

if TYPE_CHECKING:
    from retinanet.evaluate import ConfusionMatrix
    from retinanet.evaluate.curves import PrecisionRecall

LOSSES: Final = {"loss": "total", "classification_loss": "classification", "box_loss": "box"}


def training_report(
    run: Path,
    *,
    gallery: Sequence[ImageResults] = (),
    classes: Sequence[str] = (),
    metrics: Mapping[str, Any] | None = None,
    curves: PrecisionRecall | None = None,
    confusion: ConfusionMatrix | None = None,
    images: str = "validation images",
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
        gallery: ALL evaluated images; the report counts them, and shows some of the best, the worst and others.
        classes: names by class id, for the gallery.
        metrics: `Metrics.to_json()` of the best weights; by default RUN/evaluation.json.
        curves: precision over recall.
        confusion: which class is taken for which.
        images: what `metrics` and `gallery` were measured on, in words.
        seconds: how long the training took; by default what metrics.csv says.
        command: what was typed.
        title: of the page.
        notes: further sentences for the top.
        threshold: score from which a detection counts in the gallery; by default the one with the highest F1.
        seed: for the random images.
    """
    rows = read_metrics(run / "metrics.csv")
    given = metrics is not None or not rows
    if metrics is None and (run / "evaluation.json").exists():
        metrics = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    if seconds is None:
        seconds = max((value for row in rows if (value := row.get("seconds")) is not None), default=None)
    report = Report(title=title or f"Training run {run.resolve().name}", subtitle="RetinaNet: how the training went")
    report.in_short += summary.course(rows)
    if metrics:
        # The evaluation that training itself wrote is the one that `course` has named.
        report.in_short += summary.overall(metrics, images) if given else []
        report.in_short += summary.weaknesses(metrics)
    threshold = best_threshold(gallery) if threshold is None else threshold
    report.in_short += summary.images(gallery, threshold)
    report.in_short += [f"Training took {summary.duration(seconds)}."] if seconds is not None else []
    report.in_short += notes
    shares = read_metrics(run / "imbalance.csv")
    report.in_short += shares_sentence(shares)
    start = run / "start.json"
    if start.exists():
        report.in_short.append(f"Start: {json.loads(start.read_text(encoding='utf-8'))['said']}")
    _course(report.section("Training"), rows)
    if shares:
        shares_over_time(report.section("Where the loss came from"), shares)
    if metrics:
        evaluation_section(report.section(f"Evaluation on the {images}"), metrics, curves)
    if confusion is not None:
        confusion_section(report.section("Which class is taken for which"), confusion)
    if gallery:
        gallery_section(report.section("Detections beside ground truth"), gallery, classes, threshold, seed)
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
            caption="Average precision on the validation images after each evaluated epoch.",
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
            figures.line_chart({"positive anchors": positives}, x="optimiser step", y="positive anchors per image"),
            alt=f"Line chart of the positive anchors in a training image, {mean:.1f} on average.",
            caption="Positive anchors in a training image: those that answer for an object.",
        )
    if not section.blocks:
        section.text("The run has left no numbers of its training (metrics.csv is missing or empty).")
