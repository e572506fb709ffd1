"""The set-ups that a study trains."""

from __future__ import annotations

from typing import Any, Final

from retinanet.config import StudyConfig
from retinanet.study.results import Variant

LABELS: Final = {
    "focal": "focal",
    "ce": "cross-entropy",
    "balanced_ce": "alpha-balanced cross-entropy",
    "weighted": "weighted cross-entropy",
    "hard_negative_mining": "hard negative mining",
    "ohem": "OHEM",
    "quality_focal": "quality focal",
    "varifocal": "varifocal",
}


def variants(config: StudyConfig) -> list[Variant]:
    """Return the set-ups to train; focal loss as configured comes first, if it is among them."""
    found = [_variant(config, loss) for loss in sorted(config.losses, key=lambda loss: loss != "focal")]
    if config.alphas or config.gammas:
        for gamma in config.gammas or (config.loss.gamma,):
            for alpha in config.alphas or (config.loss.alpha,):
                found.append(_variant(config, "focal", alpha=alpha, gamma=gamma))
    found += [_variant(config, loss, prior=0.5) for loss in config.without_prior]
    by_name = {variant.name: variant for variant in found}
    return list(by_name.values())


def _variant(config: StudyConfig, loss: str, **changed: Any) -> Variant:
    values = {"alpha": config.loss.alpha, "gamma": config.loss.gamma} | changed
    options: dict[str, Any] = {"loss": loss}
    label, name = LABELS[loss], loss
    if loss in {"focal", "balanced_ce", "varifocal"}:
        options["alpha"] = values["alpha"]
    if loss in {"focal", "quality_focal", "varifocal"}:
        options["gamma"] = values["gamma"]
    shown = [f"{key} {options[key]:g}" for key in ("gamma", "alpha") if key in options]
    if loss == "weighted":
        shown = [f"negatives × {config.loss.negative_weight:g}"]
    if loss == "ohem":
        shown = [f"{config.loss.ohem_examples} anchors" + (", 1:3" if config.loss.ohem_balanced else "")]
    if "prior" in changed:
        options["prior"] = changed["prior"]
        shown.append("no prior")
    name = "-".join([loss, *(f"{key}{options[key]:g}" for key in ("gamma", "alpha", "prior") if key in options)])
    return Variant(name=name, label=", ".join([label, *shown]), options=options)
