"""Measure cases in one process in interleaved rounds, and write their times, ratios and extra memory as a table.

cases = {"ours": lambda: f(x), "torchvision": lambda: g(x)}
times = interleave(cases, rounds=7)
memory = {name: extra_memory(run) for name, run in cases.items()}
write("focal_loss", "Focal loss, forward + backward", [Section("2 x 76,725 x 80", times, "torchvision", memory)])
"""

from __future__ import annotations

import gc
import json
import platform
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torchvision
from torchvision_retinanet import cpu_model

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Section:
    """A table of results.

    Args:
        title: name of the measured work, and its size.
        seconds: seconds of each round, by the name of the case, as `interleave` returns them.
        peer: name of the case whose time is divided by the time of each case. None: no ratios.
        memory_mb: extra memory in MB (1e6 bytes), by the name of the case.
        note: text under the table, for example conditions.
        extra: further columns: column -> name of the case -> text.
    """

    title: str
    seconds: Mapping[str, Sequence[float]]
    peer: str | None = None
    memory_mb: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    extra: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def interleave(
    cases: Mapping[str, Callable[[], object]], *, rounds: int = 7, warmup: int = 1, at_least: float = 0.05
) -> dict[str, list[float]]:
    """Return the seconds of one call of each case in each round. Every round measures all cases, one after the other.

    Args:
        cases: functions to measure, by name.
        rounds: number of rounds. Each round starts with another case.
        warmup: number of calls of each case before the first round.
        at_least: seconds that a case runs in a round. A faster case is called several times, and the mean is returned.
    """
    calls = {}
    for name, run in cases.items():
        for _ in range(max(1, warmup)):
            start = time.perf_counter()
            run()
            once = time.perf_counter() - start
        calls[name] = max(1, round(at_least / max(once, 1e-7)))
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    names = list(cases)
    for turn in range(rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            run = cases[name]
            gc.collect()
            start = time.perf_counter()
            for _ in range(calls[name]):
                run()
            seconds[name].append((time.perf_counter() - start) / calls[name])
    return seconds


def extra_memory(run: Callable[[], object]) -> float:
    """Return the increase of the peak resident memory during one call, in MB (1e6 bytes). Requires Linux.

    The memory of the call's result is included. Call the function once before, so that one-time costs are not counted.
    """
    gc.collect()
    before = _status_kb("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    except OSError:
        return _sampled_memory(run, before)
    result = run()
    peak = _status_kb("VmHWM")
    del result
    return max(0, peak - before) * 1024 / 1e6


def _sampled_memory(run: Callable[[], object], before: int) -> float:
    """Return the increase of the resident memory during one call, in MB, from samples every 0.5 ms."""
    peak, finished = before, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not finished.wait(0.0005):
            peak = max(peak, _status_kb("VmRSS"))

    thread = threading.Thread(target=watch)
    thread.start()
    result = run()
    finished.set()
    thread.join()
    del result
    return max(0, peak - before) * 1024 / 1e6


def _status_kb(key: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key + ":"))
    return int(line.split()[1])


def machine() -> dict[str, object]:
    """Return the processor, the number of threads and the versions of the libraries."""
    from retinanet.ops.native_library import instruction_set

    facts: dict[str, object] = {
        "cpu": cpu_model(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "native": instruction_set() or "none",
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def table(section: Section) -> str:
    """Return a section as a markdown table: median and range of the times, and of the ratio to the peer."""
    columns = [*(["extra memory, MB"] if section.memory_mb else []), *section.extra]
    ratio = [f"time of {section.peer} / own time (range)"] if section.peer else []
    head = ["", "median, ms", "min - max, ms", *ratio, *columns]
    lines = [f"### {section.title}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, times in section.seconds.items():
        cells = [name, f"{_ms(statistics.median(times))}", f"{_ms(min(times))} - {_ms(max(times))}"]
        if section.peer:
            ratios = [peer / own for peer, own in zip(section.seconds[section.peer], times, strict=True)]
            cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})")
        if section.memory_mb:
            cells.append(f"{section.memory_mb[name]:.1f}" if name in section.memory_mb else "")
        cells += [column.get(name, "") for column in section.extra.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, *(["", section.note] if section.note else []), ""])


def _ms(seconds: float) -> str:
    ms = seconds * 1e3
    return f"{ms:.3f}" if ms < 1 else f"{ms:.2f}" if ms < 100 else f"{ms:.0f}"


def write(name: str, title: str, sections: Sequence[Section], *, results: Path = RESULTS) -> str:
    """Print the tables, write them to `results`/name.md and the numbers to name.json, and return the markdown."""
    facts = machine()
    text = "\n".join(
        [f"## {title}", "", ", ".join(f"{key} {value}" for key, value in facts.items()), "", *map(table, sections)]
    )
    rows = [
        {
            "title": section.title,
            "peer": section.peer,
            "seconds": {key: list(times) for key, times in section.seconds.items()},
            "memory_mb": dict(section.memory_mb),
            "extra": {column: dict(cells) for column, cells in section.extra.items()},
            "note": section.note,
        }
        for section in sections
    ]
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{name}.json").write_text(json.dumps({"machine": facts, "sections": rows}, indent=2) + "\n")
    (results / f"{name}.md").write_text(text)
    print(text)
    return text
