"""Measure focal loss, forward and backward, in C and in torch, in comparison with torchvision's RetinaNet.

torch.log1p takes ten times as long on a thread that has not computed a fractional power. So torchvision is measured in
both states, the slow state first. All cases have equal labels: class ids for ours, one-hot tensors for torchvision.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable

import torch
from harness import Section, extra_memory, interleave, write
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from retinanet.ops import focal_loss as focal
from retinanet.ops.focal_loss_native import focal_loss_native
from retinanet.ops.focal_loss_torch import focal_loss_torch
from retinanet.ops.focal_terms import FocalTerms

IMAGES, ANCHORS, CLASSES = 2, 76_725, 80
POSITIVES, IGNORED = 50, 300
ALPHA, GAMMA = 0.25, 2.0


class Case:
    """Random logits of an untrained network, and targets with `POSITIVES` positive anchors in each image."""

    def __init__(self, dtype: torch.dtype, anchors: int = ANCHORS) -> None:
        rng = torch.Generator().manual_seed(0)
        self.logits_NAK = (torch.randn(IMAGES, anchors, CLASSES, generator=rng) - 4.6).to(dtype).requires_grad_()
        order_NA = torch.stack([torch.randperm(anchors, generator=rng) for _ in range(IMAGES)])
        self.positive_NA = torch.zeros(IMAGES, anchors, dtype=torch.bool)
        self.ignored_NA = torch.zeros(IMAGES, anchors, dtype=torch.bool)
        self.positive_NA.scatter_(1, order_NA[:, :POSITIVES], True)
        self.ignored_NA.scatter_(1, order_NA[:, POSITIVES : POSITIVES + IGNORED], True)
        self.labels_NA = torch.randint(0, CLASSES, (IMAGES, anchors), generator=rng)

    def runs(self) -> dict[str, Callable[[], Tensor]]:
        """Return the functions to compare, by name."""
        cases = {"ours, torch": self.in_torch, "torchvision": self.torchvision}
        native = focal.implementation(torch.device("cpu")) is focal_loss_native
        return {"ours, C": self.ours, **cases} if native else cases

    def torchvision(self) -> Tensor:
        """Return the gradient of torchvision's loss."""
        self.logits_NAK.grad = None
        losses = []
        for logits_AK, positive_A, ignored_A, labels_A in zip(
            self.logits_NAK, self.positive_NA, self.ignored_NA, self.labels_NA, strict=True
        ):
            target_AK = torch.zeros_like(logits_AK)
            target_AK[positive_A, labels_A[positive_A]] = 1.0
            valid_A = ~ignored_A
            losses.append(
                sigmoid_focal_loss(logits_AK[valid_A], target_AK[valid_A], alpha=ALPHA, gamma=GAMMA, reduction="sum")
            )
        sum(losses).backward()
        assert self.logits_NAK.grad is not None
        return self.logits_NAK.grad

    def ours(self) -> Tensor:
        """Return the gradient of our loss, computed in C if the library is available."""
        self.logits_NAK.grad = None
        terms = FocalTerms(
            gamma=GAMMA,
            target=1.0,
            positive_weight_K=torch.full((CLASSES,), ALPHA),
            negative_weight_K=torch.full((CLASSES,), 1 - ALPHA),
        )
        focal.focal_loss(
            self.logits_NAK, self.positive_NA, self.ignored_NA, self.labels_NA, terms=terms
        ).sum().backward()
        assert self.logits_NAK.grad is not None
        return self.logits_NAK.grad

    def in_torch(self) -> Tensor:
        """Return the gradient of our loss, computed in torch."""
        chosen = focal.implementation
        focal.implementation = lambda _: focal_loss_torch
        try:
            return self.ours()
        finally:
            focal.implementation = chosen


def memory_of(name: str, dtype: torch.dtype) -> float:
    """Return the extra memory of one call in MB, measured in a new process.

    In this process, the call would use memory that earlier calls have freed.
    """
    command = [sys.executable, __file__, "--memory", name, "--dtype", str(dtype).removeprefix("torch.")]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def section(case: Case, title: str, rounds: int) -> Section:
    """Compare the gradients, then measure time and memory."""
    cases = case.runs()
    expected = case.torchvision().double()
    note = []
    for name, run in cases.items():
        error = ((run().double() - expected).abs().max() / expected.abs().max()).item()
        assert error < (1e-5 if case.logits_NAK.dtype == torch.float32 else 1e-2), (name, error)
        note.append(f"{name} {error:.1e}")
    seconds = interleave(cases, rounds=rounds)
    gradient = case.logits_NAK.nbytes / 1e6
    memory = {name: memory_of(name, case.logits_NAK.dtype) for name in cases}
    return Section(
        title,
        seconds,
        "torchvision",
        memory,
        note=f"A gradient takes {gradient:.0f} MB. Largest difference from torchvision / largest gradient: "
        + ", ".join(note[:-1])
        + ".",
    )


def main() -> None:
    """Print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds")
    parser.add_argument("--memory", metavar="NAME", help="print only the extra memory of one call of this case, in MB")
    parser.add_argument("--dtype", default="float32", help="type of the logits for --memory")
    arguments = parser.parse_args()
    if arguments.memory:
        dtype = getattr(torch, arguments.dtype)
        Case(dtype, anchors=1000).runs()[arguments.memory]()  # one-time costs are not counted
        print(extra_memory(Case(dtype).runs()[arguments.memory]))
        return
    size = f"{IMAGES} x {ANCHORS:,} x {CLASSES}"
    sections = [section(Case(torch.float32), f"{size} float32, on a new thread", arguments.rounds)]
    torch.rand(1_000_000).pow(1.5)
    sections.append(section(Case(torch.float32), f"{size} float32, after a fractional power", arguments.rounds))
    sections.append(section(Case(torch.bfloat16), f"{size} bfloat16, after a fractional power", arguments.rounds))
    write("focal_loss", "Focal loss, forward and backward", sections)


if __name__ == "__main__":
    main()
