"""Detections for files and folders, written as files. Boxes are xyxy in original pixels, after EXIF rotation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from retinanet.config import PredictConfig, resolve
from retinanet.data import read
from retinanet.errors import ConfigError, UserError
from retinanet.predict.batches import batched
from retinanet.predict.detector import BaseDetector
from retinanet.predict.draw import draw_file, save_jpeg
from retinanet.predict.inputs import expand_inputs, is_video, natural_key
from retinanet.predict.loading import load
from retinanet.predict.video import NumberedFrames, VideoFile, predict_video
from retinanet.predict.writers import OutputImage, find_writer, open_writer, output_names
from retinanet.progress import ProgressBar, no_progress_bar

if TYPE_CHECKING:
    from retinanet.predict.video import Video, VideoSummary


DRAWN: Final = "drawn"


@dataclass(frozen=True, kw_only=True)
class PredictSummary:
    """What `predict_files` did.

    Args:
        images: how many were looked at, failed ones not among them.
        detections: how many were written.
        failed: the images that do not decode, and why.
        results: the file or folder with the detections.
        drawn: the folder of drawn images, if any.
        videos: what was done with each video; their frames are not among the images, nor are their detections.
    """

    images: int
    detections: int
    failed: tuple[tuple[Path, str], ...]
    results: Path | None
    drawn: Path | None
    videos: tuple[VideoSummary, ...] = ()


def predict_files(
    model: Path | BaseDetector,
    inputs: Sequence[str | Path],
    config: PredictConfig | None = None,
    *,
    progress: ProgressBar = no_progress_bar,
    **options: Any,
) -> PredictSummary:
    """Detect in files, folders and globs, and write the detections and drawn images into `config.folder.output`.

    Of a video, and of numbered frames with `fps`, NAME.csv holds the detections frame by frame, and drawn/NAME.mp4
    shows them: see `video.predict_video`.

    Args:
        model: a checkpoint, an exported model (.onnx, .xml), or a detector.
        inputs: see `expand_inputs`. Images below the output folder are left out of folders and globs.
        config: all options at once,
        options: or by name, as the flags of `retinanet predict`.
        progress: opens a progress bar.

    Raises:
        UserError: an input or a model that is not there, or an output folder in use; before anything is written.
    """
    config = config or resolve(PredictConfig, options)
    outputs = find_writer(config.format).outputs
    paths, videos = _sources(inputs, config)
    ids = list(range(1, len(paths) + 1)) if config.ids_from is None else image_ids(paths, config.ids_from)
    if config.track and not videos:
        raise ConfigError("track follows objects in a video: give one, or --fps for numbered frames")
    _check_output(config, videos, outputs if paths else ())
    detector = (
        model if isinstance(model, BaseDetector) else load(model, config.hardware.device, config.inference.precision)
    )
    done = tuple(_one_video(detector, video, config, progress) for video in videos)
    if not paths:
        return PredictSummary(images=0, detections=0, failed=(), results=None, drawn=None, videos=done)
    folder = config.folder.output
    drawn = folder / DRAWN if config.draw else None
    writer = open_writer(config.format, folder, classes=detector.classes, category_ids=detector.category_ids)
    stream = detector.stream(
        batched(paths, config.batch.batch_size),
        workers=config.loading.workers,
        threshold=config.threshold,
        tiling=config.tiling,
        tta=config.inference.tta,
    )
    total, failed = 0, []
    with writer, progress("predict", len(paths)) as advance:
        for path, name, image_id, found in zip(paths, output_names(paths), ids, stream, strict=True):
            advance()
            if found.detections is None:
                failed.append((path, str(found.error)))
                continue
            detections = detector.named(found.detections)
            image = OutputImage(path=path, name=name, image_id=image_id, width=found.width, height=found.height)
            writer.write(image, detections)
            total += len(detections)
            if drawn is not None:
                save_jpeg(draw_file(path, detections, threshold=config.draw_threshold), drawn / f"{name}.jpg")
    return PredictSummary(
        images=len(paths) - len(failed),
        detections=total,
        failed=tuple(failed),
        results=folder / outputs[0],
        drawn=drawn,
        videos=done,
    )


def _sources(inputs: Sequence[str | Path], config: PredictConfig) -> tuple[list[Path], list[Video]]:
    """Return the images and the videos behind the inputs."""
    found = expand_inputs(inputs, exclude=config.folder.output)
    videos: list[Video] = [VideoFile(path) for path in found if is_video(path)]
    images = [path for path in found if not is_video(path)]
    if config.fps and images:
        images.sort(key=natural_key)
        videos.append(NumberedFrames(images, name=images[0].resolve().parent.name or "frames", fps=config.fps))
        images = []
    count = Counter(video.name for video in videos)
    if twice := [name for name, times in count.items() if times > 1]:
        raise UserError(f"two videos are named {twice[0]}: predict on them one at a time, or rename one")
    return images, videos


def _one_video(detector: BaseDetector, video: Video, config: PredictConfig, progress: ProgressBar) -> VideoSummary:
    with progress(video.name, video.count) as advance:
        return predict_video(detector, video, config, advance)


def _check_output(config: PredictConfig, videos: Sequence[Video], outputs: Sequence[str]) -> None:
    """Refuse a folder that holds what would be written over."""
    if config.folder.output.exists() and not config.folder.output.is_dir():
        raise ConfigError(f"output {config.folder.output} is a file; it must be a folder")
    targets = [f"{video.name}.csv" for video in videos]
    targets += [f"{DRAWN}/{video.name}.mp4" for video in videos if config.draw]
    if outputs:
        targets += [outputs[0], *([DRAWN] if config.draw else []), *outputs[1:]]
    present = [name for name in targets if (config.folder.output / name).exists()]
    if present and not config.existing.overwrite:
        raise ConfigError(
            f"{config.folder.output} already holds {', '.join(present)}: give --overwrite to replace them, "
            "or another folder"
        )


def image_ids(paths: Sequence[Path], source: Path) -> list[int]:
    """Return the id that a dataset gives each image, found by its path, or by its file name where that is unique.

    Raises:
        UserError: naming the images that the dataset does not have.
    """
    records = read(source, allow_outside=True).records  # only compared with what the user names
    by_path = {record.path.resolve(): record.image_id for record in records}
    names = Counter(record.path.name for record in records)
    by_name = {record.path.name: record.image_id for record in records if names[record.path.name] == 1}
    ids = [by_path.get(path.resolve(), by_name.get(path.name)) for path in paths]
    missing = [str(path) for path, image_id in zip(paths, ids, strict=True) if image_id is None]
    if missing:
        raise UserError(f"{source} has no image {', '.join(missing[:3])}" + (", ..." if len(missing) > 3 else ""))
    return [image_id for image_id in ids if image_id is not None]
