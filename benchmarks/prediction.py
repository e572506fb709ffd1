"""Measure prediction from image file to boxes (R50, 91 classes, float32 and bfloat16) in comparison with torchvision.

Both networks have equal weights. By default, our network computes box offsets only at positions with a score above the
threshold. The cases "every offset" compute the offsets of all positions, as for an image full of objects.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from harness import Section, interleave, write
from PIL import Image
from r50_peer import detector, image, like, peer, raise_bias
from torchvision_retinanet import SHARED

from retinanet.postprocess import score_threshold_logit
from retinanet.predict.torch_detector import Detector


def main() -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[480, 640, 800], help="shorter sides of the images, pixels"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="numbers of images per batch")
    args = parser.parse_args()
    files = sorted((SHARED / "coco128").rglob("*.jpg"))
    paths = [path for path in files if Image.open(path).size == (640, 480)][:8]
    if not paths:
        print(f"prediction: skipped: expected images of 640 x 480 in {SHARED / 'coco128'}, found none")
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
        return theirs([image(path) for path in paths])

    exact, rounded = detector(network, size, "32"), detector(network, size, "bf16")
    full, full_rounded = detector(network, size, "32"), detector(network, size, "bf16")
    for every_offset in (full, full_rounded):
        every_offset._network.skips_offsets = False  # type: ignore[assignment]
    seconds = interleave(
        {
            "torchvision": torchvision,
            "ours": lambda: exact.predict(paths),
            "ours, every offset": lambda: full.predict(paths),
            "ours, bf16": lambda: rounded.predict(paths),
            "ours, bf16, every offset": lambda: full_rounded.predict(paths),
        },
        rounds=rounds,
    )
    title = f"{size} x {size * 4 // 3}, batch {len(paths)}"
    note = f"{_positions_above_threshold(exact, paths)} positions have a score above the threshold."
    return Section(title, seconds, "torchvision", note=note)


@torch.inference_mode()
def _positions_above_threshold(exact: Detector, paths: list[Path]) -> str:
    """Return the number of positions with a score above the threshold, as text: "120 of 3,400"."""
    outputs = exact._network(torch.from_numpy(np.stack(exact._load(paths).images)))
    highest_NA = outputs.logits_NAK.amax(dim=2)
    per_position = exact.model.config.anchors_per_position  # type: ignore[union-attr, operator]
    positions = highest_NA.view(len(paths), -1, per_position).amax(dim=2) > score_threshold_logit(
        exact.postprocess_config
    )
    return f"{int(positions.sum()):,} of {positions.numel():,}"


if __name__ == "__main__":
    main()
