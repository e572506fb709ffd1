"""`retinanet predict`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from retinanet.commands.options import Flags
from retinanet.config import PredictConfig


def predict(
    model: Annotated[Path, Parameter(help="Checkpoint or exported model.")],
    inputs: Annotated[list[str], Parameter(help="Images, videos, folders or globs.")],
    *,
    options: Flags[PredictConfig],
) -> int:
    """Detect objects in images and videos; write the detections and drawn images.

    `retinanet predict runs/first/best.ckpt images/ -o found --format csv`
    """
    return (_on_ray if options.engine == "ray" else _here)(model, inputs, options)


def _here(model: Path, inputs: Sequence[str], config: PredictConfig) -> int:
    """Predict in this process and print a summary. Return the exit status: 1 if an input failed."""
    from retinanet.commands.terminal import progress_bar
    from retinanet.predict.files import predict_files

    summary = predict_files(model, inputs, config, progress=progress_bar)
    for video in summary.videos:
        print(f"{video.detections:,} detections in {video.frames:,} frames: {video.results}")
        if video.drawn is not None:
            print(f"drawn ({_drawn_scores(config)}): {video.drawn}")
        if video.error:
            print(f"error: {video.error}", file=sys.stderr)
    if summary.results is not None:
        print(f"{summary.detections:,} detections in {summary.images:,} images: {summary.results}")
    if summary.drawn is not None and summary.images:
        print(f"drawn ({_drawn_scores(config)}): {summary.drawn}")
    for sentence in summary.left_out:
        print(sentence)
    print(f"device: {summary.device}")
    for _, error in summary.failed:
        print(f"error: {error}", file=sys.stderr)
    if summary.failed:
        files = "1 file" if len(summary.failed) == 1 else f"{len(summary.failed):,} files"
        print(f"{files} could not be read", file=sys.stderr)
    return 1 if summary.failed or any(video.error for video in summary.videos) else 0


def _drawn_scores(config: PredictConfig) -> str:
    if config.threshold == "tuned":
        return "scores above the tuned thresholds"
    return f"scores of at least {config.draw_threshold:g}"


def _on_ray(model: Path, inputs: Sequence[str], config: PredictConfig) -> int:
    """Predict on a Ray cluster and print a summary. Return the exit status: 1 if an image failed."""
    from retinanet.commands.terminal import progress_bar
    from retinanet.predict.ray_engine import predict_on_ray

    done = predict_on_ray(model, inputs, config, progress=progress_bar)
    before = f", {done.done_before:,} from an earlier run" if done.done_before else ""
    print(f"{done.detections:,} detections in {done.images:,} images: {done.results} ({done.shards:,} files{before})")
    if done.failed:
        print(f"{done.failed:,} images could not be read; the column `error` holds the reasons", file=sys.stderr)
    return 1 if done.failed else 0
