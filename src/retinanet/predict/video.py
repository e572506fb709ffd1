"""Videos and numbered frames: read one frame after the other, detect, follow, write the results and the drawn video.

Boxes are xyxy pixels of the frame. Shape suffixes: H, W; 3 is RGB.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

import av
import numpy as np
import numpy.typing as npt
import supervision as sv
from PIL import Image

from retinanet.errors import ConfigError, UserError
from retinanet.files import partial_path, replace_file
from retinanet.images import ImageError
from retinanet.images import decode as decode_image
from retinanet.predict.batches import batched
from retinanet.predict.coco_results import class_names
from retinanet.predict.draw import draw

if TYPE_CHECKING:
    from types import TracebackType

    from retinanet.config import PredictConfig
    from retinanet.predict.detector import BaseDetector

CSV_COLUMNS: Final = ("frame", "seconds", "track", "x1", "y1", "x2", "y2", "class", "score")

_CONTAINERS: Final = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,asf"
"""FFmpeg's names. Without such a list, a file named .mp4 may be a playlist that makes it open other files."""
_CODECS: Final = ("libx264", "h264", "mpeg4")
"""What the drawn video is coded with: the first that is there. Browsers play H.264."""


class VideoError(UserError):
    """A video that cannot be read; the message names it and says why."""


class VideoFrame(NamedTuple):
    """One image of a video."""

    number: int
    """From 0."""
    seconds: float
    """Since the video's start."""
    pixels_HW3: npt.NDArray[np.uint8]
    """RGB."""


class Video(Protocol):
    """A name, a frame rate (frames a second), how many frames there are (0: not known), and the frames."""

    name: str
    fps: float
    count: int

    def frames(self) -> Iterator[VideoFrame]:
        """Yield the frames; raises `VideoError` where one cannot be decoded."""


class VideoFile:
    """A video in a file. Raises `VideoError` if it is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem
        with self._open() as container:
            stream = container.streams.video[0]
            self.fps = float(stream.average_rate or stream.guessed_rate or 25)
            self.count = int(stream.frames)

    def frames(self) -> Iterator[VideoFrame]:
        """Yield the frames upright, each with the time at which it is shown."""
        with self._open() as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            start: float | None = None
            try:
                for number, frame in enumerate(container.decode(stream)):
                    at = number / self.fps if frame.time is None else float(frame.time)
                    start = at if start is None else start
                    pixels_HW3 = frame.to_ndarray(format="rgb24")
                    turns = round(getattr(frame, "rotation", 0) / 90) % 4  # anticlockwise
                    yield VideoFrame(number, at - start, np.ascontiguousarray(np.rot90(pixels_HW3, turns)))
            except av.error.FFmpegError as error:
                raise VideoError(f"{self.path}: cannot be decoded any further ({error.strerror})") from error

    def _open(self) -> Any:
        try:
            container = av.open(str(self.path), options={"format_whitelist": _CONTAINERS})
        except av.error.FFmpegError as error:
            raise VideoError(f"{self.path}: not a video in a format that can be read ({error.strerror})") from error
        if not container.streams.video:
            container.close()
            raise VideoError(f"{self.path}: holds no video, only sound or text")
        return container


class NumberedFrames:
    """Images that are the frames of a video, in the order given."""

    def __init__(self, paths: Sequence[Path], *, name: str, fps: float) -> None:
        self.paths = tuple(paths)
        self.name = name
        self.fps = fps
        self.count = len(self.paths)

    def frames(self) -> Iterator[VideoFrame]:
        """Yield the images."""
        for number, path in enumerate(self.paths):
            try:
                yield VideoFrame(number, number / self.fps, np.asarray(decode_image(path)))
            except ImageError as error:
                raise VideoError(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class VideoSummary:
    """What `predict_video` did: how many frames and detections, the files, and where it had to stop."""

    frames: int
    detections: int
    results: Path
    drawn: Path | None
    error: str = ""


def predict_video(
    detector: BaseDetector, video: Video, config: PredictConfig, advance: Callable[[], None]
) -> VideoSummary:
    """Detect in every frame; write NAME.csv and, with `config.draw`, drawn/NAME.mp4 into the output folder.

    A video that breaks off is written as far as it goes. Memory does not grow with its length.

    Args:
        detector: the model.
        video: what to look at.
        config: of `retinanet predict`; with `track`, objects keep a number from frame to frame.
        advance: called after every frame.
    """
    results = config.folder.output / f"{video.name}.csv"
    target = config.folder.output / "drawn" / f"{video.name}.mp4" if config.draw else None
    follow = _tracker(video.fps, config.draw_threshold) if config.track else None
    broken: list[VideoError] = []
    shown: list[VideoFrame] = []  # frames on their way through the network, oldest first

    def frames() -> Iterator[npt.NDArray[np.uint8]]:
        try:
            for frame in video.frames():
                shown.append(frame)
                yield frame.pixels_HW3
        except VideoError as error:
            broken.append(error)

    stream = detector.stream(
        batched(frames(), config.batch.batch_size),
        workers=config.loading.workers,
        threshold=config.threshold,
        tiling=config.tiling,
        tta=config.inference.tta,
    )
    count = total = 0
    with ExitStack() as stack:
        rows = stack.enter_context(_Rows(results))
        drawn = None if target is None else stack.enter_context(_DrawnVideo(target, fps=video.fps))
        for found in stream:
            frame = shown.pop(0)
            detections = detector.named(found.result())
            if follow is not None:
                detections = follow(detections)
            rows.write(frame, detections)
            if drawn is not None:
                image = draw(Image.fromarray(frame.pixels_HW3), detections, threshold=config.draw_threshold)
                drawn.write(np.asarray(image))
            count, total = count + 1, total + len(detections)
            advance()
    if not count:
        target = None
    error = str(broken[0]) if broken else ""
    return VideoSummary(frames=count, detections=total, results=results, drawn=target, error=error)


def _tracker(fps: float, threshold: float) -> Callable[[sv.Detections], sv.Detections]:
    """Return ByteTrack (arXiv 2110.06864) from `trackers`: detections in, the same with `tracker_id` out (-1: none).

    Tracks start from what is drawn; what scores less only continues them.
    """
    try:
        from trackers import ByteTrackTracker
    except ImportError as error:
        raise ConfigError("track needs the package trackers: pip install 'retinanet[tracking]'") from error
    tracker = ByteTrackTracker(
        frame_rate=max(fps, 1.0), track_activation_threshold=threshold, high_conf_det_threshold=threshold
    )

    def follow(detections: sv.Detections) -> sv.Detections:
        found = tracker.update(detections)
        scores = np.zeros(len(found)) if found.confidence is None else found.confidence
        order = np.argsort(-scores, kind="stable")  # ByteTrack puts the tracks first
        return cast(sv.Detections, found[order])

    return follow


class _Rows:
    """The CSV of a video, which takes its name when it is whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> _Rows:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = partial_path(self.path).open("w", encoding="utf-8", newline="")
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerow(CSV_COLUMNS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None:
            replace_file(partial_path(self.path), self.path)

    def write(self, frame: VideoFrame, detections: sv.Detections) -> None:
        """Write a line per detection; a frame without any is a line with nothing but its number and time."""
        head = [frame.number, f"{frame.seconds:.3f}"]
        if not len(detections):
            self._rows.writerow([*head, *[""] * (len(CSV_COLUMNS) - 2)])
        tracks = [-1] * len(detections) if detections.tracker_id is None else detections.tracker_id.tolist()
        scores = np.ones(len(detections)) if detections.confidence is None else detections.confidence
        for track, box, name, score in zip(tracks, detections.xyxy, class_names(detections), scores, strict=True):
            self._rows.writerow([*head, "" if track < 0 else track, *map(str, box), name, str(score)])


class _DrawnVideo:
    """An MP4 that takes its name when it is whole; its size is the first frame's."""

    def __init__(self, path: Path, *, fps: float) -> None:
        self.path = path
        self.rate = Fraction(fps).limit_denominator(1001)
        self._stream: Any = None

    def __enter__(self) -> _DrawnVideo:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(partial_path(self.path)), "w", format="mp4")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()
        if kind is None and self._stream is not None:
            replace_file(partial_path(self.path), self.path)
        elif self._stream is None:
            partial_path(self.path).unlink(missing_ok=True)

    def write(self, pixels_HW3: npt.NDArray[np.uint8]) -> None:
        """Add a frame."""
        if self._stream is None:
            codec = next(name for name in _CODECS if name in av.codecs_available)
            height, width = pixels_HW3.shape[:2]
            self._stream = self._container.add_stream(codec, rate=self.rate)
            self._stream.width, self._stream.height = width + width % 2, height + height % 2  # 4:2:0 wants even sides
            self._stream.pix_fmt = "yuv420p"
        H, W = self._stream.height, self._stream.width
        if pixels_HW3.shape[:2] != (H, W):
            fitted_HW3 = np.zeros((H, W, 3), np.uint8)
            h, w = min(H, pixels_HW3.shape[0]), min(W, pixels_HW3.shape[1])
            fitted_HW3[:h, :w] = pixels_HW3[:h, :w]
            pixels_HW3 = fitted_HW3
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(pixels_HW3, format="rgb24")))
