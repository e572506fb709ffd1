"""Reports: one self-contained HTML file each."""

from __future__ import annotations

from retinanet.report.gallery import choose, draw_pair
from retinanet.report.html import Report, ReportImage, Section
from retinanet.report.training import training_report

__all__ = ["Report", "ReportImage", "Section", "choose", "draw_pair", "training_report"]
