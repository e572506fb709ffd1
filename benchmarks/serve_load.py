"""Load on a served model over loopback, at and beyond its capacity, next to the same runtime in a bare loop.

    python benchmarks/serve_load.py model.onnx images/ --seconds 300 -o benchmarks/results/serve_load.json

The bare loop runs in a process of its own, before, between and after the pieces of each load, as a machine's speed
drifts: the same images, from their bytes to their boxes, in the batches in which it is fastest. The server is asked
from this process:

- at capacity: as many clients as keep it busy, each sending its next image when it has the last one's answer;
- beyond: more clients than it has places, who are told 503 and come back when they were told to.

Every answer is compared with what the bare loop found in that image. What is refused is counted, and so is what is
lost; the server's memory is read after each piece.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

PIXELS, SCORE = 0.05, 2e-3
"""How far a box and a score of an answer may be from the bare loop's: int8 and bf16 kernels differ by batch size."""

BARE = """
import json, sys, time
from pathlib import Path
from retinanet.predict import load
model, *images = sys.argv[1:]
detector = load(model, "cpu")
data = [Path(p).read_bytes() for p in images]
expected = []
for one in data:
    (found,) = detector.stream([[one]], workers=0)
    found = found.result()
    expected.append([found.boxes_D4.tolist(), found.scores_D.tolist(), found.labels_D.tolist()])
print(json.dumps(expected), flush=True)
for line in sys.stdin:
    size, seconds = line.split()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < float(seconds):
        batch = [data[(count + i) % len(data)] for i in range(int(size))]
        for found in detector.stream([batch], workers=0):
            found.result()
        count += int(size)
    print(count / (time.perf_counter() - start), flush=True)
"""


class Bare:
    """The bare loop, in a process that waits between its runs."""

    def __init__(self, model: Path, images: list[Path]) -> None:
        command = [sys.executable, "-c", BARE, str(model), *map(str, images)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.expected = json.loads(self._line())
        self.size = 1

    def rate(self, seconds: float, size: int | None = None) -> float:
        """Return the images a second, with `size` at once."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{size or self.size} {seconds}\n")
        self.process.stdin.flush()
        return float(self._line())

    def choose(self, seconds: float) -> None:
        """Find the batch size at which the loop is fastest."""
        rates = {size: self.rate(seconds, size) for size in (1, 4, 8)}
        self.size = max(rates, key=lambda size: rates[size])
        print("bare loop:", {size: round(rate, 2) for size, rate in rates.items()}, "a second", file=sys.stderr)

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


class Client(threading.Thread):
    """Sends images one after the other over one connection, and checks each answer."""

    def __init__(self, load: Load, number: int) -> None:
        super().__init__(daemon=True)
        self.load, self.number = load, number

    def run(self) -> None:
        """Send until the load's time is up."""
        load, connection = self.load, None
        for i in range(self.number, 10**9, load.clients):
            if time.perf_counter() > load.until or (load.requests and load.sent >= load.requests):
                break
            which = i % len(load.data)
            load.sent += 1
            start = time.perf_counter()
            while True:
                try:
                    connection = connection or http.client.HTTPConnection("127.0.0.1", load.port, timeout=60)
                    connection.request("POST", "/v1/detect", load.data[which], {"content-type": "image/jpeg"})
                    answer = connection.getresponse()
                    body = json.load(answer)
                except (OSError, http.client.HTTPException, ValueError) as error:
                    load.note("lost", repr(error))
                    connection = None
                    break
                if answer.status == 503:
                    load.note("refused")
                    if time.perf_counter() > load.until:
                        break
                    time.sleep(float(answer.headers["retry-after"]))
                    start = time.perf_counter()  # the time of the request that was accepted
                    continue
                if answer.status != 200:
                    load.note("failed", f"{answer.status} {body}")
                elif differs(body["images"][0]["detections"], load.expected[which]):
                    load.note("wrong", load.names[which])
                else:
                    load.answered(time.perf_counter() - start)
                break


class Load:
    """A number of clients, and what became of their requests."""

    def __init__(self, bare: Bare, images: list[Path], port: int, clients: int, requests: int = 0) -> None:
        self.expected = bare.expected
        self.data = [path.read_bytes() for path in images]
        self.names = [path.name for path in images]
        self.port, self.clients, self.requests = port, clients, requests
        self.sent = 0
        self.seconds: list[float] = []
        self.memory: list[int] = []
        self.places: list[float] = []
        self.counts = dict.fromkeys(("refused", "lost", "failed", "wrong"), 0)
        self.lock = threading.Lock()
        self.took = self.until = 0.0

    def note(self, what: str, why: str = "") -> None:
        """Count what went wrong, and print the first few."""
        with self.lock:
            self.counts[what] += 1
            if why and self.counts[what] <= 5:
                print(f"{what}: {why}", file=sys.stderr)

    def answered(self, seconds: float) -> None:
        """Note an answer that was right."""
        with self.lock:
            self.seconds.append(seconds)

    def run(self, pid: int, seconds: float) -> None:
        """Send for a time, and watch the server of that process."""
        start = time.perf_counter()
        self.until = start + seconds
        threads = [Client(self, i) for i in range(self.clients)]
        for one in threads:
            one.start()
        while any(one.is_alive() for one in threads):
            time.sleep(0.25)
            self.places.append(places_taken(self.port))
        self.memory.append(resident(pid))
        self.took += time.perf_counter() - start

    def figures(self, bare: list[float]) -> dict[str, Any]:
        """Return what came of it, next to what the bare loop did in between."""
        spread = np.percentile(np.array(self.seconds) * 1000, (50, 90, 99)) if self.seconds else np.full(3, np.nan)
        rate = len(self.seconds) / self.took
        return {
            "clients": self.clients,
            "seconds": round(self.took, 1),
            "answered": len(self.seconds),
            "per_second": round(rate, 2),
            "bare_per_second": [round(one, 2) for one in bare],
            "of_the_bare_loop": round(rate / (sum(bare) / len(bare)), 3),
            "p50_ms": round(float(spread[0]), 1),
            "p90_ms": round(float(spread[1]), 1),
            "p99_ms": round(float(spread[2]), 1),
            **self.counts,
            "most_places_taken": int(max(self.places, default=0)),
            "memory_mb": [round(value / 1e6, 1) for value in self.memory],
        }


def differs(found: list[dict[str, Any]], expected: list[list[Any]]) -> bool:
    """Whether an answer is not the expected one. What scores as the last one did may have fallen off the end."""
    boxes, scores, labels = expected
    left = list(range(len(scores)))
    edge = min(scores, default=0.05) + SCORE
    for one in found:
        match = (
            i
            for i in left
            if one["class_id"] == labels[i]
            and abs(one["score"] - scores[i]) < SCORE
            and max(abs(a - b) for a, b in zip(one["box"], boxes[i], strict=True)) < PIXELS
        )
        i = next(match, None)
        if i is not None:
            left.remove(i)
        elif one["score"] > edge:
            return True
    return any(scores[i] > edge for i in left)


def resident(pid: int) -> int:
    """Memory of a process, bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) * 1024  # type: ignore[index]


def places_taken(port: int) -> float:
    """What the server says of its queue."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return float(re.search(r"^retinanet_places_taken (\S+)", text, re.MULTILINE)[1])  # type: ignore[index]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--seconds", type=float, default=300, help="of the two loads together")
    parser.add_argument("--requests", type=int, default=0, help="stop each load after so many; 0: when time is up")
    parser.add_argument("--bare-seconds", type=float, default=5, help="of each run of the bare loop")
    parser.add_argument("--pieces", type=int, default=3, help="of each load, with the bare loop between them")
    parser.add_argument("--most", type=int, default=40, help="images")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--queue", type=int, default=16)
    parser.add_argument("--options", default="", help="more options of retinanet serve")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    images = sorted(path for path in options.images.iterdir() if path.suffix.lower() in {".jpg", ".jpeg"})[
        : options.most
    ]
    bare = Bare(options.model, images)
    bare.choose(options.bare_seconds)
    words = ["serve", str(options.model), "--port", "0", "--max-queue", str(options.queue), *options.options.split()]
    server = subprocess.Popen([sys.executable, "-m", "retinanet", *words], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    port = int(re.search(r":(\d+) ", server.stdout.readline())[1])  # type: ignore[index]
    report: dict[str, Any] = {"model": options.model.name, "queue": options.queue, "bare_batch": bare.size}
    piece = options.seconds / 2 / options.pieces
    try:
        Load(bare, images, port, 4).run(server.pid, 3.0)  # warm
        for name, clients in (("at capacity", options.clients), ("beyond", 3 * options.queue)):
            load = Load(bare, images, port, clients, options.requests)
            rates = [bare.rate(options.bare_seconds)]
            for _ in range(options.pieces):
                load.run(server.pid, piece)
                rates.append(bare.rate(options.bare_seconds))
            report[name] = load.figures(rates)
            print(name, json.dumps(report[name]), flush=True)
    finally:
        bare.process.kill()
        server.terminate()
        report["exit"] = server.wait(60)
    text = json.dumps(report, indent=1)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
    bad = [report[name][what] for name in ("at capacity", "beyond") for what in ("lost", "failed", "wrong")]
    sys.exit(1 if any(bad) or report["exit"] else 0)


if __name__ == "__main__":
    main()
