"""Find violations of accessibility rules in a page with axe-core.

Playwright runs axe-core in the page over the debugging protocol, which a Content-Security-Policy does not block.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from playwright.sync_api import Page

WIDTHS: Final = (1440, 1024, 390)
"""Widths of the screens on which every page is checked, CSS pixels."""
SCHEMES: Final = ("light", "dark")
HEIGHT: Final = 800

# Without `runOnly`, axe-core runs its default rules, best practices included. `rules` adds the rules of WCAG 2.2 A and
# AA that are off by default, such as the target size, and the experimental rules. Deprecated rules stay off.
_RUN: Final = """async () => {
    const tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice", "experimental"];
    const rules = axe.getRules(tags).filter(({tags}) => !tags.includes("deprecated"));
    const enabled = Object.fromEntries(rules.map(({ruleId}) => [ruleId, {enabled: true}]));
    const {violations} = await axe.run(document, {rules: enabled, resultTypes: ["violations"]});
    return violations.flatMap(({id, nodes}) => nodes.map(({target, html, failureSummary}) =>
        `${id}: ${target.join(" ")}: ${html.slice(0, 200)}: ${failureSummary.replace(/\\s+/g, " ")}`));
}"""


@cache
def _axe() -> str:
    return (resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


def violations(page: Page) -> list[str]:
    """Return one line for each element that violates a default rule of axe-core, or a rule of WCAG 2.2 A or AA."""
    page.evaluate(f"() => {{ if (!window.axe) {{ {_axe()} }} }}")
    found: list[str] = page.evaluate(_RUN)
    return found


def screens(page: Page) -> Iterator[str]:
    """Show the page at each of `WIDTHS` in each of `SCHEMES`, and yield the name of the screen."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": HEIGHT})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            # Transitions of colours must have ended, and the layout must have followed the new width.
            page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done())))")
            yield f"{width} {scheme}"


def violations_on_all_screens(page: Page) -> list[str]:
    """Return the lines of `violations` at each of `WIDTHS` in each of `SCHEMES`, with the name of the screen."""
    return [f"{screen}: {line}" for screen in screens(page) for line in violations(page)]
