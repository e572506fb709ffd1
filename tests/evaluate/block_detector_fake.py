"""A detector of red, green and blue blocks, whose correct output is known without training."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from retinanet.boxes import encode
from retinanet.config import ImageConfig, PostprocessConfig
from retinanet.predict.torch_detector import Detector
from retinanet.types import HeadOutputs

CLASSES = ("red", "green", "blue")
CATEGORY_IDS = (3, 7, 90)


class BlockFinder(nn.Module):
    """Network with one anchor for each colour, which detects the block of that colour.

    The logit is 6 times the brightness, so that a bright block has a higher score than a dark one.
    """

    def forward(self, images_N3HW: Tensor) -> HeadOutputs:
        N = len(images_N3HW)
        anchors_A4 = torch.tensor([[0.0, 0.0, 64.0, 64.0]]).repeat(3, 1).to(images_N3HW)
        logits_NAK = torch.full((N, 3, 3), -20.0).to(images_N3HW)
        deltas_NA4 = torch.zeros(N, 3, 4).to(images_N3HW)
        for n in range(N):
            for k in range(3):
                plane_HW = images_N3HW[n, k]
                rows, columns = torch.nonzero(plane_HW > 0.25, as_tuple=True)
                if len(rows):
                    box = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
                    deltas_NA4[n, k] = encode(box[None], anchors_A4[k : k + 1])[0]
                    logits_NAK[n, k, k] = 6 * plane_HW.max()
        return HeadOutputs(logits_NAK=logits_NAK, deltas_NA4=deltas_NA4, anchors_A4=anchors_A4, anchors_per_level=(3,))


def block_detector(image_size: int = 50, max_size: int = 256, classes: tuple[str, ...] = CLASSES) -> Detector:
    return Detector(
        model=BlockFinder(),
        classes=classes,
        category_ids=CATEGORY_IDS,
        image_config=ImageConfig(
            image_size=image_size, max_size=max_size, image_mean=(0.0, 0.0, 0.0), image_std=(1.0, 1.0, 1.0)
        ),
        postprocess_config=PostprocessConfig(),
        device="cpu",
    )


def made_image(size: tuple[int, int], blocks: dict[int, tuple[int, int, int, int]], value: int = 255) -> Image.Image:
    """Return a black image with a block (xyxy) in each given colour channel."""
    pixels_HW3 = np.zeros((size[1], size[0], 3), np.uint8)
    for channel, (x1, y1, x2, y2) in blocks.items():
        pixels_HW3[y1:y2, x1:x2, channel] = value
    return Image.fromarray(pixels_HW3)
