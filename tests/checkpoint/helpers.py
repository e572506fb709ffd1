"""Helper functions of the tests of `retinanet.checkpoint` and its commands."""

import torch

from tests.peers import randomise_weights, torchvision_v1


def forward_torchvision(model, images_3HW, targets=None):
    """Return torchvision's transformed images, head outputs, anchors and transformed targets."""
    if targets is not None:
        targets = [{"boxes": t.boxes_G4, "labels": t.labels_G} for t in targets]
    images, targets = model.transform(list(images_3HW), targets)
    features = list(model.backbone(images.tensors).values())
    return images, model.head(features), model.anchor_generator(images, features), targets


def small_file(tmp_path, *, num_classes=3, name="model.pth", wrap=lambda state: state):
    """Return a torchvision RetinaNet with a ResNet-18, and the file that holds `wrap(state_dict)`."""
    torch.manual_seed(3)
    model = torchvision_v1(num_classes, backbone="resnet18")
    randomise_weights(model, torch.rand(3, 64, 64), bias=-2.0)
    path = tmp_path / name
    torch.save(wrap(model.state_dict()), path)
    return model, path
