"""A small network with random weights and BatchNorm statistics."""

import torch
from torch import nn

from retinanet.model import RetinaNet

SMALL = {"fpn_width": 32, "head_width": 32, "head_depth": 1}


def random_network(backbone, **options):
    """Return a network in eval mode whose BatchNorm changes its input, as after training."""
    torch.manual_seed(0)
    model = RetinaNet(num_classes=4, backbone=backbone, **SMALL, **options).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
    return model
