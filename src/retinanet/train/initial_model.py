"""What a run starts from: ImageNet weights, or another run's model with a head for the classes of this one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

import torch

from retinanet.checkpoint.loading import load_checkpoint
from retinanet.config import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PART_OPTIONS,
    PRESETS,
    ImageConfig,
    LossConfig,
    MatchConfig,
    ModelConfig,
    TrainConfig,
    flatten,
    options_of,
    section_from_dict,
    with_options,
)
from retinanet.errors import ConfigError, list_names
from retinanet.model import RetinaNet, load_pretrained
from retinanet.plugins import named_modules, refuse_foreign_parts
from retinanet.train.output_files import report_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

FROZEN_PARTS: Final = {"none": (), "backbone": ("backbone",), "backbone+fpn": ("backbone", "fpn")}


def build(config: TrainConfig, classes: Sequence[str]) -> tuple[RetinaNet, TrainConfig]:
    """Return the network to train, and the config with what its weights demand.

    Args:
        config: the run's.
        classes: of the training data.

    Raises:
        CheckpointError, BackboneError: weights that are not there or do not fit.
    """
    if config.start.start_from is not None:
        model = _from_model(config, classes)
    else:
        model = RetinaNet(num_classes=len(classes), config=config.model)
        if config.start.pretrained:
            info = load_pretrained(model.backbone, weights=config.start.backbone_weights)
            report_progress(f"backbone: {config.model.backbone}, ImageNet weights from {info.source}")
            if (config.image.image_mean, config.image.image_std) == (IMAGENET_MEAN, IMAGENET_STD):
                config = with_options(config, image_mean=info.mean, image_std=info.std)
        else:
            report_progress(f"backbone: {config.model.backbone}, random weights")
    parts = freeze_parts(model, config)
    if parts:
        left = sum(p.numel() for p in model.parameters() if p.requires_grad)
        report_progress(
            f"frozen: {' and '.join(parts)}; {left:,} of {sum(p.numel() for p in model.parameters()):,} weights learn"
        )
    return model.to(memory_format=torch.channels_last), config


def freeze_parts(model: RetinaNet, config: TrainConfig) -> tuple[str, ...]:
    """Keep what the config says as it is, and return the names of whole parts of that."""
    parts = FROZEN_PARTS[config.start.freeze]
    for part in parts:
        model.get_submodule(part).requires_grad_(False)
    if parts or (config.start.freeze_batchnorm and (config.start.pretrained or config.start.start_from is not None)):
        model.backbone.freeze_batchnorm()
    return parts


def with_network_of(config: TrainConfig) -> TrainConfig:
    """Return the config with the network and the normalisation of the model that the run starts from, if any.

    The image size, the matching and the losses are the model's too, unless they were given; but not the weights that
    it gave to its classes.

    Raises:
        ConfigError: an option of the network that contradicts the model.
        CheckpointError: no such model.
    """
    if config.start.start_from is None:
        return config
    if config.fitted.anchors == "auto":
        raise ConfigError("anchors auto would change the network of the model to start from: give one of them")
    saved = load_checkpoint(config.start.start_from, allow=named_modules(flatten(config), PART_OPTIONS))
    network = section_from_dict(ModelConfig, saved.train_config)
    taken = {f.name: getattr(network, f.name) for f in dataclasses.fields(ModelConfig) if f.name != "prior"}
    given = flatten(config)
    for name, value in taken.items():
        if _was_given(config, name) and given[name] != value:
            raise ConfigError(
                f"{name} is given as {given[name]}, but the model in {config.start.start_from} has {value}, and a "
                "run that starts from it has its network"
            )
    names = [name for name in PART_OPTIONS if not _was_given(config, name)]
    refuse_foreign_parts(saved.train_config, names, named_modules(flatten(config), PART_OPTIONS))
    for cls in (ImageConfig, MatchConfig, LossConfig):
        its: object = section_from_dict(cls, saved.train_config)
        for field in dataclasses.fields(cls):
            if field.name != "class_alpha" and not _was_given(config, field.name):
                taken[field.name] = getattr(its, field.name)
    return with_options(config, **taken)


def _from_model(config: TrainConfig, classes: Sequence[str]) -> RetinaNet:
    """Return the model of a checkpoint with a head for these classes."""
    assert config.start.start_from is not None  # noqa: S101
    saved = load_checkpoint(config.start.start_from, allow=named_modules(flatten(config), PART_OPTIONS))
    model = RetinaNet(num_classes=len(classes), config=config.model)
    state = saved.model.state_dict()
    fresh = model.state_dict()
    for name in ("class_head.output.weight", "class_head.output.bias"):
        state[name] = carry_over(state[name], fresh[name], saved.classes, classes)
    model.load_state_dict(state)
    kept = [name for name in classes if name in saved.classes]
    new = [name for name in classes if name not in saved.classes]
    gone = [name for name in saved.classes if name not in classes]
    said = [f"{len(kept)} classes kept ({list_names(kept)})" if kept else "no class kept"]
    said += [f"{len(new)} new ({list_names(new)}), which start from the prior"] if new else []
    said += [f"{len(gone)} dropped ({list_names(gone)})"] if gone else []
    report_progress(
        f"from {config.start.start_from}: {config.model.backbone}, images of {config.image.image_size}; "
        f"{'; '.join(said)}"
    )
    alpha = "an alpha for each class" if config.loss.class_alpha else f"alpha {config.loss.alpha:g}"
    low = "on" if config.matching.low_quality_matches else "off"
    report_progress(
        f"as given or as it was trained: {config.loss.loss}, {alpha}, {config.loss.box_loss}, low-quality matches {low}"
    )
    if (trained_with := saved.train_config.get("preset")) != config.base.preset:
        report_progress(
            f"it was trained with --preset {trained_with}; "
            f"the optimiser's options here are those of {config.base.preset}"
        )
    return model


def carry_over(
    old: torch.Tensor, fresh: torch.Tensor, old_classes: Sequence[str], classes: Sequence[str]
) -> torch.Tensor:
    """Return the last classification layer's weight or bias for `classes`: rows of the classes that stay, else fresh.

    Args:
        old: (A * len(old_classes), ...), rows in the order anchor, class.
        fresh: (A * len(classes), ...), as initialised.
        old_classes: names of the old rows.
        classes: names of the new ones.
    """
    anchors = len(old) // len(old_classes)
    old_AK = old.view(anchors, len(old_classes), *old.shape[1:])
    out_AK = fresh.clone().view(anchors, len(classes), *fresh.shape[1:])
    for k, name in enumerate(classes):
        if name in old_classes:
            out_AK[:, k] = old_AK[:, list(old_classes).index(name)]
    return out_AK.reshape(fresh.shape)


def _was_given(config: TrainConfig, name: str) -> bool:
    """Return whether an option differs from what its preset would set."""
    default = options_of(TrainConfig)[name].default
    return bool(flatten(config)[name] != PRESETS[config.base.preset].get(name, default))
