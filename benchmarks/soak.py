"""Does memory stay flat over thousands of training steps and predictions? Prints the process's size on the way.

    python benchmarks/soak.py                 # 2,000 steps and 10,000 predictions with a small network
    python benchmarks/soak.py --steps 200 --predictions 1000

The size is the resident set of the process, which loads its images itself, and, with glibc, what its allocator has
given out: a leak is in both, room that the allocator keeps between pieces in the first alone. Growth is the slope of a
line through the second half of the samples: the first half fills caches. No timing is taken. Writes
benchmarks/results/soak.json and soak.md.
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
    """The process's size on the way.

    Args:
        every: how many events lie between two samples.
    """

    every: int
    at: list[int] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)
    given_out: list[float] = field(default_factory=list)
    done: int = 0

    def count(self, events: int = 1) -> None:
        """Note so many events, and the size where it is time."""
        before, self.done = self.done // self.every, self.done + events
        if self.done // self.every > before:
            gc.collect()
            self.at.append(self.done)
            self.mib.append(resident())
            self.given_out.append(given_out())

    def growth(self, of: list[float]) -> float:
        """Return MiB per 1,000 events over the second half."""
        half = len(self.at) // 2
        return float(np.polyfit(self.at[half:], of[half:], 1)[0] * 1000)

    def sentence(self, what: str) -> str:
        """Return the numbers in words."""
        half = len(self.at) // 2
        later = self.mib[half:]
        return (
            f"{self.done:,} {what}: {self.mib[0]:.0f} MiB at the first sample, {min(later):.0f} to {max(later):.0f} in "
            f"the second half, {self.mib[-1]:.0f} at the end; {self.growth(self.mib):+.2f} MiB per 1,000. Given out "
            f"by the allocator: {self.given_out[half]:.1f} MiB at half-time, {self.given_out[-1]:.1f} at the end; "
            f"{self.growth(self.given_out):+.2f} per 1,000"
        )


def resident() -> float:
    """Return the resident set of this process, MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / MIB


class _Mallinfo2(ctypes.Structure):
    _fields_ = (("words", ctypes.c_size_t * 10),)


def given_out() -> float:
    """Return what glibc's allocator has given out and not got back, MiB; NaN with another."""
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
    """Train for so many steps, evaluations and checkpoints included."""
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
    """Predict so many images of changing size."""
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
    """Run both, print, and write benchmarks/results/soak.json and soak.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--predictions", type=int, default=10_000)
    options = parser.parse_args()
    from harness import RESULTS, machine

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        found = {"training steps": train(Path(name), options.steps)}
        print(found["training steps"].sentence("training steps"), flush=True)
        found["predictions"] = predict(Path(name), options.predictions)
        print(found["predictions"].sentence("predictions"), flush=True)
    facts = machine()
    numbers = {
        what: {
            "at": s.at,
            "resident_mib": [round(m, 1) for m in s.mib],
            "given_out_mib": [round(m, 1) for m in s.given_out],
        }
        for what, s in found.items()
    }
    (RESULTS / "soak.json").write_text(json.dumps({"machine": facts, **numbers}, indent=1) + "\n")
    lines = ["## Memory over a long run", "", ", ".join(f"{key} {value}" for key, value in facts.items()), ""]
    lines += [f"- {s.sentence(what)}" for what, s in found.items()]
    (RESULTS / "soak.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
