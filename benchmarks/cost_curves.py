"""Measure the parts of a prediction and of a training step of R50, and how the time grows with the input.

The plots also show a lower bound of the time: operations divided by the highest measured speed of a matrix product or
convolution, or bytes of weights and feature maps divided by the measured speed of a copy, whichever is longer. There
are two bounds: one with the multiplications of a direct convolution, one with the 2.25 times fewer multiplications of
Winograd's F(2x2, 3x3) for a 3x3 convolution of stride 1. Measured times can be below the first bound.

All offsets are computed. The time that skipping offsets saves depends on the image: see prediction.py.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import torch
from harness import RESULTS, Section, interleave, write
from r50_peer import CLASSES

from retinanet.config import LossConfig, MatchConfig, PostprocessConfig
from retinanet.images import Frame
from retinanet.losses import DetectionLoss
from retinanet.matching import match
from retinanet.model import RetinaNet
from retinanet.postprocess import postprocess
from retinanet.predict.fast_network import for_inference
from retinanet.types import Target

mpl.use("Agg")
import matplotlib.pyplot as plt


def best(run: Callable[[], object], rounds: int = 5) -> float:
    """Return the seconds of the fastest of `rounds` calls, after one call to warm up."""
    run()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


@torch.inference_mode()
def peaks() -> tuple[float, float]:
    """Return the highest measured operations per second (float32), and the bytes per second of a copy, both ways."""
    a, big = torch.randn(2048, 2048), torch.randn(64_000_000)
    out = torch.empty_like(big)
    x_NCHW, weight = (
        torch.randn(*shape).to(memory_format=torch.channels_last) for shape in ((1, 256, 64, 64), (256, 256, 3, 3))
    )
    speeds = (
        2 * 2048**3 / best(lambda: a @ a, 7),
        2 * x_NCHW.numel() * weight[0].numel() / best(lambda: torch.conv2d(x_NCHW, weight, padding=1), 15),
    )
    return max(speeds), 2 * big.nbytes / best(lambda: out.copy_(big), 7)


def count_work(network: RetinaNet, images_N3HW: torch.Tensor) -> tuple[float, float, float]:
    """Return the work of all convolutions of a forward pass: operations, operations with Winograd, bytes moved."""
    total = [0.0, 0.0, 0.0]

    def count(module: torch.nn.Conv2d, inputs: tuple[torch.Tensor], out: torch.Tensor) -> None:
        weight = module.weight
        operations = 2 * out.numel() * weight[0].numel()
        total[0] += operations
        total[1] += operations / (2.25 if (module.kernel_size, module.stride) == ((3, 3), (1, 1)) else 1)
        total[2] += inputs[0].nbytes + out.nbytes + weight.nbytes

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    with torch.inference_mode():
        network(images_N3HW)
    for hook in hooks:
        hook.remove()
    return total[0], total[1], total[2]


def every_offset(network: RetinaNet) -> RetinaNet:
    """Return a copy of the network for prediction that computes all offsets."""
    fast = for_inference(network)
    fast.skips_offsets = False  # type: ignore[assignment]
    return fast


def random_images(batch: int, side: int) -> torch.Tensor:
    """Return a batch of random images with mean 0 and standard deviation 1."""
    return torch.randn(batch, 3, side, side).to(memory_format=torch.channels_last)


def random_targets(batch: int, objects: int, side: int) -> list[Target]:
    """Return the ground truth of a batch of images with random objects."""
    low = torch.rand(batch, objects, 2) * side * 0.6
    boxes = torch.cat([low, low + 16 + torch.rand(batch, objects, 2) * side * 0.3], 2)
    labels = torch.randint(0, 3, (batch, objects))
    return [
        Target(boxes_G4=b, labels_G=k, crowd_G=torch.zeros_like(k, dtype=torch.bool))
        for b, k in zip(boxes, labels, strict=True)
    ]


def prediction_parts(side: int) -> dict[str, Callable[[], object]]:
    """Return the parts of a prediction, by name. The image is already decoded."""
    network = every_offset(RetinaNet(num_classes=CLASSES))
    images = random_images(1, side)
    with torch.inference_mode():
        maps = network.backbone(images)
        levels = network.fpn(maps)
        outputs = network(images)
    frames = [Frame(side, side, side, side)]

    def inference(run: Callable[[], object]) -> Callable[[], object]:
        return torch.inference_mode()(run)

    return {
        "whole network": inference(lambda: network(images)),
        "backbone": inference(lambda: network.backbone(images)),
        "pyramid": inference(lambda: network.fpn(maps)),
        "class head": inference(lambda: network.class_head(levels)),
        "box head": inference(lambda: network.box_head(levels)),
        "top-k, NMS": inference(lambda: postprocess(outputs, frames=frames, config=PostprocessConfig())),
    }


def training_parts(side: int) -> dict[str, Callable[[], object]]:
    """Return the parts of a training step on two images, by name. The remaining time is that of the backward pass."""
    network = RetinaNet(num_classes=CLASSES).train().to(memory_format=torch.channels_last)
    network.backbone.freeze_batchnorm()
    images, targets, loss = random_images(2, side), random_targets(2, 10, side), DetectionLoss(config=LossConfig())
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1e-4, momentum=0.9)
    outputs = network(images)
    matched = match(outputs.anchors_A4, targets, MatchConfig())

    def step() -> None:
        out = network(images)
        total = loss(out, match(out.anchors_A4, targets, MatchConfig())).total
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    return {
        "whole step": step,
        "forward": lambda: network(images),
        "matching": lambda: match(outputs.anchors_A4, targets, MatchConfig()),
        "loss, forward": lambda: loss(outputs, matched),
        "optimiser": optimizer.step,
    }


def curves(axes: dict[str, list[int]], peak: tuple[float, float], out: Path) -> Section:
    """Return the seconds along each axis, and draw them with the lower bounds.

    The axis "objects" measures matching and loss. All other axes measure a prediction of the network.
    """
    figure, plots = plt.subplots(1, 4, figsize=(15, 3.6), layout="constrained")
    seconds: dict[str, list[float]] = {}
    for plot, (axis, values) in zip(plots, axes.items(), strict=True):
        measured, bounds = [], []
        for value in values:
            side = value if axis == "side of the image" else 256
            batch = value if axis == "batch" else 1
            network = RetinaNet(num_classes=value if axis == "classes" else 80).eval()
            images = random_images(batch, side)
            if axis == "objects":
                targets, loss = random_targets(1, value, side), DetectionLoss(config=LossConfig())
                outputs = network(images)
                took = best(lambda t=targets, o=outputs, f=loss: f(o, match(o.anchors_A4, t, MatchConfig())))
            else:
                *operations, moved = count_work(network, images)
                bounds.append([1e3 * max(count / peak[0], moved / peak[1]) for count in operations])
                fast = every_offset(network)
                took = best(torch.inference_mode()(lambda n=fast, x=images: n(x)))
            measured.append(took)
            seconds[f"{axis} {value}"] = [took]
        plot.plot(values, [s * 1e3 for s in measured], "o-", label="measured")
        if bounds:
            direct, winograd = zip(*bounds, strict=True)
            plot.plot(values, direct, "s--", color="0.7", label="lower bound, direct")
            plot.plot(values, winograd, "v--", color="0.4", label="lower bound, Winograd")
        plot.set(xlabel=axis, title="matching and loss" if axis == "objects" else "network, prediction", ylim=(0, None))
        plot.legend()
    plots[0].set_ylabel("ms")
    figure.savefig(out, dpi=110)
    note = f"Peak {peak[0] / 1e9:.0f} GFLOP/s (float32), {peak[1] / 1e9:.1f} GB/s (copy)."
    return Section("Growth of the time (256 x 256, batch 1, 80 classes, except along the axis)", seconds, note=note)


def main() -> None:
    """Measure, and write the tables and the plots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=512, help="side of the images in the two profiles, pixels")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds")
    args = parser.parse_args()
    axes = {
        "side of the image": [128, 256, 384, 512, 640],
        "batch": [1, 2, 4, 8],
        "classes": [1, 20, 80, 365],
        "objects": [1, 10, 100, 500],
    }
    sections = [curves(axes, peaks(), RESULTS / "cost_curves.png")]
    for title, parts in (("A prediction", prediction_parts), ("A training step of 2 images", training_parts)):
        cases = parts(args.side)
        seconds = interleave(cases, rounds=args.rounds)
        sections.append(
            Section(f"{title}, {args.side} x {args.side}, R50, {CLASSES} classes", seconds, next(iter(cases)))
        )
    write("cost_curves", "Time of the parts, and its growth", sections)


if __name__ == "__main__":
    main()
