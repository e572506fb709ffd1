"""Callbacks, loggers, transforms and backbones that fail, named as `tests.train.failing_parts:NAME`."""

from typing import Any

from lightning.pytorch.callbacks import Callback
from torch import nn


def failing_factory() -> Any:
    raise OSError("no licence")


class FailingCallback(Callback):
    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        raise RuntimeError("the server does not answer")


def failing_transform() -> Any:
    def transform(sample: Any) -> Any:
        raise KeyError("mask")

    return transform


def backbone_with_wrong_maps(strides: tuple[int, ...]) -> nn.Module:
    body = nn.Conv2d(3, 8, 1)
    body.channels = (8, 8, 8)
    return body
