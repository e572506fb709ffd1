"""Train and evaluate torchvision's RetinaNet, as an experienced user of torchvision would.

The script imports nothing of `retinanet`, so its results depend on torchvision alone. The images, backbone, weights,
image size and schedule are those of the preset `small`. Losses, matching, boxes and post-processing are torchvision's
defaults. The data is BCCD, or the COCO files of `--train` and `--test`.

    python benchmarks/torchvision_retinanet.py --out peer_bccd.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
import timm
import torch
import torchvision
from PIL import Image
from timm.models import load_state_dict
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import RetinaNet
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.transforms.functional import pil_to_tensor

BCCD_CLASSES = ("Platelets", "RBC", "WBC")  # RetinaNet has one sigmoid per class and no background: labels start at 0
STRIDES = (8, 16, 32)
FPN_WIDTH = 128
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True)
class Record:
    """An annotated image. Boxes are xyxy in pixels, as in the file, without the `dropped` boxes of zero area."""

    image_path: Path
    width: int
    height: int
    boxes: list[list[float]]
    labels: list[int]
    dropped: int


def read_voc(root: Path, split: str) -> list[Record]:
    """Return the records of a split in `ImageSets/Main` of a Pascal VOC folder.

    Raises:
        ValueError: the class of an object is not in BCCD_CLASSES.
    """
    records = []
    for stem in (root / "ImageSets" / "Main" / f"{split}.txt").read_text().split():
        image_path, annotation = root / "JPEGImages" / f"{stem}.jpg", root / "Annotations" / f"{stem}.xml"
        with Image.open(image_path) as image:
            width, height = image.size
        boxes, labels, dropped = [], [], 0
        for item in ET.parse(annotation).getroot().iter("object"):  # noqa: S314  a local dataset
            name = item.findtext("name", "")
            if name not in BCCD_CLASSES:
                raise ValueError(f"{annotation}: expected one of the classes {', '.join(BCCD_CLASSES)}; found {name!r}")
            x0, y0, x1, y1 = (float(item.findtext(f"bndbox/{key}", "nan")) for key in ("xmin", "ymin", "xmax", "ymax"))
            if not (x1 > x0 and y1 > y0):
                dropped += 1
                continue
            boxes.append([x0, y0, x1, y1])
            labels.append(BCCD_CLASSES.index(name))
        records.append(Record(image_path, width, height, boxes, labels, dropped))
    return records


def read_coco(path: Path) -> tuple[list[Record], tuple[str, ...]]:
    """Return the records and the class names of a COCO file without crowd regions."""
    content = json.loads(path.read_text())
    categories = sorted(content["categories"], key=lambda category: category["id"])
    label = {category["id"]: index for index, category in enumerate(categories)}
    objects: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for item in content["annotations"]:
        objects[item["image_id"]].append(item)
    records = []
    for image in content["images"]:
        items = [item for item in objects[image["id"]] if min(item["bbox"][2:]) > 0]
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (item["bbox"] for item in items)]
        labels = [label[item["category_id"]] for item in items]
        dropped = len(objects[image["id"]]) - len(items)
        image_path = path.parent / image["file_name"]
        records.append(Record(image_path, image["width"], image["height"], boxes, labels, dropped))
    return records, tuple(category["name"] for category in categories)


class Images(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """Dataset of images, float [3, H, W] in [0, 1], and torchvision's targets. `flip` mirrors half of the images."""

    def __init__(self, records: list[Record], *, flip: bool):
        self.records, self.flip = records, flip

    def __len__(self) -> int:
        """Return the number of images of the split."""
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Return an image and its target: boxes [N, 4], xyxy in pixels, and labels [N]."""
        record = self.records[index]
        with Image.open(record.image_path) as image:
            pixels = pil_to_tensor(image.convert("RGB")).float() / 255
        boxes = torch.tensor(record.boxes, dtype=torch.float32).reshape(-1, 4)
        if self.flip and torch.rand(()) < 0.5:
            pixels = pixels.flip(-1)
            boxes[:, [0, 2]] = record.width - boxes[:, [2, 0]]
        return pixels, {"boxes": boxes, "labels": torch.tensor(record.labels, dtype=torch.int64)}


def collate(batch: list[tuple[Tensor, dict[str, Tensor]]]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Return the images and the targets of a batch as two lists, the format of torchvision's detectors."""
    return [pixels for pixels, _ in batch], [target for _, target in batch]


class Backbone(nn.Module):
    """EfficientNet-Lite0 at strides 8, 16, 32 with frozen BatchNorm, and torchvision's feature pyramid P3-P7."""

    out_channels = FPN_WIDTH

    def __init__(self, weights: Path):
        super().__init__()
        body = timm.create_model("tf_efficientnet_lite0", pretrained=False, features_only=True)
        stored = load_state_dict(str(weights))
        body.load_state_dict({key: stored[key] for key in body.state_dict()}, strict=True)
        info: Any = body.feature_info
        self.levels = [info.reduction().index(stride) for stride in STRIDES]
        channels = [info.channels()[level] for level in self.levels]
        self.body = body
        self.fpn = FeaturePyramidNetwork(channels, FPN_WIDTH, LastLevelP6P7(channels[-1], FPN_WIDTH))  # P6 from C5
        for norm in self.norms():
            norm.requires_grad_(False)
        self.train()

    def norms(self) -> Iterator[nn.Module]:
        """Return the BatchNorm layers."""
        return (module for module in self.body.modules() if isinstance(module, nn.BatchNorm2d))

    def train(self, mode: bool = True) -> Backbone:
        """Set the mode of all layers but BatchNorm, which stays in eval mode: 4 images give poor statistics."""
        super().train(mode)
        for norm in self.norms():
            norm.training = False  # .eval() would also set the mode of the activation inside timm's BatchNormAct2d
        return self

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the feature levels P3-P7, each [B, 128, H/stride, W/stride], of images [B, 3, H, W]."""
        features = self.body(x)
        maps: dict[str, Tensor] = self.fpn({str(i): features[level] for i, level in enumerate(self.levels)})
        return maps


def build_model(weights: Path, classes: int, *, min_size: int, max_size: int) -> RetinaNet:
    """Build torchvision's RetinaNet with its default head and anchors."""
    half = [0.5, 0.5, 0.5]
    backbone = Backbone(weights)
    return RetinaNet(backbone, classes, min_size=min_size, max_size=max_size, image_mean=half, image_std=half)


def train(model: RetinaNet, records: list[Record], args: argparse.Namespace) -> list[dict[str, float]]:
    """Train the model in place. Return one row per epoch: mean losses, last learning rate, steps and seconds."""
    loader = DataLoader(
        Images(records, flip=not args.no_flip),
        batch_size=args.batch_size,
        shuffle=True,
        num_workers=1,
        collate_fn=collate,
        persistent_workers=True,
        generator=torch.Generator().manual_seed(args.seed),
    )
    total = args.epochs * len(loader)
    warmup = max(1, min(100, total // 10))
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=args.lr, weight_decay=args.weight_decay
    )
    scheduler = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=warmup),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=max(1, total - warmup)),
        ],
        milestones=[warmup],
    )
    model.train()
    history: list[dict[str, float]] = []
    step = 0
    for epoch in range(1, args.epochs + 1):
        started, rows = time.perf_counter(), []
        for images, targets in loader:
            losses = model(images, targets)
            loss = losses["classification"] + losses["bbox_regression"]
            if not torch.isfinite(loss):
                raise RuntimeError(f"epoch {epoch}, step {step}: expected a finite loss, found {loss.item()}")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            scheduler.step()
            rows.append([loss.item(), losses["classification"].item(), losses["bbox_regression"].item()])
            step += 1
            if step % 10 == 0 or step == args.max_steps:
                print(f"  step {step}/{total} loss {rows[-1][0]:.4f}", flush=True)
            if step == args.max_steps:
                break
        seconds, (both, classes, boxes) = time.perf_counter() - started, np.mean(rows, axis=0).tolist()
        row = {"epoch": epoch, "loss": both, "loss_classes": classes, "loss_boxes": boxes}
        history.append(row | {"lr": scheduler.get_last_lr()[0], "steps": len(rows), "seconds": seconds})
        print(
            f"epoch {epoch}/{args.epochs} loss {both:.4f} classes {classes:.4f} boxes {boxes:.4f} "
            f"{seconds:.1f} s ({seconds / len(rows):.2f} s per step)",
            flush=True,
        )
        if step == args.max_steps:
            break
    return history


@torch.inference_mode()
def detect(model: RetinaNet, records: list[Record]) -> list[dict[str, Any]]:
    """Return detections as COCO results, in pixels of the image. Image ids and category ids start at 1."""
    model.eval()
    results: list[dict[str, Any]] = []
    images = Images(records, flip=False)
    for index in range(len(images)):
        image_id, detections = index + 1, model([images[index][0]])[0]
        for (x0, y0, x1, y1), score, label in zip(
            detections["boxes"].tolist(), detections["scores"].tolist(), detections["labels"].tolist(), strict=True
        ):
            box = [x0, y0, x1 - x0, y1 - y0]
            results.append({"image_id": image_id, "category_id": label + 1, "bbox": box, "score": score})
    return results


def evaluate(records: list[Record], results: list[dict[str, Any]], classes: tuple[str, ...]) -> dict[str, Any]:
    """Return the 12 COCO numbers, and AP and AP50 of each class (None for a class without ground truth)."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id, record in enumerate(records, start=1):
        images.append(
            {"id": image_id, "file_name": record.image_path.name, "width": record.width, "height": record.height}
        )
        for (x0, y0, x1, y1), label in zip(record.boxes, record.labels, strict=True):
            w, h = x1 - x0, y1 - y0
            entry = {"image_id": image_id, "category_id": label + 1, "bbox": [x0, y0, w, h], "area": w * h}
            annotations.append(entry | {"id": len(annotations) + 1, "iscrowd": 0})
    categories = [{"id": i, "name": name} for i, name in enumerate(classes, start=1)]
    truth = hotcoco.COCO({"images": images, "annotations": annotations, "categories": categories})
    evaluator = hotcoco.COCOeval(truth, truth.load_res(results), "bbox")
    evaluator.run()
    assert evaluator.eval is not None
    precision = np.asarray(evaluator.eval["precision"])[:, :, :, 0, -1]  # [IoU, recall, class], all areas, 100 boxes

    def mean(values: np.ndarray) -> float | None:
        valid = values[values > -1]
        return float(valid.mean()) if valid.size else None

    return {
        "metrics": dict(zip(METRICS, map(float, evaluator.stats), strict=True)),
        "per_class": {
            name: {"AP": mean(precision[:, :, i]), "AP50": mean(precision[0, :, i])} for i, name in enumerate(classes)
        },
        "detections": len(results),
    }


def cpu_model() -> str:
    """Return the name of the CPU."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Train and evaluate torchvision's RetinaNet.")
    weights = SHARED / "weights" / "tf_efficientnet_lite0-imagenet-timm.safetensors"
    parser.add_argument("--data", type=Path, default=SHARED / "bccd", help="Pascal VOC folder of the BCCD dataset")
    parser.add_argument("--train", type=Path, default=None, help="COCO file of the training images, instead of --data")
    parser.add_argument("--test", type=Path, default=None, help="COCO file of the test images, instead of --data")
    parser.add_argument("--min-size", type=int, default=384, help="length of the shorter side of the input, pixels")
    parser.add_argument("--max-size", type=int, default=512, help="longest side of the input, pixels")
    parser.add_argument("--no-flip", action="store_true", help="train without horizontal flips")
    parser.add_argument("--weights", type=Path, default=weights, help="file of ImageNet weights with timm's names")
    parser.add_argument("--epochs", type=int, default=12, help="number of epochs")
    parser.add_argument("--batch-size", type=int, default=4, help="number of images per batch")
    parser.add_argument("--lr", type=float, default=4e-4, help="highest learning rate")
    parser.add_argument("--weight-decay", type=float, default=1e-4, help="weight decay of AdamW")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training run")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="number of threads of torch")
    parser.add_argument("--max-steps", type=int, default=0, help="largest number of training steps (0: no limit)")
    parser.add_argument("--max-test", type=int, default=0, help="largest number of test images (0: all)")
    parser.add_argument("--out", type=Path, default=None, help="JSON file for the results")
    return parser.parse_args()


def main() -> None:
    """Train on `train`, evaluate once on `test`, and print and write the results."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    random.seed(args.seed)
    np.random.seed(args.seed)  # noqa: NPY002  libraries use the global state
    torch.manual_seed(args.seed)

    if args.train is None:
        train_records, test_records, classes = read_voc(args.data, "train"), read_voc(args.data, "test"), BCCD_CLASSES
    else:
        (train_records, classes), (test_records, test_classes) = read_coco(args.train), read_coco(args.test)
        if classes != test_classes:
            raise ValueError(f"{args.test}: expected the classes {classes} of {args.train}, found {test_classes}")
    test_records = test_records[: args.max_test or None]
    for name, records in (("train", train_records), ("test", test_records)):
        boxes, dropped = sum(len(r.boxes) for r in records), sum(r.dropped for r in records)
        print(f"{name}: {len(records)} images, {boxes} boxes; dropped {dropped} boxes of zero area")
    model = build_model(args.weights, len(classes), min_size=args.min_size, max_size=args.max_size)

    started = time.perf_counter()
    history = train(model, train_records, args)
    train_seconds = time.perf_counter() - started
    started = time.perf_counter()
    results = detect(model, test_records)
    detect_seconds = time.perf_counter() - started

    report = evaluate(test_records, results, classes) | {
        "train_seconds": train_seconds,
        "detect_seconds": detect_seconds,
        "parameters": sum(p.numel() for p in model.parameters()),
        "images": {"train": len(train_records), "test": len(test_records)},
        "history": history,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "timm": timm.__version__,
            "hotcoco": hotcoco.__version__,
        },
        "cpu": cpu_model(),
        "options": {key: value.name if isinstance(value, Path) else value for key, value in vars(args).items()},
    }
    print(json.dumps({key: report[key] for key in ("metrics", "per_class", "detections", "train_seconds")}, indent=2))
    if args.out:
        partial = args.out.with_name(args.out.name + ".partial")
        partial.write_text(json.dumps(report, indent=2) + "\n")
        partial.replace(args.out)


if __name__ == "__main__":
    main()
