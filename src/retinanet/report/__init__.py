"""Write reports. Each report is one self-contained HTML file."""

from __future__ import annotations

from retinanet.report.gallery import choose_images, draw_pair
from retinanet.report.html import Report, ReportImage, Section
from retinanet.report.training import training_report

__all__ = ["Report", "ReportImage", "Section", "choose_images", "draw_pair", "training_report"]
