"""Write the report of `retinanet check DATA --report`: findings, faults, classes, object sizes and anchor coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.analysis.assigner_coverage import NOTE
from retinanet.analysis.data_check import data_sentences
from retinanet.analysis.imbalance import SIZES
from retinanet.formats.records import drawn_names
from retinanet.images import decode_for_display
from retinanet.report import figures
from retinanet.report.evaluation import findings_section
from retinanet.report.gallery import MISSED, OBJECT, class_label, draw_boxes, pluralise
from retinanet.report.html import MAX_SIDE, Report, ReportImage

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from retinanet.analysis.coverage import Coverage
    from retinanet.analysis.data_check import DataCheck
    from retinanet.config import CheckConfig
    from retinanet.report.html import Section

MAX_BARS: Final = 30
"""Classes with the most objects that the figure and the table show."""
IMAGES: Final = 6
"""Images in the gallery."""


def check_report(check: DataCheck, config: CheckConfig, path: Path) -> Path:
    """Write the report of a data check. Return its path.

    Args:
        check: result of the data check.
        config: configuration of the data check.
        path: path of the HTML file.
    """
    report = Report(
        title=f"Check of {check.data.source.name}", subtitle=f"Dataset {check.data.source}, checked before training"
    )
    faults = [fault for data in (check.data, *check.other_splits.values()) for fault in data.faults]
    if faults:
        report.in_short.append(
            f"The data has {pluralise(len(faults), 'fault')}, listed below. All numbers exclude the invalid images and "
            "annotations."
        )
    report.in_short += data_sentences(check)
    warnings = [finding.kind for finding in check.findings if finding.severity != "note"]
    if warnings:
        report.in_short.append(f"The check gives {pluralise(len(warnings), 'warning')}: {', '.join(warnings)}.")
    section = report.section("Findings")
    findings_section(section, check.findings)
    if not check.findings:
        section.text("The check found no problems.")
    if faults:
        section = report.section("Faults")
        section.details(f"All {len(faults)} faults", "\n".join(str(fault) for fault in faults))
    _objects(report.section("Classes and object sizes"), check)
    _anchors(report.section("Anchor coverage"), check, config)
    section = report.section("Images")
    section.text(
        "Blue boxes: objects with a positive anchor. Orange boxes with a ×: objects without a positive anchor. The "
        f"first images, at most {IMAGES // 2}, have the most objects without a positive anchor. The others are random."
    )
    section.gallery(_images(check, config.random.seed))
    return report.write(path)


def _objects(section: Section, check: DataCheck) -> None:
    counts, uncovered = check.statistics, {name: n for name, n, _ in check.coverage.per_class()}
    order = np.argsort(-counts.objects_K, kind="stable")[:MAX_BARS]
    bars = {counts.classes[k]: float(counts.objects_K[k]) for k in order}
    numbers = ", ".join(f"{name} {value:,.0f}" for name, value in list(bars.items())[:10])
    limited = len(counts.classes) > MAX_BARS
    section.figure(
        bar_chart(bars, x="objects"),
        alt=f"Bar chart of the number of objects per class: {numbers}.",
        caption=f"Objects per class{f', for the {MAX_BARS} most frequent classes' if limited else ''}.",
    )
    if counts.objects:
        section.figure(
            size_chart(check.coverage),
            alt="Histogram of object sizes in the network's input: all objects, and objects without a positive anchor.",
            caption="Object size (square root of the box area) in pixels of the network's input, after resizing. "
            "Dashed: objects without a positive anchor.",
        )
    table = [
        (name, int(counts.objects_K[k]), int(counts.images_K[k]), int(uncovered.get(name, 0)))
        for k, name in enumerate(counts.classes)
    ]
    head = ["Class", "Objects", "Images", "No anchor"]
    caption = "Images: images with at least one object of the class. No anchor: objects without a positive anchor."
    section.table(head, [table[k] for k in order], caption=caption)
    if len(table) > MAX_BARS:
        text = "\n".join(" | ".join(map(str, row)) for row in [head, *table])
        section.details(f"All {len(table)} classes", text)


def _anchors(section: Section, check: DataCheck, config: CheckConfig) -> None:
    before, after = check.fitted.before, check.fitted.after
    sentence = check.fitted.sentence()
    section.text(f"{sentence[0].upper()}{sentence[1:]}.")
    if before.objects:
        lines = {"configured anchors": _cumulative(before.best_iou_O)}
        if check.fitted.changed:
            lines["fitted anchors"] = _cumulative(after.best_iou_O)
        figure = figures.line_chart(lines, x="best IoU with an anchor (0 to 1)", y="share of objects", smooth=False)
        figure.axes[0].set_xlim(0, 1)
        figure.axes[0].set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
        figure.axes[0].set_ylim(0, 1.02)
        figure.axes[0].axvline(config.matching.positive_iou, color=figures.MUTED, linewidth=1, linestyle=":")
        section.figure(
            figure,
            alt="Cumulative share of objects by the IoU with their best anchor. "
            f"{1 - before.share:.1%} of the objects are below IoU {config.matching.positive_iou:g}.",
            caption="Share of the objects whose best anchor has at most the IoU on the x axis. Dotted line: IoU "
            f"{config.matching.positive_iou:g}, the minimum for a positive anchor.",
        )
        rows: list[tuple[object, ...]] = []
        for name, index in ((name, i) for i, name in enumerate(SIZES)):
            chosen = before.band_O == index
            if chosen.any():
                cells = [float(c.reached_O[c.band_O == index].mean()) for c in (before, after)]
                rows.append((name, int(chosen.sum()), *cells))
        rows.append(("all", before.objects, before.share, after.share))
        section.table(
            ["Size", "Objects", "Configured", "Fitted"],
            rows,
            caption="Share of the objects that have a positive anchor, by COCO object size. Configured: with the "
            "configured anchors. Fitted: with anchors fitted to the data.",
        )
    section.table(
        ["Assigner", "Share", "Median", "Minimum"],
        [(row.assigner, row.share, row.median_positives, row.min_positives) for row in check.assigners],
        caption="Assigners (--assigner), with the configured anchors, before training. Share: share of the objects "
        f"that have a positive anchor. Median, Minimum: positive anchors per object. {NOTE}",
    )
    total = max(1, int(before.positives_L.sum()))
    section.table(
        ["Level", "Anchors", "Positive", "Share"],
        [
            (
                f"P{level}",
                round(before.anchors_L[i] / max(1, len(before.anchors_P3))),
                float(before.positives_L[i] / max(1, len(before.anchors_P3))),
                float(before.positives_L[i] / total),
            )
            for i, level in enumerate(before.levels)
        ],
        caption="Configured anchors by feature level. Anchors: anchors per image. Positive: positive anchors per "
        "image. Share: share of all positive anchors.",
    )


def _cumulative(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> figures.Points:
    levels = np.linspace(0, 1, 201)
    return levels.tolist(), (np.searchsorted(np.sort(values), levels, side="right") / len(values)).tolist()


def bar_chart(bars: dict[str, float], *, x: str) -> Figure:
    """Draw a horizontal bar for each name, the first name on top.

    The axis is logarithmic if the largest value is more than 50 times the smallest value above 0.
    """
    figure, axes = figures.new_axes(x=x, y="", height=max(1.6, 0.7 + 0.24 * len(bars)))
    names, values = list(bars)[::-1], list(bars.values())[::-1]
    axes.barh(range(len(names)), values, color=figures.SERIES[0], height=0.7)
    axes.set_yticks(range(len(names)), [figures.shorten(name).replace("$", r"\$") for name in names])
    present = [value for value in values if value > 0]
    if present and max(present) > 50 * min(present):
        figures.set_log_scale(axes, "x")
        axes.set_xlabel(f"{x} (logarithmic)")
    axes.grid(visible=False, axis="y")
    return figure


def size_chart(coverage: Coverage) -> Figure:
    """Draw the histogram of object sizes, for all objects and for those without a positive anchor."""
    sides_O = np.sqrt(coverage.width_O * coverage.height_O)
    edges = np.geomspace(max(1.0, sides_O.min() * 0.99), sides_O.max() * 1.01, 25)
    figure, axes = figures.new_axes(x="object size in the network's input, pixels", y="objects")
    axes.stairs(
        np.histogram(sides_O, edges)[0], edges, color=figures.SERIES[0], fill=False, linewidth=1.7, label="all objects"
    )
    uncovered = np.histogram(sides_O[~coverage.reached_O], edges)[0]
    if uncovered.any():
        axes.stairs(
            uncovered, edges, color=figures.SERIES[1], linestyle="--", linewidth=1.7, label="no positive anchor"
        )
        figures.add_legend(axes)
    axes.set_xscale("log")
    ticks = [t for t in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024) if edges[0] <= t <= edges[-1]]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    return figure


def _images(check: DataCheck, seed: int) -> list[ReportImage]:
    coverage, records = check.coverage, check.data.records
    uncovered = np.bincount(coverage.image_O[~coverage.reached_O], minlength=len(records))
    worst = [int(i) for i in np.argsort(-uncovered, kind="stable") if uncovered[i]][: IMAGES // 2]
    others = [i for i in np.random.default_rng(seed).permutation(len(records)).tolist() if i not in worst]
    drawn = []
    for index in [*worst, *others[: IMAGES - len(worst)]]:
        record = records[index]
        image = decode_for_display(record.path)
        scale = min(1.0, MAX_SIDE / max(image.size))
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
        without = set(coverage.object_O[(coverage.image_O == index) & ~coverage.reached_O].tolist())
        boxes = []
        names = [class_label(check.data.classes, k) for k in range(len(check.data.classes))]
        for g, name in drawn_names(record.boxes_G4, record.labels_G, record.crowd_G, names):
            mark = "× " if g in without else ""
            boxes.append((record.boxes_G4[g] * scale, mark + name, MISSED if mark else OBJECT))
        draw_boxes(image, boxes)
        summary = f"{pluralise(int((~record.crowd_G).sum()), 'object')}, {len(without)} without a positive anchor"
        drawn.append(
            ReportImage(image=image, alt=f"{record.path.name}: {summary}", caption=f"{record.path.name}: {summary}.")
        )
    return drawn
