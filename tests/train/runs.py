"""Training runs in separate processes, and the comparison of two run folders."""

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


def fork_server() -> ForkServerContext:
    """Return a fork server that has imported torch and Lightning, so that a training run starts in 0.1 s."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["retinanet.train.trainer", "retinanet.report", "retinanet.evaluate", "hotcoco"])
    return context


def warm_up() -> None:
    """Let the fork server finish its imports, so that later training runs can be timed."""
    process = fork_server().Process(target=int)
    process.start()
    process.join()


def start(options: Options, log: Path, prepare: Callable[[], None] | None = None) -> Any:
    """Start a training run in another process, and return the process.

    Args:
        options: options of `fit`.
        log: file for the output of the process.
        prepare: function that the process calls before training, such as a planted fault.
    """
    process = fork_server().Process(target=_train, args=(options, log, prepare))
    process.start()
    return process


def run(options: Options, log: Path, prepare: Callable[[], None] | None = None) -> int:
    """Train in another process as `start` does, and return its exit status, or minus the signal that killed it."""
    process = start(options, log, prepare)
    process.join(300)
    assert process.exitcode is not None, "the training run hangs"
    return process.exitcode


def _train(options: Options, log: Path, prepare: Callable[[], None] | None) -> None:
    from retinanet.commands.terminal import show_progress
    from retinanet.errors import UserError
    from retinanet.train import fit

    multiprocessing.set_start_method("fork", force=True)  # the default of a training run that is started by a user
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
    """Kill the process with SIGKILL at the n-th function call within a part of the training run, or count the calls.

    Args:
        part: "checkpoint" (writing of a checkpoint) or "evaluation".
        at: number of the call that kills the process; None to count the calls.
        counts: JSON file for the number of calls.
    """

    def __init__(self, part: str, *, at: int | None = None, counts: Path | None = None) -> None:
        self.part = part
        self.at = at
        self.counts = counts
        self.calls = 0

    def __call__(self) -> None:
        from lightning.pytorch.loops.evaluation_loop import _EvaluationLoop

        from retinanet.train.checkpointing import Checkpoints

        owner, name = {"checkpoint": (Checkpoints, "save"), "evaluation": (_EvaluationLoop, "run")}[self.part]
        original = getattr(owner, name)

        def profiled(*args: Any, **kwargs: Any) -> Any:
            sys.setprofile(self._count_call)
            try:
                return original(*args, **kwargs)
            finally:
                sys.setprofile(None)
                if self.counts is not None:
                    self.counts.write_text(json.dumps(self.calls))

        setattr(owner, name, profiled)

    def _count_call(self, *_: Any) -> None:
        self.calls += 1
        if self.calls == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def wait_for_rows(path: Path, rows: int, process: Any) -> None:
    """Wait until a CSV file has at least `rows` rows below the header."""
    end = time.monotonic() + 240
    while not path.exists() or path.read_text().count("\n") <= rows:
        assert process.is_alive(), "training ended before the signal was sent"
        assert time.monotonic() < end, f"expected {rows} rows in {path} within 240 s"
        time.sleep(0.005)


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file without the column `seconds`."""
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def assert_same_run(first: Path, second: Path) -> None:
    """Check that two run folders are equal, bit for bit, except for the seconds in metrics.csv.

    Compared are weights, running average, optimiser, schedule, random states, metrics.csv, imbalance.csv and the files
    of the best epoch.
    """
    for name in ("last.ckpt", "best.ckpt"):
        a, b = (torch.load(run / name, weights_only=True) for run in (first, second))
        for part in ("state_dict", "current_model_state", "averaging_state"):
            assert a[part].keys() == b[part].keys()
            for key, value in a[part].items():
                assert torch.equal(value, b[part][key]), f"{name}: {part} {key}"
        for key in ("optimizer_states", "lr_schedulers", "randomness", "epoch", "global_step"):
            assert_same(a[key], b[key], f"{name}: {key}")
    assert read_rows(first / "metrics.csv") == read_rows(second / "metrics.csv")
    for name in ("imbalance.csv", "start.json", "sampling.json", "evaluation.json", "detections.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert not list(second.glob("*.partial")), "temporary files were left"


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
