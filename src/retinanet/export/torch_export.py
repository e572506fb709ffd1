"""The export target torch.export: a float32 program that returns the box and the scores of every anchor."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import torch

from retinanet.export.base_target import ExportSource, ExportTarget
from retinanet.export.comparison import clip_to_images, compare_dense
from retinanet.export.torch_network import export_program, min_side
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
        """Write the program, with the description as an additional file inside it."""
        extra_files = {f"{KEY}.json": about.to_json()}
        torch.export.save(export_program(source.loaded.model, about), path, extra_files=extra_files)

    def compare(self, loaded: LoadedModel, about: Description, path: Path, images: Sequence[Path]) -> list[Difference]:
        """Return the differences between scores and boxes of all anchors, on images padded to sides that it accepts."""
        module = torch.export.load(path).module()

        def exported(config: ImageConfig, scaled: Sequence[Scaled]) -> tuple[Any, Any]:
            pixels, frames = prepare_pixels(scaled, config)
            inputs = torch.from_numpy(pixels) if about.uint8 else torch.from_numpy(pixels).float() / 255
            sizes = torch.tensor([[frame.resized_width, frame.resized_height] for frame in frames])
            with torch.inference_mode():
                scores_NAK, boxes_NA4 = module(inputs, sizes)
            return scores_NAK.numpy(), clip_to_images(boxes_NA4, frames)

        padded = dataclasses.replace(loaded.image_config, size_divisor=min_side(loaded.model))
        return compare_dense(loaded, exported, images, padded)
