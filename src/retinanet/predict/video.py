"""Detect objects in videos and numbered frames, track the objects, and write the results and a drawn video.

Boxes are xyxy, pixels of the frame. Shape suffixes: H, W; 3 is RGB.
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
from retinanet.files import content_of, partial_path, replace_file
from retinanet.images import ImageError
from retinanet.images import decode as decode_image
from retinanet.pixel_values import FULL_DEPTH
from retinanet.predict.batches import batched
from retinanet.predict.coco_results import class_names, scores
from retinanet.predict.draw import DRAWN, draw

if TYPE_CHECKING:
    from types import TracebackType

    from retinanet.config import PredictConfig
    from retinanet.predict.detector import BaseDetector

CSV_COLUMNS: Final = ("frame", "seconds", "track", "x1", "y1", "x2", "y2", "class", "score")

_CONTAINERS: Final = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,asf"
"""Video formats that are opened, by their FFmpeg names. Playlist formats are excluded: a playlist named .mp4 could make
FFmpeg open any other file."""
_VIDEO_CODECS: Final = ("libx264", "h264", "mpeg4")
"""Codecs for the drawn video, in order of preference. Browsers play H.264."""


_TIME_BASE: Final = Fraction(1, 60_000)
"""Unit of times in the drawn video, in seconds. Common frame rates are whole numbers of it; MPEG-4 allows no finer unit
than 1/65,535."""


class VideoError(UserError):
    """A video cannot be read. The message contains its path and the reason."""


class VideoFrame(NamedTuple):
    """One frame of a video."""

    number: int
    """Number of the frame, from 0."""
    seconds: float
    """Time since the start of the video."""
    pixels_HW3: npt.NDArray[np.uint8]
    """Pixels in RGB."""


class Video(Protocol):
    """A video: its name, its mean frame rate `fps` (frames per second) and its number of frames `count` (0: unknown).

    `pixel_aspect` is the width of a displayed pixel divided by its height.
    """

    name: str
    fps: float
    count: int
    pixel_aspect: Fraction

    def frames(self) -> Iterator[VideoFrame]:
        """Yield the frames in order. Raises `VideoError` at a frame that cannot be decoded."""


class VideoFile:
    """A video file. Raises `VideoError` if the file is not a video.

    Args:
        path: the file.
        name: path of the results in the output folder, without suffix; None: the name of the file without suffix.
    """

    def __init__(self, path: Path, *, name: str | None = None) -> None:
        self.path = path
        self.name = path.stem if name is None else name
        with self._open() as container:
            stream = container.streams.video[0]
            self.fps = float(stream.average_rate or stream.guessed_rate or 25)
            self.count = int(stream.frames)
            self.pixel_aspect = Fraction(stream.sample_aspect_ratio or 1)

    def frames(self) -> Iterator[VideoFrame]:
        """Yield the frames in order, upright, with their presentation times."""
        with self._open() as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            self.pixel_aspect = Fraction(stream.sample_aspect_ratio or 1)
            start: float | None = None
            seconds = -1 / self.fps
            try:
                for number, frame in enumerate(container.decode(stream)):
                    seconds = seconds + 1 / self.fps if frame.time is None else float(frame.time)
                    start = seconds if start is None else start
                    pixels_HW3 = frame.to_ndarray(format="rgb24")
                    turns = round(getattr(frame, "rotation", 0) / 90) % 4  # anticlockwise
                    if number == 0 and turns % 2:
                        self.pixel_aspect = 1 / self.pixel_aspect
                    yield VideoFrame(number, seconds - start, np.ascontiguousarray(np.rot90(pixels_HW3, turns)))
            except av.error.FFmpegError as error:
                raise VideoError(f"{self.path}: decoding stopped at a damaged frame ({error.strerror})") from error

    def _open(self) -> Any:
        try:
            container = av.open(str(self.path), options={"format_whitelist": _CONTAINERS})
        except av.error.FFmpegError as error:
            found = content_of(self.path) or error.strerror
            raise VideoError(f"{self.path}: not a video in a supported format (found {found})") from error
        if not container.streams.video:
            container.close()
            raise VideoError(f"{self.path}: expected a video stream, found only other streams such as audio")
        return container


class NumberedFrames:
    """A video whose frames are image files, in the order of `paths`."""

    bit_depth: int = FULL_DEPTH
    """Number of bits that 16-bit images use, see `images.decode`."""

    def __init__(self, paths: Sequence[Path], *, name: str, fps: float) -> None:
        self.paths = tuple(paths)
        self.name = name
        self.fps = fps
        self.count = len(self.paths)
        self.pixel_aspect = Fraction(1)

    def frames(self) -> Iterator[VideoFrame]:
        """Yield the images as frames. Raises `VideoError` at an image that cannot be decoded."""
        for number, path in enumerate(self.paths):
            try:
                yield VideoFrame(number, number / self.fps, np.asarray(decode_image(path, bit_depth=self.bit_depth)))
            except ImageError as error:
                raise VideoError(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class VideoSummary:
    """Result of `predict_video`.

    Args:
        frames: number of frames that were processed.
        detections: number of detections.
        results: CSV file with the detections.
        drawn: drawn video; None if none was written.
        error: reason why the video could not be read to its end; empty if it was read completely.
    """

    frames: int
    detections: int
    results: Path
    drawn: Path | None
    error: str = ""


def predict_video(
    detector: BaseDetector, video: Video, config: PredictConfig, advance: Callable[[], None]
) -> VideoSummary:
    """Detect objects in every frame, and write NAME.csv and, with `config.draw`, drawn/NAME.mp4.

    If a frame cannot be decoded, the results of the frames before it are kept. Memory does not grow with the length of
    the video.

    Args:
        detector: detector that runs on the frames.
        video: video to read.
        config: options. With `track`, an object keeps its track number from frame to frame.
        advance: function that is called after every frame.
    """
    results = config.folder.output / f"{video.name}.csv"
    target = config.folder.output / DRAWN / f"{video.name}.mp4" if config.draw else None
    track = _tracker(video.fps, config.draw_threshold) if config.track else None
    if isinstance(video, NumberedFrames):
        video.bit_depth = detector.image_config.bit_depth
    errors: list[VideoError] = []
    pending: list[VideoFrame] = []  # frames without results so far, oldest first

    def frames() -> Iterator[npt.NDArray[np.uint8]]:
        try:
            for frame in video.frames():
                pending.append(frame)
                yield frame.pixels_HW3
        except VideoError as error:
            errors.append(error)

    stream = detector.stream(
        batched(frames(), config.batch.batch_size),
        workers=config.loading.workers,
        threshold=config.threshold,
        tiling=config.tiling,
        tta=config.inference.tta,
        classes=config.classes,
    )
    count = total = 0
    with ExitStack() as stack:
        rows = stack.enter_context(_CsvRows(results))
        drawn = None if target is None else stack.enter_context(_DrawnVideo(target, video))
        for result in stream:
            frame = pending.pop(0)
            detections = detector.named(result.result())
            if track is not None:
                detections = track(detections, frame.seconds)
            rows.write(frame, detections)
            if drawn is not None:
                threshold, classes = config.drawn_threshold, detector.classes
                pixels = Image.fromarray(frame.pixels_HW3)
                image = draw(pixels, detections, threshold=threshold, classes=classes, font=config.font)
                drawn.write(np.asarray(image), frame.seconds)
            count, total = count + 1, total + len(detections)
            advance()
    if not count:
        target = None
    error = str(errors[0]) if errors else ""
    return VideoSummary(frames=count, detections=total, results=results, drawn=target, error=error)


def _tracker(fps: float, threshold: float) -> Callable[[sv.Detections, float], sv.Detections]:
    """Return a function that adds track numbers to the detections of the next frame: ByteTrack (arXiv 2110.06864).

    The function also takes the time of the frame in seconds: after a gap, an object has moved further than from one
    frame to the next, so that a tracker that counts frames would lose it.
    The track number `tracker_id` is -1 for a detection without a track. Only detections with a score of at least
    `threshold` start a track. Detections with lower scores only continue tracks.
    """
    try:
        from trackers import ByteTrackTracker
    except ImportError as error:
        raise ConfigError("track requires the package trackers: pip install 'retinanet[tracking]'") from error
    tracker = ByteTrackTracker(
        frame_rate=max(fps, 1.0), track_activation_threshold=threshold, high_conf_det_threshold=threshold
    )

    latest = -1.0

    def track(detections: sv.Detections, seconds: float) -> sv.Detections:
        nonlocal latest
        latest = max(latest + 1e-3, seconds)  # the times of a damaged file may repeat or step back
        tracked = tracker.update(detections, timestamp=latest)
        order = np.argsort(-scores(tracked), kind="stable")  # ByteTrack returns detections with a track first
        return cast(sv.Detections, tracked[order])

    return track


class _CsvRows:
    """Writer of a video's CSV file. The file gets its final name only once it is complete."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> _CsvRows:
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
        """Write one line per detection. A frame without detections gets one line with only its number and time."""
        head = [frame.number, f"{frame.seconds:.3f}"]
        if not len(detections):
            self._rows.writerow([*head, *[""] * (len(CSV_COLUMNS) - 2)])
        tracks = [-1] * len(detections) if detections.tracker_id is None else detections.tracker_id.tolist()
        columns = (tracks, detections.xyxy, class_names(detections), scores(detections))
        for track, box, name, score in zip(*columns, strict=True):
            self._rows.writerow([*head, "" if track < 0 else track, *map(str, box), name, str(score)])


class _DrawnVideo:
    """Writer of an MP4 file with the size of the first frame and the times of all frames.

    Frames keep their times: the frame rate of screen recordings, phones and streams varies. The file gets its final
    name only once it is complete.
    """

    def __init__(self, path: Path, video: Video) -> None:
        self.path = path
        self.video = video
        self.rate = Fraction(video.fps).limit_denominator(1001)
        self._stream: Any = None
        self._tick = -1  # time of the last frame, in units of _TIME_BASE

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

    def write(self, pixels_HW3: npt.NDArray[np.uint8], seconds: float) -> None:
        """Add a frame that is shown from `seconds` on; at least one tick after the frame before it."""
        if self._stream is None:
            codec = next(name for name in _VIDEO_CODECS if name in av.codecs_available)
            height, width = pixels_HW3.shape[:2]
            self._stream = self._container.add_stream(codec, rate=self.rate)
            # yuv420p requires even sides
            self._stream.width, self._stream.height = width + width % 2, height + height % 2
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = _TIME_BASE
            self._stream.codec_context.sample_aspect_ratio = self.video.pixel_aspect
        H, W = self._stream.height, self._stream.width
        if pixels_HW3.shape[:2] != (H, W):
            fitted_HW3 = np.zeros((H, W, 3), np.uint8)
            h, w = min(H, pixels_HW3.shape[0]), min(W, pixels_HW3.shape[1])
            fitted_HW3[:h, :w] = pixels_HW3[:h, :w]
            pixels_HW3 = fitted_HW3
        frame = av.VideoFrame.from_ndarray(pixels_HW3, format="rgb24")
        self._tick = max(self._tick + 1, round(seconds / _TIME_BASE))
        frame.pts, frame.time_base = self._tick, _TIME_BASE
        self._container.mux(self._stream.encode(frame))
