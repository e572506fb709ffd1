"""The network: backbone, feature pyramid, heads and anchors. It maps images to `HeadOutputs`, without loss or NMS."""

from retinanet.model.anchors import AnchorGenerator, cell_anchors
from retinanet.model.backbone import Backbone, BackboneError
from retinanet.model.build import build_backbone, build_parts, has_level_2
from retinanet.model.heads import rescale_logits
from retinanet.model.pretrained import load_pretrained, pretrained_normalisation
from retinanet.model.retinanet import RetinaNet

__all__ = [
    "AnchorGenerator",
    "Backbone",
    "BackboneError",
    "RetinaNet",
    "build_backbone",
    "build_parts",
    "cell_anchors",
    "has_level_2",
    "load_pretrained",
    "pretrained_normalisation",
    "rescale_logits",
]
