"""`retinanet convert-weights`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from retinanet.commands.options import Flags
from retinanet.config import ConvertWeightsConfig


def convert_weights(
    file: Annotated[Path, Parameter(help="Weights of torchvision (.pth) or Detectron2 (.pkl, .pth).")],
    /,
    *,
    options: Flags[ConvertWeightsConfig],
) -> None:
    """Convert weights of torchvision's (.pth) or Detectron2's (.pkl, .pth) RetinaNet to a checkpoint.

    `retinanet convert-weights retinanet_resnet50_fpn_coco-eeacb38b.pth -o coco.ckpt`
    """
    from retinanet.checkpoint.import_weights import convert_weights as convert_file

    loaded = convert_file(file, options)
    network = loaded.model.config
    print(
        f"{network.backbone}, {len(loaded.classes)} classes, {network.head_depth} hidden layers in each head, images "
        f"of {loaded.image_config.image_size}: {options.output}"
    )
