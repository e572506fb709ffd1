"""`retinanet export`: from a checkpoint to a file that other runtimes read, compared before it takes its name."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from retinanet.checkpoint.loading import load_checkpoint
from retinanet.config import ExportConfig, resolve
from retinanet.data import load, read
from retinanet.errors import ConfigError, UserError, did_you_mean
from retinanet.evaluate import evaluate_model
from retinanet.export import parity, triton_repository
from retinanet.export.base_target import ExportSource, ExportTarget
from retinanet.export.targets import TARGETS
from retinanet.export.torch_network import DIVISOR
from retinanet.predict.inputs import expand_inputs
from retinanet.predict.torch_detector import Detector
from retinanet.progress import ProgressBar, no_progress_bar
from retinanet.runtime.description import Description, ExportError
from retinanet.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinanet.checkpoint.loaded_model import LoadedModel
    from retinanet.data import DetectionData


GATE_IMAGES: Final = 8
"""Number of images on which the export is compared with its checkpoint, spread evenly over those available."""

OPTIONS: Final = ("int8", "raw", "triton", "bf16")
"""Options that not every target has: see `ExportTarget.options`."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An export compared with its checkpoint.

    Args:
        title: name of what ran the export.
        differences: of the float32 file, for each image size and batch size.
        ap: by name, AP of the checkpoint and of the export, if measured.
        ap_images: number of images on which AP was measured.
    """

    title: str
    differences: tuple[parity.Difference, ...]
    ap: dict[str, float] = field(default_factory=dict)
    ap_images: int = 0


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """What `export` did.

    Args:
        path: the file that was written.
        size: bytes of the file and of those that belong to it.
        about: the file's description.
        comparison: with the checkpoint.
        triton_config: config.pbtxt of the model repository, if asked for.
    """

    path: Path
    size: int
    about: Description
    comparison: Comparison
    triton_config: Path | None = None

    @property
    def differences(self) -> tuple[parity.Difference, ...]:
        """Differences of the float32 file from the checkpoint."""
        return self.comparison.differences

    @property
    def ap(self) -> dict[str, float]:
        """AP of the checkpoint and of the export by name, if measured."""
        return self.comparison.ap


class ExportMismatchError(ExportError):
    """The export disagrees with its checkpoint; nothing was written. `comparison` holds the numbers."""

    def __init__(self, message: str, comparison: Comparison) -> None:
        super().__init__(message)
        self.comparison = comparison


def export(
    model: Path | str,
    config: ExportConfig | None = None,
    *,
    progress: ProgressBar = no_progress_bar,
    **options: Any,
) -> ExportSummary:
    """Write a checkpoint as ONNX, OpenVINO or a program of torch.export.

    The file is written beside its target, compared with the checkpoint on real images, and renamed only if it agrees.

    Args:
        model: a checkpoint.
        config: all options at once,
        progress: opens a progress bar.
        options: or by name, as the flags of `retinanet export`.

    Raises:
        ExportMismatchError: the export disagrees with the checkpoint; nothing is written then.
        ExportError: the model cannot be exported; nothing is written then.
        UserError: options or files that do not fit.
    """
    config = config or resolve(ExportConfig, options)
    model = Path(model)
    target, path = _target(config)
    loaded = load_checkpoint(model)
    if loaded.image_config.size_divisor % DIVISOR:
        raise ExportError(
            f"{model} pads images to multiples of {loaded.image_config.size_divisor}; an exported network needs "
            f"multiples of {DIVISOR}"
        )
    images = _images(config, loaded)
    data = _data(config, loaded) if config.int8 or config.data is not None else None
    about = describe(loaded, config)
    source = ExportSource(loaded)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.partial-") as folder:
        written = Path(folder) / path.name
        target.write(source, about, written)
        comparison = _compare(target, loaded, about, written, images)
        if config.int8:
            about = dataclasses.replace(about, precision="int8")
            written = Path(folder) / "int8" / path.name
            written.parent.mkdir()
            target.write_int8(source, about, written, _calibration(config))
        if data is not None and not config.raw:
            comparison = _compare_ap(target, loaded, written, data, config, comparison, progress)
        for file in sorted(written.parent.glob("*.*"), key=lambda p: p.suffix == path.suffix):
            file.replace(path.parent / file.name)  # what the file refers to first
    triton_config = None
    if config.triton is not None:
        triton_config = triton_repository.write(
            config.triton, path, about, backend=target.triton_backend, companions=target.companions
        )
    beside = [path.with_suffix(suffix) for suffix in target.companions]
    size = path.stat().st_size + sum(file.stat().st_size for file in beside if file.exists())
    return ExportSummary(path=path, size=size, about=about, comparison=comparison, triton_config=triton_config)


def describe(loaded: LoadedModel, config: ExportConfig) -> Description:
    """Return the file's description."""
    return Description(
        **loaded.info_fields(),
        levels=loaded.model.config.levels,
        cells=tuple(tuple(tuple(cell) for cell in cells.tolist()) for cells in loaded.model.anchors.cells),
        anchor_style=loaded.model.config.anchor_style,
        uint8=config.uint8,
        raw=config.raw,
        precision="bf16" if config.bf16 else "float32",
        version=__version__,
    )


def _target(config: ExportConfig) -> tuple[ExportTarget, Path]:
    """Return the target and the file. Raises `ConfigError` if the two do not fit, or if the file exists already."""
    if config.output is None and config.triton is None:
        raise ConfigError("give a file to write (-o m.onnx), a model repository (--triton DIR), or both")
    if config.format is not None and config.format not in TARGETS:
        known = ", ".join(TARGETS)
        raise ConfigError(
            f"format must be one of {known}, found {config.format!r}{did_you_mean(config.format, TARGETS)}"
        )
    name = config.format or next(iter(TARGETS))
    path = config.output or triton_repository.target(config.triton or Path(), "retinanet", TARGETS[name].suffix)
    if config.format is None:
        name = next((known for known, target in TARGETS.items() if target.suffix == path.suffix.lower()), "")
    if not name or TARGETS[name].suffix != path.suffix.lower():
        raise ConfigError(
            f"output {path}: expected a name that ends in {', '.join(target.suffix for target in TARGETS.values())}"
            + (f"; {TARGETS[name].suffix} for --format {name}" if name else "")
        )
    for option in OPTIONS:
        if getattr(config, option) and option not in TARGETS[name].options:
            able = [known for known, target in TARGETS.items() if option in target.options]
            raise ConfigError(f"{option} is not possible for a {path.suffix} file: give --format {' or '.join(able)}")
    if path.exists() and not config.existing.overwrite:
        raise ConfigError(f"{path} is there already: give --overwrite to replace it, or another name")
    return TARGETS[name], path


def _images(config: ExportConfig, loaded: LoadedModel) -> list[Path]:
    """Return real images to compare on: those given, or of the data given, or of the training run's validation data.

    Raises:
        ExportError: there are none.
    """
    if config.compare_images:
        found = expand_inputs(config.compare_images)
    else:
        found = [record.path for record in _sibling(config, loaded).records]
    if not found:
        raise ExportError("there are no images to compare the export with the checkpoint on: give --compare-images")
    step = max(1, len(found) // GATE_IMAGES)
    return found[::step][:GATE_IMAGES]


def _sibling(config: ExportConfig, loaded: LoadedModel) -> DetectionData:
    """Return the data given, or the training run's validation data if it is still there."""
    if config.data is not None:
        return read(config.data, images=config.selection.images, split="val", **config.selection.reading)
    known = loaded.train_config
    path = Path(str(known.get("val", "")))
    try:
        if not known.get("val") or not path.exists():
            raise UserError(f"{path} is not there")
        images = known.get("val_images") or known.get("images")
        return read(path, images=None if images is None else Path(images), split="val")
    except UserError as error:
        raise ExportError(
            f"an export is compared with its checkpoint on real images, and the validation data of the training run "
            f"cannot be used ({error}): give --compare-images FILES or --data DATA"
        ) from error


def _data(config: ExportConfig, loaded: LoadedModel) -> DetectionData:
    if config.data is not None:
        images, skip = config.selection.images, config.selection.skip_invalid
        return load(config.data, images=images, skip_invalid=skip, workers=2, split="val", **config.selection.reading)
    return _sibling(config, loaded)


def _calibration(config: ExportConfig) -> list[Path]:
    """Return the images that the ranges of the activations are measured on, spread evenly over the data."""
    assert config.calibrate is not None  # noqa: S101 - ExportConfig sees to it
    found = [record.path for record in read(config.calibrate, images=config.selection.images, split="train").records]
    if not found:
        raise ExportError(f"calibrate: no images in {config.calibrate}")
    count = min(config.calibration_images, len(found))
    return [found[i * len(found) // count] for i in range(count)]


def _compare(
    target: ExportTarget, loaded: LoadedModel, about: Description, path: Path, images: Sequence[Path]
) -> Comparison:
    """Compare the written file with the checkpoint, and refuse a file that disagrees."""
    differences = tuple(target.compare(loaded, about, path, images))
    comparison = Comparison(title=target.title, differences=differences)
    wrong = [d for d in differences if not d.agrees]
    if wrong:
        d = max(wrong, key=lambda d: (d.missing + d.doubtful, d.scores, d.boxes))
        raise ExportMismatchError(
            f"{target.title} disagrees with the checkpoint, nothing is written: boxes differ by up to {d.boxes:.3g} px "
            f"(at most {parity.BOX_TOLERANCE:g}), scores by up to {d.scores:.3g} (at most {parity.SCORE_TOLERANCE:g}), "
            f"{d.missing + d.doubtful} of {d.compared + d.missing + d.doubtful} detections are in one of the two only",
            comparison,
        )
    return comparison


def _compare_ap(
    target: ExportTarget,
    loaded: LoadedModel,
    path: Path,
    data: DetectionData,
    config: ExportConfig,
    comparison: Comparison,
    progress: ProgressBar,
) -> Comparison:
    """Add the AP of the checkpoint and of the export to a comparison, and refuse a drop that is too large."""
    exported = target.open(path)
    if exported is None:
        return comparison
    detectors = {"checkpoint": Detector(model=loaded.model, info=loaded, device="cpu"), "export": exported}
    ap = {name: float(evaluate_model(found, data, progress=progress)[0].AP) for name, found in detectors.items()}
    comparison = dataclasses.replace(comparison, ap=ap, ap_images=len(data.records))
    drop = ap["checkpoint"] - ap["export"]
    if drop > config.max_ap_drop:
        raise ExportMismatchError(
            f"the export's AP is {drop:.4f} below the checkpoint's, more than --max-ap-drop {config.max_ap_drop:g}: "
            "nothing is written",
            comparison,
        )
    return comparison
