"""Write the report of `retinanet prescribe`: the answer, its evidence, the measurements, and the prescribed options."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from retinanet.report import figures
from retinanet.report.html import Report
from retinanet.study.decision import HURT, NEGLIGIBLE, UNSEEN
from retinanet.study.prescription import COLUMN_TITLES

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from retinanet.report.html import Section
    from retinanet.study.prescription import Prescription


def prescription_report(found: Prescription, path: Path) -> Path:
    """Write the report of a finished probe. Return its path.

    Args:
        found: result of the probe.
        path: path of the HTML file.
    """
    report = Report(
        title=f"Prescription: {found.decision.answer}",
        subtitle=f"Training data {found.config.train}; validation data {found.config.validation.val}",
    )
    report.in_short += found.sentences()
    section = report.section("Measurements")
    for sentence in found.measured.sentences():
        section.text(sentence)
    if found.measured.findings:
        section.details("Findings of retinanet check", "\n".join(f"{what}." for what in found.measured.findings))
    section.table(
        ["Class", "Objects", "Images", "Objects in val"],
        [(count.name, count.objects, count.images, count.val_objects) for count in found.measured.classes],
    )
    _candidates(report.section("Candidates"), found)
    _evidence(report.section("Evidence"), found)
    section = report.section("Options")
    section.commands([("Train with the prescribed options.", found.command())])
    section.details("config.yaml", found.option_file())
    section.details("All options of the probe", json.dumps(found.to_json()["options"], indent=2))
    return report.write(path)


def _candidates(section: Section, found: Prescription) -> None:
    for sentence in found.candidate_sentences():
        section.text(sentence)
    if found.screening:
        section.table(
            ["Candidate", "Metric", "Gain", "Lowest guard"],
            [
                (one.candidate.label, one.candidate.target, f"{one.gain:+.3f}", f"{one.guard:+.3f}")
                for one in found.screening
            ],
            caption="Differences to the default with the first seed, which selects one candidate of each cause. These "
            "runs are no evidence: the best of several noisy numbers is too high on average.",
        )


def _evidence(section: Section, found: Prescription) -> None:
    if found.comparisons:
        section.figure(
            difference_chart(found),
            alt="Chart of the differences to the default with their intervals: "
            + "; ".join(f"{row[0]}, {row[1]}: {row[4]} ({row[5]})" for row in found.rows()[:-1]),
            caption="Differences paired by seed, with their intervals (Student's t). Each dot is one seed. An interval "
            "to the right of 0 supports the change.",
        )
    section.table(
        COLUMN_TITLES,
        found.rows(guards=True),
        caption="Metrics are means over the seeds. A change is supported if the interval of its first metric lies "
        f"above 0 and the mean gain is at least {NEGLIGIBLE:g}. The metrics below the first must not fall: a metric "
        f"fell if its mean difference is below {-HURT:g}, or if its interval lies below 0 and its mean is below "
        f"{-NEGLIGIBLE:g}. The last row compares the default on images that it was trained on (first number) with the "
        f"default on validation images. More images help if AP is lower there by {UNSEEN:.0%} or more.",
    )
    runs = [
        (_label(found, name), run.seed, f"{run.ap:.3f}", f"{run.seconds:.0f}", "diverged" if run.diverged else "")
        for name, all_runs in found.runs.items()
        for run in all_runs
    ]
    text = "\n".join(" | ".join(map(str, row)) for row in [("Set-up", "Seed", "AP", "Seconds", ""), *runs])
    section.details(f"All {len(runs)} training runs of {found.plan.steps:,} steps", text)


def difference_chart(found: Prescription) -> Figure:
    """Draw each difference with its interval, one row per comparison, and the difference of each seed."""
    rows = [
        (
            f"{'all changes together' if c in found.combination else c.candidate.label}, {c.target}",
            (c.difference.low, c.difference.mean, c.difference.high),
            [a - b for a, b in zip(c.values, c.reference, strict=True)],
        )
        for c in (*found.comparisons, *found.combination)
    ]
    return figures.interval_chart(rows, x="difference to the default")


def _label(found: Prescription, name: str) -> str:
    labels = {candidate.name: candidate.label for candidate in found.plan.candidates}
    return labels.get(name, name)
