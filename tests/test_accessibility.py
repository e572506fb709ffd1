"""Test that the accessibility check finds known faults, also under a Content-Security-Policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.accessibility import violations, violations_on_all_screens
from tests.browser import browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser

__all__ = ["browser"]

PAGE = """<!doctype html><html lang="en"><head><title>Test</title><meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<style>{style}</style></head>
<body><main><h1>Test</h1>{body}</main></body></html>"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "style", "rule"),
    [
        ("<img src='data:,'>", "", "image-alt"),
        ("<button>a</button><button>b</button>", "button { padding: 0; border: 0; width: 16px; }", "target-size"),
        ("<h3>c</h3>", "", "heading-order"),
        ("<button aria-label='Something else'>Other words</button>", "", "label-content-name-mismatch"),
    ],
)
def test_known_faults_are_found(browser: Browser, body: str, style: str, rule: str):
    page = browser.new_page()
    page.set_content(PAGE.format(body=body, style=style))
    assert {line.split(":")[0] for line in violations(page)} == {rule}
    page.close()


@pytest.mark.slow
def test_each_width_and_scheme_is_checked(browser: Browser):
    page = browser.new_page()
    style = "@media (prefers-color-scheme: dark) and (max-width: 400px) { p { color: #777; background: #888; } }"
    page.set_content(PAGE.format(body="<p>Text</p>", style=style))
    found = violations_on_all_screens(page)
    assert [line.split(": ")[:2] for line in found] == [["390 dark", "color-contrast"]]
    page.close()
