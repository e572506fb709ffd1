"""Provide a fake detector whose detections follow from the image's colour, and a server with it in a subprocess."""

from __future__ import annotations

import io
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retinanet.checkpoint.model_info import ModelInfo
from retinanet.config import ImageConfig, NmsConfig, PostprocessConfig
from retinanet.errors import ConfigError
from retinanet.images import Scaled, decode_for
from retinanet.predict.batches import InputBatch, Source
from retinanet.predict.dense import DenseOutputs, level_outputs
from retinanet.predict.detector import BaseDetector
from retinanet.types import ArrayDetections

ROOT = Path(__file__).parents[2]
CLASSES = ("cell", "platelet", "white, cell")
FAILS = 13
"""Red value of images on which the fake detector raises an error."""
LEVELS = (3, 4, 5, 6, 7)


def png(red: int, width: int = 64, height: int = 48, green: int = 0) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (red, green, 0)).save(out, "PNG")
    return out.getvalue()


def expected(red: int, width: int = 64, height: int = 48) -> list[dict[str, Any]]:
    """Return the detections of the fake detector in `png(red, width, height)`, which depend on its arguments."""
    boxes = [(0, 0, red / 8, 10), (1, 1, width, height), (2, 2, 12, 12)]
    scores = (0.9, 0.6, 0.3)
    return [
        {"box": [float(v) for v in box], "score": score, "class_id": i, "class": CLASSES[i]}
        for i, (box, score) in enumerate(zip(boxes, scores, strict=True))
    ]


class Fake(BaseDetector):
    """Return the detections of `expected`, after `seconds` per image, and record the size of each batch."""

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__(
            ModelInfo(
                classes=CLASSES,
                category_ids=(1, 2, 3),
                image_config=ImageConfig(image_size=64, max_size=128),
                postprocess_config=PostprocessConfig(),
            )
        )
        self.seconds = seconds
        self.batches: list[int] = []
        self.agnostic: list[bool] = []
        self.seen: list[int] = []
        self.gate = threading.Event()
        self.gate.set()

    def _detect(self, batch: InputBatch, config: PostprocessConfig) -> list[ArrayDetections]:
        self.gate.wait(20)
        self.batches.append(len(batch.frames))
        self.agnostic.append(config.agnostic_nms)
        time.sleep(self.seconds * len(batch.frames))
        std, mean = self.image_config.image_std[0], self.image_config.image_mean[0]
        out = []
        for image_3HW, frame in zip(batch.images, batch.frames, strict=True):
            red = round(float(image_3HW[0, 0, 0] * std + mean) * 255)
            self.seen.append(red)
            if red == FAILS:
                raise RuntimeError("the network failed: secret detail")
            dicts = expected(red, frame.width, frame.height)
            detections = ArrayDetections(
                boxes_D4=np.array([d["box"] for d in dicts], np.float32),
                scores_D=np.array([d["score"] for d in dicts], np.float32),
                labels_D=np.array([d["class_id"] for d in dicts], np.int64),
            )
            out.append(detections[detections.scores_D > config.score_threshold][: config.max_detections])
        return out

    def _infer(self, images_N3HW: object, frames: object, config: PostprocessConfig) -> list[ArrayDetections]:
        raise NotImplementedError  # `_detect` is replaced

    def dense(self, source: Source | Scaled) -> DenseOutputs:
        c = self.image_config
        if not isinstance(source, Scaled):
            source = decode_for(source, image_size=c.image_size, max_size=c.max_size)
        image_3HW, frame = self._prepare(source, c)
        rng = np.random.default_rng(0)
        levels = []
        for level in LEVELS:
            H, W = (-(-side // 2**level) for side in image_3HW.shape[1:])
            cells_C4 = np.array([[-1, -1, 1, 1], [-2, -1, 2, 1]], np.float32) * 2**level * 2
            logits_AK = rng.normal(-4, 1.5, (H * W * 2, len(CLASSES))).astype(np.float32)
            deltas_A4 = rng.normal(0, 0.1, (H * W * 2, 4)).astype(np.float32)
            levels.append(level_outputs(level, cells_C4, logits_AK, deltas_A4, image_3HW.shape[1:], frame))
        return DenseOutputs(frame=frame, levels=tuple(levels))


def load(path: Path, device: str, *, threads: int = 0, bit_depth: int = 0, **nms: object) -> Fake:
    """Replace `retinanet.load`. The stem of the file name is the number of milliseconds that an image takes."""
    if path.stem == "broken":
        raise ConfigError("this model is broken")
    fake = Fake(seconds=int(path.stem) / 1000)
    fake.info = fake.info.with_nms(NmsConfig(**nms))
    return fake


class Server:
    """Run `retinanet serve` in a subprocess with the fake detector or another loader.

    Attributes:
        url: address of the server.
        port: port of the server.
        output: lines that the server printed after its address.
    """

    def __init__(self, options: str = "", *, model: str = "0.onnx", loader: str = "tests.serve.fakes:load") -> None:
        module, name = loader.split(":")
        code = (
            f"from pathlib import Path\nfrom {module} import {name}\n"
            f"from retinanet.commands.terminal import show_progress\n"
            f"from retinanet.config import ServeConfig\nfrom retinanet.serve.server import run_server\n"
            f"if __name__ == '__main__':\n"
            f"    show_progress()\n"
            f"    run_server({name}, Path({model!r}), ServeConfig(port=0, {options}))\n"
        )
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        self.output: list[str] = []
        self.url = ""

    def __enter__(self) -> Server:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 60)
        line = self.process.stdout.readline() if ready else ""
        address = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        if not address:
            if not ready:
                self.process.kill()
            raise AssertionError(f"the server printed no address: {line}{self.process.stdout.read()}")
        self.port = int(address[1])
        self.url = address[0]
        self._reader = threading.Thread(target=lambda: self.output.extend(self.process.stdout or ()), daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise

    def stop(self) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def detections(answer: Any, names: Sequence[str] = ("box", "score", "class_id", "class")) -> list[list[dict[str, Any]]]:
    """Return the detections of each image of an answer, with the fields `names` only."""
    return [[{name: d[name] for name in names} for d in image["detections"]] for image in answer["images"]]
