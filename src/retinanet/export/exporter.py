"""`retinanet export`: from a checkpoint to a file that other runtimes read, checked before it takes its name.

Shape suffixes: N batch, A anchors, K classes.
"""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx
import torch
from rich.console import Console

from retinanet import boxes
from retinanet.checkpoint.loading import load_checkpoint
from retinanet.config import ExportConfig, resolve
from retinanet.data import load, read
from retinanet.errors import ConfigError, UserError
from retinanet.evaluate import evaluate_model
from retinanet.export import parity, triton_repository
from retinanet.export.onnx_graph import join
from retinanet.export.quantise import quantise, read_onnx
from retinanet.export.torch_network import DIVISOR, dense_onnx, least_side, program
from retinanet.images import prepare_pixels
from retinanet.predict.detector import BaseDetector
from retinanet.predict.inputs import expand_inputs
from retinanet.predict.runtime_detector import RuntimeDetector
from retinanet.predict.torch_detector import Detector
from retinanet.runtime.description import KEY, Description, ExportError
from retinanet.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from retinanet.checkpoint.loaded_model import LoadedModel
    from retinanet.config import ImageConfig
    from retinanet.data import DetectionData
    from retinanet.images import Frame, Scaled


GATE_PICTURES: Final = 8
"""How many pictures the comparison looks at, spread evenly over those there are."""


SUFFIXES: Final = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """What `export` did.

    Args:
        path: the file that was written.
        about: what it says of itself.
        differences: from the checkpoint, of the float32 graph.
        ap: by name, AP of the checkpoint and of the export, where they were measured.
    """

    path: Path
    about: Description
    differences: tuple[parity.Difference, ...]
    ap: dict[str, float]


def export(model: Path | str, config: ExportConfig | None = None, **options: Any) -> ExportSummary:
    """Write a checkpoint as ONNX, OpenVINO or a program of torch.export.

    The file is written beside its target, compared with the checkpoint on real pictures, and renamed only if it agrees.

    Args:
        model: a checkpoint.
        config: all options at once,
        options: or by name, as the flags of `retinanet export`.

    Raises:
        ExportError: the export disagrees with the checkpoint, or cannot be made; nothing is written then.
        UserError: options or files that do not fit.
    """
    config = config or resolve(ExportConfig, options)
    model = Path(model)
    target, kind = _target(config)
    saved = load_checkpoint(model)
    if saved.image_config.size_divisor % DIVISOR:
        raise ExportError(
            f"{model} pads pictures to multiples of {saved.image_config.size_divisor}; an exported network needs "
            f"multiples of {DIVISOR}"
        )
    pictures = _pictures(config, saved)
    data = _data(config, saved) if config.int8 or config.data is not None else None
    about = describe(saved, config)
    console = Console()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.stem}.partial-") as folder:
        written = Path(folder) / target.name
        if kind == "torch":
            differences = _torch(saved, about, written, pictures, console)
        else:
            network = dense_onnx(saved.model)
            differences = _WRITERS[kind](saved, network, about, written, pictures, console)
        ap = {}
        if config.int8:
            about = dataclasses.replace(about, precision="int8")
            written = Path(folder) / "int8" / target.name
            written.parent.mkdir()
            quantise(network, about, written, _calibration(config))
        if data is not None and kind != "torch" and not config.raw:
            ap = _ap(saved, written, data, config, console)
        for path in sorted(written.parent.glob("*.*"), key=lambda p: p.suffix == target.suffix):
            path.replace(target.parent / path.name)  # what the target refers to first
    console.print(f"written: {target} ({_size(target) / 1e6:.1f} MB)", markup=False, highlight=False)
    if config.triton is not None:
        console.print(
            f"written: {triton_repository.write(config.triton, target, about)}", markup=False, highlight=False
        )
    return ExportSummary(path=target, about=about, differences=tuple(differences), ap=ap)


def describe(saved: LoadedModel, config: ExportConfig) -> Description:
    """Return what the file will say of itself."""
    return Description(
        classes=saved.classes,
        category_ids=saved.category_ids,
        image_config=saved.image_config,
        postprocess_config=saved.postprocess_config,
        tiling=saved.tiling,
        levels=saved.model.config.levels,
        cells=tuple(tuple(tuple(cell) for cell in cells.tolist()) for cells in saved.model.anchors.cells),
        anchor_style=saved.model.config.anchor_style,
        uint8=config.uint8,
        raw=config.raw,
        precision="bf16" if config.bf16 else "float32",
        version=__version__,
        train_config=saved.train_config,
    )


def _target(config: ExportConfig) -> tuple[Path, str]:
    """Return the file and its format. Raises `ConfigError` where the two do not fit, or the file is there already."""
    if config.output is None and config.triton is None:
        raise ConfigError("give a file to write (-o m.onnx), a model repository (--triton DIR), or both")
    kind: str = config.format or "onnx"
    target = config.output or triton_repository.target(config.triton or Path(), "retinanet", SUFFIXES[kind])
    if config.format is None:
        kind = next((k for k, suffix in SUFFIXES.items() if suffix == target.suffix.lower()), "")
    if SUFFIXES.get(kind) != target.suffix.lower():
        raise ConfigError(
            f"output {target}: expected a name that ends in {', '.join(SUFFIXES.values())}"
            + (f"; {SUFFIXES[kind]} for --format {kind}" if kind else "")
        )
    if kind == "torch" and (config.int8 or config.triton is not None or config.raw):
        raise ConfigError("a .pt2 program is float32 and decoded to boxes: int8, raw and triton are for ONNX, OpenVINO")
    if config.bf16 and kind != "openvino":
        raise ConfigError("bf16 is a hint to OpenVINO: give --format openvino")
    if target.exists() and not config.existing.overwrite:
        raise ConfigError(f"{target} is there already: give --overwrite to replace it, or another name")
    return target, kind


def _pictures(config: ExportConfig, saved: LoadedModel) -> list[Path]:
    """Return real pictures to compare on: those given, or of the data given, or of the training run's validation data.

    Raises:
        ExportError: there are none.
    """
    if config.pictures:
        found = expand_inputs(config.pictures)
    else:
        found = [record.path for record in _sibling(config, saved).records]
    if not found:
        raise ExportError("there are no pictures to compare the export with the checkpoint on: give --pictures")
    step = max(1, len(found) // GATE_PICTURES)
    return found[::step][:GATE_PICTURES]


def _sibling(config: ExportConfig, saved: LoadedModel) -> DetectionData:
    """Return the data given, or the training run's validation data if it is still there."""
    if config.data is not None:
        return read(config.data, images=config.selection.images, split="val", **config.selection.reading)
    known = saved.train_config
    path = Path(str(known.get("val", "")))
    try:
        if not known.get("val") or not path.exists():
            raise UserError(f"{path} is not there")
        images = known.get("val_images") or known.get("images")
        return read(path, images=None if images is None else Path(images), split="val")
    except UserError as error:
        raise ExportError(
            f"an export is compared with its checkpoint on real pictures, and the validation data of the training run "
            f"cannot be used ({error}): give --pictures FILES or --data DATA"
        ) from error


def _data(config: ExportConfig, saved: LoadedModel) -> DetectionData:
    if config.data is not None:
        images, skip = config.selection.images, config.selection.skip_bad
        return load(config.data, images=images, skip_bad=skip, workers=2, split="val", **config.selection.reading)
    return _sibling(config, saved)


def _calibration(config: ExportConfig) -> list[Path]:
    """Return the pictures that the ranges of the activations are measured on, spread evenly over the data."""
    assert config.calibrate is not None  # noqa: S101 - ExportConfig sees to it
    found = [record.path for record in read(config.calibrate, images=config.selection.images, split="train").records]
    if not found:
        raise ExportError(f"calibrate: no pictures in {config.calibrate}")
    count = min(config.calibration_pictures, len(found))
    return [found[i * len(found) // count] for i in range(count)]


def _detector(saved: LoadedModel) -> Detector:
    return Detector(
        model=saved.model,
        classes=saved.classes,
        category_ids=saved.category_ids,
        image_config=saved.image_config,
        postprocess_config=saved.postprocess_config,
        tiling=saved.tiling,
        device="cpu",
    )


def _onnx(
    saved: LoadedModel,
    network: onnx.ModelProto,
    about: Description,
    path: Path,
    pictures: Sequence[Path],
    console: Console,
) -> list[parity.Difference]:
    onnx.save(join(network, about, defaults=True), path)
    return _pass(_compare(saved, RuntimeDetector.from_file(path, device="cpu"), pictures), "ONNX Runtime", console)


def _openvino(
    saved: LoadedModel,
    network: onnx.ModelProto,
    about: Description,
    path: Path,
    pictures: Sequence[Path],
    console: Console,
) -> list[parity.Difference]:
    """Write the ONNX graph as OpenVINO's; the graph is compared in float32, whatever hint it is going to run with."""
    write_openvino(join(network, about, defaults=False), about, path)
    exported = RuntimeDetector.from_file(path, device="cpu", precision="float32")
    return _pass(_compare(saved, exported, pictures), "OpenVINO in float32", console)


def write_openvino(model: onnx.ModelProto, about: Description, path: Path) -> None:
    """Write an ONNX graph as OpenVINO's .xml and .bin."""
    import openvino as ov

    converted = read_onnx(model)
    converted.set_rt_info(about.to_json(), [KEY])
    ov.save_model(converted, path, compress_to_fp16=False)


def _torch(
    saved: LoadedModel, about: Description, path: Path, pictures: Sequence[Path], console: Console
) -> list[parity.Difference]:
    torch.export.save(program(saved.model, about), path, extra_files={f"{KEY}.json": about.to_json()})
    loaded = torch.export.load(path).module()

    def exported(config: ImageConfig, images: Sequence[Scaled]) -> tuple[Any, Any]:
        pixels, frames = prepare_pixels(images, config)
        inputs = torch.from_numpy(pixels) if about.uint8 else torch.from_numpy(pixels).float() / 255
        sizes = torch.tensor([[frame.resized_width, frame.resized_height] for frame in frames])
        with torch.inference_mode():
            scores_NAK, boxes_NA4 = loaded(inputs, sizes)
        return scores_NAK.numpy(), _clipped(boxes_NA4, frames)

    # Padded to sides that the program takes.
    padded = dataclasses.replace(saved.image_config, size_divisor=least_side(saved.model))
    return _pass(_compare_dense(saved, exported, pictures, padded), "torch.export", console)


_WRITERS: Final = {"onnx": _onnx, "openvino": _openvino}


def _compare(saved: LoadedModel, exported: RuntimeDetector, pictures: Sequence[Path]) -> list[parity.Difference]:
    if not exported.description.raw:
        differences = parity.compare(_detector(saved), exported, pictures)
        if any(d.compared or not d.agrees for d in differences):
            return differences
    # There are no detections, be it that it has no decoding, or that the network finds nothing in these pictures.

    def dense(config: ImageConfig, images: Sequence[Scaled]) -> tuple[Any, Any]:
        original, exported.image_config = exported.image_config, config
        try:
            outputs = exported.dense_batch(images)
        finally:
            exported.image_config = original
        scores, rows = [], []
        for found in outputs:
            frame = found.frame
            to_input = [frame.resized_width / frame.width, frame.resized_height / frame.height] * 2
            levels = found.levels
            scores.append(np.concatenate([o.scores_HWCK.reshape(-1, o.scores_HWCK.shape[-1]) for o in levels]))
            rows.append(np.concatenate([o.boxes_HWC4.reshape(-1, 4) for o in levels]) * np.array(to_input, np.float32))
        return np.stack(scores), np.stack(rows)

    return _compare_dense(saved, dense, pictures, saved.image_config)


def _compare_dense(
    saved: LoadedModel, exported: parity.Dense, pictures: Sequence[Path], image_config: ImageConfig
) -> list[parity.Difference]:
    detector = _detector(saved)

    def original(config: ImageConfig, images: Sequence[Scaled]) -> tuple[Any, Any]:
        pixels, frames = detector._prepare(images, config)
        with torch.inference_mode():
            outputs = saved.model(torch.from_numpy(pixels))
            boxes_NA4 = boxes.decode(outputs.deltas_NA4, outputs.anchors_A4)
            return outputs.logits_NAK.sigmoid().numpy(), _clipped(boxes_NA4, frames)

    threshold = saved.postprocess_config.score_threshold
    return parity.compare_dense(original, exported, pictures, image_config, score_threshold=threshold)


def _clipped(boxes_NA4: torch.Tensor, frames: Sequence[Frame]) -> npt.NDArray[np.float32]:
    rows = [
        boxes.clip(boxes_A4, width=frame.resized_width, height=frame.resized_height).numpy()
        for boxes_A4, frame in zip(boxes_NA4, frames, strict=True)
    ]
    return np.stack(rows)


def _pass(differences: list[parity.Difference], what: str, console: Console) -> list[parity.Difference]:
    """Print the comparison, and refuse what disagrees."""
    console.print(parity.parity_table(differences, what))
    worst = [d for d in differences if not d.agrees]
    if worst:
        d = max(worst, key=lambda d: (d.missing + d.doubtful, d.scores, d.boxes))
        raise ExportError(
            f"{what} disagrees with the checkpoint, nothing is written: boxes differ by up to {d.boxes:.3g} px "
            f"(at most {parity.BOX_TOLERANCE:g}), scores by up to {d.scores:.3g} (at most {parity.SCORE_TOLERANCE:g}), "
            f"{d.missing + d.doubtful} of {d.compared + d.missing + d.doubtful} detections are in one of the two only"
        )
    return differences


def _ap(
    saved: LoadedModel, path: Path, data: DetectionData, config: ExportConfig, console: Console
) -> dict[str, float]:
    """Return the AP of the checkpoint and of the export, print them, and refuse a drop that is too large."""
    detectors: dict[str, BaseDetector] = {"checkpoint": _detector(saved)}
    detectors["export"] = RuntimeDetector.from_file(path, device="cpu")
    ap = {name: float(evaluate_model(found, data)[0].AP) for name, found in detectors.items()}
    drop = ap["checkpoint"] - ap["export"]
    console.print(
        f"AP on {len(data.records):,} pictures: checkpoint {ap['checkpoint']:.4f}, export {ap['export']:.4f}",
        markup=False,
        highlight=False,
    )
    if drop > config.max_ap_drop:
        raise ExportError(
            f"the export's AP is {drop:.4f} below the checkpoint's, more than --max-ap-drop {config.max_ap_drop:g}: "
            "nothing is written"
        )
    return ap


def _size(path: Path) -> int:
    weights = path.with_suffix(".bin")
    return path.stat().st_size + (weights.stat().st_size if path.suffix == ".xml" and weights.exists() else 0)
