"""Initial network of a training run: ImageNet weights, or a trained model with a head for the new classes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

import torch

from retinanet.checkpoint.loading import load_checkpoint
from retinanet.config import (
    PART_OPTIONS,
    ImageConfig,
    LossConfig,
    MatchConfig,
    ModelConfig,
    TrainConfig,
    flatten,
    given_options,
    section_from_dict,
    with_options,
)
from retinanet.errors import ConfigError, list_names
from retinanet.model import RetinaNet, load_pretrained
from retinanet.plugins import check_allowed_parts, named_modules
from retinanet.progress import progress_log
from retinanet.train.output_files import is_rank_zero, report_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

FROZEN_PARTS: Final = {"none": (), "backbone": ("backbone",), "backbone+fpn": ("backbone", "fpn")}


def build_model(
    config: TrainConfig, classes: Sequence[str], has_checkpoint: bool = False
) -> tuple[RetinaNet, TrainConfig]:
    """Return the network to train, and the config with the pixel normalisation that its weights require.

    Args:
        config: options of the training run.
        classes: class names of the training data.
        has_checkpoint: whether training continues from a checkpoint. The initial weights are then not read, because the
            weights of the checkpoint replace them.

    Raises:
        CheckpointError, BackboneError: the weights are missing or do not fit the network.
    """
    if has_checkpoint:
        model = RetinaNet(num_classes=len(classes), config=config.model)
    elif config.start.start_from is not None:
        model = _load_start_model(config, classes)
    else:
        model = RetinaNet(num_classes=len(classes), config=config.model)
        if config.start.pretrained:
            info = load_pretrained(model.backbone, weights=config.start.backbone_weights)
            report_progress(f"backbone: {config.model.backbone}, ImageNet weights from {info.source}")
            of_backbone = {"image_mean": info.mean, "image_std": info.std}
            config = with_options(config, **{k: v for k, v in of_backbone.items() if k not in given_options(config)})
        else:
            report_progress(f"backbone: {config.model.backbone}, random weights")
    if bad := [name for name, p in model.named_parameters() if not torch.isfinite(p).all()]:
        source = config.start.start_from or config.start.backbone_weights or config.model.backbone
        raise ConfigError(
            f"the initial weights must be finite, found NaN or infinity in {list_names(bad)} of {source}: choose other "
            "weights"
        )
    parts = freeze_parts(model, config)
    if parts:
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        total = sum(p.numel() for p in model.parameters())
        report_progress(f"frozen: {' and '.join(parts)}; {trainable:,} of {total:,} weights are trained")
    if not has_checkpoint and (random := random_parts(config)) and is_rank_zero():
        progress_log.warning(
            f"--freeze {config.start.freeze} keeps the random weights of the {' and '.join(random)}, from which little "
            "can be learnt: start from a trained model (--from), or freeze less"
        )
    return model.to(memory_format=torch.channels_last), config


def freeze_parts(model: RetinaNet, config: TrainConfig) -> tuple[str, ...]:
    """Freeze the parts and the BatchNorm layers that the config names. Return the names of the frozen parts."""
    parts = FROZEN_PARTS[config.start.freeze]
    for part in parts:
        model.get_submodule(part).requires_grad_(False)
    if parts or (config.start.freeze_batchnorm and (config.start.pretrained or config.start.start_from is not None)):
        model.backbone.freeze_batchnorm()
    return parts


def random_parts(config: TrainConfig) -> tuple[str, ...]:
    """Return the frozen parts that have random weights: all without `--from`, except a pretrained backbone."""
    if config.start.start_from is not None:
        return ()
    return tuple(
        part for part in FROZEN_PARTS[config.start.freeze] if part != "backbone" or not config.start.pretrained
    )


def with_start_model_options(config: TrainConfig) -> TrainConfig:
    """Return the config with the network and normalisation options of the model of `start_from`, if there is one.

    Options of the image size, the matching and the losses also come from the model, unless the user gave them. A preset
    does not count as given.
    `class_alpha` never comes from the model, because the classes may differ.

    Raises:
        ConfigError: an option of the network contradicts the model.
        CheckpointError: the model is missing or cannot be read.
    """
    if config.start.start_from is None:
        return config
    if config.fitted.anchors == "auto":
        raise ConfigError(
            "--anchors auto cannot be combined with --from, because it would change the network of the model: "
            "remove one of the two options"
        )
    saved = load_checkpoint(config.start.start_from, allow=named_modules(flatten(config), PART_OPTIONS))
    network = section_from_dict(ModelConfig, saved.train_config)
    model_options = {f.name: getattr(network, f.name) for f in dataclasses.fields(ModelConfig) if f.name != "prior"}
    options, given = flatten(config), given_options(config)
    for name, value in model_options.items():
        if name in given and options[name] != value:
            raise ConfigError(
                f"{name} is {options[name]}, but the model in {config.start.start_from} has {value}: training from a "
                f"model (--from) uses the model's network. Remove {name}, or train without --from"
            )
    names = [name for name in PART_OPTIONS if name not in given]
    check_allowed_parts(saved.train_config, names, named_modules(flatten(config), PART_OPTIONS))
    for cls in (ImageConfig, MatchConfig, LossConfig):
        for name, value in flatten(section_from_dict(cls, saved.train_config)).items():
            if name != "class_alpha" and name not in given:
                model_options[name] = value
    return with_options(config, **model_options)


def _load_start_model(config: TrainConfig, classes: Sequence[str]) -> RetinaNet:
    """Return the model of `start_from` with a classification head for `classes`, and report what it keeps."""
    assert config.start.start_from is not None  # noqa: S101
    saved = load_checkpoint(config.start.start_from, allow=named_modules(flatten(config), PART_OPTIONS))
    model = RetinaNet(num_classes=len(classes), config=config.model)
    state = saved.model.state_dict()
    fresh = model.state_dict()
    for name in ("class_head.output.weight", "class_head.output.bias"):
        state[name] = transfer_class_rows(state[name], fresh[name], saved.classes, classes)
    model.load_state_dict(state)
    kept = [name for name in classes if name in saved.classes]
    new = [name for name in classes if name not in saved.classes]
    dropped = [name for name in saved.classes if name not in classes]
    changes = [f"classes kept: {len(kept)} ({list_names(kept)})" if kept else "classes kept: none"]
    changes += [f"new: {len(new)} ({list_names(new)}), initialised with the prior"] if new else []
    changes += [f"dropped: {len(dropped)} ({list_names(dropped)})"] if dropped else []
    report_progress(
        f"start from {config.start.start_from}: backbone {config.model.backbone}, image size "
        f"{config.image.image_size}; {'; '.join(changes)}"
    )
    alpha = "one alpha per class" if config.loss.class_alpha else f"alpha {config.loss.alpha:g}"
    low = "on" if config.matching.low_quality_matches else "off"
    report_progress(
        f"loss options, set by the user or else taken from the model: {config.loss.loss}, {alpha}, "
        f"{config.loss.box_loss}, assigner {config.matching.assigner}, low-quality matches {low}"
    )
    if (model_preset := saved.train_config.get("preset")) != config.base.preset:
        report_progress(
            f"the model was trained with --preset {model_preset}; this training run uses the optimiser options of "
            f"--preset {config.base.preset}"
        )
    return model


def transfer_class_rows(
    old: torch.Tensor, fresh: torch.Tensor, old_classes: Sequence[str], classes: Sequence[str]
) -> torch.Tensor:
    """Return the weight or bias of the last classification layer for `classes`.

    A class that is also in `old_classes` keeps its rows of `old`. Every other class has its rows of `fresh`.

    Args:
        old: weight or bias of the trained model, (A * len(old_classes), ...), rows ordered by anchor, then class.
        fresh: newly initialised weight or bias, (A * len(classes), ...), rows ordered by anchor, then class.
        old_classes: class names of the trained model.
        classes: class names of the new model.
    """
    anchors = len(old) // len(old_classes)
    old_AK = old.view(anchors, len(old_classes), *old.shape[1:])
    out_AK = fresh.clone().view(anchors, len(classes), *fresh.shape[1:])
    for k, name in enumerate(classes):
        if name in old_classes:
            out_AK[:, k] = old_AK[:, list(old_classes).index(name)]
    return out_AK.reshape(fresh.shape)
