"""A small file of weights with the names of torchvision."""

import torch

from tests.peers import make_it_detect, torchvision_v1


def through(model, images_3HW, targets=None):
    """What torchvision makes of images inside: the input, its outputs, its anchors."""
    if targets is not None:
        targets = [{"boxes": t.boxes_G4, "labels": t.labels_G} for t in targets]
    images, targets = model.transform(list(images_3HW), targets)
    features = list(model.backbone(images.tensors).values())
    return images, model.head(features), model.anchor_generator(images, features), targets


def small_file(tmp_path, *, num_classes=3, name="model.pth", wrap=lambda state: state):
    torch.manual_seed(3)
    model = torchvision_v1(num_classes, backbone="resnet18")
    make_it_detect(model, torch.rand(3, 64, 64), bias=-2.0)
    path = tmp_path / name
    torch.save(wrap(model.state_dict()), path)
    return model, path
