"""A trained network that takes pictures and returns what is on them; files and folders in, detections and drawings out.

Boxes are xyxy in original pixels, after EXIF rotation.
"""

from __future__ import annotations

import dataclasses
import glob
import logging
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import numpy as np
import supervision as sv
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from retinanet.config import (
    ConfigError,
    ImageConfig,
    PostprocessConfig,
    Precision,
    PredictConfig,
    TileConfig,
    UserError,
    did_you_mean,
    explain_missing,
    resolve,
)
from retinanet.detector import BaseDetector, Batch, Source, batched
from retinanet.images import LARGE, Scaled, decode_for, open_windows, resized_size
from retinanet.results import TARGETS, Picture, draw, open_writer, output_names, partial_of
from retinanet.types import ArrayDetections

if TYPE_CHECKING:
    import torch
    from torch import nn

    from retinanet.export.runtime import DenseOutputs
    from retinanet.types import HeadOutputs
    from retinanet.video import Video, VideoSummary

log = logging.getLogger(__name__)

PICTURE_SUFFIXES: Final = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif", ".pgm", ".ppm", ".pbm")
)
"""What is taken from a folder or a glob. A file that is named is taken whatever its suffix."""
VIDEO_SUFFIXES: Final = frozenset((".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".wmv"))
"""What is taken as a video."""
DRAWN: Final = "drawn"
EXPORTED: Final = frozenset((".onnx", ".xml"))
"""What `retinanet export` writes and the runtime without torch reads."""
JPEG_QUALITY: Final = 92
MOST_DRAWN: Final = 4096
"""Longest side of the drawing of a picture that is too large to decode at once, pixels."""


class Detector(BaseDetector):
    """A PyTorch network with all it takes to go from pictures to named boxes.

    Args:
        model: images_N3HW -> HeadOutputs. It is moved to the device and put into eval mode.
        classes: name of each 0-based class id.
        category_ids: COCO's id of each class id.
        image_config: how pictures become input.
        postprocess_config: how outputs become detections.
        tiling: how pictures are cut unless a call says otherwise.
        device: auto (the accelerator that there is, else the CPU), cpu, cuda, cuda:1, mps.
        precision: 32, or bf16: see `model.for_inference`, which makes the copy of a RetinaNet that is run. Its weights
            are those that the model has now.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        classes: Sequence[str],
        category_ids: Sequence[int],
        image_config: ImageConfig,
        postprocess_config: PostprocessConfig,
        tiling: TileConfig | None = None,
        device: str | torch.device = "auto",
        precision: Precision = PredictConfig.precision,
    ) -> None:
        import torch

        self.device = pick_device(device)
        self.model = model.to(self.device).to(memory_format=torch.channels_last).eval()
        self._network = _fast(self.model, self.device, precision)
        super().__init__(
            classes=classes,
            category_ids=category_ids,
            image_config=image_config,
            postprocess_config=postprocess_config,
            tiling=tiling,
        )

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, device: str | torch.device = "auto", precision: Precision = PredictConfig.precision
    ) -> Detector:
        """Return the detector of a checkpoint that `retinanet train` wrote."""
        from retinanet.train.checkpoint import read_model

        saved = read_model(_existing(Path(path)))
        return cls(
            model=saved.model,
            classes=saved.classes,
            category_ids=saved.category_ids,
            image_config=saved.image_config,
            postprocess_config=saved.postprocess_config,
            tiling=saved.tiling,
            device=device,
            precision=precision,
        )

    def _detect(self, batch: Batch, config: PostprocessConfig) -> list[ArrayDetections]:
        import torch

        from retinanet.model import RetinaNet
        from retinanet.postprocess import least_logit, postprocess

        if batch.images_N3HW is None:
            return []
        with torch.inference_mode():
            images_N3HW = torch.from_numpy(batch.images_N3HW).to(self.device, memory_format=torch.channels_last)
            # Boxes of lower scores are never looked at; other networks know no such thing.
            known = {"above": least_logit(config)} if isinstance(self._network, RetinaNet) else {}
            outputs: HeadOutputs = self._network(images_N3HW, **known)
            return [found.numpy() for found in postprocess(outputs, frames=batch.frames, config=config)]

    def dense(self, source: Source | Scaled) -> DenseOutputs:
        """Return what every level says at every position of one picture: see `BaseDetector.dense`."""
        import torch

        from retinanet.export.runtime import DenseOutputs, level_outputs
        from retinanet.model import RetinaNet

        assert isinstance(self.model, RetinaNet)  # noqa: S101
        config = self.image_config
        if not isinstance(source, Scaled):
            source = decode_for(source, image_size=config.image_size, max_size=config.max_size)
        images_N3HW, (frame,) = self._prepare([source], config)
        with torch.inference_mode():
            outputs = self.model(torch.from_numpy(images_N3HW).to(self.device, memory_format=torch.channels_last))
        logits = outputs.logits_NAK[0].float().cpu().split(outputs.anchors_per_level)
        deltas = outputs.deltas_NA4[0].float().cpu().split(outputs.anchors_per_level)
        levels = [
            level_outputs(
                level,
                cells.numpy(),
                logits_AK.numpy(),
                deltas_A4.numpy(),
                images_N3HW.shape[2:],
                frame,
                style=self.model.config.anchor_style,
            )
            for level, cells, logits_AK, deltas_A4 in zip(
                self.model.config.levels, self.model.anchors.cells, logits, deltas, strict=True
            )
        ]
        return DenseOutputs(frame=frame, levels=tuple(levels))


def load(
    path: str | Path,
    device: str | torch.device = "auto",
    precision: Precision = PredictConfig.precision,
    *,
    threads: int = 0,
) -> BaseDetector:
    """Return the detector of a checkpoint: `retinanet.load("runs/cells/best.ckpt").predict("picture.jpg")`.

    Of a model that `retinanet export` wrote (.onnx, .xml) it is a `RuntimeDetector`, which needs no torch.

    Args:
        path: a checkpoint, or .onnx or .xml.
        device: see `Detector` and `RuntimeDetector.from_file`.
        precision: 32, or bf16: half the time on a processor that has bfloat16, and less memory. Of exported models,
            OpenVINO's take it.
        threads: that an exported model computes with; 0: all cores.

    Raises:
        UserError: no such file, not a model, or a package that is missing for it.
    """
    path = _existing(Path(path))
    try:
        if path.suffix.lower() in EXPORTED:
            from retinanet.export.runtime import RuntimeDetector

            if precision == "bf16" and path.suffix.lower() != ".xml":
                raise ConfigError(f"precision bf16 is for checkpoints and OpenVINO's .xml, found {path}")
            hint = "bf16" if precision == "bf16" else None
            return RuntimeDetector.from_file(path, device=str(device), threads=threads, precision=hint)
        return Detector.from_checkpoint(path, device, precision)
    except ModuleNotFoundError as error:
        raise explain_missing(error, f"{path}") from error


def _fast(model: nn.Module, device: torch.device, precision: str) -> nn.Module:
    """Return what is run for predictions: a simplified copy of a RetinaNet, any other model itself."""
    from retinanet.model import RetinaNet, for_inference, has_fast_bf16

    if precision not in get_args(Precision):
        raise ConfigError(
            f"precision must be one of {', '.join(get_args(Precision))}, found {precision!r}"
            f"{did_you_mean(precision, get_args(Precision))}"
        )
    if not isinstance(model, RetinaNet):
        if precision != "32":
            raise ConfigError(f"precision {precision} is for a RetinaNet, found {type(model).__name__}")
        return model
    if precision == "bf16" and device.type == "cpu" and not has_fast_bf16():
        log.warning("this processor has no bfloat16 arithmetic: --precision bf16 works, but may be slower than 32")
    return for_inference(model, precision=precision)


def pick_device(name: str | torch.device) -> torch.device:
    """Return the named device; for auto the accelerator that there is, else the CPU."""
    import torch

    if name == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # no such name; a torch without CUDA asserts
        raise ConfigError(f"device {str(name)!r} is not there: {str(error).splitlines()[0]}") from error


def expand_inputs(inputs: Sequence[str | Path], *, exclude: Path | None = None) -> list[Path]:
    """Return the pictures behind files, folders (with all below them) and globs (`**` too): sorted, each one once.

    Raises:
        UserError: a path that is not there (with the nearest name), or a folder or glob without pictures.
    """
    found: dict[str, Path] = {}
    for entry in inputs:
        path = Path(entry)
        if path.is_file():
            pictures = [path]
        else:
            pictures = [file for file in _search(str(entry)) if exclude is None or not _is_below(file, exclude)]
            if not pictures:
                looked_for = ", ".join(sorted(PICTURE_SUFFIXES | VIDEO_SUFFIXES))
                raise UserError(f"{entry}: no pictures or videos there (looked for {looked_for})")
        for picture in pictures:
            found.setdefault(os.path.abspath(picture), picture)  # noqa: PTH100 - resolve() would follow links
    return [found[key] for key in sorted(found)]


def _search(entry: str) -> list[Path]:
    """Return the files with a picture's suffix in a folder or behind a glob."""
    path = Path(entry)
    if path.is_dir():
        files = [Path(folder) / name for folder, _, names in os.walk(path, followlinks=True) for name in names]
    elif glob.has_magic(entry):
        files = [Path(name) for name in glob.glob(entry, recursive=True)]  # noqa: PTH207 - absolute patterns too
    else:
        _existing(path)
        files = [path]
    return [file for file in files if file.suffix.lower() in PICTURE_SUFFIXES | VIDEO_SUFFIXES and file.is_file()]


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _existing(path: Path) -> Path:
    if path.exists():
        return path
    parent = path.parent
    if not parent.is_dir():
        raise UserError(f"{path}: there is no folder {parent}")
    near = did_you_mean(path.name, [entry.name for entry in parent.iterdir()])
    raise UserError(f"{path}: no such file or folder{near}")


@dataclass(frozen=True, kw_only=True)
class PredictSummary:
    """What `predict_files` did.

    Args:
        pictures: how many were looked at, failed ones not among them.
        detections: how many were written.
        failed: the pictures that do not decode, and why.
        results: the file or folder with the detections.
        drawn: the folder of drawn pictures, if any.
        videos: what was done with each video; their frames are not among the pictures, nor are their detections.
    """

    pictures: int
    detections: int
    failed: tuple[tuple[Path, str], ...]
    results: Path | None
    drawn: Path | None
    videos: tuple[VideoSummary, ...] = ()


def predict_files(
    model: Path | BaseDetector, inputs: Sequence[str | Path], config: PredictConfig | None = None, **options: Any
) -> PredictSummary:
    """Detect in files, folders and globs, and write the detections and drawn pictures into `config.output`.

    Of a video, and of numbered frames with `fps`, NAME.csv holds the detections frame by frame, and drawn/NAME.mp4
    shows them: see `video.predict_video`.

    Args:
        model: a checkpoint, an exported model (.onnx, .xml), or a detector.
        inputs: see `expand_inputs`. Pictures below the output folder are left out of folders and globs.
        config: all options at once,
        options: or by name, as the flags of `retinanet predict`.

    Raises:
        UserError: an input or a model that is not there, or an output folder in use; before anything is written.
    """
    config = config or resolve(PredictConfig, options)
    paths, videos = _sources(inputs, config)
    ids = list(range(1, len(paths) + 1)) if config.ids_from is None else picture_ids(paths, config.ids_from)
    if config.track and not videos:
        raise ConfigError("track follows objects in a video: give one, or --fps for numbered frames")
    _check_output(config, videos, pictures=bool(paths))
    detector = model if isinstance(model, BaseDetector) else load(model, config.device, config.precision)
    done = tuple(_one_video(detector, video, config) for video in videos)
    if not paths:
        return PredictSummary(pictures=0, detections=0, failed=(), results=None, drawn=None, videos=done)
    drawn = config.output / DRAWN if config.draw else None
    writer = open_writer(config.format, config.output, classes=detector.classes, category_ids=detector.category_ids)
    batches = batched(paths, config.batch_size)
    stream = detector.stream(batches, workers=config.workers, threshold=config.threshold, tiling=config, tta=config.tta)
    total, failed = 0, []
    with writer, progress_bar("predict", len(paths)) as advance:
        for path, name, image_id, found in zip(paths, output_names(paths), ids, stream, strict=True):
            advance()
            if found.detections is None:
                failed.append((path, str(found.error)))
                continue
            detections = detector.named(found.detections)
            picture = Picture(path=path, name=name, image_id=image_id, width=found.width, height=found.height)
            writer.write(picture, detections)
            total += len(detections)
            if drawn is not None:
                save_jpeg(drawing(path, detections, threshold=config.draw_threshold), drawn / f"{name}.jpg")
    return PredictSummary(
        pictures=len(paths) - len(failed),
        detections=total,
        failed=tuple(failed),
        results=config.output / TARGETS[config.format],
        drawn=drawn,
        videos=done,
    )


def _sources(inputs: Sequence[str | Path], config: PredictConfig) -> tuple[list[Path], list[Video]]:
    """Return the pictures and the videos behind the inputs."""
    from retinanet.video import NumberedFrames, VideoFile

    found = expand_inputs(inputs, exclude=config.output)
    videos: list[Video] = [VideoFile(path) for path in found if _is_video(path)]
    pictures = [path for path in found if not _is_video(path)]
    if config.fps and pictures:
        pictures.sort(key=_by_numbers)
        videos.append(NumberedFrames(pictures, name=pictures[0].resolve().parent.name or "frames", fps=config.fps))
        pictures = []
    count = Counter(video.name for video in videos)
    if twice := [name for name, times in count.items() if times > 1]:
        raise UserError(f"two videos are named {twice[0]}: predict on them one at a time, or rename one")
    return pictures, videos


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _by_numbers(path: Path) -> list[tuple[int, int | str]]:
    """Return what sorts frame_10 after frame_9."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"([0-9]+)", path.as_posix()) if part]


def _one_video(detector: BaseDetector, video: Video, config: PredictConfig) -> VideoSummary:
    from retinanet.video import predict_video

    with progress_bar(video.name, video.count) as advance:
        return predict_video(detector, video, config, advance)


def run(model: Path, inputs: Sequence[str], config: PredictConfig) -> int:
    """Do what `retinanet predict` does, print what was done, and return the exit status: 1 if a picture failed."""
    summary = predict_files(model, inputs, config)
    for video in summary.videos:
        print(f"{video.detections:,} detections in {video.frames:,} frames: {video.results}")
        if video.drawn is not None:
            print(f"drawn from score {config.draw_threshold:g} on: {video.drawn}")
        if video.error:
            print(f"error: {video.error}", file=sys.stderr)
    if summary.results is not None:
        print(f"{summary.detections:,} detections in {summary.pictures:,} pictures: {summary.results}")
    if summary.drawn is not None and summary.pictures:
        print(f"drawn from score {config.draw_threshold:g} on: {summary.drawn}")
    for _, error in summary.failed:
        print(f"error: {error}", file=sys.stderr)
    if summary.failed:
        print(f"{len(summary.failed):,} pictures could not be read", file=sys.stderr)
    return 1 if summary.failed or any(video.error for video in summary.videos) else 0


def _check_output(config: PredictConfig, videos: Sequence[Video], *, pictures: bool) -> None:
    """Refuse a folder that holds what would be written over."""
    if config.output.exists() and not config.output.is_dir():
        raise ConfigError(f"output {config.output} is a file; it must be a folder")
    targets = [f"{video.name}.csv" for video in videos]
    targets += [f"{DRAWN}/{video.name}.mp4" for video in videos if config.draw]
    if pictures:
        targets += [
            TARGETS[config.format],
            *([DRAWN] if config.draw else []),
            *(["data.yaml"] if config.format == "yolo" else []),
        ]
    present = [name for name in targets if (config.output / name).exists()]
    if present and not config.overwrite:
        raise ConfigError(
            f"{config.output} already holds {', '.join(present)}: give --overwrite to replace them, or another folder"
        )


def picture_ids(paths: Sequence[Path], source: Path) -> list[int]:
    """Return the id that a data set gives each picture, found by its path, or by its file name where that is unique.

    Raises:
        UserError: naming the pictures that the data set does not have.
    """
    from retinanet.data import read

    records = read(source, allow_outside=True).records  # only compared with what the user names
    by_path = {record.path.resolve(): record.image_id for record in records}
    names = Counter(record.path.name for record in records)
    by_name = {record.path.name: record.image_id for record in records if names[record.path.name] == 1}
    ids = [by_path.get(path.resolve(), by_name.get(path.name)) for path in paths]
    missing = [str(path) for path, image_id in zip(paths, ids, strict=True) if image_id is None]
    if missing:
        raise UserError(f"{source} has no picture {', '.join(missing[:3])}" + (", ..." if len(missing) > 3 else ""))
    return [image_id for image_id in ids if image_id is not None]


def drawing(path: Path, detections: sv.Detections, *, threshold: float) -> Image.Image:
    """Return the picture of a file with its detections, reduced where JPEG could not hold it or memory would not."""
    with open_windows(path) as windows:
        width, height = windows.size
        if width * height <= LARGE:
            return draw(windows.crop((0, 0, width, height)), detections, threshold=threshold)
        size = resized_size(width, height, image_size=MOST_DRAWN, max_size=MOST_DRAWN)
        image = windows.reduced(size)
    factor = np.array([size[0] / width, size[1] / height] * 2, np.float32)
    return draw(image, dataclasses.replace(detections, xyxy=detections.xyxy * factor), threshold=threshold)


def save_jpeg(image: Image.Image, path: Path) -> None:
    """Write a picture whole under its name, and its folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(path)
    image.save(partial, format="JPEG", quality=JPEG_QUALITY)
    partial.replace(path)


@contextmanager
def progress_bar(what: str, total: int, *, show: bool = True) -> Iterator[Callable[[], None]]:
    """Show a bar with the time left on the terminal's stderr, none elsewhere; yields what counts one picture."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not (show and console.is_terminal)) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)
