"""Write RUN/report.html, the report of a training run, from the files of the run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from retinanet.analysis.outcomes import Outcomes
from retinanet.analysis.overfitting import epoch_means
from retinanet.evaluate.per_image import ImageResults, best_threshold
from retinanet.report import figures, summary
from retinanet.report.evaluation import evaluation_section
from retinanet.report.explorer import Explorer, Run
from retinanet.report.html import Report, Section
from retinanet.report.imbalance import shares_over_time, shares_sentence
from retinanet.report.miss_map import miss_map_section
from retinanet.report.training_images import training_images_section
from retinanet.report.verdict import verdict
from retinanet.train.metrics_table import read_metrics

if TYPE_CHECKING:
    from retinanet.analysis.miss_map import MissMap
    from retinanet.analysis.next_steps import NextStep
    from retinanet.config import AugmentConfig
    from retinanet.data.dataset import Sample
    from retinanet.evaluate.curves import PrecisionRecall

LOSSES: Final = {"loss": "total", "classification_loss": "classification", "box_loss": "box"}
VALIDATION_PARTS: Final = {
    "validation, classification": "val_classification_loss",
    "validation, box": "val_box_loss",
}


def training_report(
    run: Path,
    *,
    gallery: Sequence[ImageResults] = (),
    classes: Sequence[str] = (),
    metrics: Mapping[str, Any] | None = None,
    curves: PrecisionRecall | None = None,
    images: str = "validation images",
    seconds: float | None = None,
    command: str | None = None,
    title: str | None = None,
    notes: Sequence[str] = (),
    threshold: float | None = None,
    seed: int = 0,
    next_steps: Sequence[NextStep] = (),
    misses: MissMap | None = None,
    first_images: Sequence[tuple[str, Sample]] = (),
    augment: AugmentConfig | None = None,
) -> Path:
    """Write RUN/report.html from metrics.csv, config.yaml and other files in RUN. Missing files are skipped.

    Args:
        run: run folder.
        gallery: all evaluated images with their detections. The report counts errors in all of them and shows some.
        classes: names by class id, for the gallery.
        metrics: COCO metrics of the best weights, as returned by `Metrics.to_json()`. Default: RUN/evaluation.json.
        curves: precision-recall curves.
        images: name of the evaluated images, such as "validation images".
        seconds: duration of the training, seconds. Default: the value in metrics.csv.
        command: command that reproduces the training run.
        title: title of the report.
        notes: additional sentences for the summary.
        threshold: score threshold of the report. Default: the threshold with the highest F1.
        seed: seed of the choice of random images.
        next_steps: most useful next commands.
        misses: the funnel of each class, with the losses and their remedies.
        first_images: names and samples of the first training images, augmented.
        augment: options of their augmentation.

    Returns:
        path of the report.
    """
    rows = read_metrics(run / "metrics.csv")
    given = metrics is not None or not rows
    if metrics is None and (run / "evaluation.json").exists():
        metrics = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    if seconds is None:
        seconds = max((value for row in rows if (value := row.get("seconds")) is not None), default=None)
    report = Report(title=title or f"Training run {run.resolve().name}", subtitle="Report of a RetinaNet training run")
    threshold = best_threshold(gallery) if threshold is None else threshold
    if gallery:
        outcomes = Outcomes(gallery, classes, threshold=threshold)
        explorer = Explorer(report, [Run(name="model", outcomes=outcomes)], seed=seed)
        explorer.first_screen(verdict(outcomes), next_steps)
        explorer.images_section(report.section(f"The {images}"))
        if misses is not None:
            miss_map_section(report, misses)
        explorer.confusion_section(report.section("Confusion matrix"))
    report.in_short += summary.training_progress(rows) + summary.overfitting(rows)
    if metrics:
        # `training_progress` already names the AP of an evaluation during training.
        report.in_short += summary.overall_metrics(metrics, images) if given else []
        report.in_short += summary.weaknesses(metrics)
    report.in_short += summary.image_counts(gallery, threshold)
    report.in_short += [f"Training took {summary.duration(seconds)}."] if seconds is not None else []
    report.in_short += notes
    shares = read_metrics(run / "imbalance.csv")
    report.in_short += shares_sentence(shares)
    report.in_short += _set_up_sentences(run)
    if metrics:
        evaluation_section(report.section(f"Evaluation on the {images}"), metrics, curves)
    if first_images and augment is not None:
        section = report.section("Training images as the network sees them")
        training_images_section(section, first_images, classes, augment)
    _training_curves(report.section("Training"), rows)
    if shares:
        shares_over_time(report.section("Shares of the classification loss"), shares)
    reproduce = report.section("How to reproduce this training run")
    if command:
        reproduce.commands([("", command)])
    if (run / "config.yaml").exists():
        reproduce.details("All options (config.yaml)", (run / "config.yaml").read_text(encoding="utf-8"))
    return report.write(run / "report.html")


def _set_up_sentences(run: Path) -> list[str]:
    """Return sentences about the set-up of a training run, from the files of the run folder."""

    def read(name: str) -> dict[str, Any]:
        path = run / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    sentences = []
    if budget := read("time-budget.json"):
        sentences.append(budget["sentence"])
    if start := read("start.json"):
        sentences.append(f"Start of training: {start['said']}")
    if anchors := read("anchors.json"):
        sentences.append(f"Anchors: {anchors['sentence']}.")
    sampling = read("sampling.json")
    if sampling.get("sampler", "natural") != "natural":
        sentences.append(f"Sampling: {sampling['sentence']}")
    return sentences


def _training_curves(section: Section, rows: Sequence[summary.Row]) -> None:
    losses = {label: summary.points(rows, "step", name) for name, label in LOSSES.items()}
    losses = {label: line for label, line in losses.items() if line[0]}
    if losses:
        changes = "; ".join(f"{label} from {ys[0]:.3f} to {ys[-1]:.3f}" for label, (_, ys) in losses.items())
        section.figure(
            figures.loss_curves(losses),
            alt=f"Line chart of the losses over {losses[next(iter(losses))][0][-1]:.0f} optimiser steps: {changes}.",
            caption="Loss of the training batches. Pale lines: single values. Strong lines: running mean."
            if max(len(xs) for xs, _ in losses.values()) >= figures.SMOOTH_FROM
            else "Loss of the training batches.",
        )
    _validation_curves(section, rows)
    scores = {name: summary.points(rows, "epoch", name) for name in ("AP", "AP50", "AP75")}
    scores = {name: line for name, line in scores.items() if line[0] and max(line[1]) >= 0}
    if scores:
        changes = "; ".join(f"{name} from {ys[0]:.3f} to {ys[-1]:.3f}" for name, (_, ys) in scores.items())
        section.figure(
            figures.ap_curves(scores),
            alt=f"Line chart of average precision over epochs: {changes}.",
            caption="Average precision on the validation images after each evaluated epoch.",
        )
    rate = summary.points(rows, "step", "lr")
    if rate[0]:
        section.figure(
            figures.learning_rate(rate),
            alt=f"Line chart of the learning rate: maximum {max(rate[1]):.2g}, last value {rate[1][-1]:.2g}.",
            caption="Learning rate.",
        )
    positives = summary.points(rows, "step", "positives_per_image")
    if positives[0]:
        mean = sum(positives[1]) / len(positives[1])
        section.figure(
            figures.line_chart({"positive anchors": positives}, x="optimiser step", y="positive anchors per image"),
            alt=f"Line chart of the positive anchors per training image: mean {mean:.1f}.",
            caption="Positive anchors per training image: the anchors that are matched to an object.",
        )
    if not section.blocks:
        section.text("No metrics of the training were found: metrics.csv is missing or empty.")


def _validation_curves(section: Section, rows: Sequence[summary.Row]) -> None:
    """Add the chart of the validation losses, with the mean training loss of each epoch."""
    columns = {"training": "loss", "validation": "val_loss", **VALIDATION_PARTS}
    means = {label: epoch_means(rows, name) for label, name in columns.items()}
    if not means["validation"]:
        return
    lines = {label: ([e + 1 for e in of_epoch], list(of_epoch.values())) for label, of_epoch in means.items()}
    lines = {label: line for label, line in lines.items() if line[0]}
    changes = "; ".join(f"{label} from {ys[0]:.3f} to {ys[-1]:.3f}" for label, (_, ys) in lines.items())
    section.figure(
        figures.loss_curves(lines, x="epoch"),
        alt=f"Line chart of the losses of training and validation over epochs: {changes}.",
        caption="Loss of the validation images after each evaluated epoch, and mean training loss of each epoch. The "
        "training loss is measured on augmented images while the weights change, so the training loss can be higher. "
        "A validation loss that rises while the training loss falls shows overfitting.",
    )
