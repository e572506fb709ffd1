"""Measure exported models and torchvision's RetinaNet on the CPU, from an image file to boxes, in one process.

    python benchmarks/export.py prepare IMAGES runs/export-bench     # export a ResNet-50 with random weights: minutes
    python benchmarks/export.py measure IMAGES runs/export-bench     # requires a machine without other load

Both networks have a ResNet-50, 80 classes, an image size of 640 and random weights. The weights are scaled so that a
realistic number of boxes reaches non-maximum suppression. `retinanet export --int8 --data` measures the effect of int8
on AP.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from harness import Section, interleave, write
from torchvision.io import ImageReadMode, decode_image
from torchvision.models.detection import retinanet_resnet50_fpn

from retinanet.checkpoint.loaded_model import describe_run as describe_checkpoint
from retinanet.checkpoint.loading import load_checkpoint
from retinanet.config import ExportConfig, TrainConfig, resolve
from retinanet.data import read
from retinanet.export import parity as gate
from retinanet.export.base_target import ExportSource
from retinanet.export.exporter import describe
from retinanet.export.targets import TARGETS
from retinanet.images import decode_for
from retinanet.images import prepare as prepare_input
from retinanet.model import RetinaNet
from retinanet.predict.runtime_detector import RuntimeDetector
from retinanet.predict.torch_detector import Detector

CLASSES = tuple(f"class {k}" for k in range(80))
CALIBRATION = 16
FILES = ("float32.onnx", "int8.onnx", "float32.xml", "bf16.xml", "int8.xml")


def spread(weight: torch.Tensor, bias: torch.Tensor, logits: Callable[[], torch.Tensor]) -> None:
    """Change a random network so that some hundred scores of an image exceed 0.05, as in a trained network.

    Args:
        weight: weight of the last convolution of the classification head.
        bias: bias of the last convolution of the classification head.
        logits: function that computes the logits of an image.
    """
    torch.nn.init.normal_(weight, std=0.01)
    torch.nn.init.zeros_(bias)
    with torch.inference_mode():
        values = logits()
    with torch.no_grad():
        weight /= values.std()
        bias -= 7 + values.mean() / values.std()


def prepare(images: list[Path], folder: Path) -> None:
    """Save a random ResNet-50 as a checkpoint, and export it in every format."""
    folder.mkdir(parents=True, exist_ok=True)
    here = Path()
    config = resolve(TrainConfig, {"train": here, "val": here, "output": here, "image_size": 640, "max_size": 640})
    torch.manual_seed(0)
    model = RetinaNet(num_classes=len(CLASSES), config=config.model).eval()
    scaled = decode_for(images[0], image_size=640, max_size=640)
    image = torch.from_numpy(prepare_input([scaled], config.image)[0])
    spread(model.class_head.output.weight, model.class_head.output.bias, lambda: model(image).logits_NAK)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    ids = tuple(range(1, len(CLASSES) + 1))
    torch.save({"retinanet": describe_checkpoint(config, CLASSES, ids), "state_dict": state}, folder / "model.ckpt")
    saved = load_checkpoint(folder / "model.ckpt")
    about = describe(saved, ExportConfig(uint8=True))
    source = ExportSource(saved)
    TARGETS["onnx"].write(source, about, folder / "float32.onnx")
    TARGETS["openvino"].write(source, about, folder / "float32.xml")
    TARGETS["openvino"].write(source, dataclasses.replace(about, precision="bf16"), folder / "bf16.xml")
    small = dataclasses.replace(about, precision="int8")
    for target, name in (("onnx", "int8.onnx"), ("openvino", "int8.xml")):
        TARGETS[target].write_int8(source, small, folder / name, images[:CALIBRATION])
        print(name, flush=True)
    detector = Detector.from_checkpoint(folder / "model.ckpt", "cpu")
    for name in ("float32.onnx", "float32.xml"):
        comparison = gate.compare(detector, RuntimeDetector.from_file(folder / name), images[:3], scales=(1.0,))
        print(name, comparison, flush=True)


def first_detection(path: Path, image: Path) -> dict[str, float]:
    """Return the seconds to the first detection in a new process, and the peak memory of this process in MB."""
    code = (
        "import time; t = time.perf_counter()\n"
        "import json, sys, retinanet\n"
        "retinanet.load(sys.argv[1]).predict(sys.argv[2])\n"
        "seconds = time.perf_counter() - t\n"
        "rows = open('/proc/self/status').read().splitlines()\n"
        "peak = next(int(r.split()[1]) for r in rows if r.startswith('VmHWM'))\n"
        "print(json.dumps({'seconds': seconds, 'mb': peak * 1024 / 1e6}))\n"
    )
    completed = subprocess.run([sys.executable, "-c", code, path, image], check=True, capture_output=True, text=True)
    numbers: dict[str, float] = json.loads(completed.stdout)
    return numbers


def measure(images: list[Path], folder: Path) -> None:
    """Measure all exported models and torchvision, and write the table."""
    peer = retinanet_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=len(CLASSES), min_size=640, max_size=640
    ).eval()
    first_input = peer.transform([decode_image(str(images[0]), ImageReadMode.RGB).float() / 255])[0].tensors
    last = peer.head.classification_head.cls_logits

    def logits() -> torch.Tensor:
        values: torch.Tensor = peer.head(list(peer.backbone(first_input).values()))["cls_logits"]
        return values

    spread(last.weight, last.bias, logits)

    @torch.inference_mode()
    def torchvision(image: Path) -> Any:
        return peer([decode_image(str(image), ImageReadMode.RGB).float() / 255])

    detectors: dict[str, Callable[[Path], Any]] = {
        "torchvision eager": torchvision,
        "checkpoint eager": Detector.from_checkpoint(folder / "model.ckpt", "cpu").predict,
        **{name: RuntimeDetector.from_file(folder / name).predict for name in FILES},
    }
    counts = {name: len(detect(images[0])) for name, detect in detectors.items() if name != "torchvision eager"}
    counts["torchvision eager"] = len(torchvision(images[0])[0]["boxes"])
    turns = {name: itertools.cycle(images) for name in detectors}
    cases = {name: (lambda n=name: detectors[n](next(turns[n]))) for name in detectors}
    seconds = interleave(cases, rounds=len(images))
    first = {name: first_detection(folder / name, images[0]) for name in ("model.ckpt", *FILES)}
    first["checkpoint eager"] = first.pop("model.ckpt")
    columns = {
        "first detection, s": {name: f"{numbers['seconds']:.1f}" for name, numbers in first.items()},
        "peak memory of the process, MB": {name: f"{numbers['mb']:.0f}" for name, numbers in first.items()},
    }
    note = f"One image at a time, from file to boxes. Number of boxes in the first image: {counts}."
    title = f"ResNet-50, 80 classes, 640 pixels, {len(images)} COCO images"
    write("export", "Exported models", [Section(title, seconds, "torchvision eager", note=note, extra=columns)])


if __name__ == "__main__":
    command, source, target = sys.argv[1:]
    paths = sorted(Path(source).rglob("*.jpg")) if Path(source).is_dir() else [r.path for r in read(source).records]
    (prepare if command == "prepare" else measure)(paths[:CALIBRATION], Path(target))
