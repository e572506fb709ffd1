"""Describe in words what shows a missed object: the option that was tried, and the command that has it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from retinanet.analysis.causes import MissCause
    from retinanet.analysis.visibility import Option, Remedy

HIDDEN: Final[dict[MissCause, str]] = {
    "suppressed": "NMS suppresses every box that fits the object",
    "not a candidate": "too many predictions of its level have higher scores",
    "beyond max_detections": "max_detections detections have higher scores",
    "wrong class": "the boxes at the object are detections of another class",
    "badly localised": "no predicted box of its class that post-processing keeps fits the object",
    "no anchor": "no predicted box of its class that post-processing keeps fits the object",
    "anchors ignored": "no predicted box of its class that post-processing keeps fits the object",
    "anchors taken": "no predicted box of its class that post-processing keeps fits the object",
    "low scores": "no predicted box that fits the object has a score of its class above 0.001",
}
"""Why an object is missed at the lowest threshold."""
OPTIONS: Final[dict[Option, str]] = {
    "threshold": "retinanet predict --threshold {value}",
    "nms_threshold": "retinanet predict --nms-threshold {value}",
    "agnostic_nms": "retinanet predict --no-agnostic-nms",
    "candidates_per_level": "retinanet train --candidates-per-level {value}",
    "max_detections": "retinanet train --max-detections {value}",
}
"""Command that sets each option of post-processing. The two limits are stored in the model by training."""
COMMANDS: Final[dict[MissCause, str]] = {
    "wrong class": "retinanet check MODEL DATA --hard -o DIR",
    "badly localised": "retinanet train --image-size SIZE",
    "no anchor": "retinanet train --anchors auto",
    "anchors ignored": "retinanet train --low-quality-matches",
    "anchors taken": "retinanet train --assigner atss --low-quality-matches",
}
"""Command that addresses each cause outside of post-processing."""


def at_no_threshold(cause: MissCause) -> str:
    """Return why no threshold shows an object, without a full stop."""
    return HIDDEN.get(cause, "no detection matches the object")


def advice(found: Remedy, present: int) -> str:
    """Return what a remedy changes, as a sentence. `present` is the number of detections of the image now."""
    value = str(found.value).lower() if isinstance(found.value, bool) else f"{found.value:g}"
    name = "the threshold" if found.option == "threshold" else found.option
    count = f"{found.detections} instead of {present}" if found.detections != present else f"still {present}"
    return f"With {name} {value}, the object is detected. The image then has {count} detections."


def command(cause: MissCause, found: Remedy | None) -> str | None:
    """Return the command that addresses a cause; None if no option does."""
    if cause in COMMANDS:
        return COMMANDS[cause]
    return None if found is None else OPTIONS[found.option].format(value=found.value)
