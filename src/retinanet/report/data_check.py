"""The page of `retinanet check DATA --report`: what is in the data, what the anchors reach, and what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.analysis.coverage import BANDS
from retinanet.analysis.data_check import data_sentences
from retinanet.images import decode
from retinanet.report import figures
from retinanet.report.evaluation import findings_section
from retinanet.report.gallery import RIGHT, WRONG, count, draw_boxes
from retinanet.report.html import MAX_SIDE, Report, ReportImage

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from retinanet.analysis.coverage import Coverage
    from retinanet.analysis.data_check import DataCheck
    from retinanet.config import CheckConfig
    from retinanet.report.html import Section

MOST_BARS: Final = 30
IMAGES: Final = 6


def check_report(found: DataCheck, config: CheckConfig, path: Path) -> Path:
    """Write the page. Return its path."""
    source = str(found.data.source)
    report = Report(title=f"Check of {found.data.source.name}", subtitle=f"{source}: what training on it would meet")
    faults = [fault for data in (found.data, *found.others.values()) for fault in data.faults]
    if faults:
        said = f"{count(len(faults), 'fault')} in the data, listed below; all else is without them."
        report.in_short.append(said)
    report.in_short += data_sentences(found)
    warnings = [finding.kind for finding in found.findings if finding.severity != "note"]
    if warnings:
        report.in_short.append(f"{count(len(warnings), 'warning')}, explained below: {', '.join(warnings)}.")
    section = report.section("Findings")
    findings_section(section, found.findings)
    if not found.findings:
        section.text("Nothing to complain about.")
    if faults:
        section = report.section("Faults")
        section.details(f"All {len(faults)}", "\n".join(str(fault) for fault in faults))
    _objects(report.section("What is in the data"), found)
    _anchors(report.section("What the anchors reach"), found, config)
    section = report.section("Images")
    section.text("Orange with a ×: objects without a positive anchor. The images with most of these, and others.")
    section.gallery(_images(found, config.random.seed))
    return report.write(path)


def _objects(section: Section, found: DataCheck) -> None:
    counts, missed = found.statistics, {name: n for name, n, _ in found.coverage.per_class()}
    order = np.argsort(-counts.objects_K, kind="stable")[:MOST_BARS]
    bars = {counts.classes[k]: float(counts.objects_K[k]) for k in order}
    said = ", ".join(f"{name} {value:,.0f}" for name, value in list(bars.items())[:10])
    section.figure(
        bar_chart(bars, x="objects"),
        alt=f"Objects of each class: {said}.",
        caption=f"Objects of each class{', the most frequent ones' if len(counts.classes) > MOST_BARS else ''}.",
    )
    if counts.objects:
        section.figure(
            size_chart(found.coverage),
            alt="Histogram of the objects' sides in the network's input, those without a positive anchor marked.",
            caption="Sides of the objects (root of the area) as the network sees them, pixels. "
            "Dashed: objects without a positive anchor.",
        )
    table = [
        (name, int(counts.objects_K[k]), int(counts.images_K[k]), int(missed.get(name, 0)))
        for k, name in enumerate(counts.classes)
    ]
    head = ["Class", "Objects", "Images", "No anchor"]
    section.table(head, [table[k] for k in order], caption="No anchor: objects without a positive anchor.")
    if len(table) > MOST_BARS:
        text = "\n".join(" | ".join(map(str, row)) for row in [head, *table])
        section.details(f"All {len(table)} classes", text)


def _anchors(section: Section, found: DataCheck, config: CheckConfig) -> None:
    before, after = found.fitted.before, found.fitted.after
    said = found.fitted.sentence()
    section.text(f"{said[0].upper()}{said[1:]}.")
    if before.objects:
        lines = {"anchors as they are": _cumulative(before.best_iou_O)}
        if found.fitted.changed:
            lines["fitted anchors"] = _cumulative(after.best_iou_O)
        figure = figures.line_chart(lines, x="best IoU with an anchor (0 to 1)", y="share of objects", smooth=False)
        figure.axes[0].set_xlim(0, 1)
        figure.axes[0].set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
        figure.axes[0].set_ylim(0, 1.02)
        figure.axes[0].axvline(config.matching.positive_iou, color=figures.MUTED, linewidth=1, linestyle=":")
        section.figure(
            figure,
            alt=f"Share of objects whose best anchor has at most the IoU on the axis; {1 - before.share:.1%} stay "
            f"below {config.matching.positive_iou:g}.",
            caption="How many objects have no better anchor than the IoU on the axis. Those left of the dotted line, "
            f"IoU {config.matching.positive_iou:g}, teach nothing.",
        )
        rows: list[tuple[object, ...]] = []
        for name, index in ((name, i) for i, name in enumerate(BANDS)):
            chosen = before.band_O == index
            if chosen.any():
                cells = [float(c.reached_O[c.band_O == index].mean()) for c in (before, after)]
                rows.append((name, int(chosen.sum()), *cells))
        rows.append(("all", before.objects, before.share, after.share))
        section.table(
            ["Size", "Objects", "As given", "Fitted"],
            rows,
            caption="Share of the objects with a positive anchor, by COCO size.",
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
        caption="Load of the levels with the anchors as given: anchors of an image, how many of them are positive, "
        "and which share of all positives that is.",
    )


def _cumulative(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> figures.Points:
    levels = np.linspace(0, 1, 201)
    return levels.tolist(), (np.searchsorted(np.sort(values), levels, side="right") / len(values)).tolist()


def bar_chart(bars: dict[str, float], *, x: str) -> Figure:
    """Draw a horizontal bar for each name, the first on top; the axis is logarithmic where they span much."""
    figure, axes = figures.new_axes(x=x, y="", height=max(1.6, 0.7 + 0.24 * len(bars)))
    names, values = list(bars)[::-1], list(bars.values())[::-1]
    axes.barh(range(len(names)), values, color=figures.SERIES[0], height=0.7)
    axes.set_yticks(range(len(names)), [figures.shorten(name).replace("$", r"\$") for name in names])
    present = [value for value in values if value > 0]
    if present and max(present) > 50 * min(present):
        axes.set_xscale("log")
        axes.set_xlabel(f"{x} (logarithmic)", color=figures.INK)
    axes.grid(visible=False, axis="y")
    return figure


def size_chart(found: Coverage) -> Figure:
    """Draw the histogram of the objects' sides, and of those without a positive anchor."""
    sides_O = np.sqrt(found.width_O * found.height_O)
    edges = np.geomspace(max(1.0, sides_O.min() * 0.99), sides_O.max() * 1.01, 25)
    figure, axes = figures.new_axes(x="side in the network's input, pixels", y="objects")
    axes.stairs(np.histogram(sides_O, edges)[0], edges, color=figures.SERIES[0], fill=False, linewidth=1.7, label="all")
    lost = np.histogram(sides_O[~found.reached_O], edges)[0]
    if lost.any():
        axes.stairs(lost, edges, color=figures.SERIES[1], linestyle="--", linewidth=1.7, label="no positive anchor")
        axes.legend(frameon=False, labelcolor=figures.INK, fontsize=9)
    axes.set_xscale("log")
    ticks = [t for t in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024) if edges[0] <= t <= edges[-1]]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    return figure


def _images(found: DataCheck, seed: int) -> list[ReportImage]:
    coverage, records = found.coverage, found.data.records
    lost = np.bincount(coverage.image_O[~coverage.reached_O], minlength=len(records))
    worst = [int(i) for i in np.argsort(-lost, kind="stable") if lost[i]][: IMAGES // 2]
    others = [i for i in np.random.default_rng(seed).permutation(len(records)).tolist() if i not in worst]
    drawn = []
    for index in [*worst, *others[: IMAGES - len(worst)]]:
        record = records[index]
        image = decode(record.path)
        scale = min(1.0, MAX_SIDE / max(image.size))
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
        without = set(coverage.object_O[(coverage.image_O == index) & ~coverage.reached_O].tolist())
        boxes = []
        for g, box in enumerate(record.boxes_G4):
            mark = "× " if g in without else ""
            crowd = " (crowd)" if record.crowd_G[g] else ""
            name = f"{mark}{found.data.classes[record.labels_G[g]]}{crowd}"
            boxes.append((box * scale, name, WRONG if mark else RIGHT))
        draw_boxes(image, boxes)
        said = f"{count(len(record.boxes_G4), 'object')}, {len(without)} without a positive anchor"
        drawn.append(
            ReportImage(image=image, alt=f"{record.path.name}: {said}", caption=f"{record.path.name}: {said}.")
        )
    return drawn
