"""The export target torch.export: a program in float32 that decodes every anchor to a box and scores."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch

from retinanet.export.base_target import ExportSource, ExportTarget
from retinanet.export.comparison import clipped, compare_dense
from retinanet.export.torch_network import least_side, program
from retinanet.images import prepare_pixels
from retinanet.runtime.description import KEY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from retinanet.checkpoint.loaded_model import LoadedModel
    from retinanet.config import ImageConfig
    from retinanet.export.parity import Difference
    from retinanet.images import Scaled
    from retinanet.runtime.description import Description


class TorchExportTarget(ExportTarget):
    """torch.export."""

    suffix = ".pt2"
    title = "torch.export"

    def write(self, source: ExportSource, about: Description, path: Path) -> None:
        """Write the program, with the description as an extra file."""
        extra_files = {f"{KEY}.json": about.to_json()}
        torch.export.save(program(source.loaded.model, about), path, extra_files=extra_files)

    def compare(self, loaded: LoadedModel, about: Description, path: Path, images: Sequence[Path]) -> list[Difference]:
        """Compare scores and boxes of all anchors, on images padded to sides that the program takes."""
        module = torch.export.load(path).module()

        def exported(config: ImageConfig, scaled: Sequence[Scaled]) -> tuple[Any, Any]:
            pixels, frames = prepare_pixels(scaled, config)
            inputs = torch.from_numpy(pixels) if about.uint8 else torch.from_numpy(pixels).float() / 255
            sizes = torch.tensor([[frame.resized_width, frame.resized_height] for frame in frames])
            with torch.inference_mode():
                scores_NAK, boxes_NA4 = module(inputs, sizes)
            return scores_NAK.numpy(), clipped(boxes_NA4, frames)

        padded = dataclasses.replace(loaded.image_config, size_divisor=least_side(loaded.model))
        return compare_dense(loaded, exported, images, padded)
