"""RetinaNets of torchvision with random weights, and COCO images, for tests that compare with other projects.

Shape suffixes: N batch, A anchors, K classes, G ground-truth boxes.
"""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection import retinanet_resnet50_fpn_v2
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

from retinanet.types import Target


def torchvision_v1(num_classes: int = 91, *, backbone: str = "resnet50", eps: float = 0.0) -> TorchvisionRetinaNet:
    """Return `retinanet_resnet50_fpn` as built for published weights: frozen BatchNorm with eps 0."""
    body = resnet_fpn_backbone(
        backbone_name=backbone,
        weights=None,
        norm_layer=FrozenBatchNorm2d,
        trainable_layers=5,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    model = TorchvisionRetinaNet(body, num_classes)
    overwrite_eps(model, eps)
    return model


def torchvision_v2(num_classes: int = 91) -> TorchvisionRetinaNet:
    """Return `retinanet_resnet50_fpn_v2`."""
    return retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=num_classes)


@torch.no_grad()
def randomise_weights(model: TorchvisionRetinaNet, image_3HW: torch.Tensor, *, bias: float = -4.0) -> None:
    """Randomise BatchNorm, and scale the outputs so that thousands of scores on the image pass the threshold."""
    generator = torch.Generator().manual_seed(7)
    for module in model.modules():
        if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
            module.running_var[0] = 1e-5  # makes the choice of eps, 0 or 1e-5, visible
            module.weight.uniform_(0.3, 0.8, generator=generator)
            module.weight[0] = 1e-3
            module.bias.normal_(0, 0.1, generator=generator)
    model.eval()
    images, _ = model.transform([image_3HW])
    outputs = model.head(list(model.backbone(images.tensors).values()))
    for layer, output, spread in (
        (model.head.classification_head.cls_logits, outputs["cls_logits"], 1.0),
        (model.head.regression_head.bbox_reg, outputs["bbox_regression"], 0.3),
    ):
        layer.weight *= spread / output.std()
        layer.bias.normal_(0, 0.1, generator=generator)
    model.head.classification_head.cls_logits.bias += bias


def coco128(shared_data: Path, count: int) -> list[tuple[torch.Tensor, Target]]:
    """Return the first `count` images with objects, RGB in [0, 1], and their targets without crowd regions.

    Boxes are xyxy, pixels. Labels are COCO's category ids.
    """
    content = json.loads((shared_data / "coco128" / "annotations" / "instances_train2017.json").read_text())
    out = []
    for image in content["images"]:
        rows = [a for a in content["annotations"] if a["image_id"] == image["id"] and not a["iscrowd"]]
        if rows:
            pixels = np.asarray(Image.open(shared_data / "coco128" / "images" / image["file_name"]).convert("RGB"))
            boxes_G4 = torch.tensor([a["bbox"] for a in rows])
            boxes_G4[:, 2:] += boxes_G4[:, :2]
            labels_G = torch.tensor([a["category_id"] for a in rows])
            target = Target(boxes_G4=boxes_G4, labels_G=labels_G, crowd_G=torch.zeros(len(rows), dtype=torch.bool))
            out.append((torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255, target))
        if len(out) == count:
            break
    return out
