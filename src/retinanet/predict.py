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
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args, overload

import numpy as np
import numpy.typing as npt
import supervision as sv
import torch
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from retinanet.config import (
    ConfigError,
    ImageConfig,
    PostprocessConfig,
    Precision,
    PredictConfig,
    TileConfig,
    UserError,
    did_you_mean,
    resolve,
)
from retinanet.images import (
    LARGE,
    Frame,
    ImageError,
    Scaled,
    decode_for,
    open_windows,
    prepare,
    resized_size,
    tiles,
)
from retinanet.postprocess import merge_tiles, merge_views, postprocess
from retinanet.results import TARGETS, Picture, draw, open_writer, output_names
from retinanet.types import ImageDetections

if TYPE_CHECKING:
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
TTA_SCALES: Final = (0.8, 1.25)
"""Sizes at which test-time augmentation looks at a picture, besides its own."""
JPEG_QUALITY: Final = 92
MOST_DRAWN: Final = 4096
"""Longest side of the drawing of a picture that is too large to decode at once, pixels."""

Source = str | Path | bytes | Image.Image | npt.NDArray[Any]
S = TypeVar("S", bound=Source)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What became of one picture: its size and `detections`, or the `error` where it does not decode."""

    source: Source
    width: int = 0
    height: int = 0
    detections: ImageDetections | None = None
    error: ImageError | None = None

    def result(self) -> ImageDetections:
        """Return the detections, or raise the error."""
        if self.detections is None:
            raise self.error or RuntimeError("neither detections nor an error")
        return self.detections


@dataclass(frozen=True, kw_only=True, slots=True)
class _Batch:
    """The network's input and the frames of those sources that did decode, and the errors of the others, in order."""

    sources: Sequence[Source]
    errors: list[ImageError | None]
    images_N3HW: npt.NDArray[np.float32] | None
    frames: list[Frame]


class Detector:
    """A network with all it takes to go from pictures to named boxes.

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
        self.device = pick_device(device)
        self.model = model.to(self.device).to(memory_format=torch.channels_last).eval()
        self._network = _fast(self.model, self.device, precision)
        self.classes = tuple(classes)
        self.category_ids = tuple(category_ids)
        self.image_config = image_config
        self.postprocess_config = postprocess_config
        self.tiling = tiling or TileConfig()

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

    @overload
    def predict(  # type: ignore[overload-overlap]
        self,
        source: Source,
        *,
        threshold: float | None = None,
        tile: int | None = None,
        overlap: float = TileConfig.overlap,
        tta: bool = False,
    ) -> sv.Detections: ...
    @overload
    def predict(
        self,
        source: Sequence[Source],
        *,
        threshold: float | None = None,
        tile: int | None = None,
        overlap: float = TileConfig.overlap,
        tta: bool = False,
    ) -> list[sv.Detections]: ...
    def predict(
        self,
        source: Source | Sequence[Source],
        *,
        threshold: float | None = None,
        tile: int | None = None,
        overlap: float = TileConfig.overlap,
        tta: bool = False,
    ) -> sv.Detections | list[sv.Detections]:
        """Return the detections of one picture, or of each picture of a list; best first.

        Args:
            source: path, bytes of a file, PIL image or array (H, W, 3), RGB uint8; or a list of these.
            threshold: least score; the model's own `score_threshold` (0.05 unless changed) when None.
            tile: side of the tiles that large pictures are cut into, original pixels; 0: not cut; None: as trained.
            overlap: share of a tile that its neighbour shows too.
            tta: look at the pictures flipped and at other sizes too: six times the work, better boxes.

        Raises:
            ImageError: a picture that does not decode.
        """
        tiling = TileConfig(tile=tile, overlap=overlap)
        many = isinstance(source, list | tuple)
        sources: Sequence[Source] = source if many else [source]  # type: ignore[assignment, list-item]
        found = []
        batches = batched(sources, PredictConfig.batch_size)
        for item in self.stream(batches, workers=0, threshold=threshold, tiling=tiling, tta=tta):
            found.append(self.named(item.result()))
        return found if many else found[0]

    def predict_batches(
        self,
        sources: Iterable[S],
        *,
        batch_size: int = PredictConfig.batch_size,
        workers: int = PredictConfig.workers,
        threshold: float | None = None,
    ) -> Iterator[tuple[S, sv.Detections | ImageError]]:
        """Yield (source, detections) in order, for as many pictures as there may be: `workers` + 1 batches are held.

        A picture that does not decode yields its error, and the rest go on.
        """
        for found in self.stream(batched(sources, batch_size), workers=workers, threshold=threshold):
            outcome = found.error if found.detections is None else self.named(found.detections)
            yield found.source, outcome  # type: ignore[misc]

    def stream(
        self,
        batches: Iterable[Sequence[Source]],
        *,
        workers: int,
        threshold: float | None = None,
        tiling: TileConfig | None = None,
        tta: bool = False,
    ) -> Iterator[Found]:
        """Yield what becomes of each picture, in order; `workers` threads decode and resize ahead of the network.

        `tiling` says how pictures are cut, if not as the model was trained: see `TileConfig`. With `tta` each picture
        is looked at flipped and at other sizes too, six times in all.
        """
        if tiling is None or tiling.tile is None:
            tiling = self.tiling
        config = self.postprocess_config
        if threshold is not None:
            config = dataclasses.replace(config, score_threshold=threshold)
        for batch in _ahead(batches, self.image_config, workers):
            readable = [source for source, error in zip(batch.sources, batch.errors, strict=True) if error is None]
            detections = zip(batch.frames, self._look(readable, batch, config, tta), strict=True)
            for source, error in zip(batch.sources, batch.errors, strict=True):
                if error is not None:
                    yield Found(source=source, error=error)
                    continue
                frame, found = next(detections)
                try:
                    if tiling.tile:
                        found = self._in_tiles(source, frame, found, tiling, config, len(batch.sources), tta)
                except ImageError as broken:  # beyond what the whole picture at a smaller scale needed
                    yield Found(source=source, error=broken)
                    continue
                yield Found(source=source, width=frame.width, height=frame.height, detections=found)

    def _in_tiles(
        self,
        source: Source,
        frame: Frame,
        whole: ImageDetections,
        tiling: TileConfig,
        config: PostprocessConfig,
        batch_size: int,
        tta: bool,
    ) -> ImageDetections:
        """Return the detections of a picture's tiles merged with those of the whole; `batch_size` tiles at once."""
        places = tiles(frame.width, frame.height, tile=tiling.tile or 0, overlap=tiling.overlap)
        if len(places) == 1:
            return whole
        parts: list[ImageDetections] = []
        with open_windows(source) as picture:
            for some in batched(places, max(1, batch_size)):
                crops = [picture.crop(place) for place in some]
                parts += self._look(crops, _load(crops, self.image_config), config, tta)
        return merge_tiles(
            whole,
            parts,
            places,
            width=frame.width,
            height=frame.height,
            whole_from=tiling.whole_from,
            config=config,
        )

    def _look(
        self, sources: Sequence[Source], batch: _Batch, config: PostprocessConfig, tta: bool
    ) -> list[ImageDetections]:
        """Return the detections of a batch; with `tta` from its pictures flipped and at `TTA_SCALES` as well."""
        found = self._detect(batch, config)
        if not tta or not found:
            return found
        views = [found, self._flipped(batch, config)]
        for scale in TTA_SCALES:
            image_config = dataclasses.replace(
                self.image_config,
                image_size=round(self.image_config.image_size * scale),
                max_size=round(self.image_config.max_size * scale),
            )
            scaled = _load(sources, image_config)
            views += [self._detect(scaled, config), self._flipped(scaled, config)]
        return [merge_views(of_one, config=config) for of_one in zip(*views, strict=True)]

    def _flipped(self, batch: _Batch, config: PostprocessConfig) -> list[ImageDetections]:
        """Return the detections in the mirrored pictures, mirrored back."""
        assert batch.images_N3HW is not None  # noqa: S101
        images_N3HW = np.zeros_like(batch.images_N3HW)
        for out_3HW, image_3HW, frame in zip(images_N3HW, batch.images_N3HW, batch.frames, strict=True):
            w = frame.resized_width
            out_3HW[:, :, :w] = image_3HW[:, :, :w][:, :, ::-1]
        out = []
        flipped = dataclasses.replace(batch, images_N3HW=images_N3HW)
        for found, frame in zip(self._detect(flipped, config), batch.frames, strict=True):
            x1, y1, x2, y2 = found.boxes_D4.unbind(1)
            boxes_D4 = torch.stack([frame.width - x2, y1, frame.width - x1, y2], dim=1)
            out.append(dataclasses.replace(found, boxes_D4=boxes_D4))
        return out

    @torch.inference_mode()
    def _detect(self, batch: _Batch, config: PostprocessConfig) -> list[ImageDetections]:
        if batch.images_N3HW is None:
            return []
        images_N3HW = torch.from_numpy(batch.images_N3HW).to(self.device, memory_format=torch.channels_last)
        outputs: HeadOutputs = self._network(images_N3HW)
        return postprocess(outputs, frames=batch.frames, config=config)

    def named(self, detections: ImageDetections) -> sv.Detections:
        """Return the detections for supervision, with the class names as `data["class_name"]`."""
        labels_D = detections.labels_D.cpu().numpy().astype(np.int64)
        return sv.Detections(
            xyxy=detections.boxes_D4.float().cpu().numpy(),
            confidence=detections.scores_D.float().cpu().numpy(),
            class_id=labels_D,
            data={"class_name": np.array(self.classes, dtype=np.str_)[labels_D]},
        )


def load(
    path: str | Path, device: str | torch.device = "auto", precision: Precision = PredictConfig.precision
) -> Detector:
    """Return the detector of a checkpoint: `retinanet.load("runs/cells/best.ckpt").predict("picture.jpg")`.

    With `precision="bf16"` it takes half the time on a processor that has bfloat16, and less memory.
    """
    return Detector.from_checkpoint(path, device, precision)


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
    if name == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # no such name; a torch without CUDA asserts
        raise ConfigError(f"device {str(name)!r} is not there: {str(error).splitlines()[0]}") from error


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of `size` items, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _load(sources: Sequence[Source], config: ImageConfig) -> _Batch:
    images: list[Scaled] = []
    errors: list[ImageError | None] = []
    for source in sources:
        try:
            images.append(decode_for(source, image_size=config.image_size, max_size=config.max_size))
            errors.append(None)
        except ImageError as error:
            errors.append(error)
    images_N3HW, frames = prepare(images, config) if images else (None, [])
    return _Batch(sources=sources, errors=errors, images_N3HW=images_N3HW, frames=frames)


def _ahead(batches: Iterable[Sequence[Source]], config: ImageConfig, workers: int) -> Iterator[_Batch]:
    """Yield the loaded batches in order, with `workers` of them on the way."""
    if workers == 0:
        yield from (_load(batch, config) for batch in batches)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="retinanet-load")
    waiting: deque[Future[_Batch]] = deque()
    try:
        for batch in batches:
            waiting.append(pool.submit(_load, batch, config))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


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
    model: Path | Detector, inputs: Sequence[str | Path], config: PredictConfig | None = None, **options: Any
) -> PredictSummary:
    """Detect in files, folders and globs, and write the detections and drawn pictures into `config.output`.

    Of a video, and of numbered frames with `fps`, NAME.csv holds the detections frame by frame, and drawn/NAME.mp4
    shows them: see `video.predict_video`.

    Args:
        model: a checkpoint, or a detector.
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
    detector = model if isinstance(model, Detector) else load(model, config.device, config.precision)
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


def _one_video(detector: Detector, video: Video, config: PredictConfig) -> VideoSummary:
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

    records = read(source).records
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
    partial = path.with_name(path.name + ".partial")
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
