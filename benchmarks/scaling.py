"""Measure the speed of two processes on two cores in comparison with one process, with one thread per process.

    python benchmarks/scaling.py

Training: each process trains with `fit` (preset small) on batches of four images of 512 pixels, and loads its images
itself. torchrun starts two processes, which average their gradients with gloo. The time includes all steps after the
first three and the loading of images, but no evaluation. Prediction: each process predicts half of a folder of images
of 512 pixels. The time includes decoding and ends when the last process is finished.

Rounds with one and with two processes alternate. The efficiency of a round is the images per second of two processes,
divided by twice the images per second of one process. The result is the median over the rounds. The script writes
benchmarks/results/scaling.json and scaling.md. A round takes about two minutes.
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
    """Train for some steps, and write the images per second of this process to a file."""
    import torch

    from retinanet.train import fit
    from retinanet.train.detection_module import DetectionModule

    torch.set_num_threads(1)
    starts: list[float] = []

    def note_start(self: DetectionModule, batch: Any, batch_idx: int) -> None:
        starts.append(time.perf_counter())

    DetectionModule.on_train_batch_start = note_start  # type: ignore[assignment]
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
    """Load the model, wait for the file `go`, predict, and write the start and end of this process to a file."""
    import torch

    import retinanet

    torch.set_num_threads(1)
    detector = retinanet.load(folder / "run1" / "last.ckpt", "cpu")
    paths = sorted((folder / "train2" / "images").iterdir())
    own_paths = [paths[(number * images + i) % len(paths)] for i in range(images)]
    detector.predict(own_paths[:BATCH])
    (folder / f"ready{number}").touch()
    while not (folder / "go").exists():
        time.sleep(0.001)
    start = time.time()
    for i in range(0, images, BATCH):
        detector.predict(own_paths[i : i + BATCH])
    (folder / f"rank{number}.json").write_text(json.dumps((start, time.time())))


def environment() -> dict[str, str]:
    """Return the environment variables of a process with one thread."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "src")])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def measure_training(folder: Path, processes: int, steps: int) -> float:
    """Return the images per second of training with all processes together."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
        command += ["--master-addr", "127.0.0.1", "--master-port", port]
    command += [__file__, "--train", str(folder), "--steps", str(steps)]
    completed = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    if completed.returncode:
        raise SystemExit(completed.stderr[-3000:])
    # Ranks wait for each other in every step, so the slowest rank determines the speed.
    return processes * min(float((folder / f"rank{rank}.json").read_text()) for rank in range(processes))


def measure_prediction(folder: Path, processes: int, images: int) -> float:
    """Return the images per second of prediction with all processes together."""
    (folder / "go").unlink(missing_ok=True)
    ready = [folder / f"ready{number}" for number in range(processes)]
    for path in ready:
        path.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--predict", str(folder), "--images", str(images), "--number"]
    running = [subprocess.Popen([*command, str(number)], env=environment()) for number in range(processes)]
    while not all(path.exists() for path in ready):
        if any(process.poll() for process in running):
            raise SystemExit("a prediction process failed: see its output above")
        time.sleep(0.01)
    (folder / "go").touch()
    if any(process.wait() for process in running):
        raise SystemExit("a prediction process failed: see its output above")
    times = [json.loads((folder / f"rank{number}.json").read_text()) for number in range(processes)]
    return processes * images / (max(end for _, end in times) - min(start for start, _ in times))


def write(rates: dict[str, dict[int, list[float]]]) -> None:
    """Print and write the rates and the efficiency."""
    from harness import RESULTS, machine

    facts = machine() | {"threads": "1 per process"}
    result: dict[str, Any] = {"machine": facts}
    lines = ["## Two processes on two cores in comparison with one, one thread per process", ""]
    lines += [", ".join(f"{key} {value}" for key, value in facts.items()), ""]
    lines += ["| | one, images/s | two, images/s | efficiency (rounds) | goal |", "|---|---|---|---|---|"]
    for what, measured in rates.items():
        rounds = [two / (2 * one) for one, two in zip(measured[1], measured[2], strict=True)]
        one, two = (statistics.median(measured[n]) for n in (1, 2))
        result[what] = {
            "images_a_second": {str(n): [round(rate, 3) for rate in values] for n, values in measured.items()},
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
    """Measure, print and write the results. With --train or --predict, run one of the measured processes."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3, help="number of rounds")
    options.add_argument("--steps", type=int, default=11, help="number of training steps in a round")
    options.add_argument("--images", type=int, default=80, help="number of images that each process predicts")
    for name in ("--train", "--predict"):
        options.add_argument(name, type=Path, help=argparse.SUPPRESS)
    options.add_argument("--number", type=int, help=argparse.SUPPRESS)
    arguments = options.parse_args()
    if arguments.train is not None:
        train(arguments.train, arguments.steps)
    elif arguments.predict is not None:
        predict(arguments.predict, arguments.number, arguments.images)
    else:
        sys.path.insert(0, str(ROOT))
        from tests.squares import make_squares

        rates: dict[str, dict[int, list[float]]] = {what: {1: [], 2: []} for what in GOALS}
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            for processes in (1, 2):
                make_squares(folder / f"train{processes}", count=arguments.steps * BATCH * processes, seed=1)
            make_squares(folder / "val", count=2, seed=2)
            for _ in range(arguments.rounds):
                for processes in (1, 2):
                    rates["training"][processes].append(measure_training(folder, processes, arguments.steps))
                for processes in (1, 2):
                    rates["prediction"][processes].append(measure_prediction(folder, processes, arguments.images))
        write(rates)


if __name__ == "__main__":
    main()
