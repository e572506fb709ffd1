"""List the set-ups that a study trains."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from retinanet.config import StudyConfig, TrainConfig, given_options, resolve, section_from_dict, to_dict
from retinanet.errors import ConfigError
from retinanet.losses import make_classification_loss
from retinanet.matching import make_assigner
from retinanet.parse import ParseError, parse_yaml
from retinanet.plugins import used_options
from retinanet.study.outcomes import Variant

FIXED_OPTIONS: Final = frozenset(
    {"train", "val", "output", "seed", "preset", "epochs", "max_steps", "evaluate_every", "resume", "overwrite"}
)
"""Options that all set-ups of a study share: data, budget, and what the study sets itself."""


def variants(config: StudyConfig) -> list[Variant]:
    """Return the set-ups to train, without duplicates; the configured focal loss comes first if it is one of these.

    The losses, alphas and gammas come first. Each assigner, sampler and other set-up changes the first of these.

    Raises:
        ConfigError: a set-up names an unknown option or an invalid value. This is checked before the first run.
    """
    set_ups = [_variant(config, loss) for loss in sorted(_losses(config), key=lambda loss: loss != "focal")]
    if config.alphas or config.gammas:
        for gamma in config.gammas or (config.loss.gamma,):
            for alpha in config.alphas or (config.loss.alpha,):
                set_ups.append(_variant(config, "focal", alpha=alpha, gamma=gamma))
    set_ups += [_variant(config, loss, prior=0.5) for loss in config.without_prior]
    base = train_options(config, config.train, config.train)
    set_ups += [_changed(base, set_ups[0], changes) for changes in _changes(config)]
    different: list[tuple[TrainConfig, Variant]] = []
    for variant in set_ups:
        options = with_changes(base, variant.options)
        make_assigner(options.matching)  # an assigner of another package raises its errors here
        if all(options != other for other, _ in different):
            different.append((options, variant))
    return [variant for _, variant in different]


def _losses(config: StudyConfig) -> tuple[str, ...]:
    """Return the losses to compare: without `losses`, only the configured loss if the study compares something else."""
    others = config.assigners, config.samplers, config.set_ups, config.fractions, config.cross_validate
    return (config.loss.loss,) if any(others) and "losses" not in given_options(config) else config.losses


def _changes(config: StudyConfig) -> Iterator[dict[str, Any]]:
    """Yield the changed options of each assigner, sampler and other set-up."""
    yield from ({"assigner": name} for name in config.assigners)
    yield from ({"sampler": name} for name in config.samplers)
    yield from map(parse_set_up, config.set_ups)


def parse_set_up(text: str) -> dict[str, Any]:
    """Return the options of a text such as "anchors=auto, positive_iou=0.45", by name.

    A value is written as in YAML, a list in brackets: "anchor_sizes=[32, 64, 128, 256, 512]".

    Raises:
        ConfigError: the text has another form, or names an option that all set-ups share.
    """
    changes = {}
    for part in re.split(r",\s*(?=[\w-]+\s*=)", text):
        name, equals, value = part.partition("=")
        option = name.strip().replace("-", "_")
        try:
            changes[option] = parse_yaml(value)
        except ParseError as error:
            raise ConfigError(f"set_ups: the value of {option} in {text!r} is not valid YAML: {error}") from error
        if not equals or not option or changes[option] is None:
            raise ConfigError(f"set_ups must have the form 'option=value, option=value', found {text!r}")
    if shared := FIXED_OPTIONS.intersection(changes):
        raise ConfigError(f"set_ups: all set-ups of a study have the same {', '.join(sorted(shared))}, found {text!r}")
    return changes


def train_options(config: StudyConfig, train: Path, val: Path) -> TrainConfig:
    """Return the options of `retinanet train` that all set-ups of a study change, without the options of a set-up.

    Data that the study wrote (see `parts.write_part`) is read without the options that describe the user's data.
    """
    values = {**to_dict(config), "train": train, "val": val}
    if train != config.train:
        values |= {
            "images": None,
            "val_images": None,
            "format": None,
            "classes": (),
            "ignore_classes": (),
            "ignore_regions": (),
            "rename": (),
        }
    return section_from_dict(TrainConfig, values, given=given_options(config))


def with_changes(base: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """Return the options of a set-up. Values may be written as in YAML: they are brought to the types of the options.

    Raises:
        ConfigError: an unknown option or an invalid value.
    """
    return resolve(TrainConfig, {**to_dict(base), **changes}, given=given_options(base).union(changes))


def _changed(base: TrainConfig, first: Variant, changes: Mapping[str, Any]) -> Variant:
    """Return the first set-up of a study with changed options."""
    values = to_dict(with_changes(base, changes))
    options = {name: values[name] for name in changes}
    label = ", ".join(f"{name} {_text(value)}" for name, value in options.items())
    name = re.sub(r"[^\w.+-]+", "-", label).strip("-")
    return Variant(name=f"{first.name}+{name}", label=label, options={**first.options, **options})


def _text(value: Any) -> str:
    """Return the value of an option as text: yes or no, a short number, or a list with spaces."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _variant(config: StudyConfig, loss: str, **changed: Any) -> Variant:
    """Return the set-up of a loss. The loss class determines the label and whether alpha and gamma are options."""
    loss_config = config.loss
    changes = {name: value for name, value in changed.items() if name in {"alpha", "gamma"}}
    part = make_classification_loss(dataclasses.replace(loss_config, loss=loss, **changes))
    used = used_options(type(part), dataclasses.replace(loss_config, **changes))
    options: dict[str, Any] = {"loss": loss} | {name: used[name] for name in ("alpha", "gamma") if name in used}
    label_parts = [part.label, *part.settings()]
    if "prior" in changed:
        options["prior"] = changed["prior"]
        label_parts.append("no prior")
    values = (f"{key}{options[key]:g}" for key in ("gamma", "alpha", "prior") if key in options)
    return Variant(name="-".join([loss.replace(":", "."), *values]), label=", ".join(label_parts), options=options)
