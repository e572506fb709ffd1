"""A small network with trained statistics, and how far two outputs differ."""

import torch
from torch import nn

from retinanet.model import RetinaNet

SMALL = {"fpn_width": 32, "head_width": 32, "head_depth": 1}


def trained(backbone, **options):
    """A network whose BatchNorm does something, as after training: none of its statistics is 0 or 1."""
    torch.manual_seed(0)
    model = RetinaNet(num_classes=4, backbone=backbone, **SMALL, **options).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    return model
