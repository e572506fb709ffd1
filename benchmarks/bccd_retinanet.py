"""Train and evaluate the preset `small` on BCCD, for comparison with `torchvision_retinanet.py`.

The script calls the functions behind the command line. It trains on `train`, chooses the best epoch on `val`, and
evaluates once on `test`, which influences no choice.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch
import torchvision
from torchvision_retinanet import SHARED, cpu_model

import retinanet
from retinanet.evaluate import evaluate
from retinanet.train import fit


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description="Train and evaluate our RetinaNet on BCCD.")
    weights = SHARED / "weights" / "tf_efficientnet_lite0-imagenet-timm.safetensors"
    parser.add_argument("--data", type=Path, default=SHARED / "bccd", help="Pascal VOC folder of the BCCD dataset")
    parser.add_argument("--weights", type=Path, default=weights, help="file of ImageNet weights with timm's names")
    parser.add_argument("--epochs", type=int, default=12, help="number of epochs")
    parser.add_argument("--batch-size", type=int, default=4, help="number of images per batch")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training run")
    parser.add_argument("--run", type=Path, default=Path("runs/bccd"), help="run folder")
    parser.add_argument("--out", type=Path, default=None, help="JSON file for the results")
    return parser.parse_args()


def main() -> None:
    """Train, evaluate, and print and write the results."""
    args = parse_args()
    splits = args.data / "ImageSets" / "Main"
    result = fit(
        train=splits / "train.txt",
        val=splits / "val.txt",
        output=args.run,
        preset="small",
        epochs=args.epochs,
        batch_size=args.batch_size,
        vertical_flip=0.5,
        skip_invalid=True,
        backbone_weights=args.weights,
        seed=args.seed,
        overwrite=True,
    )
    numbers = evaluate(result.best, data=splits / "test.txt").metrics.to_json()
    report = {
        "metrics": {name: value for name, value in numbers.items() if name != "per_class"},
        "per_class": numbers["per_class"],
        "train_seconds": result.seconds,
        "versions": {
            "python": platform.python_version(),
            "retinanet": retinanet.__version__,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
        "cpu": cpu_model(),
        "options": {key: value.name if isinstance(value, Path) else value for key, value in vars(args).items()},
    }
    print(json.dumps(report, indent=2))
    if args.out:
        partial = args.out.with_name(args.out.name + ".partial")
        partial.write_text(json.dumps(report, indent=2) + "\n")
        partial.replace(args.out)


if __name__ == "__main__":
    main()
