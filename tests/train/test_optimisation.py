"""Optimiser and learning-rate schedules."""

import pytest
import torch

from retinanet.config import TrainConfig, resolve
from retinanet.train.optimisation import lr_factor, make_optimizer


def test_learning_rate_schedules():
    config = resolve(TrainConfig, {"train": "a", "val": "b", "output": "c", "warmup_steps": 10})
    factor = lr_factor(config, 900)
    assert factor(0) == pytest.approx(1 / 11)
    assert [factor(s) for s in (10, 603, 604, 801, 802)] == [1, 1, 0.1, 0.1, 0.01]
    cosine = lr_factor(resolve(TrainConfig, {"train": "a", "val": "b", "output": "c", "schedule": "cosine"}), 100)
    assert cosine(10) == 1
    assert cosine(55) == pytest.approx(0.5, abs=0.01)
    assert cosine(100) == pytest.approx(0)


def test_norms_and_biases_have_no_weight_decay_and_lr_scales_with_the_batch():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.GroupNorm(2, 4))
    config = resolve(TrainConfig, {"train": "a", "val": "b", "output": "c", "lr": 0.01, "lr_batch_size": 16})
    groups = make_optimizer(model, config, images_per_step=32).param_groups
    assert sorted((len(g["params"]), g["weight_decay"]) for g in groups) == [(1, 1e-4), (3, 0.0)]
    assert groups[0]["lr"] == pytest.approx(0.02)


def test_the_backbone_has_its_own_learning_rate():
    model = torch.nn.ModuleDict({"backbone": torch.nn.Conv2d(1, 4, 3), "head": torch.nn.Conv2d(4, 4, 3)})
    options = {"train": "a", "val": "b", "output": "c", "lr": 0.01, "lr_batch_size": 16, "backbone_lr_factor": 0.1}
    optimizer = make_optimizer(model, resolve(TrainConfig, options), images_per_step=16)
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert [rates[id(parameter)] for parameter in model["backbone"].parameters()] == pytest.approx([0.001, 0.001])
    assert [rates[id(parameter)] for parameter in model["head"].parameters()] == pytest.approx([0.01, 0.01])
