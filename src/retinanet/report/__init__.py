"""Write reports. Each report is one self-contained HTML file."""

from __future__ import annotations

from retinanet.report.html import Report, ReportImage, Section
from retinanet.report.training import training_report

__all__ = ["Report", "ReportImage", "Section", "training_report"]
