"""Reports: one self-contained HTML file each."""

from __future__ import annotations

from retinanet.report.gallery import GalleryItem, best_threshold, choose, draw_pair, items_from_results, judge
from retinanet.report.html import Report, ReportImage, Section
from retinanet.report.training import training_report

__all__ = [
    "GalleryItem",
    "Report",
    "ReportImage",
    "Section",
    "best_threshold",
    "choose",
    "draw_pair",
    "items_from_results",
    "judge",
    "training_report",
]
