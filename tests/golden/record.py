"""Compute the recorded numbers of tests/golden, and write them with `python -m tests.golden.record`.

`NUMBERS` maps the name of each JSON file to the function that computes its content. `tests/test_golden.py` compares the
files with the numbers that the current code computes. Record a file again only if a change of its numbers is intended:
run `python -m tests.golden.record NAME...` and state the reason in the commit. Without a name, all files are written.

`python -m tests.golden.record old_run` trains the old run again and replaces its files. Do not replace the old run to
make a test pass: it represents the checkpoints of users. After a replacement, record `old_detections`, `fine_tuned` and
`resumed` again.

This module imports only public names, so that it still works when code moves between modules.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import lzma
import math
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import retinanet
import retinanet.config
from retinanet.cli import app, main
from retinanet.config import LossConfig, MatchConfig, PostprocessConfig, TrainConfig, resolve, to_dict
from retinanet.losses import DetectionLoss, sigmoid_focal_loss
from retinanet.matching import match
from retinanet.postprocess import postprocess
from retinanet.types import AnchorTargets, HeadOutputs, Target
from tests.squares import make_squares

FOLDER: Final = Path(__file__).parent
OLD_RUN: Final = FOLDER / "old_run"
"""Run folder written by an earlier version. last.ckpt is compressed, and its tensors are rounded by `rounded`."""
REFERENCE: Final = FOLDER.parents[2] / "shared" / "data" / "coco_reference"

NETWORK: Final[dict[str, Any]] = {"backbone": "test_efficientnet", "fpn_width": 8, "head_width": 8, "head_depth": 1}
"""Options of the smallest network with a backbone of timm: about 95,000 weights."""
RUN: Final[dict[str, Any]] = {
    **NETWORK,
    "preset": "small",
    "pretrained": False,
    "image_size": 64,
    "max_size": 96,
    "anchor_sizes": (16.0, 32.0, 64.0, 128.0, 256.0),
    "batch_size": 4,
    "workers": 0,
    "log_every": 1,
    "epochs": 2,
    "evaluate_every": 2,
    "measure_imbalance": 0,
    "device": "cpu",
}
LOSSES: Final = (
    *("focal", "ce", "balanced_ce", "weighted"),
    *("hard_negative_mining", "ohem", "quality_focal", "varifocal"),
)
BOX_LOSSES: Final = ("smooth_l1", "l1", "giou")
PRESETS: Final = ("default", "paper", "small")
OLD_EPOCHS: Final = 60
LAST_BIAS: Final = -3.0
"""Mean bias of the last classification layer in `untrained`. With it, about 1 of 100 scores is above 0.5."""


def anchors() -> dict[str, Any]:
    """Return the number, the sum and some rows of the anchors for several anchor options and input sizes.

    The backbone is small, because anchors depend only on the pyramid levels and the anchor options.
    """
    numbers = {}
    styles: dict[str, dict[str, Any]] = {
        "default": {},
        "torchvision": {"anchor_style": "torchvision"},
        "levels 2 to 6": {"levels": (2, 3, 4, 5, 6)},
        "other shapes": {"anchor_sizes": (10, 20, 40, 80, 160), "anchor_scales": (1, 1.5), "anchor_ratios": (0.2, 3)},
    }
    for name, options in styles.items():
        model = retinanet.RetinaNet(num_classes=1, **NETWORK, **options).eval()
        for height, width in [(64, 96), (200, 333), (800, 1344)] if name == "default" else [(200, 333)]:
            with torch.inference_mode():
                outputs = model(torch.zeros(1, 3, height, width))
            rows_A4 = outputs.anchors_A4.double()
            numbers[f"{name}, {height} x {width}"] = {
                "per_level": list(outputs.anchors_per_level),
                "sum": rows_A4.sum().item(),
                "sum_of_squares": (rows_A4**2).sum().item(),
                "first": rows_A4[:10].tolist(),
                "last": rows_A4[-2:].tolist(),
            }
    return numbers


def weights() -> dict[str, Any]:
    """Return the number of weights of several networks, and a checksum of the names and shapes of their tensors."""
    numbers = {}
    small = {"backbone": "tf_efficientnet_lite0", "fpn_width": 128, "head_width": 128, "head_depth": 2}
    networks: dict[str, dict[str, Any]] = {"default": {}, "small": {**small, "head_norm": "group"}, "tiny": NETWORK}
    for name, options in networks.items():
        with torch.device("meta"):  # tensors with shapes, but without values, are created quickly
            model = retinanet.RetinaNet(num_classes=3, **options)
        shapes = sorted(f"{key} {tuple(value.shape)}" for key, value in model.state_dict().items())
        numbers[name] = {
            "weights": sum(value.numel() for value in model.parameters()),
            "tensors": len(shapes),
            "names_and_shapes": hashlib.sha256("\n".join(shapes).encode()).hexdigest(),
        }
    last_biases = {}
    for prior in (0.01, 0.5):
        state = retinanet.RetinaNet(num_classes=3, **NETWORK, prior=prior).state_dict()
        last_biases[f"prior {prior}"] = [
            value.double().unique().tolist() for key, value in state.items() if key.endswith("output.bias")
        ]
    return {**numbers, "last_biases": last_biases}


def matching() -> dict[str, Any]:
    """Return counts and checksums of the anchors that match random ground-truth boxes."""
    model = retinanet.RetinaNet(num_classes=1, **NETWORK).eval()
    with torch.inference_mode():
        anchors_A4 = model(torch.zeros(1, 3, 256, 320)).anchors_A4.clone()
    targets = _targets()
    numbers = {}
    for name, options in {
        "default": {},
        "low_quality_matches": {"low_quality_matches": True},
        "other_thresholds": {"positive_iou": 0.6, "negative_iou": 0.3},
    }.items():
        result = match(anchors_A4, targets, MatchConfig(**options))
        index_A = torch.arange(len(anchors_A4))
        numbers[name] = [
            {
                "positive": int(positive_A.sum()),
                "ignored": int(ignored_A.sum()),
                "positive_checksum": int((positive_A * index_A).sum()),
                "ignored_checksum": int((ignored_A * index_A).sum()),
                "labels": int(labels_A.sum()),
                "matched": int((matched_A * (index_A + 1)).sum()),
                "boxes": boxes_A4.double().sum().item(),
            }
            for positive_A, ignored_A, labels_A, matched_A, boxes_A4 in zip(
                result.positive_NA,
                result.ignored_NA,
                result.labels_NA,
                result.matched_NA,
                result.boxes_NA4,
                strict=True,
            )
        ]
    return numbers


def _targets() -> list[Target]:
    """Return the targets of three images, with 12 objects including 2 crowd regions, with 1 object, and with none."""
    generator = np.random.default_rng(13)
    targets = []
    for count in (12, 1, 0):
        corner_G2 = generator.uniform(0, 200, (count, 2))
        boxes_G4 = np.concatenate([corner_G2, corner_G2 + generator.uniform(8, 120, (count, 2))], axis=1)
        targets.append(
            Target(
                boxes_G4=torch.from_numpy(boxes_G4).float().reshape(-1, 4),
                labels_G=torch.from_numpy(generator.integers(0, 3, count)),
                crowd_G=torch.arange(count) >= 10,
            )
        )
    return targets


def losses() -> dict[str, Any]:
    """Return the losses of a fixed batch and the norms of their gradients for several options and number formats."""
    cases: dict[str, dict[str, Any]] = {}
    for normaliser in ("batch", "image"):
        for loss in LOSSES:
            cases[f"{loss}, {normaliser}"] = {"loss": loss, "normaliser": normaliser}
        for box_loss in BOX_LOSSES:
            cases[f"{box_loss}, {normaliser}"] = {"box_loss": box_loss, "normaliser": normaliser}
    for name in ("focal", "ce", "balanced_ce", "weighted", "hard_negative_mining", "ohem"):
        cases[f"{name}, label_smoothing"] = {"loss": name, "label_smoothing": 0.1}
    for name in ("focal", "balanced_ce"):
        cases[f"{name}, class_alpha"] = {"loss": name, "class_alpha": (0.9, 0.5, 0.25)}
    for gamma in (0.0, 0.5, 3.0):
        cases[f"focal, gamma {gamma:g}"] = {"gamma": gamma, "alpha": 0.25}
    cases["weighted, 0.1"] = {"loss": "weighted", "negative_weight": 0.1}
    cases["mining, 1 to 1"] = {"loss": "hard_negative_mining", "negatives_per_positive": 1.0}
    cases["ohem, balanced"] = {"loss": "ohem", "ohem_balanced": True, "ohem_examples": 40, "ohem_nms": 0.5}
    cases["box_loss_weight, beta"] = {"box_loss_weight": 2.5, "smooth_l1_beta": 1.0}
    return {
        name: {
            str(dtype).removeprefix("torch."): _losses(LossConfig(**options), dtype)
            for dtype in (torch.float64, torch.float32)
        }
        for name, options in cases.items()
    }


def _losses(config: LossConfig, dtype: torch.dtype) -> dict[str, float]:
    outputs, targets = _batch(dtype)
    losses = DetectionLoss(config=config)(outputs, targets)
    logits, deltas = torch.autograd.grad(losses.total, (outputs.logits_NAK, outputs.deltas_NA4))
    numbers = {
        "total": losses.total,
        "classification": losses.classification,
        "box": losses.box,
        "logits_gradient": logits.double().norm(),
        "deltas_gradient": deltas.double().norm(),
    }
    rounded_numbers = {name: float(f"{value.item():.8g}") for name, value in numbers.items()}
    return {**rounded_numbers, "positives": int(losses.num_positives)}


def _batch(dtype: torch.dtype) -> tuple[HeadOutputs, AnchorTargets]:
    """Return outputs and anchor targets of two images with 200 anchors, 3 classes, and 5 and 2 positives."""
    generator = np.random.default_rng(7)
    N, A, K = 2, 200, 3
    corner_A2 = generator.uniform(0, 100, (A, 2))
    anchors_A4 = np.concatenate([corner_A2, corner_A2 + generator.uniform(8, 40, (A, 2))], axis=1)
    positive_NA = np.zeros((N, A), dtype=bool)
    positive_NA[0, [3, 50, 51, 120, 199]] = positive_NA[1, [0, 77]] = True
    ignored_NA = (generator.uniform(size=(N, A)) < 0.1) & ~positive_NA
    labels_NA = generator.integers(0, K, (N, A)) * positive_NA
    boxes_NA4 = (anchors_A4 + generator.uniform(-3, 3, (N, A, 4))) * positive_NA[..., None]

    def tensor(values: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)).to(dtype)

    outputs = HeadOutputs(
        logits_NAK=tensor(generator.normal(-1, 2, (N, A, K))).requires_grad_(),
        deltas_NA4=tensor(generator.normal(0, 0.3, (N, A, 4))).requires_grad_(),
        anchors_A4=tensor(anchors_A4),
        anchors_per_level=(A,),
    )
    targets = AnchorTargets(
        positive_NA=torch.from_numpy(positive_NA),
        ignored_NA=torch.from_numpy(ignored_NA),
        labels_NA=torch.from_numpy(labels_NA),
        boxes_NA4=tensor(boxes_NA4),
        matched_NA=torch.zeros(N, A, dtype=torch.int64),
    )
    return outputs, targets


def focal() -> dict[str, Any]:
    """Return sums, means and gradient norms of `sigmoid_focal_loss` on fixed logits, float64."""
    generator = np.random.default_rng(3)
    logits = torch.from_numpy(np.concatenate([generator.normal(0, 4, 500), [-1e4, 1e4, -100, 100, 0]]))
    hard = torch.from_numpy((generator.uniform(size=505) < 0.3).astype(float))
    soft = torch.from_numpy(generator.uniform(size=505))
    numbers = {"default": sigmoid_focal_loss(logits, hard)[:5].tolist()}
    for alpha, gamma in itertools.product((-1, 0.25, 0.75), (0.0, 0.5, 2.0, 5.0)):
        for name, targets in {"hard": hard, "soft": soft}.items():
            inputs = logits.clone().requires_grad_()
            loss = sigmoid_focal_loss(inputs, targets, alpha=alpha, gamma=gamma, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, inputs)
            mean = sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma, reduction="mean")
            numbers[f"alpha {alpha}, gamma {gamma:g}, {name}"] = [loss.item(), mean.item(), gradient.norm().item()]
    return numbers


class _Frame(NamedTuple):
    """The fields of a frame that `postprocess` reads: original and resized size of an image, pixels."""

    width: int
    height: int
    resized_width: int
    resized_height: int


def untrained() -> dict[str, Any]:
    """Return the detections of a network with the weights of `_fixed_weight` for several post-processing options."""
    model = retinanet.RetinaNet(num_classes=3, **NETWORK).eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.copy_(_fixed_weight(name, value))
    images_N3HW = torch.from_numpy(np.random.default_rng(5).normal(size=(2, 3, 64, 96))).float()
    frames = [
        _Frame(width=192, height=128, resized_width=96, resized_height=64),
        _Frame(width=90, height=60, resized_width=90, resized_height=60),
    ]
    with torch.inference_mode():
        outputs = model(images_N3HW)
    numbers: dict[str, Any] = {
        "logits": [outputs.logits_NAK.double().mean().item(), outputs.logits_NAK.double().std().item()],
        "deltas": [outputs.deltas_NA4.double().mean().item(), outputs.deltas_NA4.double().std().item()],
    }
    for name, options in {
        "default": {"score_threshold": 0.5},
        "few": {"score_threshold": 0.5, "nms_threshold": 0.3, "candidates_per_level": 50, "max_detections": 5},
        "clip after NMS": {"score_threshold": 0.6, "clip_before_nms": False, "max_detections": 20},
    }.items():
        results = postprocess(outputs, frames=frames, config=PostprocessConfig(**options))
        numbers[name] = [_detections(r.boxes_D4, r.scores_D, r.labels_D) for r in results]
    return numbers


def _fixed_weight(name: str, like: Tensor) -> Tensor:
    """Return a weight that depends only on its name and shape, and not on the initialisation of the network."""
    if not like.is_floating_point():
        return torch.zeros_like(like)
    values = np.random.default_rng(zlib.crc32(name.encode())).normal(size=tuple(like.shape))
    if name.endswith("running_var"):
        values = 1 + 0.1 * np.abs(values)
    elif like.ndim == 1:
        values = 0.1 * values + (1.0 if name.endswith("weight") else 0.0)
        values += LAST_BIAS if name == "class_head.output.bias" else 0.0
    else:
        values /= math.sqrt(math.prod(like.shape[1:]))
        values *= {"class_head.output.weight": 10.0, "box_head.output.weight": 2.0}.get(name, 1.0)
    return torch.from_numpy(values).to(like.dtype)


def _detections(boxes: Any, scores: Any, labels: Any) -> list[list[float]]:
    """Return [x1, y1, x2, y2, score, class] of each detection, rounded to 7 significant digits."""
    rows = zip(np.asarray(boxes).tolist(), np.asarray(scores).tolist(), np.asarray(labels).tolist(), strict=True)
    return [[float(f"{value:.7g}") for value in (*box, score)] + [int(label)] for box, score, label in rows]


def configs() -> dict[str, Any]:
    """Return the resolved `TrainConfig` of each preset, and the default of each option of the other configs."""
    data = {"train": "train.json", "val": "val.json", "output": "run"}
    options: dict[str, Any] = {
        f"TrainConfig, {preset}": _flat(to_dict(resolve(TrainConfig, {**data, "preset": preset}))) for preset in PRESETS
    }
    names = (
        *("ModelConfig", "MatchConfig", "LossConfig", "PostprocessConfig", "ImageConfig", "AugmentConfig"),
        *("DataConfig", "TileConfig", "ServeConfig", "CheckConfig", "ExportConfig", "ConvertConfig", "SplitConfig"),
        *("ConvertWeightsConfig", "PredictConfig", "StudyConfig", "EvaluateConfig"),
    )
    required: dict[str, dict[str, Any]] = {
        "ConvertConfig": {"format": "coco"},
        "EvaluateConfig": {"data": "val.json"},
        **{name: {"output": "out"} for name in ("ConvertWeightsConfig", "SplitConfig", "PredictConfig", "StudyConfig")},
    }
    for name in names:
        options[name] = _flat(to_dict(resolve(getattr(retinanet.config, name), required.get(name, {}))))
    return options


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """Return the options of all sections in one dictionary, as in config.yaml."""
    options = {}
    for name, value in values.items():
        options.update(_flat(value) if isinstance(value, dict) else {name: value})
    return options


def flags() -> dict[str, Any]:
    """Return each flag of each command with its default, or "required" for a flag without a default."""
    return {
        command: {
            name: _to_json(argument.field_info.default)
            for argument in app[command].assemble_argument_collection()
            for name in argument.names
            if name.startswith("-")
        }
        for command in app
        if not command.startswith("-")
    }


def _to_json(value: Any) -> Any:
    if isinstance(value, type):  # `inspect` marks a parameter without a default by a class
        return "required"
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def coco() -> dict[str, float]:
    """Return the 12 COCO numbers of the reference results, computed by `retinanet evaluate`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "numbers.json"
        run("evaluate", REFERENCE / "detections.json", "--data", REFERENCE / "ground_truth.json", "--json", file)
        numbers = json.loads(file.read_text())
    return {name: value for name, value in numbers.items() if name != "per_class"}


def written() -> dict[str, Any]:
    """Return the files that `retinanet convert` writes for a small dataset: format -> path -> text, None for images."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = _small_data(folder / "source")
        files = {}
        for format in ("coco", "voc", "yolo", "csv"):
            target = folder / format
            run("convert", source, target, "--format", format)
            files[format] = {
                path.relative_to(target).as_posix(): None
                if path.suffix == ".png"
                else path.read_bytes().decode().replace(str(folder), "")
                for path in sorted(target.rglob("*"))
                if path.is_file()
            }
        # A dataset with splits is converted from one of the written formats.
        split = folder / "split"
        run("split", source, "-o", split, "--val", "0.5", "--to", "yolo", "--image-files", "copy")
        run("convert", split / "data.yaml", folder / "again", "--format", "csv")
        files["split"] = {
            path.relative_to(folder).as_posix(): path.read_bytes().decode()
            for path in sorted([*split.rglob("*.yaml"), *split.rglob("*.txt"), *(folder / "again").rglob("*.csv")])
        }
    return files


def _small_data(folder: Path) -> Path:
    """Write COCO JSON with 4 images: fractional boxes, a crowd region, gaps in the ids, an image without objects."""
    (folder / "images").mkdir(parents=True)
    images, generator = [], np.random.default_rng(1)
    for number, (width, height) in enumerate([(64, 48), (40, 40), (33, 57), (64, 48)]):
        pixels = generator.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"image {number}.png")
        images.append({"id": 10 * number + 7, "file_name": f"image {number}.png", "width": width, "height": height})
    objects = [
        (7, 5, [1, 2, 30, 40], 0),
        (7, 90, [10.5, 0.25, 20.125, 33.3], 0),
        (17, 5, [0, 0, 40, 40], 0),
        (17, 5, [3, 4, 30, 30], 1),
        (37, 90, [63, 47, 1, 1], 0),
    ]
    annotations = [
        {"id": i * 3, "image_id": image, "category_id": c, "bbox": box, "area": box[2] * box[3] / 2, "iscrowd": crowd}
        for i, (image, c, box, crowd) in enumerate(objects, 1)
    ]
    categories = [{"id": 5, "name": "cat"}, {"id": 90, "name": "Kühlschrank, groß"}]
    path = folder / "data.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def trained() -> dict[str, Any]:
    """Return the losses and detections of a short training run from random weights.

    The numbers depend on the order in which the random weights are drawn, unlike the numbers of `fine_tuned`.
    """
    with _squares() as folder:
        options = {"train": folder / "train.json", "val": folder / "val.json", "output": folder / "run", "seed": 3}
        with _quiet():
            retinanet.fit(**RUN, **options, lr=2e-3)
        detector = retinanet.load(folder / "run" / "last.ckpt")
        return {
            "losses": _metrics(folder / "run"),
            "detections": _predict(detector, folder / "val" / "images" / "0.png", threshold=0.0)[:8],
        }


def fine_tuned() -> dict[str, Any]:
    """Return the losses and detections of a short training run that starts from the weights of the old run."""
    with _squares() as folder:
        old = unpack(folder / "old")
        options = {"train": folder / "train.json", "val": folder / "val.json", "output": folder / "run", "seed": 3}
        changes = {"loss": "ce", "optimizer": "sgd", "lr": 1e-3, "ema": 0.0, "color_jitter": 0.3, "crop": 0.5}
        with _quiet():
            retinanet.fit(**{**RUN, **options, **changes, "start_from": old / "last.ckpt"})
        detector = retinanet.load(folder / "run" / "best.ckpt")
        return {
            "losses": _metrics(folder / "run"),
            "detections": _predict(detector, folder / "val" / "images" / "0.png", threshold=0.3),
        }


def old_detections() -> dict[str, Any]:
    """Return the detections of the old checkpoint in two images."""
    with _squares() as folder:
        detector = retinanet.load(unpack(folder / "old") / "best.ckpt")
        images = folder / "val" / "images"
        return {name: _predict(detector, images / name, threshold=0.3) for name in ("0.png", "1.png")}


def resumed() -> dict[str, Any]:
    """Return the losses of the next epoch of the old run, from `retinanet train --resume` with the old config.yaml."""
    with _squares() as folder:
        old = unpack(folder / "old")
        data = ("--train", folder / "train.json", "--val", folder / "val.json")
        # The high threshold lowers the AP of the new epoch, so that the old epoch remains the best.
        run("train", "--resume", "-o", old, *data, "--epochs", OLD_EPOCHS + 1, "--score-threshold", 0.6)
        best = json.loads((old / "evaluation.json").read_text())
        return {
            "losses": _metrics(old)[-5:],
            "rows": len(_metrics(old)),
            "best": {"epoch": best["epoch"], "AP": best["AP"]},
        }


def _metrics(folder: Path) -> list[dict[str, float]]:
    """Return the numbers of each row of metrics.csv without the seconds."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: float(value) for name, value in row.items() if value and name != "seconds"} for row in rows]


def _predict(detector: Any, image: Path, *, threshold: float) -> list[list[float]]:
    detections = detector.predict(image, threshold=threshold)
    return _detections(detections.xyxy, detections.confidence, detections.class_id)


@contextmanager
def _squares() -> Iterator[Path]:
    """Write the data of `tests.squares` into a temporary folder, as train.json and val.json."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, count, seed in (("train", 12, 1), ("val", 6, 2)):
            path = make_squares(folder / part, count=count, seed=seed)
            content = json.loads(path.read_text())
            for image in content["images"]:
                image["file_name"] = f"{part}/images/{image['file_name']}"
            (folder / f"{part}.json").write_text(json.dumps(content))
        yield folder


def unpack(folder: Path) -> Path:
    """Copy the old run into a new folder, decompress its checkpoints, and return the folder."""
    shutil.copytree(OLD_RUN, folder)
    checkpoint = lzma.decompress((OLD_RUN / "last.ckpt.xz").read_bytes())
    (folder / "last.ckpt.xz").unlink()
    for name in ("last.ckpt", "best.ckpt"):
        (folder / name).write_bytes(checkpoint)
    return folder


def run(*words: object) -> None:
    """Run a command of `retinanet`. Raise `RuntimeError` if its exit status is not 0."""
    output = io.StringIO()
    try:
        with redirect_stdout(output), redirect_stderr(output):
            main([str(word) for word in words])
    except SystemExit as error:
        if error.code:
            command = " ".join(map(str, words))
            raise RuntimeError(
                f"retinanet {command}: expected exit status 0, found {error.code}: {output.getvalue()}"
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    with redirect_stdout(io.StringIO()):
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit torch to one thread, as when the numbers were recorded, and restore the number of threads on exit."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def record_old_run() -> None:
    """Train the old run and write its folder. This replaces the checkpoint of an earlier version."""
    with _squares() as folder:
        os.chdir(folder)  # so that the checkpoint holds relative paths
        options = {"train": Path("train.json"), "val": Path("val.json"), "output": Path("run"), "freeze": "backbone"}
        changes = {"epochs": OLD_EPOCHS, "evaluate_every": OLD_EPOCHS, "lr": 1e-2, "max_detections": 10}
        retinanet.fit(**{**RUN, **options, **changes})
        torch.save(rounded(torch.load("run/last.ckpt", weights_only=True)), "run/last.ckpt")
        shutil.rmtree(OLD_RUN, ignore_errors=True)
        OLD_RUN.mkdir()
        for name in ("metrics.csv", "evaluation.json", "detections.json"):
            shutil.copyfile(Path("run") / name, OLD_RUN / name)
        config = Path("run/config.yaml").read_text().replace(str(folder), "/data")
        (OLD_RUN / "config.yaml").write_text(config)
        (OLD_RUN / "last.ckpt.xz").write_bytes(lzma.compress(Path("run/last.ckpt").read_bytes(), preset=9))


def rounded(value: Any) -> Any:
    """Round the float32 tensors of a checkpoint to the 8 bits of bfloat16, so that its file compresses; return it."""
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = rounded(item)
    elif isinstance(value, list):
        value[:] = [rounded(item) for item in value]
    elif isinstance(value, Tensor) and value.dtype == torch.float32 and value.numel() > 1:
        value.copy_(value.bfloat16().float())
    return value


NUMBERS: Final[dict[str, Callable[[], Any]]] = {
    f.__name__: f
    for f in (
        *(anchors, weights, matching, losses, focal, untrained, configs, flags, coco, written),
        *(trained, fine_tuned, old_detections, resumed),
    )
}


def read(name: str) -> Any:
    """Return the recorded numbers of the file `name`, a key of `NUMBERS`."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def record(name: str) -> None:
    """Compute and write the numbers of the file `name`, a key of `NUMBERS`."""
    with one_thread():
        numbers = NUMBERS[name]()
    # Each entry of the first two levels is one line, so that a changed number changes one line.
    lines = []
    for key, value in numbers.items():
        if isinstance(value, dict):
            inner = ",\n".join(f"  {_json(k)}: {_json(v)}" for k, v in value.items())
            lines.append(f" {_json(key)}: {{\n{inner}\n }}")
        elif isinstance(value, list) and value and isinstance(value[0], list | dict):
            inner = ",\n".join(f"  {_json(v)}" for v in value)
            lines.append(f" {_json(key)}: [\n{inner}\n ]")
        else:
            lines.append(f" {_json(key)}: {_json(value)}")
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    assert json.loads(text) == numbers
    (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    names = sys.argv[1:] or list(NUMBERS)
    if names == ["old_run"]:
        with one_thread():
            record_old_run()
    else:
        for name in names:
            record(name)
