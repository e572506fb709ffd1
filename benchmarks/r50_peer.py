"""Build torchvision's RetinaNet R50 (frozen BatchNorm, 91 classes), and our network with equal weights."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torchvision.models import resnet50
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7
from torchvision.transforms.functional import to_tensor

from retinanet.config import ImageConfig, PostprocessConfig
from retinanet.model import RetinaNet
from retinanet.predict.torch_detector import Detector

CLASSES = 91
CANDIDATES = 3000
"""Number of scores of an image above the threshold. Random weights give none, a trained network at most thousands."""


def peer(trainable_layers: int = 3) -> TorchvisionRetinaNet:
    """Return torchvision's network with random weights, built as `retinanet_resnet50_fpn` builds a pretrained one."""
    torch.manual_seed(0)
    body = resnet50(norm_layer=FrozenBatchNorm2d)
    extra = LastLevelP6P7(256, 256)
    return TorchvisionRetinaNet(
        _resnet_fpn_extractor(body, trainable_layers, returned_layers=[2, 3, 4], extra_blocks=extra), CLASSES
    )


def like(theirs: TorchvisionRetinaNet) -> RetinaNet:
    """Return our network with the weights and the frozen layers of torchvision's network."""
    ours = RetinaNet(num_classes=CLASSES, p6_from="p5")
    frozen = {_our_name(name) for name, p in theirs.named_parameters() if not p.requires_grad}
    state = {_our_name(name): value for name, value in theirs.state_dict().items()}
    missing = ours.load_state_dict(state, strict=False)
    if missing.unexpected_keys or any("num_batches" not in key for key in missing.missing_keys):
        raise RuntimeError(f"expected the parameter names of torchvision's RetinaNet, found {missing}")
    ours.backbone.freeze_batchnorm()
    for name, parameter in ours.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    return ours.to(memory_format=torch.channels_last)


def _our_name(name: str) -> str:
    """Return our name of a parameter of torchvision's RetinaNet."""
    parts = name.split(".")
    last = parts[-1]
    if name.startswith("backbone.body."):
        return name
    if "inner_blocks" in parts:
        return f"fpn.lateral.{parts[3]}.{last}"
    if "layer_blocks" in parts:
        return f"fpn.output.{parts[3]}.{last}"
    if "extra_blocks" in parts:
        return f"fpn.coarse.{0 if 'p6' in parts else 1}.{last}"
    head = "class_head" if "classification_head" in parts else "box_head"
    if "conv" in parts:
        return f"{head}.hidden.{2 * int(parts[parts.index('conv') + 1])}.{last}"
    return f"{head}.output.{last}"


@torch.inference_mode()
def raise_bias(theirs: TorchvisionRetinaNet, path: Path) -> None:
    """Raise the class bias of a random network so that `CANDIDATES` scores of an image exceed the threshold 0.05."""
    images, _ = theirs.transform([image(path)])
    logits = theirs.head(list(theirs.backbone(images.tensors).values()))["cls_logits"].flatten()
    theirs.head.classification_head.cls_logits.bias += -2.944 - logits.topk(CANDIDATES).values[-1]


def image(path: Path) -> torch.Tensor:
    """Return an image file as torchvision's input: float [3, H, W] in [0, 1]."""
    return to_tensor(Image.open(path).convert("RGB"))


def detector(network: RetinaNet, size: int, precision: str) -> Detector:
    """Return our detector with torchvision's settings."""
    return Detector(
        model=network,
        classes=[str(i) for i in range(CLASSES)],
        category_ids=range(CLASSES),
        image_config=ImageConfig(image_size=size, max_size=1333),
        postprocess_config=PostprocessConfig(max_detections=300),
        device="cpu",
        precision=precision,  # type: ignore[arg-type]
    )
