"""Videos and numbered frames: each frame is processed once, in order, and objects keep their track numbers."""

from __future__ import annotations

import csv
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinanet.config import PredictConfig, resolve, with_options
from retinanet.errors import ConfigError, UserError
from retinanet.predict.files import predict_files
from retinanet.predict.video import CSV_COLUMNS, VideoError, VideoFile, VideoFrame, predict_video
from tests.evaluate.block_detector_fake import block_detector, made_image
from tests.predict.made_video import FRAMES, make_frame, write_video


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def frame_boxes(rows: list[dict[str, str]], number: int, name: str) -> list[list[float]]:
    """Return the boxes of one class in one frame."""
    of_class = [row for row in rows if row["frame"] == str(number) and row["class"] == name]
    return [[float(row[key]) for key in ("x1", "y1", "x2", "y2")] for row in of_class]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_frame_of_a_video_is_detected_and_drawn(tmp_path: Path, workers: int) -> None:
    video = write_video(tmp_path / "clip.mp4")
    summary = predict_files(block_detector(), [video], output=tmp_path / "out", batch_size=5, workers=workers)
    assert (summary.images, summary.results) == (0, None)
    (clip,) = summary.videos
    assert (clip.frames, clip.error) == (FRAMES, "")
    rows = read_rows(clip.results)
    assert tuple(rows[0]) == CSV_COLUMNS
    assert sorted({int(row["frame"]) for row in rows}) == list(range(FRAMES))
    assert {row["frame"]: row["seconds"] for row in rows}["7"] == "0.700"
    for number in range(FRAMES):
        (box,) = frame_boxes(rows, number, "green")
        assert box == pytest.approx([10 + 6 * number, 40, 50 + 6 * number, 80], abs=5)
        assert len(frame_boxes(rows, number, "blue")) == (number >= 4)
    assert {row["track"] for row in rows} == {""}
    assert clip.drawn is not None
    drawn = VideoFile(clip.drawn)
    assert (drawn.count, drawn.fps) == (FRAMES, pytest.approx(10))
    pixels_HW3 = list(drawn.frames())[6].pixels_HW3
    assert pixels_HW3.shape == (150, 200, 3)
    assert np.abs(pixels_HW3.astype(int) - make_frame(6)[:150]).max() > 60, "boxes and names are drawn"
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_objects_keep_their_track_numbers(tmp_path: Path) -> None:
    pytest.importorskip("trackers")
    video = write_video(tmp_path / "clip.mp4")
    (clip,) = predict_files(block_detector(), [video], output=tmp_path / "out", track=True, draw=False).videos
    rows = read_rows(clip.results)
    late = [row for row in rows if int(row["frame"]) >= 7]
    green, blue = ({row["track"] for row in late if row["class"] == name} for name in ("green", "blue"))
    assert len(green) == len(blue) == 1
    assert green != blue
    assert "" not in green | blue
    assert {row["track"] for row in rows if row["class"] == "green" and row["track"]} == green
    assert clip.drawn is None


class Recording:
    """Frames of a block that moves 120 pixels per second, at the given times."""

    name, fps, pixel_aspect = "recording", 10.0, Fraction(1)

    def __init__(self, times: Sequence[float]) -> None:
        self.times = times
        self.count = len(times)

    def frames(self) -> Iterator[VideoFrame]:
        for number, seconds in enumerate(self.times):
            x = 10 + round(120 * seconds)
            yield VideoFrame(number, seconds, np.asarray(made_image((240, 150), {1: (x, 40, x + 40, 80)})))


@pytest.mark.parametrize("times", [(0, 0.1, 0.2, 0.3, 0.8, 0.9, 1.0), (0, 0.1, 0.1, 0.2, 0.15, 0.2, 0.3)])
def test_an_object_keeps_its_track_over_dropped_frames(tmp_path: Path, times: Sequence[float]) -> None:
    """Phones and surveillance cameras drop frames: in 0.5 seconds, the block moves by 1.5 times its width."""
    pytest.importorskip("trackers")
    options = {"output": tmp_path, "track": True, "draw": False, "workers": 0}
    rows = read_rows(predict_video(block_detector(), Recording(times), resolve(PredictConfig, options), int).results)
    assert len(rows) == len(times)
    assert len({row["track"] for row in rows if row["track"]}) == 1
    assert rows[-1]["track"], "the object has a track in the last frame"


def test_numbered_frames_are_a_video_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """The frames have an odd height, and frame_10 follows frame_9."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(FRAMES):
        Image.fromarray(make_frame(number)).save(folder / f"frame_{number}.png")
    (clip,) = predict_files(block_detector(), [folder], output=tmp_path / "out", fps=5).videos
    rows = read_rows(clip.results)
    assert clip.results.name == "frames.csv"
    for number in range(FRAMES):
        (box,) = frame_boxes(rows, number, "green")
        assert box == pytest.approx([10 + 6 * number, 40, 50 + 6 * number, 80], abs=5)
    assert rows[-1]["seconds"] == f"{(FRAMES - 1) / 5:.3f}"
    assert clip.drawn is not None
    assert next(VideoFile(clip.drawn).frames()).pixels_HW3.shape == (152, 200, 3)


def test_numbered_frames_are_read_with_the_bit_depth_of_the_model(tmp_path: Path) -> None:
    """A white block of a 12-bit sensor would be nearly black in 16 bits."""
    folder = tmp_path / "frames"
    folder.mkdir()
    pixels_HW = np.zeros((151, 200), np.uint16)
    pixels_HW[40:80, 10:50] = 4095
    Image.fromarray(pixels_HW).save(folder / "0.tif")
    detector = block_detector()
    image_config = with_options(detector.image_config, bit_depth=12)
    detector.info = dataclasses.replace(detector.info, image_config=image_config)
    (clip,) = predict_files(detector, [folder], output=tmp_path / "out", fps=5).videos
    (box,) = frame_boxes(read_rows(clip.results), 0, "green")
    assert box == pytest.approx([10, 40, 50, 80], abs=5)


def test_videos_and_images_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_video(folder / "clip.mp4", count=3)
    made_image((100, 80), {1: (20, 20, 60, 60)}).save(folder / "a.png")
    summary = predict_files(block_detector(), [folder], output=tmp_path / "out", format="csv")
    assert (summary.images, len(summary.videos), summary.videos[0].frames) == (1, 1, 3)
    assert {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")} == {
        "detections.csv", "clip.csv", "drawn/a.jpg", "drawn/clip.mp4"
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"already contains clip\.csv, drawn/clip\.mp4, detections\.csv, drawn"):
        predict_files(block_detector(), [folder], output=tmp_path / "out", format="csv")


def test_frames_before_a_damaged_frame_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(make_frame(number)).save(folder / f"{number}.png")
    (folder / "2.png").write_bytes(b"not an image")
    (clip,) = predict_files(block_detector(), [folder], output=tmp_path / "out", fps=5).videos
    assert (clip.frames, len(read_rows(clip.results))) == (2, 2)
    assert "2.png: not an image" in clip.error


def test_invalid_videos_are_refused(tmp_path: Path) -> None:
    fake = tmp_path / "fake.mp4"
    fake.write_bytes(b"not a video")
    with pytest.raises(VideoError, match=r"fake\.mp4: not a video"):
        predict_files(block_detector(), [fake], output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    image = tmp_path / "a.png"
    Image.fromarray(make_frame(0)).save(image)
    with pytest.raises(ConfigError, match="track expects a video, found only images"):
        predict_files(block_detector(), [image], output=tmp_path / "out", track=True)
    (tmp_path / "clip").mkdir()
    image.rename(tmp_path / "clip" / "0.png")
    write_video(tmp_path / "clip.mp4", count=1)
    with pytest.raises(UserError, match="two videos are named clip"):
        predict_files(block_detector(), [tmp_path / "clip", tmp_path / "clip.mp4"], output=tmp_path / "out", fps=5)


def test_videos_with_equal_names_keep_their_results_apart(tmp_path: Path) -> None:
    """Cameras number their files alike: cam1/0001.mp4, cam2/0001.mp4, and 0001.avi beside 0001.mp4."""
    for name in ("cam1/0001.mp4", "cam2/0001.mp4", "cam2/0001.avi"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(tmp_path / "in" / name, count=1)
    videos = predict_files(block_detector(), [tmp_path / "in"], output=tmp_path / "out", draw=False).videos
    assert [video.results.relative_to(tmp_path / "out").as_posix() for video in videos] == [
        "cam1/0001.csv", "cam2/0001.avi.csv", "cam2/0001.mp4.csv"
    ]  # fmt: skip
    assert all(len(read_rows(video.results)) == 1 for video in videos)


def test_a_video_named_detections_does_not_share_a_file_with_the_images(tmp_path: Path) -> None:
    """detections.csv holds the detections in the images. Before, it replaced those in the video."""
    folder = tmp_path / "in"
    folder.mkdir()
    write_video(folder / "Detections.mp4", count=1)
    made_image((100, 80), {1: (20, 20, 60, 60)}).save(folder / "a.png")
    found = predict_files(block_detector(), [folder], output=tmp_path / "out", format="csv", draw=False)
    assert found.videos[0].results.name == "Detections.mp4.csv"
    assert found.results == tmp_path / "out" / "detections.csv"
    assert len(read_rows(found.videos[0].results)) == 1


def test_a_file_that_is_no_video_does_not_stop_the_others(tmp_path: Path) -> None:
    """.ts is also the suffix of TypeScript; a recording that was cut off is empty."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "page.ts").write_text("let count: number = 1;\n")
    (folder / "empty.mp4").touch()
    write_video(folder / "good.mp4", count=2)
    made_image((100, 80), {1: (20, 20, 60, 60)}).save(folder / "a.png")
    found = predict_files(block_detector(), [folder], output=tmp_path / "out", draw=False)
    assert (found.images, [video.frames for video in found.videos]) == (1, [2])
    assert [error for _, error in found.failed] == [
        f"{folder / 'empty.mp4'}: not a video in a supported format (found an empty file)",
        f"{folder / 'page.ts'}: not a video in a supported format (found text)",
    ]


def test_a_playlist_named_as_a_video_is_refused(tmp_path: Path) -> None:
    """FFmpeg recognises formats by content. An HLS playlist would make FFmpeg read any file that the playlist names."""
    write_video(tmp_path / "secret.ts", count=2)
    playlist = tmp_path / "harmless.mp4"
    playlist.write_text("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\nsecret.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(VideoError, match="not a video"):
        VideoFile(playlist)


def test_the_error_without_the_tracker_names_the_extra_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(ConfigError, match=r"retinanet\[tracking\]"):
        predict_files(block_detector(), [write_video(tmp_path / "a.mp4")], output=tmp_path / "out", track=True)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_drawn_frames_keep_their_times_and_pixel_shape(tmp_path: Path, suffix: str) -> None:
    """5 frames in half a second, then one frame per second, as in a screen recording; pixels twice as wide as high."""
    times = [0.0, 0.1, 0.2, 0.3, 0.4, 1.4, 2.4, 3.4, 7.9]
    video = write_video(tmp_path / f"screen.{suffix}", times=times, pixel_aspect=2)
    (clip,) = predict_files(block_detector(), [video], output=tmp_path / "out").videos
    assert clip.drawn is not None
    drawn = VideoFile(clip.drawn)
    assert [frame.seconds for frame in drawn.frames()] == pytest.approx(times, abs=0.002)
    assert drawn.pixel_aspect == 2
    seconds = {int(row["frame"]): float(row["seconds"]) for row in read_rows(clip.results)}
    assert list(seconds.values()) == pytest.approx(times, abs=0.002)


def test_frames_with_equal_or_falling_times_are_all_drawn(tmp_path: Path) -> None:
    """A video with damaged time stamps keeps its frames in order, with times that rise."""

    class Damaged(VideoFile):
        def frames(self) -> Iterator[VideoFrame]:
            for frame, seconds in zip(super().frames(), [0.0, 0.5, 0.5, 0.2, 1.0], strict=True):
                yield frame._replace(seconds=seconds)

    video = Damaged(write_video(tmp_path / "clip.mp4", count=5))
    config = resolve(PredictConfig, {"output": tmp_path / "out"})
    clip = predict_video(block_detector(), video, config, lambda: None)
    assert clip.drawn is not None
    times = [frame.seconds for frame in VideoFile(clip.drawn).frames()]
    assert times == pytest.approx([0, 0.5, 0.5, 0.5, 1.0], abs=0.01)
    assert times == sorted(set(times))
