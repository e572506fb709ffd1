"""Write the screenshots in docs/images from a finished demo: the web page of `serve`, and the reports.

usage: python docs/make_images.py RUN MODEL    RUN: the demo's folder (runs/demo). MODEL: its export (.onnx)

Needs the packages of `.[dev,serve,onnx]` and Chromium.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import Browser

IMAGES: Final = Path(__file__).parent / "images"
WIDE: Final[dict[str, Any]] = {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"}
PHONE: Final[dict[str, Any]] = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "has_touch": True}
SCENES: Final = ("00000.jpg", "00003.jpg", "00004.jpg", "00007.jpg", "00012.jpg", "00021.jpg")
CHOSEN: Final = 3
"""Index of the scene that is shown large."""


def screenshot_page(browser: Browser, model: Path, scenes: Path) -> None:
    """Write serve-page.png and serve-page-phone.png: several scenes, one shown large with an explained place."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "retinanet", "serve", str(model), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:  # noqa: S603 - our own command
        try:
            _wait_until_ready(f"http://127.0.0.1:{port}/readyz")
            for name, screen in (("serve-page", WIDE), ("serve-page-phone", PHONE)):
                page = browser.new_page(**screen)
                page.goto(f"http://127.0.0.1:{port}/")
                page.locator("#classes li").first.wait_for()
                page.set_input_files("#files", [str(scenes / name) for name in SCENES])
                page.locator("#strip > *").nth(len(SCENES) - 1).wait_for()
                page.locator("#strip > *").nth(CHOSEN).click()
                page.locator("#count", has_text="detection").wait_for()
                page.wait_for_timeout(2000)  # the thumbnails of all scenes
                box = page.locator("#canvas").bounding_box()
                assert box is not None  # noqa: S101 - for the type checker
                page.mouse.click(box["x"] + 0.36 * box["width"], box["y"] + 0.72 * box["height"])
                page.locator(".answer").wait_for()
                page.locator("#busy").wait_for(state="hidden")
                page.mouse.move(5, 5)
                page.screenshot(path=IMAGES / f"{name}.png")
        finally:
            server.terminate()


def _wait_until_ready(url: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - an address of this machine
                return
        except OSError:
            time.sleep(0.3)
    sys.exit(f"the server did not answer {url} within {seconds:g} seconds")


def screenshot_reports(browser: Browser, run: Path) -> None:
    """Write the top of the reports of `train` and `check`, the miss map and the loss microscope."""
    with tempfile.TemporaryDirectory() as folder:
        check = Path(folder) / "check.html"
        command = ["check", str(run / "best.ckpt"), str(run / "scenes" / "test.json"), "--report", str(check)]
        subprocess.run([sys.executable, "-m", "retinanet", *command], check=True)  # noqa: S603 - our own command
        for name, report, screen in (
            ("demo-report", run / "report.html", WIDE),
            ("check-report-phone", check, PHONE),
        ):
            page = browser.new_page(**screen)
            page.goto(report.resolve().as_uri())
            page.screenshot(path=IMAGES / f"{name}.png")
        page = browser.new_page(viewport={"width": 1280, "height": 1100}, color_scheme="light")
        page.goto(check.resolve().as_uri())
        page.add_style_tag(content=".bar { position: static !important; }")  # the section begins at the top of the page
        for name, heading in (("miss-map", "Miss map"), ("loss-microscope", "Loss microscope")):
            section = page.locator("section", has=page.get_by_role("heading", name=heading)).last
            if name == "miss-map":
                section.locator("summary", has_text="below the threshold").first.click()
            section.evaluate("node => window.scrollTo(0, node.getBoundingClientRect().top + scrollY)")
            page.screenshot(path=IMAGES / f"{name}.png", clip={"x": 40, "y": 0, "width": 1200, "height": 1000})


def main() -> None:
    """Take all screenshots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a finished demo")
    parser.add_argument("model", type=Path, help="export of its best.ckpt")
    arguments = parser.parse_args()
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        screenshot_reports(browser, arguments.run)
        screenshot_page(browser, arguments.model, arguments.run / "scenes" / "test")
        browser.close()


if __name__ == "__main__":
    main()
