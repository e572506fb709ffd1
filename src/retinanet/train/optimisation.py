"""Optimiser and learning-rate schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn
    from torch.optim import Optimizer

    from retinanet.config import TrainConfig
    from retinanet.train.time_plan import TimePlan


GROUP_OPTIONS: Final = ("lr", "weight_decay")
"""Values of a parameter group that come from the options."""


def make_optimizer(model: nn.Module, config: TrainConfig, *, images_per_step: int) -> Optimizer:
    """Return SGD or AdamW for the trainable parameters. Biases and normalisation layers have no weight decay.

    Args:
        model: network whose `backbone` has its own factor on the learning rate.
        config: options of the training run.
        images_per_step: number of images in an optimiser step, over all devices and accumulated batches. The learning
            rate is proportional to this number.
    """
    lr = config.optimiser.lr * images_per_step / config.optimiser.lr_batch_size
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                in_backbone = f"{module_name}.".startswith("backbone.")
                # Only biases and parameters of normalisation layers have one dimension or none.
                decays = parameter.ndim > 1 and name != "bias"
                groups.setdefault((in_backbone, decays), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "lr": lr * (config.optimiser.backbone_lr_factor if in_backbone else 1.0),
            "weight_decay": config.optimiser.weight_decay if decays else 0.0,
        }
        for (in_backbone, decays), parameters in groups.items()
    ]
    fused = _has_fused_kernel([p for parameters in groups.values() for p in parameters]) or None
    if config.optimiser.optimizer == "adamw":
        return torch.optim.AdamW(settings, lr=lr, fused=fused)
    return torch.optim.SGD(settings, lr=lr, momentum=0.9, fused=fused)


def _has_fused_kernel(parameters: Sequence[nn.Parameter]) -> bool:
    """Return whether one kernel updates all parameters. It can skip a step by a value on the device.

    `FlightRecorder` needs this to skip a step without a transfer from the device.
    """
    return all(parameter.device.type == "cuda" for parameter in parameters)


def set_group_options(optimizer: Optimizer, scheduler: Any, groups: Sequence[Mapping[str, float]]) -> None:
    """Set learning rate and weight decay of each parameter group after a resume has restored the saved values.

    Args:
        optimizer: optimiser to change.
        scheduler: its `LambdaLR` schedule.
        groups: `GROUP_OPTIONS` of each parameter group, as `make_optimizer` sets them.
    """
    scheduler.base_lrs = [group["lr"] for group in groups]
    for group, options, factor in zip(optimizer.param_groups, groups, scheduler.lr_lambdas, strict=True):
        lr = options["lr"] * factor(scheduler.last_epoch)
        group.update(lr=lr, initial_lr=options["lr"], weight_decay=options["weight_decay"])


def lr_factor(config: TrainConfig, total_steps: int) -> Callable[[int], float]:
    """Return a function from the step to the factor on the learning rate.

    The factor rises linearly during the warm-up, which takes at most a tenth of `total_steps`. Then it follows half a
    cosine (schedule "cosine"), or drops to 0.1 at 2/3 and to 0.01 at 8/9 of the remaining steps (schedule "step").
    """
    warmup = min(config.schedule.warmup_steps, total_steps // 10)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return decay(config.schedule.schedule, min(1.0, (step - warmup) / max(1, total_steps - warmup)))

    return factor


def planned_lr_factor(config: TrainConfig, plan: TimePlan) -> Callable[[int], float]:
    """Return the function of `lr_factor` for a training run with a time budget, whose number of steps may change."""

    def factor(step: int) -> float:
        warmup, progress = plan.lr_position(step)
        return warmup * decay(config.schedule.schedule, progress)

    return factor


def decay(schedule: str, progress: float) -> float:
    """Return the factor on the learning rate after the warm-up.

    Args:
        schedule: "cosine" or "step".
        progress: share of the steps after the warm-up that are done, from 0 to 1.
    """
    if schedule == "cosine":
        return 0.5 * (1 + float(torch.cos(torch.tensor(progress * torch.pi))))
    return 0.01 if progress >= 8 / 9 else 0.1 if progress >= 2 / 3 else 1.0
