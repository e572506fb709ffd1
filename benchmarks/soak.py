"""Measure the memory of the process over thousands of training steps and predictions, to find leaks.

    python benchmarks/soak.py                 # 2,000 steps and 10,000 predictions with a small network
    python benchmarks/soak.py --steps 200 --predictions 1000

Two sizes are sampled: the resident memory of the process and, with glibc, the memory that the allocator has handed out.
A leak raises both sizes. Fragmentation raises only the resident memory. The growth is the slope of a line through the
second half of the samples, because caches fill in the first half. The process has no data loader workers. The script
measures no times. It writes benchmarks/results/soak.json and soak.md.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image

from retinanet.predict.loading import load
from retinanet.train import fit
from retinanet.train.graceful_stop import GracefulStop

MIB = 2**20


@dataclass
class Samples:
    """Samples of the memory of the process.

    Args:
        every: number of events between two samples.
        at: number of events at each sample.
        mib: resident memory at each sample, MiB.
        given_out: memory handed out by the allocator at each sample, MiB.
        events: number of events until now.
    """

    every: int
    at: list[int] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)
    given_out: list[float] = field(default_factory=list)
    events: int = 0

    def count(self, events: int = 1) -> None:
        """Add events, and take a sample after each `every` events."""
        before, self.events = self.events // self.every, self.events + events
        if self.events // self.every > before:
            gc.collect()
            self.at.append(self.events)
            self.mib.append(resident())
            self.given_out.append(given_out())

    def growth(self, sizes: list[float]) -> float:
        """Return the growth of a size in MiB per 1,000 events over the second half of the samples."""
        half = len(self.at) // 2
        return float(np.polyfit(self.at[half:], sizes[half:], 1)[0] * 1000)

    def sentence(self, what: str) -> str:
        """Return the results as a sentence. `what` is the plural name of the events."""
        half = len(self.at) // 2
        later = self.mib[half:]
        return (
            f"{self.events:,} {what}. Resident memory: {self.mib[0]:.0f} MiB at the first sample, "
            f"{min(later):.0f} to {max(later):.0f} MiB in the second half, {self.mib[-1]:.0f} MiB at the end; growth "
            f"{self.growth(self.mib):+.2f} MiB per 1,000 {what}. Memory handed out by the allocator: "
            f"{self.given_out[half]:.1f} MiB after half of the {what}, {self.given_out[-1]:.1f} MiB at the end; growth "
            f"{self.growth(self.given_out):+.2f} MiB per 1,000 {what}"
        )


def resident() -> float:
    """Return the resident memory of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / MIB


class _Mallinfo2(ctypes.Structure):
    _fields_ = (("words", ctypes.c_size_t * 10),)


def given_out() -> float:
    """Return the memory that glibc's allocator has handed out and not received back, MiB; NaN without glibc."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        return float("nan")
    library.mallinfo2.restype = _Mallinfo2
    words = library.mallinfo2().words
    return float(words[4] + words[7]) / MIB  # hblkhd and uordblks


class _Count(Callback):
    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    def on_train_batch_end(self, *_: Any) -> None:
        self.samples.count()


def train(folder: Path, steps: int) -> Samples:
    """Train for a number of steps, with evaluations and checkpoints, and return the samples."""
    from tests.squares import make_squares

    samples = Samples(max(1, steps // 40))
    counting = _Count(samples)
    original = GracefulStop.on_train_batch_end

    def counted(self: GracefulStop, *args: Any) -> None:
        counting.on_train_batch_end()
        original(self, *args)

    GracefulStop.on_train_batch_end = counted  # type: ignore[method-assign]
    fit(
        train=make_squares(folder / "train", count=200, seed=1),
        val=make_squares(folder / "val", count=24, seed=2),
        output=folder / "run",
        preset="small",
        pretrained=False,
        fpn_width=16,
        head_width=16,
        head_depth=1,
        image_size=64,
        max_size=96,
        anchor_sizes=(16.0, 32.0, 64.0, 128.0, 256.0),
        batch_size=4,
        workers=0,
        color_jitter=0.3,
        crop=0.5,
        multi_scale=(64, 80),
        epochs=-(-steps // 50),
        max_steps=steps,
        evaluate_every=2,
        device="cpu",
    )
    GracefulStop.on_train_batch_end = original  # type: ignore[method-assign]
    return samples


def predict(folder: Path, predictions: int) -> Samples:
    """Predict a number of images of random sizes, and return the samples."""
    detector = load(folder / "run" / "last.ckpt", "cpu")
    generator = np.random.default_rng(0)
    samples = Samples(max(1, predictions // 40))

    def image() -> npt.NDArray[np.uint8]:
        size = (int(generator.integers(40, 160)), int(generator.integers(40, 160)), 3)
        return generator.integers(0, 255, size, dtype=np.uint8)

    for _ in range(0, predictions, 8):
        detector.predict([Image.fromarray(image()) for _ in range(8)])
        samples.count(8)
    return samples


def main() -> None:
    """Train and predict, print the results, and write benchmarks/results/soak.json and soak.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="number of training steps")
    parser.add_argument("--predictions", type=int, default=10_000, help="number of predicted images")
    options = parser.parse_args()
    from harness import RESULTS, machine

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        samples = {"training steps": train(Path(name), options.steps)}
        print(samples["training steps"].sentence("training steps"), flush=True)
        samples["predictions"] = predict(Path(name), options.predictions)
        print(samples["predictions"].sentence("predictions"), flush=True)
    facts = machine()
    numbers = {
        what: {
            "at": s.at,
            "resident_mib": [round(m, 1) for m in s.mib],
            "given_out_mib": [round(m, 1) for m in s.given_out],
        }
        for what, s in samples.items()
    }
    (RESULTS / "soak.json").write_text(json.dumps({"machine": facts, **numbers}, indent=1) + "\n")
    lines = ["## Memory over a long run", "", ", ".join(f"{key} {value}" for key, value in facts.items()), ""]
    lines += [f"- {s.sentence(what)}" for what, s in samples.items()]
    (RESULTS / "soak.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
