"""How much two processes on two cores do beside one process, with one thread each: `python benchmarks/scaling.py`.

Training: each process takes batches of four images of 512 pixels through `fit` (preset small), loads them itself and
computes with one thread; two are started by torchrun and add up their gradients with gloo. Timed are the steps after
the first three, loading included, evaluation not. Prediction: each process predicts its own half of a folder of 512
pixels, decoding included, from when all are ready until the last is done.

Rounds of one and of two alternate; the efficiency is the images a second of two over twice those of one, in each
round and as the median of the rounds. Writes benchmarks/results/scaling.json and scaling.md. About two minutes a round.
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
BATCH, UNTIMED = 4, 3
GOALS = {"training": 0.85, "prediction": 0.95}


def train(folder: Path, steps: int) -> None:
    """Train for some steps, and write the images a second of this process."""
    import torch

    from retinanet.train import fit
    from retinanet.train.detection_module import DetectionModule

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


def predict(folder: Path, number: int, images: int) -> None:
    """Load the model, wait for the word, predict, and write when this process began and ended."""
    import torch

    import retinanet

    torch.set_num_threads(1)
    detector = retinanet.load(folder / "run1" / "last.ckpt", "cpu")
    paths = sorted((folder / "train2" / "images").iterdir())
    mine = [paths[(number * images + i) % len(paths)] for i in range(images)]
    detector.predict(mine[:BATCH])
    (folder / f"ready{number}").touch()
    while not (folder / "go").exists():
        time.sleep(0.001)
    start = time.time()
    for i in range(0, images, BATCH):
        detector.predict(mine[i : i + BATCH])
    (folder / f"rank{number}.json").write_text(json.dumps((start, time.time())))


def environment() -> dict[str, str]:
    """Return the variables of a process with one thread."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def measure_training(folder: Path, processes: int, steps: int) -> float:
    """Return the images a second of so many processes together."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        command += ["--master-addr", "127.0.0.1", "--master-port", port]
    command += [__file__, "--train", str(folder), "--steps", str(steps)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    # the ranks go in step, and the slowest says how fast
    return processes * min(float((folder / f"rank{rank}.json").read_text()) for rank in range(processes))


def measure_prediction(folder: Path, processes: int, images: int) -> float:
    """Return the images a second of so many processes together."""
    (folder / "go").unlink(missing_ok=True)
    ready = [folder / f"ready{number}" for number in range(processes)]
    for path in ready:
        path.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--predict", str(folder), "--images", str(images), "--number"]
    running = [subprocess.Popen([*command, str(number)], env=environment()) for number in range(processes)]
    while not all(path.exists() for path in ready):
        if any(process.poll() for process in running):
            raise SystemExit("a process that was to predict failed")
        time.sleep(0.01)
    (folder / "go").touch()
    if any(process.wait() for process in running):
        raise SystemExit("a process that was to predict failed")
    times = [json.loads((folder / f"rank{number}.json").read_text()) for number in range(processes)]
    return processes * images / (max(end for _, end in times) - min(start for start, _ in times))


def write(rates: dict[str, dict[int, list[float]]]) -> None:
    """Print and write what was measured."""
    from harness import RESULTS, machine

    facts = machine() | {"threads": "1 a process"}
    result: dict[str, Any] = {"machine": facts}
    lines = ["## Two processes on two cores beside one, one thread each", ""]
    lines += [", ".join(f"{key} {value}" for key, value in facts.items()), ""]
    lines += ["| | one, images/s | two, images/s | efficiency (rounds) | goal |", "|---|---|---|---|---|"]
    for what, found in rates.items():
        rounds = [two / (2 * one) for one, two in zip(found[1], found[2], strict=True)]
        one, two = (statistics.median(found[n]) for n in (1, 2))
        result[what] = {
            "images_a_second": {str(n): [round(rate, 3) for rate in values] for n, values in found.items()},
            "efficiency": round(statistics.median(rounds), 3),
        }
        spread = f"{min(rounds):.0%} - {max(rounds):.0%}"
        lines.append(
            f"| {what} | {one:.2f} | {two:.2f} | {statistics.median(rounds):.0%} ({spread}) | {GOALS[what]:.0%} |"
        )
    lines += ["", f"Batches of {BATCH} at 512 pixels, preset small, float32; {len(rounds)} rounds; gloo.", ""]
    (RESULTS / "scaling.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "scaling.md").write_text("\n".join(lines))
    print("\n".join(lines))


def main() -> None:
    """Measure, print and write; or be one of the processes."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--steps", type=int, default=11)
    options.add_argument("--images", type=int, default=80)
    for name in ("--train", "--predict"):
        options.add_argument(name, type=Path, help=argparse.SUPPRESS)
    options.add_argument("--number", type=int, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.train is not None:
        train(given.train, given.steps)
    elif given.predict is not None:
        predict(given.predict, given.number, given.images)
    else:
        sys.path.insert(0, str(ROOT))
        from tests.squares import make_squares

        rates: dict[str, dict[int, list[float]]] = {what: {1: [], 2: []} for what in GOALS}
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            for processes in (1, 2):
                make_squares(folder / f"train{processes}", count=given.steps * BATCH * processes, seed=1)
            make_squares(folder / "val", count=2, seed=2)
            for _ in range(given.rounds):
                for processes in (1, 2):
                    rates["training"][processes].append(measure_training(folder, processes, given.steps))
                for processes in (1, 2):
                    rates["prediction"][processes].append(measure_prediction(folder, processes, given.images))
        write(rates)


if __name__ == "__main__":
    main()
