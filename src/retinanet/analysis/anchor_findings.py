"""Findings about anchors and prior: settings that make training harder than necessary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.analysis.data_findings import TINY
from retinanet.analysis.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinanet.analysis.assigner_coverage import AssignerCoverage
    from retinanet.analysis.auto_anchors import FittedAnchors
    from retinanet.analysis.coverage import Coverage
    from retinanet.analysis.expected_loss import ExpectedLoss
    from retinanet.config import ModelConfig


UNREACHED: Final = 0.01
"""Share of objects above which missing anchors, or tiny objects, become a finding."""
NO_PRIOR: Final = 0.1
"""A prior above this value is reported: the loss of the background then dominates the first steps."""


def anchor_findings(
    coverage: Coverage,
    model_config: ModelConfig,
    fitted: FittedAnchors | None = None,
    assigners: Sequence[AssignerCoverage] = (),
) -> list[Finding]:
    """Return findings about objects without a positive anchor and about tiny objects.

    Args:
        coverage: the measured coverage of the objects by the anchors.
        model_config: the anchors that were measured.
        fitted: anchors fitted to the data, which the advice then names.
        assigners: coverage by each assigner. The advice names ATSS if ATSS reaches more objects.
    """
    findings = []
    sides_O = np.sqrt(coverage.width_O * coverage.height_O)
    lost_O = ~coverage.reached_O
    if coverage.objects and lost_O.mean() > UNREACHED:
        low = min(model_config.anchor_sizes) * min(model_config.anchor_scales)
        high = max(model_config.anchor_sizes) * max(model_config.anchor_scales)
        median_side = float(np.median(sides_O[lost_O]))
        matched_elsewhere = float((coverage.best_iou_O[lost_O] >= 0.5).mean())
        if matched_elsewhere > 0.5:
            kind = "objects too close"
            cause = "These objects overlap each other, and their anchors overlap another object more"
        elif median_side < low:
            kind = "anchors too large"
            cause = (
                f"The smallest anchor has sides of {low:.0f} pixels; the median side of these objects is "
                f"{median_side:.0f} pixels"
            )
        elif median_side > high:
            kind = "anchors too small"
            cause = (
                f"The largest anchor has sides of {high:.0f} pixels; the median side of these objects is "
                f"{median_side:.0f} pixels"
            )
        else:
            aspect = float(
                np.median(
                    np.maximum(coverage.width_O, coverage.height_O)[lost_O]
                    / np.minimum(coverage.width_O, coverage.height_O)[lost_O]
                )
            )
            kind = "anchors of other shapes"
            cause = (
                f"The longer side of these objects is {aspect:.1f} times the shorter side (median), or their size "
                "lies between two anchor sizes"
            )
        advice = "Use larger images (--image-size, --max-size), or --low-quality-matches"
        if fitted is not None and fitted.changed and fitted.after.share > fitted.before.share:
            gain = f"{fitted.after.share:.1%} of the objects then have a positive anchor, now {fitted.before.share:.1%}"
            advice = f"Use --anchors auto, or {fitted.flags()}: {gain}"
            if fitted.needed:
                advice = f"Keep --anchors as_needed (the default), which fits the anchors: {gain}"
        atss = next((row for row in assigners if row.assigner == "atss"), None)
        if atss is not None and atss.unreached < coverage.unreached:
            advice += (
                f". With the configured anchors, --assigner atss gives {atss.share:.1%} of the objects a positive "
                f"anchor, now {coverage.share:.1%}"
            )
        classes = (f"{name}: {n} of {total}" for name, n, total in coverage.per_class() if n)
        findings.append(
            Finding(
                kind=kind,
                severity="warning",
                what=f"{coverage.unreached:,} of {coverage.objects:,} objects ({lost_O.mean():.1%}) have no "
                "positive anchor, so that the model hardly learns them",
                cause=cause,
                advice=advice,
                where=tuple(classes),
            )
        )
    tiny_O = np.minimum(coverage.width_O, coverage.height_O) < TINY
    if coverage.objects and tiny_O.mean() > UNREACHED:
        findings.append(
            Finding(
                kind="tiny objects",
                severity="warning",
                what=f"{int(tiny_O.sum()):,} objects ({tiny_O.mean():.1%}) have a side below {TINY:g} pixels in the "
                "network's input",
                cause="The images are reduced too much for objects of this size",
                advice="Use a larger --image-size and --max-size, or cut the images into tiles",
            )
        )
    return findings


def start_findings(prior: float, expected: ExpectedLoss | None) -> list[Finding]:
    """Return a finding if the prior makes the first training steps unstable.

    Args:
        prior: probability of every class at every anchor before training.
        expected: expected loss of the first step, or None for a loss whose start cannot be computed.
    """
    if prior <= NO_PRIOR:
        return []
    what = f"every anchor starts with a probability of {prior:g} for every class"
    if expected is not None:
        ratio = expected.background / max(expected.foreground, 1e-12)
        what += (
            f": the loss of the first step is about {expected.total:,.3g}, and the background's part is {ratio:,.0f} "
            "times the objects' part"
        )
    return [
        Finding(
            kind="no prior",
            severity="warning",
            what=what,
            cause=f"--prior {prior:g} is so high that the loss of the background dominates at the start, and training "
            "may diverge",
            advice="Use --prior 0.01, the default: every anchor then starts as background",
        )
    ]
