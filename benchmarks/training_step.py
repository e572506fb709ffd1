"""Measure a training step of R50 at 2 x 512 x 512 with SGD, in comparison with torchvision.

Both networks have equal weights and equal frozen layers. The peak memory of each case is measured in a new process,
with `--only NAME`, because a process has only one peak.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from collections.abc import Callable

import torch
from harness import Section, interleave, write
from r50_peer import CLASSES, like, peer

from retinanet.config import LossConfig, MatchConfig
from retinanet.losses import DetectionLoss
from retinanet.matching import match
from retinanet.types import Target

NAMES = ("torchvision", "ours", "torchvision, bf16", "ours, bf16")
OBJECTS = 10


def step(name: str, *, images: int = 2, size: int = 512) -> Callable[[], object]:
    """Return a function that runs one training step: forward, loss, backward, optimiser."""
    generator = torch.Generator().manual_seed(0)
    images_N3HW = torch.rand(images, 3, size, size, generator=generator)
    corners = torch.rand(images, OBJECTS, 2, generator=generator) * size * 0.6
    boxes = torch.cat([corners, corners + 16 + torch.rand(images, OBJECTS, 2, generator=generator) * size * 0.3], 2)
    labels = torch.randint(1, CLASSES, (images, OBJECTS), generator=generator)
    network = peer()
    network.transform.min_size, network.transform.max_size = (size,), size
    if name.startswith("ours"):
        network = like(network)  # torchvision's network is freed, so its memory is not counted
    network.train()
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1e-4, momentum=0.9)
    loss = DetectionLoss(config=LossConfig(alpha=0.25, box_loss="l1", normaliser="image"))

    def ours_loss() -> torch.Tensor:
        outputs = network((images_N3HW - 0.45).div(0.225).to(memory_format=torch.channels_last))
        targets = [
            Target(boxes_G4=b, labels_G=k, crowd_G=torch.zeros_like(k, dtype=torch.bool))
            for b, k in zip(boxes, labels, strict=True)
        ]
        with torch.autocast("cpu", enabled=False):
            return loss(outputs, match(outputs.anchors_A4, targets, MatchConfig(low_quality_matches=True))).total

    def torchvision_loss() -> torch.Tensor:
        targets = [{"boxes": b, "labels": k} for b, k in zip(boxes, labels, strict=True)]
        return sum(network(list(images_N3HW), targets).values())

    def run() -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=name.endswith("bf16")):
            total = ours_loss() if name.startswith("ours") else torchvision_loss()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        return total.item()

    return run


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds")
    parser.add_argument("--only", choices=NAMES, help="run two steps of this case and print the peak memory in MB")
    args = parser.parse_args()
    if args.only:
        run = step(args.only)
        run(), run()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6)
        return
    peaks = {}
    for name in NAMES:
        out = subprocess.run([sys.executable, __file__, "--only", name], check=True, capture_output=True, text=True)
        peaks[name] = float(out.stdout.split()[-1])
    seconds = interleave({name: step(name) for name in NAMES}, rounds=args.rounds)
    note = "Memory: peak of a process that runs two steps, including the interpreter and its libraries."
    section = Section("2 x 512 x 512, 10 objects per image", seconds, "torchvision", peaks, note)
    write("training_step", "A training step of R50, conv1 and layer1 frozen", [section])


if __name__ == "__main__":
    main()
