"""Load on a served model over loopback, at and beyond its capacity, next to the same runtime in a bare loop.

    python benchmarks/serve_load.py model.onnx pictures/ --seconds 300 -o benchmarks/results/serve_load.json

The bare loop runs first, in a process of its own: the same pictures, from their bytes to their boxes, one after the
other. Then the server is started, and asked from this process:

- at capacity: as many clients as keep it busy, each sending its next picture when it has the last one's answer;
- beyond: more clients than it has places, who are told 503 and come back when they were told to.

Every answer is compared with what the bare loop found in that picture. What is refused is counted, and so is what is
lost; the server's memory is read ten times.
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
model, seconds, *pictures = sys.argv[1:]
detector = load(model, "cpu")
data = [Path(p).read_bytes() for p in pictures]
expected = []
for one in data:
    (found,) = detector.stream([[one]], workers=0)
    found = found.result()
    expected.append([found.boxes_D4.tolist(), found.scores_D.tolist(), found.labels_D.tolist()])
best = 0.0
for size in (1, 4, 8):
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < float(seconds):
        batch = [data[(count + i) % len(data)] for i in range(size)]
        for found in detector.stream([batch], workers=0):
            found.result()
        count += size
    rate = count / (time.perf_counter() - start)
    print(f"bare loop, {size} at once: {rate:.2f} pictures/s", file=sys.stderr, flush=True)
    best = max(best, rate)
json.dump({"rate": best, "expected": expected}, sys.stdout)
"""


class Client(threading.Thread):
    """Sends pictures one after the other over one connection, and checks each answer."""

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
                elif differs(body["pictures"][0]["detections"], load.expected[which]):
                    load.note("wrong", load.names[which])
                else:
                    load.answered(time.perf_counter() - start)
                break


class Load:
    """A number of clients, and what became of their requests."""

    def __init__(
        self, bare: dict[str, Any], pictures: list[Path], port: int, clients: int, seconds: float, requests: int
    ):
        self.expected = bare["expected"]
        self.data = [path.read_bytes() for path in pictures]
        self.names = [path.name for path in pictures]
        self.port, self.clients, self.requests = port, clients, requests
        self.sent = 0
        self.seconds: list[float] = []
        self.counts = dict.fromkeys(("refused", "lost", "failed", "wrong"), 0)
        self.lock = threading.Lock()
        self.start = time.perf_counter()
        self.until = self.start + seconds

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

    def run(self, pid: int) -> dict[str, Any]:
        """Send, watch the server of that process, and return the figures."""
        threads = [Client(self, i) for i in range(self.clients)]
        for one in threads:
            one.start()
        memory, places = [resident(pid)], []
        span = max(0.5, (self.until - self.start) / 10)
        while any(one.is_alive() for one in threads):
            ending = time.perf_counter() + span
            while time.perf_counter() < ending and any(one.is_alive() for one in threads):
                time.sleep(0.25)
                places.append(places_taken(self.port))
            memory.append(resident(pid))
        took = time.perf_counter() - self.start
        spread = np.percentile(np.array(self.seconds) * 1000, (50, 90, 99)) if self.seconds else np.full(3, np.nan)
        return {
            "clients": self.clients,
            "seconds": round(took, 1),
            "answered": len(self.seconds),
            "per_second": round(len(self.seconds) / took, 2),
            "p50_ms": round(float(spread[0]), 1),
            "p90_ms": round(float(spread[1]), 1),
            "p99_ms": round(float(spread[2]), 1),
            **self.counts,
            "most_places_taken": int(max(places, default=0)),
            "memory_mb": [round(value / 1e6, 1) for value in memory],
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
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--seconds", type=float, default=300, help="of the two loads together")
    parser.add_argument("--requests", type=int, default=0, help="stop each load after so many; 0: when time is up")
    parser.add_argument("--bare-seconds", type=float, default=10, help="of the bare loop, for each batch size")
    parser.add_argument("--most", type=int, default=40, help="pictures")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--queue", type=int, default=16)
    parser.add_argument("--options", default="", help="more options of retinanet serve")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    pictures = sorted(path for path in options.pictures.iterdir() if path.suffix.lower() in {".jpg", ".jpeg"})[
        : options.most
    ]
    command = [sys.executable, "-c", BARE, str(options.model), str(options.bare_seconds), *map(str, pictures)]
    bare = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    words = ["serve", str(options.model), "--port", "0", "--max-queue", str(options.queue), *options.options.split()]
    server = subprocess.Popen([sys.executable, "-m", "retinanet", *words], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    port = int(re.search(r":(\d+) ", server.stdout.readline())[1])  # type: ignore[index]
    report: dict[str, Any] = {"model": options.model.name, "bare_per_second": round(bare["rate"], 2)}
    half = options.seconds / 2
    try:
        Load(bare, pictures, port, 4, 3.0, 0).run(server.pid)  # warm
        for name, clients in (("at capacity", options.clients), ("beyond", 3 * options.queue)):
            found = Load(bare, pictures, port, clients, half, options.requests).run(server.pid)
            found["of_the_bare_loop"] = round(found["per_second"] / bare["rate"], 3)
            report[name] = found
            print(name, json.dumps(found), flush=True)
    finally:
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
