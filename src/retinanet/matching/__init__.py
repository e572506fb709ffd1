"""Assign anchors to ground-truth boxes: every anchor becomes positive, negative or ignored."""

from retinanet.matching.atss import ATSSAssigner
from retinanet.matching.base import Assigner, make_assigner
from retinanet.matching.iou import IoUAssigner, match
from retinanet.matching.task_aligned import TaskAlignedAssigner

__all__ = ["ATSSAssigner", "Assigner", "IoUAssigner", "TaskAlignedAssigner", "make_assigner", "match"]
