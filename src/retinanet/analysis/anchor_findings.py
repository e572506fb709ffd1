"""What of the anchors, the prior and the first step will make training harder than it need be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from retinanet.analysis.data_findings import TINY
from retinanet.analysis.finding import Finding

if TYPE_CHECKING:
    from retinanet.analysis.auto_anchors import FittedAnchors
    from retinanet.analysis.coverage import Coverage
    from retinanet.analysis.expected_loss import ExpectedLoss
    from retinanet.config import ModelConfig


UNREACHED: Final = 0.01
NO_PRIOR: Final = 0.1


def anchor_findings(found: Coverage, model_config: ModelConfig, fitted: FittedAnchors | None = None) -> list[Finding]:
    """Return what of the objects the anchors miss, whether the anchors are too large or too small, and what helps."""
    findings = []
    sides_O = np.sqrt(found.width_O * found.height_O)
    lost_O = ~found.reached_O
    if found.objects and lost_O.mean() > UNREACHED:
        low = min(model_config.anchor_sizes) * min(model_config.anchor_scales)
        high = max(model_config.anchor_sizes) * max(model_config.anchor_scales)
        middle = float(np.median(sides_O[lost_O]))
        robbed = float((found.best_iou_O[lost_O] >= 0.5).mean())
        if robbed > 0.5:
            kind, cause = (
                "objects too close",
                "Their anchors overlap another object more: they lie on top of each other",
            )
        elif middle < low:
            kind, cause = "anchors too large", f"The smallest anchor has sides of {low:.0f} pixels, these {middle:.0f}"
        elif middle > high:
            kind, cause = "anchors too small", f"The largest anchor has sides of {high:.0f} pixels, these {middle:.0f}"
        else:
            long = float(
                np.median(
                    np.maximum(found.width_O, found.height_O)[lost_O]
                    / np.minimum(found.width_O, found.height_O)[lost_O]
                )
            )
            kind = "anchors of other shapes"
            cause = f"Their longer side is {long:.1f} times the shorter, or they lie between two sizes"
        advice = "Larger images (--image-size, --max-size), or --low-quality-matches"
        if fitted is not None and fitted.changed:
            won = f"{fitted.after.share:.1%} instead of {fitted.before.share:.1%}"
            advice = f"--anchors auto, or {fitted.flags()}: {won}"
        classes = (f"{name}: {n} of {total}" for name, n, total in found.per_class() if n)
        findings.append(
            Finding(
                kind=kind,
                severity="warning",
                what=f"{found.unreached:,} of {found.objects:,} objects ({lost_O.mean():.1%}) have no "
                "positive anchor and will hardly be learnt",
                cause=cause,
                advice=advice,
                where=tuple(classes),
            )
        )
    tiny_O = np.minimum(found.width_O, found.height_O) < TINY
    if found.objects and tiny_O.mean() > UNREACHED:
        findings.append(
            Finding(
                kind="tiny objects",
                severity="warning",
                what=f"{int(tiny_O.sum()):,} objects ({tiny_O.mean():.1%}) have a side below {TINY:g} pixels when the "
                "network sees them",
                cause="The image is made smaller than the objects can bear",
                advice="A larger --image-size and --max-size, or cut the images into tiles",
            )
        )
    return findings


def start_findings(prior: float, expected: ExpectedLoss | None) -> list[Finding]:
    """Return whether training starts where it is stable; `expected` is None for losses that it is not known for."""
    if prior <= NO_PRIOR:
        return []
    what = f"every anchor starts with a probability of {prior:g} for every class"
    if expected is not None:
        ratio = expected.background / max(expected.foreground, 1e-12)
        what += (
            f": the first step's loss will be about {expected.total:,.3g}, {ratio:,.0f} times as much of it from the "
        )
        what += "background as from the objects"
    return [
        Finding(
            kind="no prior",
            severity="warning",
            what=what,
            cause=f"--prior {prior:g} switches the prior off",
            advice="--prior 0.01 (the default) starts with background everywhere; without it training may diverge",
        )
    ]
