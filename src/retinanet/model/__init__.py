"""The network: backbone, feature pyramid, heads and anchors. Images to `HeadOutputs`, no loss and no NMS."""

from retinanet.model.anchors import AnchorGenerator, cell_anchors
from retinanet.model.backbone import Backbone, BackboneError, load_pretrained, pretrained_normalisation
from retinanet.model.retinanet import RetinaNet
from retinanet.predict.fast_network import for_inference, has_fast_bf16

__all__ = [
    "AnchorGenerator",
    "Backbone",
    "BackboneError",
    "RetinaNet",
    "cell_anchors",
    "for_inference",
    "has_fast_bf16",
    "load_pretrained",
    "pretrained_normalisation",
]
