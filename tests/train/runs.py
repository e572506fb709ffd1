"""Runs in processes of their own that share one start-up, and what two of them must have in common."""

import csv
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import torch

Options = dict[str, Any]


def processes() -> ForkServerContext:
    """Processes that are forked off one that has imported torch and Lightning: a run starts in a tenth of a second."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["retinanet.train.trainer", "retinanet.report", "retinanet.evaluate", "hotcoco"])
    return context


def warm_up() -> None:
    """Have the imports done, so that what follows can be timed."""
    process = processes().Process(target=int)
    process.start()
    process.join()


def start(options: Options, log: Path, prepare: Callable[[], None] | None = None) -> Any:
    process = processes().Process(target=_train, args=(options, log, prepare))
    process.start()
    return process


def run(options: Options, log: Path, prepare: Callable[[], None] | None = None) -> int:
    """Train, and return the exit status; negative: the signal that killed it."""
    process = start(options, log, prepare)
    process.join(300)
    assert process.exitcode is not None, "the run hangs"
    return process.exitcode


def _train(options: Options, log: Path, prepare: Callable[[], None] | None) -> None:
    from retinanet.commands.terminal import show_progress
    from retinanet.errors import UserError
    from retinanet.train import fit

    multiprocessing.set_start_method("fork", force=True)  # as a run of its own has it
    file = log.open("a")
    os.dup2(file.fileno(), 1)
    os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    show_progress()  # tests read the lines in the log
    if prepare is not None:
        prepare()
    try:
        fit(**options)
    except UserError as error:
        print(f"error: {error}", flush=True)
        sys.exit(2)


class Killer:
    """Kill the process with SIGKILL at the n-th call of any function within a part of the run; or count the calls.

    Args:
        part: checkpoint (while one is written) or evaluation.
        at: at which call; None counts them, into `counts`.
        counts: JSON file.
    """

    def __init__(self, part: str, *, at: int | None = None, counts: Path | None = None) -> None:
        self.part = part
        self.at = at
        self.counts = counts
        self.seen = 0

    def __call__(self) -> None:
        from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop

        from retinanet.train.checkpointing import Checkpoints

        owner, name = {"checkpoint": (Checkpoints, "save"), "evaluation": (_EvaluationLoop, "run")}[self.part]
        original = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            sys.setprofile(self._tick)
            try:
                return original(*args, **kwargs)
            finally:
                sys.setprofile(None)
                if self.counts is not None:
                    self.counts.write_text(json.dumps(self.seen))

        setattr(owner, name, watched)

    def _tick(self, *_: Any) -> None:
        self.seen += 1
        if self.seen == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def wait_for(path: Path, rows: int, process: Any) -> None:
    """Wait until a CSV file has so many rows."""
    end = time.monotonic() + 240
    while not path.exists() or path.read_text().count("\n") <= rows:
        assert process.is_alive(), "the run ended before it was told to"
        assert time.monotonic() < end, f"no {rows} rows in {path}"
        time.sleep(0.005)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def assert_same_run(first: Path, second: Path) -> None:
    """Weights, average, optimiser, schedule and random states bit for bit; metrics.csv (but for the seconds),
    imbalance.csv, and what was kept of the best epoch."""
    for name in ("last.ckpt", "best.ckpt"):
        a, b = (torch.load(run / name, weights_only=True) for run in (first, second))
        for part in ("state_dict", "current_model_state", "averaging_state"):
            assert a[part].keys() == b[part].keys()
            for key, value in a[part].items():
                assert torch.equal(value, b[part][key]), f"{name}: {part} {key}"
        for key in ("optimizer_states", "lr_schedulers", "randomness", "epoch", "global_step"):
            assert_same(a[key], b[key], f"{name}: {key}")
    assert table(first / "metrics.csv") == table(second / "metrics.csv")
    for name in ("imbalance.csv", "start.json", "evaluation.json", "detections.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert not list(second.glob("*.partial")), "left over"


def assert_same(a: Any, b: Any, where: str) -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where} {key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where} {i}")
    else:
        assert a == b, where
