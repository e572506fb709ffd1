"""Measure a served model at and beyond its capacity, in comparison with the same runtime in a loop without a server.

    python benchmarks/serve_load.py model.onnx images/ --seconds 300 -o benchmarks/results/serve_load.json

The bare loop predicts the same images, from bytes to boxes, with its fastest batch size. It has its own process. It
runs before, between and after the pieces of each load, because the speed of a machine changes over time. This process
sends the requests to the server over loopback. There are two loads:

- at capacity: enough clients to keep the server busy. Each client sends its next image after the last response.
- beyond: more clients than the server has places. The server refuses some requests with the status 503, and the client
  sends them again after the time in `Retry-After`.

Every response is compared with the detections of the bare loop. Refused, lost, failed and wrong responses are counted.
The memory of the server is read after each piece.
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
"""Largest difference of a box coordinate (pixels) and of a score between a response and the bare loop.

int8 and bf16 kernels give slightly different results for different batch sizes.
"""

BARE = """
import json, sys, time
from pathlib import Path
from retinanet.predict import load
model, *images = sys.argv[1:]
detector = load(model, "cpu")
data = [Path(p).read_bytes() for p in images]
expected = []
for image in data:
    (future,) = detector.stream([[image]], workers=0)
    detections = future.result()
    expected.append([detections.boxes_D4.tolist(), detections.scores_D.tolist(), detections.labels_D.tolist()])
print(json.dumps(expected), flush=True)
for line in sys.stdin:
    size, seconds = line.split()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < float(seconds):
        batch = [data[(count + i) % len(data)] for i in range(int(size))]
        for future in detector.stream([batch], workers=0):
            future.result()
        count += int(size)
    print(count / (time.perf_counter() - start), flush=True)
"""


class Bare:
    """The loop without a server, in a process that waits between its runs."""

    def __init__(self, model: Path, images: list[Path]) -> None:
        command = [sys.executable, "-c", BARE, str(model), *map(str, images)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.expected = json.loads(self._line())
        self.size = 1

    def rate(self, seconds: float, size: int | None = None) -> float:
        """Return the images per second over a time of `seconds`, with batches of `size` images."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{size or self.size} {seconds}\n")
        self.process.stdin.flush()
        return float(self._line())

    def choose(self, seconds: float) -> None:
        """Set the batch size to the fastest one."""
        rates = {size: self.rate(seconds, size) for size in (1, 4, 8)}
        self.size = max(rates, key=lambda size: rates[size])
        text = ", ".join(f"{rate:.2f} with batches of {size}" for size, rate in rates.items())
        print(f"bare loop, images per second: {text}", file=sys.stderr)

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


class Client(threading.Thread):
    """Thread that sends images one after the other over one connection, and checks each response."""

    def __init__(self, load: Load, number: int) -> None:
        super().__init__(daemon=True)
        self.load, self.number = load, number

    def run(self) -> None:
        """Send images until the time or the number of requests of the load is reached."""
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
                    start = time.perf_counter()  # measure the accepted request only
                    continue
                if answer.status != 200:
                    load.note("failed", f"{answer.status} {body}")
                elif differs(body["images"][0]["detections"], load.expected[which]):
                    load.note("wrong", load.names[which])
                else:
                    load.answered(time.perf_counter() - start)
                break


class Load:
    """A number of concurrent clients, and the results of their requests."""

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
        """Count a refused, lost, failed or wrong response, and print the first five reasons."""
        with self.lock:
            self.counts[what] += 1
            if why and self.counts[what] <= 5:
                print(f"{what}: {why}", file=sys.stderr)

    def answered(self, seconds: float) -> None:
        """Record the time of a correct response."""
        with self.lock:
            self.seconds.append(seconds)

    def run(self, pid: int, seconds: float) -> None:
        """Send requests for a time of `seconds`, and record the queue and the memory of the server process `pid`."""
        start = time.perf_counter()
        self.until = start + seconds
        threads = [Client(self, i) for i in range(self.clients)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.25)
            self.places.append(places_taken(self.port))
        self.memory.append(resident(pid))
        self.took += time.perf_counter() - start

    def figures(self, bare: list[float]) -> dict[str, Any]:
        """Return the results of the load, with the images per second of the bare loop in between."""
        spread = np.percentile(np.array(self.seconds) * 1000, (50, 90, 99)) if self.seconds else np.full(3, np.nan)
        rate = len(self.seconds) / self.took
        return {
            "clients": self.clients,
            "seconds": round(self.took, 1),
            "answered": len(self.seconds),
            "per_second": round(rate, 2),
            "bare_per_second": [round(bare_rate, 2) for bare_rate in bare],
            "of_the_bare_loop": round(rate / (sum(bare) / len(bare)), 3),
            "p50_ms": round(float(spread[0]), 1),
            "p90_ms": round(float(spread[1]), 1),
            "p99_ms": round(float(spread[2]), 1),
            **self.counts,
            "most_places_taken": int(max(self.places, default=0)),
            "memory_mb": [round(value / 1e6, 1) for value in self.memory],
        }


def differs(detections: list[dict[str, Any]], expected: list[list[Any]]) -> bool:
    """Return whether the detections of a response differ from the expected ones.

    Detections with about the lowest expected score are not compared: a small difference may move them below the limit
    of detections per image.
    """
    boxes, scores, labels = expected
    unmatched = list(range(len(scores)))
    lowest = min(scores, default=0.05) + SCORE
    for detection in detections:
        matches = (
            i
            for i in unmatched
            if detection["class_id"] == labels[i]
            and abs(detection["score"] - scores[i]) < SCORE
            and max(abs(a - b) for a, b in zip(detection["box"], boxes[i], strict=True)) < PIXELS
        )
        i = next(matches, None)
        if i is not None:
            unmatched.remove(i)
        elif detection["score"] > lowest:
            return True
    return any(scores[i] > lowest for i in unmatched)


def resident(pid: int) -> int:
    """Return the resident memory of a process, bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) * 1024  # type: ignore[index]


def places_taken(port: int) -> float:
    """Return the number of taken places in the server's queue, from its metrics."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return float(re.search(r"^retinanet_places_taken (\S+)", text, re.MULTILINE)[1])  # type: ignore[index]


def main() -> None:
    """Measure, and print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model file to serve")
    parser.add_argument("images", type=Path, help="folder of JPEG images")
    parser.add_argument("--seconds", type=float, default=300, help="seconds of the two loads together")
    parser.add_argument("--requests", type=int, default=0, help="largest number of requests of a load (0: no limit)")
    parser.add_argument("--bare-seconds", type=float, default=5, help="seconds of each run of the bare loop")
    parser.add_argument(
        "--pieces", type=int, default=3, help="number of pieces of each load; the bare loop runs between the pieces"
    )
    parser.add_argument("--most", type=int, default=40, help="largest number of images from the folder")
    parser.add_argument("--clients", type=int, default=8, help="number of clients at capacity")
    parser.add_argument("--queue", type=int, default=16, help="number of places in the queue of the server")
    parser.add_argument("--options", default="", help="further options of retinanet serve")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the results")
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
        Load(bare, images, port, 4).run(server.pid, 3.0)  # for warming up
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
