"""Repeat the cases of `explained_misses.py` on the real web page in Chromium, with the mouse and the class select.

    python benchmarks/explained_on_page.py bccd runs/bccd/best.ckpt --images data/JPEGImages

Shift + drag draws the neighbours and the object, their classes are chosen, and the answer is read from the page. Cases
with another `max_detections` are left out: the page shows up to 1,000 detections whatever the model's limit is.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from explained_misses import RESULTS, served

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from retinanet.checkpoint.loaded_model import LoadedModel

WIDTH, HEIGHT = 1440, 900
MARGIN: Final = 16
"""Pixels of the canvas around a fitted image, both sides together."""


@contextmanager
def server(trained: LoadedModel, settings: dict[str, float]) -> Iterator[str]:
    """Serve the model with other settings from a thread, and yield the address of the page."""
    import uvicorn

    from retinanet.predict.torch_detector import Detector
    from retinanet.serve.app import create_app

    model = served(trained, settings)
    detector = Detector(model=model.model, info=model, device="cpu")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        running = uvicorn.Server(uvicorn.Config(create_app(lambda: detector), log_level="error"))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not running.started:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        running.should_exit = True
        thread.join()


def draw(page: Page, size: tuple[int, int], box: list[float], label: str, number: int) -> None:
    """Draw a box with the mouse, and choose its class."""
    area = page.locator("#canvas").bounding_box()
    assert area is not None
    scale = min((area["width"] - MARGIN) / size[0], (area["height"] - MARGIN) / size[1])
    left, top = (area[side] / 2 - full * scale / 2 for side, full in zip(("width", "height"), size, strict=True))
    places = [(area["x"] + left + x * scale, area["y"] + top + y * scale) for x, y in (box[:2], box[2:])]
    page.keyboard.down("Shift")
    page.mouse.move(*places[0])
    page.mouse.down()
    page.mouse.move(*places[1], steps=4)
    page.mouse.up()
    page.keyboard.up("Shift")
    page.locator(".answer h3").wait_for()
    page.locator("#busy").wait_for(state="hidden")
    page.get_by_label(f"Class of object {number}", exact=True).select_option(label)
    page.locator(".answer h3").wait_for()
    page.locator("#busy").wait_for(state="hidden")


def answer(page: Page, url: str, image: Path, case: dict[str, Any]) -> str:
    """Return the title of the answer that the page shows for a case."""
    page.goto(url)
    page.locator("#classes li").first.wait_for()
    if page.locator("#remove-all").is_visible():
        page.click("#remove-all")  # the page keeps the images of the last visit
    page.set_input_files("#files", [str(image)])
    page.locator("#timing dd").last.wait_for(state="attached")
    if page.locator("#tuned").is_visible():
        page.uncheck("#tuned")
    page.locator("#threshold").fill(str(case["threshold"]))
    width, height = (int(side) for side in page.locator("#timing dd").last.inner_text().split(" × "))
    objects = [*case["neighbours"], {"box": case["box"], "class": case["class"]}]
    for number, one in enumerate(objects, 1):
        draw(page, (width, height), one["box"], one["class"], number)
    return page.locator(".answer h3").inner_text()


def main() -> None:
    """Explain the cases of one results file on the page, and add the answers to the file."""
    parser = argparse.ArgumentParser(description="Repeat explained misses on the web page in Chromium.")
    parser.add_argument("name", help="name of the results file")
    parser.add_argument("model", type=Path, help="checkpoint")
    parser.add_argument("--images", type=Path, required=True, help="folder of the images")
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    from retinanet.analysis.model_outputs import load_for_analysis

    path = RESULTS / f"explained_misses_{args.name}.json"
    result = json.loads(path.read_text())
    trained = load_for_analysis(args.model, device="cpu")
    cases = [case for case in result["misses"] if "max_detections" not in case["settings"]]
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for settings in {json.dumps(case["settings"]): case["settings"] for case in cases}.values():
            with server(trained, settings) as url:
                for case in (one for one in cases if one["settings"] == settings):
                    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
                    case["page"] = answer(context.new_page(), url, args.images / case["image"], case)
                    context.close()
                    print(case["kind"], "|", case["page"], flush=True)
        browser.close()
    right = sum(case["page"] == f"Missed: {case['kind']}" for case in cases)
    result["page"] = {"cases": len(cases), "right": right}
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["page"]))


if __name__ == "__main__":
    main()
