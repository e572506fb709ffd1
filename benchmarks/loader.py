"""Measure images per second from JPEG files to training batches, in comparison with torchvision's reference pipeline.

Both pipelines read the same JPEG files, flip at random, resize to an equal size and return normalised float32 batches.
torchvision's pipeline is that of its detection references: decoding with PIL, v2 transforms, and
`GeneralizedRCNNTransform` on the batch.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torchvision import tv_tensors
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import v2

from retinanet.config import IMAGENET_MEAN, IMAGENET_STD, AugmentConfig, ImageConfig
from retinanet.data import DetectionData, DetectionDataset, SampleKey, collate, read

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = {"coco128": SHARED / "coco128", "bccd": SHARED / "bccd"}


def ours(data: DetectionData, config: ImageConfig, batch_size: int) -> float:
    """Return the seconds of one pass over the data with the pipeline of `retinanet`."""
    dataset = DetectionDataset(data=data, image_config=config, augment=AugmentConfig())
    start = time.perf_counter()
    for i in range(0, len(dataset), batch_size):
        keys = [SampleKey(k, k, config.image_size) for k in range(i, min(i + batch_size, len(dataset)))]
        collate([dataset[key] for key in keys], config).to("cpu")
    return time.perf_counter() - start


def torchvisions(data: DetectionData, config: ImageConfig, batch_size: int) -> float:
    """Return the seconds of one pass with torchvision's references/detection (backend `pil`, `--use-v2`)."""
    augment = v2.Compose(
        [v2.RandomHorizontalFlip(p=0.5), v2.ToImage(), v2.ToDtype(torch.float, scale=True), v2.SanitizeBoundingBoxes()]
    )
    transform = GeneralizedRCNNTransform(
        config.image_size, config.max_size, list(IMAGENET_MEAN), list(IMAGENET_STD), size_divisible=config.size_divisor
    )
    start = time.perf_counter()
    for i in range(0, len(data.records), batch_size):
        images, targets = [], []
        for record in data.records[i : i + batch_size]:
            with Image.open(record.path) as file:
                image = file.convert("RGB")
            boxes = tv_tensors.BoundingBoxes(
                torch.from_numpy(record.boxes_G4).float(),
                format="XYXY",  # type: ignore[arg-type]
                canvas_size=(record.height, record.width),
            )
            pixels, target = augment(image, {"boxes": boxes, "labels": torch.from_numpy(record.labels_G)})
            images.append(pixels)
            targets.append(target)
        transform(images, targets)
    return time.perf_counter() - start


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds")
    results = Path(__file__).parent / "results" / "loader.json"
    parser.add_argument("--out", type=Path, default=results, help="JSON file for the results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # a worker of a data loader has one thread
    rows = []
    for name, folder in SETS.items():
        if not folder.exists():
            print(f"loader: skipped {name}: expected the dataset in {folder}, found no such folder")
            continue
        data = read(folder, split="train")
        data = DetectionData(
            records=data.records[:128], classes=data.classes, category_ids=data.category_ids, source=data.source
        )
        for image_size, max_size in ((200, 333), (320, 533), (512, 512), (800, 1333)):
            config = ImageConfig(image_size=image_size, max_size=max_size)
            seconds: dict[str, list[float]] = {"ours": [], "torchvision": []}
            for round_number in range(arguments.rounds + 1):
                for key, run in (("ours", ours), ("torchvision", torchvisions)):
                    elapsed = run(data, config, 4)
                    if round_number:  # round 0 is for warming up
                        seconds[key].append(elapsed)
            rates = {key: len(data.records) / statistics.median(values) for key, values in seconds.items()}
            ratios = [torchvision_s / ours_s for ours_s, torchvision_s in zip(*seconds.values(), strict=True)]
            rows.append(
                {
                    "data": name,
                    "images": len(data.records),
                    "image_size": image_size,
                    "max_size": max_size,
                    "ours_per_second": round(rates["ours"], 1),
                    "torchvision_per_second": round(rates["torchvision"], 1),
                    "ratio_median": round(statistics.median(ratios), 2),
                    "ratio_least": round(min(ratios), 2),
                    "ratio_most": round(max(ratios), 2),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    versions = {m.__name__: m.__version__ for m in (torch, torchvision, PIL, np)}
    report = {"conditions": "one process, one thread", "cpu": _cpu(), "versions": versions, "rows": rows}
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
