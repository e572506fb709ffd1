"""Detect objects in files and folders, and write the detections.

Boxes are xyxy in original pixels, after EXIF rotation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinanet.config import PredictConfig, resolve
from retinanet.data import read
from retinanet.errors import ConfigError, UserError
from retinanet.fonts import font_fault
from retinanet.formats.image_files import AmbiguousImageError
from retinanet.formats.record_ids import ids_in
from retinanet.predict.batches import batched
from retinanet.predict.detector import BaseDetector
from retinanet.predict.draw import DRAWN, draw_file, save_jpeg
from retinanet.predict.inputs import find_inputs, is_video, natural_key
from retinanet.predict.loading import load_with_options
from retinanet.predict.video import NumberedFrames, VideoError, VideoFile, predict_video
from retinanet.predict.writers import OutputImage, find_writer, open_writer, output_names
from retinanet.progress import ProgressBar, no_progress_bar

if TYPE_CHECKING:
    from retinanet.predict.video import Video, VideoSummary


@dataclass(frozen=True, kw_only=True)
class PredictSummary:
    """Result of `predict_files`. The counts do not include the frames and detections of videos.

    Args:
        images: number of images that were processed, without failed images.
        detections: number of detections that were written.
        failed: path of each image that cannot be decoded and of each file that is no video, and the reason.
        results: file or folder with the detections; None if the inputs are only videos.
        drawn: folder of the drawn images; None if no image was drawn.
        videos: result of each video.
        left_out: sentences about files and folders that were not read, with their number and the reason.
        device: device that ran the network, such as cuda:0 or CPUExecutionProvider.
    """

    images: int
    detections: int
    failed: tuple[tuple[Path, str], ...]
    results: Path | None
    drawn: Path | None
    videos: tuple[VideoSummary, ...] = ()
    left_out: tuple[str, ...] = ()
    device: str = ""


def predict_files(
    model: Path | BaseDetector,
    inputs: Sequence[str | Path],
    config: PredictConfig | None = None,
    *,
    progress: ProgressBar = no_progress_bar,
    **options: Any,
) -> PredictSummary:
    """Detect objects in images and videos, and write detections and drawn images into `config.folder.output`.

    For a video (or numbered frames with `fps`), NAME.csv contains the detections of each frame, and drawn/NAME.mp4 is
    the drawn video: see `video.predict_video`.

    Args:
        model: checkpoint, exported model (.onnx, .xml) or detector.
        inputs: files, folders and globs, see `find_inputs`. Folders and globs exclude images below the output folder.
        config: all options; None: they are given by name in `options`.
        options: options of `PredictConfig` by name.
        progress: function that opens a progress bar.

    Raises:
        UserError: an input or the model does not exist, or the output folder already contains results. The error is
            raised before anything is written.
    """
    config = config or resolve(PredictConfig, options)
    outputs = find_writer(config.format).outputs
    if config.font is not None and (fault := font_fault(config.font)):
        raise ConfigError(f"the file that font names {fault}: {config.font}. Give a font file, such as a .ttf or .otf")
    paths, videos, failed, left_out = _find_inputs(inputs, config)
    ids = list(range(1, len(paths) + 1)) if config.ids_from is None else image_ids(paths, config.ids_from)
    if config.track and not videos:
        raise ConfigError("track expects a video, found only images: give a video, or --fps for numbered frames")
    _check_output(config, videos, outputs if paths else ())
    detector = model if isinstance(model, BaseDetector) else load_with_options(model, config)
    detector.check_threshold(config.threshold)
    detector.labels_of(config.classes)
    video_summaries = tuple(_predict_one_video(detector, video, config, progress) for video in videos)
    if not paths:
        return PredictSummary(
            images=0,
            detections=0,
            failed=tuple(failed),
            results=None,
            drawn=None,
            videos=video_summaries,
            device=str(detector.device),
            left_out=left_out,
        )
    folder = config.folder.output
    drawn = folder / DRAWN if config.draw else None
    writer = open_writer(config.format, folder, classes=detector.classes, category_ids=detector.category_ids)
    stream = detector.stream(
        batched(paths, config.batch.batch_size),
        workers=config.loading.workers,
        threshold=config.threshold,
        tiling=config.tiling,
        tta=config.inference.tta,
        classes=config.classes,
    )
    total, failed_videos, bit_depth = 0, len(failed), detector.image_config.bit_depth
    with writer, progress("predict", len(paths)) as advance:
        for path, name, image_id, result in zip(paths, output_names(paths), ids, stream, strict=True):
            advance()
            if result.detections is None:
                failed.append((path, str(result.error)))
                continue
            detections = detector.named(result.detections)
            image = OutputImage(path=path, name=name, image_id=image_id, width=result.width, height=result.height)
            writer.write(image, detections)
            total += len(detections)
            if drawn is not None:
                save_jpeg(
                    draw_file(
                        path,
                        detections,
                        threshold=config.drawn_threshold,
                        classes=detector.classes,
                        bit_depth=bit_depth,
                        font=config.font,
                    ),
                    drawn / f"{name}.jpg",
                )
    return PredictSummary(
        images=len(paths) - len(failed) + failed_videos,
        detections=total,
        failed=tuple(failed),
        results=folder / outputs[0],
        drawn=drawn,
        videos=video_summaries,
        left_out=left_out,
        device=str(detector.device),
    )


def _find_inputs(
    inputs: Sequence[str | Path], config: PredictConfig
) -> tuple[list[Path], list[Video], list[tuple[Path, str]], tuple[str, ...]]:
    """Return the images, the videos, the files that are no videos, and sentences about what was left out.

    Raises:
        UserError: there is no input, or two videos would have the same results.
    """
    searched = find_inputs(inputs, exclude=config.folder.output)
    images = [path for path in searched.files if not is_video(path)]
    video_paths = [path for path in searched.files if is_video(path)]
    reserved = find_writer(config.format).outputs if images and not config.fps else ()
    videos: list[Video] = []
    errors: list[tuple[Path, VideoError]] = []
    for path, name in zip(video_paths, _video_names(video_paths, reserved), strict=True):
        try:
            videos.append(VideoFile(path, name=name))
        except VideoError as error:
            errors.append((path, error))
    if errors and not images and not videos:
        raise errors[0][1]
    if config.fps and images:
        images.sort(key=natural_key)
        videos.append(NumberedFrames(images, name=images[0].resolve().parent.name or "frames", fps=config.fps))
        images = []
    count = Counter(video.name.casefold() for video in videos)
    if repeated := [video.name for video in videos if count[video.name.casefold()] > 1]:
        raise UserError(f"two videos are named {repeated[0]}: predict on them one at a time, or rename one")
    return images, videos, [(path, str(error)) for path, error in errors], tuple(searched.left_out.sentences())


def _video_names(paths: Sequence[Path], reserved: Sequence[str]) -> list[str]:
    """Return the name of each video's results: its file name without suffix, or its path if names would be equal.

    Args:
        paths: video files.
        reserved: names of the files with the detections of images, such as detections.csv.
    """
    names = [path.stem for path in paths]
    if len({name.casefold() for name in names}) < len(names):
        names = [str(name) for name in output_names(paths)]
    return [
        path.name if f"{name}.csv".casefold() in reserved else name for path, name in zip(paths, names, strict=True)
    ]


def _predict_one_video(
    detector: BaseDetector, video: Video, config: PredictConfig, progress: ProgressBar
) -> VideoSummary:
    with progress(video.name, video.count) as advance:
        return predict_video(detector, video, config, advance)


def _check_output(config: PredictConfig, videos: Sequence[Video], outputs: Sequence[str]) -> None:
    """Raise `ConfigError` if the output folder contains files that the results would overwrite."""
    if config.folder.output.exists() and not config.folder.output.is_dir():
        raise ConfigError(f"output {config.folder.output} is a file: give a folder")
    targets = [f"{video.name}.csv" for video in videos]
    targets += [f"{DRAWN}/{video.name}.mp4" for video in videos if config.draw]
    if outputs:
        targets += [outputs[0], *([DRAWN] if config.draw else []), *outputs[1:]]
    present = [name for name in targets if (config.folder.output / name).exists()]
    if present and not config.existing.overwrite:
        raise ConfigError(
            f"{config.folder.output} already contains {', '.join(present)}: give --overwrite to replace them, "
            "or another folder"
        )


def image_ids(paths: Sequence[Path], source: Path) -> list[int]:
    """Return the id of each image in a dataset, found by its file, or by the longest matching end of its path.

    Args:
        paths: image files.
        source: dataset.

    Raises:
        UserError: the dataset does not contain an image, or several images match equally well.
    """
    records = read(source, allow_outside=True).records  # safe: no image of the dataset is opened
    try:
        ids = ids_in(records, [str(path) for path in paths])
    except AmbiguousImageError as error:
        raise UserError(
            f"ids-from: {error}. Predict on the images at the paths that {source} names, or on each folder alone"
        ) from error
    missing = [str(path) for path, image_id in zip(paths, ids, strict=True) if image_id is None]
    if missing:
        more = ", ..." if len(missing) > 3 else ""
        raise UserError(f"ids-from: {source} does not contain {', '.join(missing[:3])}{more}")
    return [image_id for image_id in ids if image_id is not None]
