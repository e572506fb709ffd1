"""Train and evaluate the preset `small` on the same 128 COCO images, to show that the model can overfit.

The images have 71 classes, whose COCO category ids have gaps.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from torchvision_retinanet import SHARED, cpu_model

from retinanet.train import fit
from retinanet.train.metrics_table import read_metrics


def main() -> None:
    """Train, evaluate, and print and write the results."""
    parser = argparse.ArgumentParser(description="Overfit the preset small on coco128.")
    parser.add_argument(
        "--data", type=Path, default=SHARED / "coco128" / "annotations" / "instances_train2017.json", help="COCO file"
    )
    weights = SHARED / "weights" / "tf_efficientnet_lite0-imagenet-timm.safetensors"
    parser.add_argument("--weights", type=Path, default=weights, help="file of ImageNet weights with timm's names")
    parser.add_argument("--epochs", type=int, default=50, help="number of epochs")
    parser.add_argument("--size", type=int, default=256, help="longer side of the network's input, pixels")
    parser.add_argument("--lr", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--run", type=Path, default=Path("runs/coco128"), help="run folder")
    parser.add_argument("--out", type=Path, default=None, help="JSON file for the results")
    args = parser.parse_args()
    result = fit(
        train=args.data,
        val=args.data,
        output=args.run,
        preset="small",
        epochs=args.epochs,
        lr=args.lr,
        augment=False,
        image_size=args.size,
        max_size=args.size,
        # Many of these objects are small. Half the default sizes, and one anchor at least for every object; fitted
        # anchors add a level P2, with which a step takes several times as long.
        anchor_sizes=(16, 32, 64, 128, 256),
        low_quality_matches=True,
        ema=0.99,  # the preset's 0.998 averages over about 500 steps
        weight_decay=0.0,
        measure_imbalance=0,
        evaluate_every=max(1, args.epochs // 6),
        backbone_weights=args.weights,
        overwrite=True,
    )
    metrics = json.loads((args.run / "evaluation.json").read_text())
    by_step = {int(row["step"] or 0): row["AP"] for row in read_metrics(args.run / "metrics.csv") if row.get("AP")}
    detections = json.loads((args.run / "detections.json").read_text())
    category_ids = {category["id"] for category in json.loads(args.data.read_text())["categories"]}
    detected = {row["category_id"] for row in detections}
    assert detected <= category_ids, f"expected category ids of {args.data}, found also {detected - category_ids}"
    report = {
        "AP": metrics["AP"],
        "AP50": metrics["AP50"],
        "AP_by_step": by_step,
        "category_ids": sorted(detected),
        "train_seconds": result.seconds,
        "cpu": cpu_model(),
        "options": {key: value.name if isinstance(value, Path) else value for key, value in vars(args).items()},
    }
    print(json.dumps(report, indent=2))
    if args.out:
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
