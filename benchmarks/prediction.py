"""Prediction from file to boxes: R50, 91 classes, ours in float32 and bfloat16 beside torchvision, same weights."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from bccd_torchvision import SHARED
from harness import Section, interleave, write
from PIL import Image
from r50_peer import detector, like, peer, picture, raise_bias


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[480, 640, 800], help="shorter side, of 4:3 pictures")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    args = parser.parse_args()
    found = sorted((SHARED / "coco128").rglob("*.jpg"))
    paths = [path for path in found if Image.open(path).size == (640, 480)][:8]
    if not paths:
        print(f"prediction: no pictures in {SHARED / 'coco128'}")
        return
    theirs = peer().eval()
    raise_bias(theirs, paths[0])
    network = like(theirs)
    sections = []
    for size in args.sizes:
        for batch in args.batches:
            sections.append(_section(theirs, network, size, paths[:batch], args.rounds))
            write("prediction", "Prediction, from file to boxes", sections)


def _section(theirs: torch.nn.Module, network: torch.nn.Module, size: int, paths: list[Path], rounds: int) -> Section:
    theirs.transform.min_size = (size,)

    @torch.inference_mode()
    def torchvision() -> object:
        return theirs([picture(path) for path in paths])

    exact, rounded = detector(network, size, "32"), detector(network, size, "bf16")
    seconds = interleave(
        {
            "torchvision": torchvision,
            "ours": lambda: exact.predict(paths),
            "ours, bf16": lambda: rounded.predict(paths),
        },
        rounds=rounds,
    )
    title = f"{size} x {size * 4 // 3}, batch {len(paths)}"
    return Section(title, seconds, "torchvision")


if __name__ == "__main__":
    main()
