"""The network: backbone, feature pyramid, heads and anchors. Images to `HeadOutputs`, no loss and no NMS."""

from retinanet.model.anchors import AnchorGenerator, cell_anchors
from retinanet.model.backbone import Backbone, BackboneError, load_pretrained, pretrained_normalisation
from retinanet.model.retinanet import RetinaNet

__all__ = [
    "AnchorGenerator",
    "Backbone",
    "BackboneError",
    "RetinaNet",
    "cell_anchors",
    "load_pretrained",
    "pretrained_normalisation",
]
