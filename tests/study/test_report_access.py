"""Test with axe-core that everyone can use the reports without a model: of data, learning curves and prescriptions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from retinanet.cli import main
from retinanet.report.prescription import prescription_report
from retinanet.report.study import study_report
from retinanet.study.prescribe import prescribe
from tests.accessibility import screens, violations
from tests.browser import browser
from tests.study.test_learning_curve import LEVEL, RISING, curve
from tests.study.test_prescribe import UNREACHABLE, Training, options

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["browser", "options"]


@pytest.mark.slow
def test_reports_have_no_violations_and_fit_every_screen(
    browser: Browser, squares: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Training(monkeypatch, lambda o: (0.35 if o.get("anchors") == "auto" else 0.2, 0.0))
    prescription_report(prescribe(squares[0], **options, **UNREACHABLE), tmp_path / "prescription.html")
    study_report(curve(RISING, {"cat": LEVEL, "dog": RISING}, {"dog": 90, "cat": 900}), tmp_path / "curve.html")
    arguments = ["check", squares[0], "--val", squares[1], "--preset", "small", "--report", tmp_path / "check.html"]
    with pytest.raises(SystemExit):
        main([str(argument) for argument in arguments])
    page = browser.new_page()
    for report in sorted(tmp_path.glob("*.html")):
        page.goto(report.as_uri())
        for screen in screens(page):
            assert not violations(page), (report.name, screen)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (report.name, screen)
    assert len(list(tmp_path.glob("*.html"))) == 3
    page.close()
