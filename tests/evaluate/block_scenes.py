"""Scenes of coloured blocks as a COCO dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.evaluate.block_detector_fake import CLASSES, made_image

SCENES: dict[str, tuple[tuple[int, int], dict[int, tuple[int, int, int, int]]]] = {
    "a.png": ((200, 100), {0: (20, 40, 60, 80), 2: (100, 20, 180, 60)}),
    "b.png": ((100, 200), {1: (20, 100, 80, 160)}),
    "c.png": ((100, 100), {}),
    "d.png": ((120, 100), {0: (20, 20, 60, 60), 1: (60, 20, 100, 60)}),
}


def write_scenes(folder: Path, names: tuple[str, ...] = CLASSES, ids: tuple[int, ...] = (11, 4, 500)) -> Path:
    """Write the scenes as COCO data; category ids differ from the model's in value and order, image ids start at 40."""
    folder.mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, (name, (size, blocks)) in enumerate(SCENES.items(), start=40):
        made_image(size, blocks).save(folder / name)
        images.append({"id": image_id, "file_name": name, "width": size[0], "height": size[1]})
        for k, (x1, y1, x2, y2) in blocks.items():
            bbox = [x1, y1, x2 - x1, y2 - y1]
            row = {"image_id": image_id, "category_id": ids[k], "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, **row})
    categories = [{"id": i, "name": name} for i, name in zip(ids, names, strict=True)]
    path = folder / "truth.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path
