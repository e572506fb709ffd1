"""A short video of moving blocks."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from tests.evaluate.block_detector_fake import made_image

FRAMES = 12


def make_frame(number: int) -> np.ndarray:
    """Return the pixels of a frame: a green block moves 6 pixels per frame, and from frame 4 on a blue block rests."""
    blocks = {1: (10 + 6 * number, 40, 50 + 6 * number, 80)}
    if number >= 4:
        blocks[2] = (150, 100, 190, 140)
    return np.asarray(made_image((200, 151), blocks))


def write_video(
    path: Path, *, count: int = FRAMES, rate: int = 10, times: Sequence[float] = (), pixel_aspect: int = 1
) -> Path:
    """Write a video with `count` frames per `rate` seconds, or with one frame at each of `times`, seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 200, 150, "yuv420p"
        stream.bit_rate = 4_000_000
        stream.time_base = Fraction(1, rate)
        stream.codec_context.sample_aspect_ratio = Fraction(pixel_aspect)
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(len(times) or count):
            video_frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(make_frame(number)[:150]), format="rgb24")
            if times:
                video_frame.pts, video_frame.time_base = round(1000 * times[number]), Fraction(1, 1000)
            container.mux(stream.encode(video_frame))
        container.mux(stream.encode())
    return path
