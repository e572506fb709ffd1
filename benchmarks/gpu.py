"""Measure prediction and a training step of R50 on a GPU (800 x 1344, bfloat16) in comparison with torchvision."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from harness import Section, write
from r50_peer import CLASSES, like, peer

from retinanet.config import LossConfig, MatchConfig
from retinanet.losses import DetectionLoss
from retinanet.matching import match
from retinanet.predict.fast_network import for_inference
from retinanet.types import Target

H, W = 800, 1344
FLOPS = 2 * 191e9
"""Operations of one image's forward pass at this size (multiplications and additions)."""


def timed(run: Callable[[], object], rounds: int) -> list[float]:
    """Return the seconds of each round, after three calls in which kernels are compiled and chosen."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds


def peak() -> float:
    """Return the operations per second of a matrix product of 8192^3 in bfloat16."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    return 2 * 8192**3 / min(timed(lambda: a @ a, 10))


def main() -> None:
    """Measure, and write the tables; without a GPU, print a message."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="number of rounds")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 16], help="numbers of images per batch")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu: skipped: expected a CUDA device, found none")
        return
    best, sections = peak(), []
    for batch in args.batches:
        for what, cases in (("prediction", _prediction(batch)), ("training step", _training(batch))):
            seconds = {name: timed(run, args.rounds) for name, run in cases.items()}
            work = FLOPS * batch * (1 if what == "prediction" else 3)
            rate = {name: f"{batch / min(s):.1f}" for name, s in seconds.items()}
            share = {name: f"{work / min(s) / best:.1%}" for name, s in seconds.items()}
            extra = {"images/s": rate, "share of matrix peak": share}
            sections.append(Section(f"{what}, batch {batch}", seconds, "torchvision", extra=extra))
            write("gpu", "R50 at 800 x 1344 on a GPU, bfloat16", sections)


def _prediction(batch: int) -> dict[str, Callable[[], object]]:
    theirs = peer().eval().cuda().to(memory_format=torch.channels_last)
    fast = for_inference(like(theirs).cuda(), precision="bf16")
    compiled = torch.compile(lambda x: _tensors(fast(x)), mode="max-autotune-no-cudagraphs")
    graphed = torch.compile(lambda x: _tensors(fast(x)), mode="reduce-overhead")
    images_N3HW = torch.rand(batch, 3, H, W, device="cuda").to(memory_format=torch.channels_last)

    def eager() -> object:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
            return theirs.head(list(theirs.backbone(images_N3HW).values()))

    def ours(run: Callable[[torch.Tensor], object]) -> Callable[[], object]:
        def call() -> object:
            with torch.no_grad():
                return run(images_N3HW)

        return call

    return {
        "torchvision": eager,
        "ours": ours(fast),
        "ours, compiled": ours(compiled),
        "ours, CUDA graphs": ours(graphed),
    }


def _tensors(outputs: object) -> tuple[torch.Tensor, torch.Tensor]:
    return outputs.logits_NAK, outputs.deltas_NA4  # type: ignore[attr-defined]


def _training(batch: int) -> dict[str, Callable[[], object]]:
    theirs = peer().train().cuda().to(memory_format=torch.channels_last)
    theirs.transform.min_size, theirs.transform.max_size = (H,), W
    network = like(theirs).train().cuda()
    images_N3HW = torch.rand(batch, 3, H, W, device="cuda").to(memory_format=torch.channels_last)
    corners = torch.rand(batch, 10, 2, device="cuda") * 500
    boxes = torch.cat([corners, corners + 200], 2)
    labels = torch.randint(1, CLASSES, (batch, 10), device="cuda")
    loss = DetectionLoss(config=LossConfig(alpha=0.25, box_loss="l1", normaliser="image"))
    targets = [
        Target(boxes_G4=b, labels_G=k, crowd_G=torch.zeros_like(k, dtype=torch.bool))
        for b, k in zip(boxes, labels, strict=True)
    ]

    def ours(model: Callable[[torch.Tensor], object]) -> Callable[[], object]:
        optimizer = torch.optim.SGD(
            [p for p in network.parameters() if p.requires_grad], lr=1e-4, momentum=0.9, fused=True
        )

        def call() -> None:
            with torch.autocast("cuda", torch.bfloat16):
                outputs = model(images_N3HW)
            total = loss(outputs, match(outputs.anchors_A4, targets, MatchConfig(low_quality_matches=True))).total  # type: ignore[attr-defined,arg-type]
            optimizer.zero_grad()
            total.backward()
            optimizer.step()

        return call

    optimizer = torch.optim.SGD([p for p in theirs.parameters() if p.requires_grad], lr=1e-4, momentum=0.9)

    def eager() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            losses = theirs(list(images_N3HW), [{"boxes": b, "labels": k} for b, k in zip(boxes, labels, strict=True)])
            total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    return {"torchvision": eager, "ours": ours(network), "ours, compiled": ours(torch.compile(network))}


if __name__ == "__main__":
    main()
