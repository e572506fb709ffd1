"""Write the report of a study: conclusions, comparison, training curves, and the results of the paper."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from retinanet.analysis.imbalance_meter import measure
from retinanet.analysis.model_outputs import load_for_analysis
from retinanet.evaluate import precision_recall
from retinanet.report import figures, summary
from retinanet.report.evaluation import model_report
from retinanet.report.html import Report
from retinanet.report.imbalance import imbalance_section
from retinanet.report.learning_curve import learning_curve_report
from retinanet.study.comparison import with_interval
from retinanet.study.cross_validation import CrossValidation
from retinanet.study.learning_curve import LearningCurve
from retinanet.study.results import COLUMN_TITLES, DIFFERENCE_TITLES, PAPER_RESULTS
from retinanet.train.metrics_table import read_metrics

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from retinanet.data import DetectionData
    from retinanet.report.html import Section
    from retinanet.study.comparison import Comparison
    from retinanet.study.outcomes import Outcome
    from retinanet.study.results import Study
    from retinanet.study.runner import StudyResult


def study_report(study: StudyResult, path: Path) -> Path:
    """Write the report of a finished study: a comparison, a learning curve or a cross-validation. Return its path.

    Args:
        study: results of the study.
        path: path of the HTML file.
    """
    if isinstance(study, LearningCurve):
        return learning_curve_report(study, path)
    if isinstance(study, CrossValidation):
        return model_report(
            path,
            data=study.data,
            metrics=study.metrics,
            results=study.detections,
            title=f"Cross-validation of {study.set_up.label}",
            notes=study.sentences(),
        )
    return _comparison_report(study, path)


def _comparison_report(study: Study, path: Path) -> Path:
    """Write the report of a comparison of set-ups. Return its path."""
    schedule = study.config.schedule
    report = Report(
        title="Comparison of set-ups on this dataset",
        subtitle=f"Trained on {study.train}; evaluated on {study.val}; "
        f"{schedule.time_budget or f'{schedule.epochs} epochs'} per training run",
    )
    report.in_short += study.sentences()
    section = report.section("Comparison")
    if len(study.outcomes) > 1:
        section.figure(
            difference_chart(study.comparisons),
            alt="Chart of the differences to the first set-up: "
            + "; ".join(f"{c.outcome.variant.label} {with_interval(c.difference)}" for c in study.comparisons),
            caption=f"Difference in AP to {study.outcomes[0].variant.label}, in AP points. Thick line: 95 % interval "
            "paired by seed. Thin line: 95 % interval over resampled validation images. Small dots: single seeds. If "
            "the thick line crosses 0, the runs do not support a difference.",
        )
    section.figure(
        interval_chart(study),
        alt="Chart of AP with its 95 % confidence interval: "
        + "; ".join(f"{o.variant.label} {o.mean():.3f} ({_bounds(o)})" for o in study.outcomes),
        caption="Mean AP over the seeds, with its 95 % confidence interval (Student's t). Each small dot is one "
        "training run. Intervals of two set-ups may overlap although the difference paired by seed is supported.",
    )
    section.table(
        *_columns(study, ("Set-up", "AP", "95 % interval", "AP50", "AP75", *COLUMN_TITLES[-3:])),
        caption="AP after the last training step, not of the best epoch. All training runs have the same length.",
    )
    if len(study.outcomes) > 1:
        section.table(
            *_columns(study, ("Set-up", *DIFFERENCE_TITLES)),
            caption="Difference in AP to the first set-up, in AP points. Paired interval: 95 % interval over the seeds "
            "(Student's t), which gives the verdict. Image interval: 95 % interval over resampled validation images. "
            "Detectable: smallest true difference that runs with this spread show in 4 of 5 studies.",
        )
    if study.class_aps():
        titles, rows = study.class_table()
        section.table(
            titles,
            rows,
            caption="AP of each class, rarest class first: mean over the seeds of the first set-up. Then the "
            "difference of each other set-up in AP points, with its 95 % interval, paired by seed.",
        )
    _curves(report.section("Training curves"), study)
    _precision(report.section("Precision and recall"), study, study.val_data)
    first = study.outcomes[0].runs[0]
    if (first.folder / "best.ckpt").exists() and not first.diverged:
        trained = load_for_analysis(first.folder / "best.ckpt", device=study.config.hardware.device)
        imbalance_section(report, measure(trained, study.val_data))
    if study.varies_loss:
        report.section("Results of the paper").table(
            ["Loss (Lin et al., COCO)", "Network", "AP, %"],
            [(loss, network, "diverged" if ap is None else f"{ap:.1f}") for loss, network, ap in PAPER_RESULTS],
            caption="Source: arXiv 1708.02002, section 4.1 and tables 1a, 1b, 1d. Dataset and network differ from this "
            "study, so compare the order of the losses, not the values of AP.",
        )
    repeat = report.section("How to reproduce this study")
    options = {name: value for name, value in study.to_json()["options"].items() if value is not None}
    repeat.details("All options", json.dumps(options, indent=2))
    return report.write(path)


def interval_chart(study: Study) -> Figure:
    """Draw mean AP, its confidence interval and the AP of each training run, one row per variant."""
    rows = len(study.outcomes)
    figure, axes = figures.new_axes(x="AP (0 to 1)", y="", height=max(1.6, 0.8 + 0.45 * rows))
    for row, outcome in enumerate(reversed(study.outcomes)):
        values = [run.ap for run in outcome.runs]
        low, high = outcome.interval()
        if math.isfinite(low):
            axes.plot([max(0.0, low), min(1.0, high)], [row, row], color=figures.SERIES[0], linewidth=1.7)
        axes.plot(values, [row] * len(values), ".", color=figures.MUTED, markersize=5)
        axes.plot([outcome.mean()], [row], "o", color=figures.SERIES[0], markersize=6)
    axes.set_yticks(range(rows), [figures.row_label(o.variant.label) for o in reversed(study.outcomes)])
    axes.set_ylim(-0.6, rows - 0.4)
    axes.grid(visible=False, axis="y")
    return figure


def _columns(study: Study, titles: Sequence[str]) -> tuple[Sequence[str], list[list[str]]]:
    """Return titles and rows of some columns of the table of the study."""
    places = [COLUMN_TITLES.index(title) for title in titles]
    return titles, [[row[place] for place in places] for row in study.rows()]


def difference_chart(comparisons: Sequence[Comparison]) -> Figure:
    """Draw the difference of each set-up to the reference, with its intervals and the difference of each seed."""
    rows = len(comparisons)
    figure, axes = figures.new_axes(x="difference in AP points", y="", height=max(1.6, 0.8 + 0.45 * rows))
    axes.axvline(0, color=figures.MUTED, linewidth=1)
    labels = []
    for row, found in enumerate(reversed(comparisons)):
        labels.append(figures.row_label(found.outcome.variant.label))
        difference = found.difference
        if found.image_interval is not None:
            low, high = found.image_interval
            axes.plot([100 * low, 100 * high], [row, row], color=figures.MUTED, linewidth=0.9)
        if math.isfinite(difference.low):
            bounds = [100 * difference.low, 100 * difference.high]
            axes.plot(bounds, [row, row], color=figures.SERIES[0], linewidth=2.6)
        pairs = zip(found.outcome.runs, found.reference.runs, strict=True)
        seeds = [100 * (run.ap - reference.ap) for run, reference in pairs]
        axes.plot(seeds, [row] * len(seeds), ".", color=figures.MUTED, markersize=5)
        axes.plot([100 * difference.mean], [row], "o", color=figures.SERIES[0], markersize=6)
    axes.set_yticks(range(rows), labels)
    axes.set_ylim(-0.6, rows - 0.4)
    axes.grid(visible=False, axis="y")
    return figure


def _curves(section: Section, study: Study) -> None:
    for column, file, name, text in (
        (
            "loss",
            "metrics.csv",
            "training loss",
            "Training loss. Losses have different scales, so compare the shapes of the curves, not their heights.",
        ),
        (
            None,
            "imbalance.csv",
            "share of the background",
            "Share of the background in the classification loss.",
        ),
    ):
        lines = {}
        for outcome in study.outcomes:
            rows = read_metrics(outcome.runs[0].folder / file)
            points = summary.points(rows, "step", column) if column else summary.points(_background(rows), "step", "y")
            if points[0]:
                lines[figures.shorten(outcome.variant.label, 34)] = points
        if not lines:
            continue
        for part in _parts(lines):
            changes = "; ".join(f"{label} from {ys[0]:.3g} to {ys[-1]:.3g}" for label, (_, ys) in part.items())
            figure = figures.line_chart(part, x="optimiser step", y=f"{name}")
            if column:
                figures.set_log_scale(figure.axes[0], "y")
            else:
                figure.axes[0].set_ylim(0, 1.02)
            section.figure(
                figure, alt=f"Line chart of the {name}: {changes}.", caption=f"{text} Only the first seed is shown."
            )


def _parts(lines: Mapping[str, figures.Points]) -> list[dict[str, figures.Points]]:
    """Split lines into groups for figures with at most one line per colour. Each group contains the first line."""
    (first, *others), most = list(lines), len(figures.SERIES) - 1
    groups = [others[i : i + most] for i in range(0, len(others), most)] or [[]]
    return [{name: lines[name] for name in (first, *group)} for group in groups]


def _background(rows: list[dict[str, float | None]]) -> list[dict[str, float | None]]:
    return [
        {"step": row["step"], "y": (row["easy_negative_loss"] or 0.0) + (row["hard_negative_loss"] or 0.0)}
        for row in rows
        if row.get("hard_negative_loss") is not None
    ]


def _precision(section: Section, study: Study, val_data: DetectionData) -> None:
    truth = val_data.to_coco()
    lines: dict[str, Any] = {}
    for outcome in study.outcomes:
        path = outcome.runs[0].folder / "detections.json"
        detections = json.loads(path.read_text()) if path.exists() and not outcome.runs[0].diverged else []
        if detections:
            curves = precision_recall(truth, detections)
            mean_R = np.nanmean(curves.precision_RK, axis=1)
            lines[figures.shorten(outcome.variant.label, 34)] = (curves.recall_R.tolist(), mean_R.tolist())
    if not lines:
        section.text("No training run produced a detection.")
        return
    for part in _parts(lines):
        figure = figures.line_chart(part, x="recall (0 to 1)", y="precision (0 to 1)", smooth=False)
        figure.axes[0].set_xlim(0, 1)
        figure.axes[0].set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
        figure.axes[0].set_ylim(0, 1.02)
        section.figure(
            figure,
            alt=f"Precision-recall curves at IoU 0.50, mean over the classes, for {', '.join(part)}.",
            caption="Precision over recall at IoU 0.50, mean over the classes. Only the first seed is shown.",
        )


def _bounds(outcome: Outcome) -> str:
    low, high = outcome.interval()
    return f"{low:.3f} to {high:.3f}" if math.isfinite(low) else "one seed, no interval"
