"""How much two processes on two cores train beside one process with one thread: `python benchmarks/scaling.py`.

Each process takes batches of four pictures of 512 pixels through `fit` (preset small), loads them itself and computes
with one thread; two of them are started by torchrun and add up their gradients with gloo. Timed are the steps after the
first three, loading included, evaluation not. Rounds of one and of two alternate; the efficiency is the pictures a
second of two over twice those of one.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BATCH, UNTIMED = 4, 3


def worker(folder: Path, steps: int) -> None:
    """Train for some steps, and write the pictures a second of this process."""
    import torch

    from retinanet.train import fit
    from retinanet.train.module import DetectionModule

    torch.set_num_threads(1)
    starts: list[float] = []

    def note(self: DetectionModule, batch: Any, batch_idx: int) -> None:
        starts.append(time.perf_counter())

    DetectionModule.on_train_batch_start = note  # type: ignore[assignment]
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    fit(
        train=folder / f"train{world}" / "annotations.json",
        val=folder / "val" / "annotations.json",
        output=folder / f"run{world}",
        overwrite=True,
        preset="small",
        pretrained=False,
        batch_size=BATCH,
        workers=0,
        device="cpu",
        epochs=1,
        measure_imbalance=0,
        log_every=1000,
    )
    assert len(starts) == steps, (len(starts), steps)
    seconds = starts[-1] - starts[UNTIMED]
    (folder / f"rank{rank}.json").write_text(json.dumps((steps - 1 - UNTIMED) * BATCH / seconds))


def measure(folder: Path, processes: int, steps: int) -> float:
    """Return the pictures a second of so many processes together."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        command += ["--master-addr", "127.0.0.1", "--master-port", port]
    command += [__file__, "--worker", str(folder), "--steps", str(steps)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    # the ranks go in step, and the slowest says how fast
    return processes * min(float((folder / f"rank{rank}.json").read_text()) for rank in range(processes))


def main() -> None:
    """Measure, print and write benchmarks/results/scaling.json."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--steps", type=int, default=11)
    options.add_argument("--worker", type=Path)
    given = options.parse_args()
    if given.worker is not None:
        worker(given.worker, given.steps)
        return
    from harness import cpu_model

    sys.path.insert(0, str(ROOT))
    from tests.squares import make_squares

    rates: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for processes in rates:
            make_squares(folder / f"train{processes}", count=given.steps * BATCH * processes, seed=1)
        make_squares(folder / "val", count=2, seed=2)
        for _ in range(given.rounds):
            for processes, found in rates.items():
                found.append(measure(folder, processes, given.steps))
    one, two = (statistics.median(rates[n]) for n in (1, 2))
    result = {
        "cpu": cpu_model(),
        "pictures_a_second": {str(n): [round(r, 3) for r in found] for n, found in rates.items()},
        "efficiency": round(two / (2 * one), 3),
        "conditions": f"batches of {BATCH} at 512 pixels, preset small, float32, one thread a process, gloo",
    }
    print(json.dumps(result, indent=2))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "scaling.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
