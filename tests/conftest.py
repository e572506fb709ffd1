"""Fixtures of all tests: the shared data, and functions that write small images and datasets."""

from __future__ import annotations

import json
import os

if "PYTEST_XDIST_WORKER" in os.environ:  # set before NumPy and torch are imported: one thread per process
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from tests.shared import create_once, run_folder, trained_run
from tests.squares import squares, tiny

__all__ = ["create_once", "run_folder", "squares", "tiny", "trained_run"]

# `make test` sets HYPOTHESIS_PROFILE=fast, which runs a fifth of the examples (see `examples` in tests/shared.py).
# No profile has a deadline, because several processes share the cores.
settings.register_profile("ci", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=20)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests of the exported network first: one process exports it, and no other process waits."""
    items.sort(key=lambda item: "exports" not in getattr(item, "fixturenames", ()))


SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """Return the folder with real datasets, or skip the test if it does not exist."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared data in {SHARED}")
    return SHARED


def made_image(width: int, height: int, *, seed: int = 0) -> Image.Image:
    """Return a smooth random RGB image, which JPEG compression barely changes."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Return a function that writes a random image: write_image(path, 64, 48, seed=3, format='PNG')."""

    def write(path: Path, width: int = 64, height: int = 48, *, seed: int = 0, **save: Any) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        made_image(width, height, seed=seed).save(path, **save)
        return path

    return write


def voc_object(name: str, box: Sequence[object], *, difficult: int = 0) -> str:
    """Return the <object> element of a VOC file as text."""
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{corners}</bndbox></object>"


@pytest.fixture
def write_voc(tmp_path: Path, write_image: Callable[..., Path]) -> Callable[..., Path]:
    """Return a function that writes a VOC folder: write_voc({'a': [('cat', (1, 2, 30, 40))]}).

    An object may also be given as XML text.
    """

    def write(content: dict[str, Sequence[Any]], *, size: tuple[int, int] = (64, 48), folder: str = "voc") -> Path:
        root = tmp_path / folder
        (root / "Annotations").mkdir(parents=True)
        for seed, (stem, objects) in enumerate(content.items()):
            write_image(root / "JPEGImages" / f"{stem}.jpg", *size, seed=seed)
            text = "".join(o if isinstance(o, str) else voc_object(*o) for o in objects)
            header = f"<filename>{stem}.jpg</filename><size><width>{size[0]}</width><height>{size[1]}</height></size>"
            (root / "Annotations" / f"{stem}.xml").write_text(f"<annotation>{header}{text}</annotation>")
        return root

    return write


@pytest.fixture
def write_coco(tmp_path: Path, write_image: Callable[..., Path]) -> Callable[..., Path]:
    """Return a function that writes a COCO file and its images 1, 2, ... of 64 x 48 pixels.

    write_coco([{'image_id': 1, 'category_id': 7, 'bbox': [1, 2, 3, 4]}], images=2, categories={7: 'cat'})
    """

    def write(
        annotations: Sequence[dict[str, Any]],
        *,
        images: int = 1,
        categories: dict[int, str] | None = None,
    ) -> Path:
        for i in range(1, images + 1):
            write_image(tmp_path / "images" / f"{i}.jpg", seed=i)
        content: dict[str, Any] = {
            "images": [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in range(1, images + 1)],
            "categories": [{"id": i, "name": n} for i, n in (categories or {1: "cat"}).items()],
            "annotations": [
                {"id": i, "iscrowd": 0, "category_id": 1, **a}
                | ({"area": a["bbox"][2] * a["bbox"][3]} if "area" not in a and len(a.get("bbox", ())) == 4 else {})
                for i, a in enumerate(annotations, 1)
            ],
        }
        path = tmp_path / "annotations" / "instances_train.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
        return path

    return write
