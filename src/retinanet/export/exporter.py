"""Export a checkpoint to a file for other runtimes, and compare the file with the checkpoint."""

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
from retinanet.torch_state import building_state
from retinanet.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinanet.checkpoint.loaded_model import LoadedModel
    from retinanet.data import DetectionData


GATE_IMAGES: Final = 8
"""Number of images on which the export is compared with its checkpoint, spread evenly over the available images."""

OPTIONS: Final = ("int8", "raw", "triton", "bf16")
"""Options that only some targets support: see `ExportTarget.options`."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Result of comparing an export with its checkpoint.

    Args:
        title: name of the runtime that ran the export.
        differences: differences of the float32 file from the checkpoint, one per image size and batch size.
        ap: AP of "checkpoint" and "export", if measured.
        ap_images: number of images on which AP was measured.
    """

    title: str
    differences: tuple[parity.Difference, ...]
    ap: dict[str, float] = field(default_factory=dict)
    ap_images: int = 0


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """Result of `export`.

    Args:
        path: exported file.
        size: bytes of the exported file and its additional files together.
        about: description that the exported file contains.
        comparison: comparison with the checkpoint.
        triton_config: path of config.pbtxt in the Triton model repository; None without the option `triton`.
    """

    path: Path
    size: int
    about: Description
    comparison: Comparison
    triton_config: Path | None = None

    @property
    def differences(self) -> tuple[parity.Difference, ...]:
        """Differences of the float32 file from the checkpoint, one per image size and batch size."""
        return self.comparison.differences

    @property
    def ap(self) -> dict[str, float]:
        """AP of "checkpoint" and "export", if measured."""
        return self.comparison.ap


class ExportMismatchError(ExportError):
    """The export disagrees with its checkpoint, and no file was written. `comparison` holds the differences."""

    def __init__(self, message: str, comparison: Comparison) -> None:
        super().__init__(message)
        self.comparison = comparison


@building_state()
def export(
    model: Path | str,
    config: ExportConfig | None = None,
    *,
    progress: ProgressBar = no_progress_bar,
    **options: Any,
) -> ExportSummary:
    """Export a checkpoint to ONNX, OpenVINO or torch.export.

    The export is written to a temporary folder and compared with the checkpoint on real images. Only an export that
    agrees with the checkpoint is moved to its final path.

    Args:
        model: path of the checkpoint.
        config: all options; None: they are given by name in `options`.
        progress: function that opens a progress bar.
        options: options of `ExportConfig` by name.

    Raises:
        ExportMismatchError: the export disagrees with the checkpoint. Nothing is written.
        ExportError: the model cannot be exported. Nothing is written.
        UserError: an option or a file is invalid.
    """
    config = config or resolve(ExportConfig, options)
    model = Path(model)
    target, path = _choose_target(config)
    loaded = load_checkpoint(model).with_nms(config.nms)
    if loaded.image_config.size_divisor % DIVISOR:
        raise ExportError(
            f"{model}: expected a model with a size_divisor that is a multiple of {DIVISOR}, "
            f"found {loaded.image_config.size_divisor}"
        )
    images = _comparison_images(config, loaded)
    data = _load_ap_data(config, loaded) if config.int8 or config.data is not None else None
    about = describe(loaded, config)
    source = ExportSource(loaded, input_defaults=config.input_defaults)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.partial-") as folder:
        written = Path(folder) / path.name
        target.write(source, about, written)
        comparison = _compare(target, loaded, about, written, images)
        if config.int8:
            about = dataclasses.replace(about, precision="int8")
            written = Path(folder) / "int8" / path.name
            written.parent.mkdir()
            target.write_int8(source, about, written, _calibration_images(config))
        if data is not None and not config.raw:
            comparison = _compare_ap(target, loaded, written, data, config, comparison, progress)
        for file in sorted(written.parent.glob("*.*"), key=lambda p: p.suffix == path.suffix):
            file.replace(path.parent / file.name)  # the main file last: it refers to the others
    triton_config = None
    if config.triton is not None:
        triton_config = triton_repository.write(
            config.triton, path, about, backend=target.triton_backend, companions=target.companions
        )
    beside = [path.with_suffix(suffix) for suffix in target.companions]
    size = path.stat().st_size + sum(file.stat().st_size for file in beside if file.exists())
    return ExportSummary(path=path, size=size, about=about, comparison=comparison, triton_config=triton_config)


def describe(loaded: LoadedModel, config: ExportConfig) -> Description:
    """Return the description that the exported file will contain."""
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


def _choose_target(config: ExportConfig) -> tuple[ExportTarget, Path]:
    """Return the target and the path to write. Raises `ConfigError` for options that contradict each other."""
    if config.output is None and config.triton is None:
        raise ConfigError(
            "found no output: give a file to write (-o m.onnx), a model repository (--triton DIR), or both"
        )
    if config.format is not None and config.format not in TARGETS:
        known = ", ".join(TARGETS)
        raise ConfigError(
            f"format must be one of {known}, found {config.format!r}{did_you_mean(config.format, TARGETS)}"
        )
    name = config.format or next(iter(TARGETS))
    path = config.output or triton_repository.model_path(config.triton or Path(), "retinanet", TARGETS[name].suffix)
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
    if path.is_dir():
        raise ConfigError(f"the file to write is a folder: {path}. Give a file in the folder")
    if path.exists() and not config.existing.overwrite:
        raise ConfigError(f"{path} exists already: give --overwrite to replace it, or another name")
    return TARGETS[name], path


def _comparison_images(config: ExportConfig, loaded: LoadedModel) -> list[Path]:
    """Return the images for the comparison: `compare_images`, or images of the comparison dataset.

    Raises:
        ExportError: no image was found.
    """
    if config.compare_images:
        found = expand_inputs(config.compare_images)
    else:
        found = [record.path for record in _read_comparison_data(config, loaded).records]
    if not found:
        raise ExportError("found no images for comparing the export with the checkpoint: give --compare-images FILES")
    step = max(1, len(found) // GATE_IMAGES)
    return found[::step][:GATE_IMAGES]


def _read_comparison_data(config: ExportConfig, loaded: LoadedModel) -> DetectionData:
    """Return the dataset of the option `data`, or the training run's validation dataset if it still exists."""
    if config.data is not None:
        return read(config.data, images=config.selection.images, split="val", **config.selection.reading)
    known = loaded.train_config
    path = Path(str(known.get("val", "")))
    try:
        if not known.get("val") or not path.exists():
            raise UserError(f"no such file or folder: {path}")
        images = known.get("val_images") or known.get("images")
        return read(path, images=None if images is None else Path(images), split="val")
    except UserError as error:
        raise ExportError(
            "no images to compare the export with its checkpoint: the validation data of the training run cannot be "
            f"read ({error}). Give --compare-images FILES or --data DATA"
        ) from error


def _load_ap_data(config: ExportConfig, loaded: LoadedModel) -> DetectionData:
    """Return the dataset on which AP is measured."""
    if config.data is not None:
        images, skip = config.selection.images, config.selection.skip_invalid
        return load(config.data, images=images, skip_invalid=skip, workers=2, split="val", **config.selection.reading)
    return _read_comparison_data(config, loaded)


def _calibration_images(config: ExportConfig) -> list[Path]:
    """Return the images for measuring the ranges of the activations, spread evenly over the calibration dataset."""
    assert config.calibrate is not None  # noqa: S101 - ExportConfig requires it for int8
    found = [record.path for record in read(config.calibrate, images=config.selection.images, split="train").records]
    if not found:
        raise ExportError(f"calibrate: expected a dataset with images, found none in {config.calibrate}")
    count = min(config.calibration_images, len(found))
    return [found[i * len(found) // count] for i in range(count)]


def _compare(
    target: ExportTarget, loaded: LoadedModel, about: Description, path: Path, images: Sequence[Path]
) -> Comparison:
    """Return the comparison of the written file with the checkpoint.

    Raises:
        ExportMismatchError: they disagree.
    """
    differences = tuple(target.compare(loaded, about, path, images))
    comparison = Comparison(title=target.title, differences=differences)
    wrong = [d for d in differences if not d.agrees]
    if wrong:
        d = max(wrong, key=lambda d: (d.missing + d.at_threshold, d.scores, d.boxes))
        raise ExportMismatchError(
            f"{target.title} disagrees with the checkpoint, nothing is written: boxes differ by up to {d.boxes:.3g} px "
            f"(allowed: {parity.BOX_TOLERANCE:g}), scores by up to {d.scores:.3g} (allowed: "
            f"{parity.SCORE_TOLERANCE:g}), and {d.missing + d.at_threshold} of "
            f"{d.compared + d.missing + d.at_threshold} detections exist in only one of the two models",
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
    """Return the comparison with the AP of checkpoint and export added.

    Raises:
        ExportMismatchError: the AP of the export is more than `max_ap_drop` below that of the checkpoint.
    """
    exported = target.open(path)
    if exported is None:
        return comparison
    detectors = {"checkpoint": Detector(model=loaded.model, info=loaded, device="cpu"), "export": exported}
    ap = {name: float(evaluate_model(detector, data, progress=progress)[0].AP) for name, detector in detectors.items()}
    comparison = dataclasses.replace(comparison, ap=ap, ap_images=len(data.records))
    drop = ap["checkpoint"] - ap["export"]
    if drop > config.max_ap_drop:
        raise ExportMismatchError(
            f"the export's AP is {drop:.4f} below the checkpoint's, more than --max-ap-drop {config.max_ap_drop:g}: "
            "nothing is written",
            comparison,
        )
    return comparison
