"""List the set-ups that a study trains."""

from __future__ import annotations

import dataclasses
from typing import Any

from retinanet.config import StudyConfig
from retinanet.losses import make_classification_loss
from retinanet.plugins import used_options
from retinanet.study.outcomes import Variant


def variants(config: StudyConfig) -> list[Variant]:
    """Return the set-ups to train, without duplicates; the configured focal loss comes first if it is one of these."""
    set_ups = [_variant(config, loss) for loss in sorted(config.losses, key=lambda loss: loss != "focal")]
    if config.alphas or config.gammas:
        for gamma in config.gammas or (config.loss.gamma,):
            for alpha in config.alphas or (config.loss.alpha,):
                set_ups.append(_variant(config, "focal", alpha=alpha, gamma=gamma))
    set_ups += [_variant(config, loss, prior=0.5) for loss in config.without_prior]
    by_name = {variant.name: variant for variant in set_ups}
    return list(by_name.values())


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
