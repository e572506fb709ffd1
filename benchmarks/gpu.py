"""Measure prediction, training and their parts of R50 on a GPU (800 x 1344, bfloat16), in comparison with torchvision.

Each table has the time, the peak memory, and the number and share of kernel launches of one call. `--device cpu` with a
small `--size` only shows that the cases run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from harness import Section, write
from r50_peer import CLASSES, like, peer
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.ops import box_iou

from retinanet.config import LossConfig, MatchConfig, PostprocessConfig
from retinanet.images import Frame
from retinanet.losses import DetectionLoss
from retinanet.matching import match
from retinanet.model import RetinaNet
from retinanet.postprocess import postprocess
from retinanet.predict.fast_network import for_inference
from retinanet.types import HeadOutputs, Target

FLOPS = 2 * 191e9 / (800 * 1344)
"""Operations of the forward pass for one pixel (multiplications and additions)."""
MATCHING = MatchConfig(low_quality_matches=True)
"""Matching as in torchvision."""

Cases = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Setting:
    """Device and size of the measurement: pixels, number of images, objects in each image."""

    device: torch.device
    height: int
    width: int
    images: int
    objects: int = 10

    def pixels(self) -> Tensor:
        """Return random images in channels_last."""
        shape = (self.images, 3, self.height, self.width)
        return torch.rand(shape, device=self.device).to(memory_format=torch.channels_last)

    def targets(self) -> list[Target]:
        """Return random objects of 16 to 200 pixels. Class 0 is torchvision's background and has no objects."""
        generator = torch.Generator().manual_seed(0)
        sides = torch.rand(self.images, self.objects, 2, generator=generator) * 184 + 16
        corners = torch.rand(self.images, self.objects, 2, generator=generator)
        corners = corners * torch.tensor([self.width - 200.0, self.height - 200.0]).clamp(min=1)
        boxes = torch.cat([corners, corners + sides], 2)
        labels = torch.randint(1, CLASSES, (self.images, self.objects), generator=generator)
        return [
            Target(boxes_G4=b, labels_G=k, crowd_G=torch.zeros_like(k, dtype=torch.bool)).to(self.device)
            for b, k in zip(boxes, labels, strict=True)
        ]

    def autocast(self) -> torch.autocast:
        """Return the context of mixed precision in bfloat16."""
        return torch.autocast(self.device.type, torch.bfloat16)

    def synchronise(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def timed(cases: Cases, rounds: int, synchronise: Callable[[], None]) -> dict[str, list[float]]:
    """Return the seconds of each case in each round, after three calls in which kernels are compiled and chosen."""
    for run in cases.values():
        for _ in range(3):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, run in cases.items():
            synchronise()
            start = time.perf_counter()
            run()
            synchronise()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def peak_memory(run: Callable[[], object]) -> float:
    """Return the memory that one call allocates beyond the memory that exists before it, MB (1e6 bytes)."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def launches(run: Callable[[], object]) -> tuple[int, float]:
    """Return the number of kernel launches of one call, and the time of the CPU in them, seconds."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        run()
        torch.cuda.synchronize()
    events = [event for event in recorded.key_averages() if "LaunchKernel" in event.key]
    return sum(event.count for event in events), sum(event.self_cpu_time_total for event in events) / 1e6


def section(title: str, cases: Cases, setting: Setting, rounds: int, *, work: float = 0, best: float = 0) -> Section:
    """Return the table of some cases.

    Args:
        title: name of the measured work.
        cases: functions to measure, by name; one of them is "torchvision".
        setting: device and size.
        rounds: number of rounds.
        work: operations of one call; 0: not stated.
        best: operations per second of a large matrix product.
    """
    seconds = timed(cases, rounds, setting.synchronise)
    extra = {"images/s": {name: f"{setting.images / min(s):.1f}" for name, s in seconds.items()}}
    if work and best:
        extra["share of matrix peak"] = {name: f"{work / min(s) / best:.1%}" for name, s in seconds.items()}
    memory = {}
    if setting.device.type == "cuda":
        memory = {name: peak_memory(run) for name, run in cases.items()}
        counted = {name: launches(run) for name, run in cases.items()}
        extra["launches"] = {name: f"{count}" for name, (count, _) in counted.items()}
        extra["time in launches"] = {name: f"{spent / min(seconds[name]):.0%}" for name, (_, spent) in counted.items()}
    return Section(title, seconds, "torchvision", memory, extra=extra)


def matrix_peak(setting: Setting) -> float:
    """Return the operations per second of a matrix product of 8192^3 in bfloat16 (on a CPU 512^3)."""
    n = 8192 if setting.device.type == "cuda" else 512
    a = torch.randn(n, n, device=setting.device, dtype=torch.bfloat16)
    return 2 * n**3 / min(timed({"product": lambda: a @ a}, 10, setting.synchronise)["product"])


def prediction(setting: Setting) -> Cases:
    """Return the cases of the forward pass in eval mode."""
    theirs = peer().eval().to(setting.device).to(memory_format=torch.channels_last)
    fast = for_inference(like(theirs).to(setting.device), precision="bf16")
    images_N3HW = setting.pixels()

    def eager() -> object:
        with torch.inference_mode(), setting.autocast():
            return theirs.head(list(theirs.backbone(images_N3HW).values()))

    def ours(network: Callable[[Tensor], object]) -> object:
        with torch.no_grad():
            return network(images_N3HW)

    cases: dict[str, Callable[[], object]] = {"torchvision": eager, "ours": partial(ours, fast)}
    if setting.device.type == "cuda":
        compiled, graphed = (for_inference(like(theirs).to(setting.device), precision="bf16") for _ in range(2))
        compiled.compile(mode="max-autotune-no-cudagraphs")
        graphed.compile(mode="reduce-overhead")
        cases |= {"ours, compiled": partial(ours, compiled), "ours, CUDA graphs": partial(ours, graphed)}
    return cases


def training(setting: Setting) -> Cases:
    """Return the cases of a whole training step: forward pass, matching, loss, backward pass and optimiser."""
    theirs = peer().train().to(setting.device).to(memory_format=torch.channels_last)
    theirs.transform.min_size, theirs.transform.max_size = (setting.height,), setting.width
    images_N3HW, targets = setting.pixels(), setting.targets()
    loss = DetectionLoss(config=LossConfig(alpha=0.25, box_loss="l1", normaliser="image"))

    def ours(network: RetinaNet) -> Callable[[], object]:
        fused = True if setting.device.type == "cuda" else None
        optimizer = torch.optim.SGD(
            [p for p in network.parameters() if p.requires_grad], lr=1e-4, momentum=0.9, fused=fused
        )

        def call() -> None:
            with setting.autocast():
                outputs = network(images_N3HW)
            total = loss(outputs, match(outputs.anchors_A4, targets, MATCHING)).total
            optimizer.zero_grad()
            total.backward()
            optimizer.step()

        return call

    optimizer = torch.optim.SGD([p for p in theirs.parameters() if p.requires_grad], lr=1e-4, momentum=0.9)
    their_targets = [{"boxes": t.boxes_G4, "labels": t.labels_G} for t in targets]

    def eager() -> None:
        with setting.autocast():
            total = sum(theirs(list(images_N3HW), their_targets).values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    cases: dict[str, Callable[[], object]] = {
        "torchvision": eager,
        "ours": ours(like(theirs).train().to(setting.device)),
    }
    if setting.device.type == "cuda":
        compiled = like(theirs).train().to(setting.device)
        compiled.compile()
        cases["ours, compiled"] = ours(compiled)
    return cases


def parts(setting: Setting) -> dict[str, Cases]:
    """Return the cases of matching, loss and post-processing, on random outputs of the network."""
    theirs = peer().to(setting.device)
    network = like(theirs).to(setting.device)
    with torch.no_grad():
        outputs = network(setting.pixels())
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(outputs.logits_NAK.shape, generator=generator) - 6
    outputs = HeadOutputs(
        logits_NAK=logits.to(setting.device).requires_grad_(),
        deltas_NA4=(torch.randn(outputs.deltas_NA4.shape, generator=generator) * 0.2)
        .to(setting.device)
        .requires_grad_(),
        anchors_A4=outputs.anchors_A4,
        anchors_per_level=outputs.anchors_per_level,
    )
    targets = setting.targets()
    matched = match(outputs.anchors_A4, targets, MATCHING)
    loss = DetectionLoss(config=LossConfig(alpha=0.25, box_loss="l1", normaliser="image"))
    frame = Frame(
        width=setting.width, height=setting.height, resized_width=setting.width, resized_height=setting.height
    )
    frames, config = [frame] * setting.images, PostprocessConfig()

    def backward(total: Tensor) -> None:
        torch.autograd.grad(total, (outputs.logits_NAK, outputs.deltas_NA4))

    their_targets = [{"boxes": t.boxes_G4, "labels": t.labels_G} for t in targets]
    their_outputs = {"cls_logits": outputs.logits_NAK, "bbox_regression": outputs.deltas_NA4}
    their_anchors = [outputs.anchors_A4] * setting.images
    their_matches = _their_matches(theirs, targets, outputs.anchors_A4)
    counts = list(outputs.anchors_per_level)
    their_levels = {name: list(values.detach().split(counts, dim=1)) for name, values in their_outputs.items()}
    their_level_anchors = [list(outputs.anchors_A4.split(counts))] * setting.images
    sizes = [(setting.height, setting.width)] * setting.images

    def no_grad(run: Callable[[], object]) -> Callable[[], object]:
        return torch.inference_mode()(run)

    return {
        "matching": {
            "torchvision": partial(_their_matches, theirs, targets, outputs.anchors_A4),
            "ours": lambda: match(outputs.anchors_A4, targets, MATCHING),
        },
        "loss, forward and backward": {
            "torchvision": lambda: backward(
                sum(theirs.head.compute_loss(their_targets, their_outputs, their_anchors, their_matches).values())
            ),
            "ours": lambda: backward(loss(outputs, matched).total),
        },
        "post-processing": {
            "torchvision": no_grad(lambda: theirs.postprocess_detections(their_levels, their_level_anchors, sizes)),
            "ours": no_grad(lambda: postprocess(outputs, frames=frames, config=config)),
        },
    }


def _their_matches(theirs: TorchvisionRetinaNet, targets: Sequence[Target], anchors_A4: Tensor) -> list[Tensor]:
    return [theirs.proposal_matcher(box_iou(target.boxes_G4, anchors_A4)) for target in targets]


def main() -> None:
    """Measure, and write the tables after each measurement; without a GPU, print a message."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="number of rounds")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 16], help="numbers of images per batch")
    parser.add_argument("--objects", type=int, nargs="+", default=[10, 100], help="numbers of objects per image")
    parser.add_argument("--size", type=int, nargs=2, default=[800, 1344], help="height and width of the images, pixels")
    parser.add_argument("--device", default="cuda", help="cuda; or cpu, to see that the cases run")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        print("gpu: skipped: expected a CUDA device, found none")
        return
    device, (height, width) = torch.device(args.device), args.size
    best = matrix_peak(Setting(device, height, width, 1))
    sections: list[Section] = []

    def add(title: str, cases: Cases, setting: Setting, work: float = 0) -> None:
        sections.append(section(title, cases, setting, args.rounds, work=work, best=best))
        if device.type == "cuda":
            write("gpu", f"R50 at {height} x {width} on a GPU, bfloat16", sections)

    for images in args.batches:
        setting = Setting(device, height, width, images)
        work = FLOPS * height * width * images
        add(f"prediction, batch {images}", prediction(setting), setting, work)
        for objects in args.objects:
            setting = Setting(device, height, width, images, objects)
            name = f"batch {images}, {objects} objects per image"
            add(f"training step, {name}", training(setting), setting, 3 * work)
            for part, cases in parts(setting).items():
                add(f"{part}, {name}", cases, setting)
    print(f"gpu: {len(sections)} tables on {device}")


if __name__ == "__main__":
    main()
