"""Videos and numbered frames: every frame is looked at once, in order, at its time, and objects keep their numbers."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinanet.errors import ConfigError, UserError
from retinanet.predict.files import predict_files
from retinanet.predict.video import CSV_COLUMNS, VideoError, VideoFile
from tests.evaluate.fakes import block_detector, made_image
from tests.predict.made_video import FRAMES, frame, write_video


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def boxes_of(rows: list[dict[str, str]], number: int, name: str) -> list[list[float]]:
    found = [row for row in rows if row["frame"] == str(number) and row["class"] == name]
    return [[float(row[key]) for key in ("x1", "y1", "x2", "y2")] for row in found]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_video_frame_by_frame(tmp_path: Path, workers: int) -> None:
    video = write_video(tmp_path / "clip.mp4")
    done = predict_files(block_detector(), [video], output=tmp_path / "out", batch_size=5, workers=workers)
    assert (done.images, done.results) == (0, None)
    (clip,) = done.videos
    assert (clip.frames, clip.error) == (FRAMES, "")
    rows = rows_of(clip.results)
    assert tuple(rows[0]) == CSV_COLUMNS
    assert sorted({int(row["frame"]) for row in rows}) == list(range(FRAMES))
    assert {row["frame"]: row["seconds"] for row in rows}["7"] == "0.700"
    for number in range(FRAMES):
        (box,) = boxes_of(rows, number, "green")
        assert box == pytest.approx([10 + 6 * number, 40, 50 + 6 * number, 80], abs=5)
        assert len(boxes_of(rows, number, "blue")) == (number >= 4)
    assert {row["track"] for row in rows} == {""}
    assert clip.drawn is not None
    drawn = VideoFile(clip.drawn)
    assert (drawn.count, drawn.fps) == (FRAMES, pytest.approx(10))
    shown = list(drawn.frames())[6].pixels_HW3
    assert shown.shape == (150, 200, 3)
    assert np.abs(shown.astype(int) - frame(6)[:150]).max() > 60, "boxes and names are drawn"
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_tracks_keep_their_numbers(tmp_path: Path) -> None:
    pytest.importorskip("trackers")
    video = write_video(tmp_path / "clip.mp4")
    (clip,) = predict_files(block_detector(), [video], output=tmp_path / "out", track=True, draw=False).videos
    rows = rows_of(clip.results)
    late = [row for row in rows if int(row["frame"]) >= 7]
    green, blue = ({row["track"] for row in late if row["class"] == name} for name in ("green", "blue"))
    assert len(green) == len(blue) == 1
    assert green != blue
    assert "" not in green | blue
    assert {row["track"] for row in rows if row["class"] == "green" and row["track"]} == green
    assert clip.drawn is None


def test_numbered_frames_are_a_video_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Sides that are odd, and frame_10 after frame_9."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(FRAMES):
        Image.fromarray(frame(number)).save(folder / f"frame_{number}.png")
    (clip,) = predict_files(block_detector(), [folder], output=tmp_path / "out", fps=5).videos
    rows = rows_of(clip.results)
    assert clip.results.name == "frames.csv"
    for number in range(FRAMES):
        (box,) = boxes_of(rows, number, "green")
        assert box == pytest.approx([10 + 6 * number, 40, 50 + 6 * number, 80], abs=5)
    assert rows[-1]["seconds"] == f"{(FRAMES - 1) / 5:.3f}"
    assert clip.drawn is not None
    assert next(VideoFile(clip.drawn).frames()).pixels_HW3.shape == (152, 200, 3)


def test_videos_and_images_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write_video(folder / "clip.mp4", count=3)
    made_image((100, 80), {1: (20, 20, 60, 60)}).save(folder / "a.png")
    done = predict_files(block_detector(), [folder], output=tmp_path / "out", format="csv")
    assert (done.images, len(done.videos), done.videos[0].frames) == (1, 1, 3)
    assert {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")} == {
        "detections.csv", "clip.csv", "drawn/a.jpg", "drawn/clip.mp4"
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"already holds clip\.csv, drawn/clip\.mp4, detections\.csv, drawn"):
        predict_files(block_detector(), [folder], output=tmp_path / "out", format="csv")


def test_a_video_that_breaks_off_is_written_as_far_as_it_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(frame(number)).save(folder / f"{number}.png")
    (folder / "2.png").write_bytes(b"no image")
    (clip,) = predict_files(block_detector(), [folder], output=tmp_path / "out", fps=5).videos
    assert (clip.frames, len(rows_of(clip.results))) == (2, 2)
    assert "2.png: not an image" in clip.error


def test_what_is_no_video(tmp_path: Path) -> None:
    fake = tmp_path / "fake.mp4"
    fake.write_bytes(b"nothing of the kind")
    with pytest.raises(VideoError, match=r"fake\.mp4: not a video"):
        predict_files(block_detector(), [fake], output=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    image = tmp_path / "a.png"
    Image.fromarray(frame(0)).save(image)
    with pytest.raises(ConfigError, match="track follows objects in a video"):
        predict_files(block_detector(), [image], output=tmp_path / "out", track=True)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_video(tmp_path / name / "clip.mp4", count=1)
    with pytest.raises(UserError, match="two videos are named clip"):
        predict_files(block_detector(), [tmp_path / "one", tmp_path / "two"], output=tmp_path / "out")


def test_a_playlist_in_the_guise_of_a_video_opens_nothing(tmp_path: Path) -> None:
    """FFmpeg knows formats by their content; an HLS playlist would make it read any file that it names."""
    write_video(tmp_path / "secret.ts", count=2)
    playlist = tmp_path / "harmless.mp4"
    playlist.write_text("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\nsecret.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(VideoError, match="not a video"):
        VideoFile(playlist)


def test_without_the_tracker_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(ConfigError, match=r"retinanet\[tracking\]"):
        predict_files(block_detector(), [write_video(tmp_path / "a.mp4")], output=tmp_path / "out", track=True)
