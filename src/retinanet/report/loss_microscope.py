"""Show the loss microscope: what each loss sees of a network's outputs, with sliders for alpha and gamma.

The part is complete without its script, at the setting of training. `scripts/loss_microscope.js` adds the sliders.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

import jinja2
import numpy as np
from markupsafe import Markup

from retinanet.analysis.class_balance import RARE_RATIO
from retinanet.analysis.gradient_place import PLACES
from retinanet.analysis.loss_microscope import DRAWN_PER_UNIT, DRAWN_TO, JSON_ALPHAS, JSON_GAMMAS, KINDS
from retinanet.analysis.loss_settings import ALPHAS, GAMMAS, Setting, setting_text, train_options
from retinanet.report.place_crops import place_crops

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from retinanet.analysis.gradient_place import Place
    from retinanet.analysis.imbalance import Imbalance
    from retinanet.analysis.loss_microscope import LossMicroscope
    from retinanet.data import DetectionData
    from retinanet.report.html import Report

    Floats = np.ndarray[tuple[int], np.dtype[np.float64]]

NAMED: Final = 8
"""Maximum number of rare classes that are named."""
TICKS: Final = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
"""Labelled scores of the histograms."""


def microscope_section(
    report: Report, microscope: LossMicroscope, imbalance: Imbalance, data: DetectionData, *, run: Path | None = None
) -> None:
    """Add the loss microscope of a trained model.

    Args:
        report: report.
        microscope: measured histograms and places.
        imbalance: shares of the loss of training on the same outputs.
        data: the measured dataset.
        run: run folder of the model, for the command that trains with a setting; None if it is unknown.
    """
    section = report.section("Loss microscope: alpha and gamma on the outputs of this model")
    section.text(
        "Focal loss has two settings: alpha, the weight of objects against background, and gamma, which reduces the "
        "weight of easy examples. The microscope applies settings to the outputs of this model on these images, and "
        "shows which examples the loss and its gradient come from."
    )
    for note in notes(microscope):
        section.text(note)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("retinanet", "report"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    content = _content(report, microscope, imbalance, data) | {"command": _command(run, microscope.start)}
    markup = Markup(environment.get_template("loss_microscope.html").render(content))  # noqa: S704 (autoescape)
    values = microscope_data(microscope) | {"command": _command(run, None)}
    section.interactive("loss_microscope", markup, values, scripts=["loss_terms"])


def notes(microscope: LossMicroscope) -> list[str]:
    """Return sentences about the difference between the loss of training and the focal loss of the sliders."""
    config, found = microscope.loss_config, []
    if config.loss in {"quality_focal", "varifocal"}:
        found.append(
            f"Training used the loss {config.loss}, whose target of an object is the IoU of its predicted box. The "
            "microscope applies the target 1. A score that equals an IoU of 0.7 then counts as an error of 0.3, so "
            "the share of the objects is higher than in training."
        )
    elif config.class_alpha:
        found.append(
            "Training used one alpha per class (class_alpha), which replaces alpha. The microscope applies one alpha "
            "to all classes. Remove class_alpha from the configuration before you train with another alpha."
        )
    if not microscope.is_start_exact:
        found.append(f"The sliders start at {setting_text(microscope.start)}.")
    if microscope.rare:
        rare, more = microscope.rare[:NAMED], len(microscope.rare) - NAMED
        found.append(
            f"Rare classes: {', '.join(rare)}{f' and {more} more' if more > 0 else ''}. A class is rare if another "
            f"class has {RARE_RATIO} times as many objects in these images."
        )
    return found


def microscope_data(microscope: LossMicroscope) -> dict[str, Any]:
    """Return the values from which `scripts/loss_terms.js` computes every number of the microscope."""
    return {
        "start": {"alpha": microscope.start.alpha, "gamma": microscope.start.gamma},
        "alphas": list(ALPHAS),
        "gammas": list(GAMMAS),
        "kinds": list(KINDS),
        "images": max(1, microscope.images),
        "negativeWeight": microscope.loss_config.negative_weight,
        "groups": [
            {"kind": group.kind, "logits": group.logit_B.tolist(), "counts": group.count_B.tolist()}
            for group in microscope.groups
        ],
        "mined": [
            {"name": row.name, "examples": row.examples, "sums": np.stack(row.sums, axis=1).tolist()}
            for row in microscope.mined
        ],
        "places": [{"object": place.is_object, "logits": list(place.logits)} for place in microscope.places],
        "shown": PLACES,
        "drawn": {"perUnit": DRAWN_PER_UNIT, "half": round(DRAWN_TO * DRAWN_PER_UNIT)},
    }


def _content(report: Report, microscope: LossMicroscope, imbalance: Imbalance, data: DetectionData) -> dict[str, Any]:
    """Return the values of the template at the setting of training."""
    start = microscope.start
    sums = microscope.sums(start)
    loss, gradient = microscope.by_kind(sums.loss_G), microscope.by_kind(sums.gradient_G)
    kinds = [kind for kind in KINDS if kind != "rare objects" or microscope.rare]
    names = {kind: kind for kind in KINDS} | ({"objects": "other objects"} if microscope.rare else {})
    trained = _as_trained(microscope, imbalance)
    examples = dict.fromkeys(KINDS, 0)
    for group in microscope.groups:
        examples[group.kind] += int(group.count_B.sum())
    densities = microscope.densities(start)
    most = max(float(count_D.max()) for count_D, _ in densities.values())
    largest = max(float(gradient_D.max()) for _, gradient_D in densities.values())
    half = round(DRAWN_TO * DRAWN_PER_UNIT)
    return {
        "headline": microscope.sentences()[0],
        "kinds": kinds,
        "kind_names": [names[kind] for kind in kinds],
        "loss": [loss[kind] for kind in kinds],
        "gradient": [gradient[kind] for kind in kinds],
        "bins": 2 * half,
        "ticks": [
            {"text": f"{p:g}", "bin": round(half + DRAWN_PER_UNIT * float(np.log(p / (1 - p))), 3)} for p in TICKS
        ],
        "count_paths": {kind: step_path(_log_heights(count_D, most)) for kind, (count_D, _) in densities.items()},
        "count_top": f"highest: {most:,.0f}",
        "gradient_paths": {kind: step_path(values_D / (largest or 1)) for kind, (_, values_D) in densities.items()},
        "gradient_top": f"highest: {percent(largest / (float(sums.gradient_G.sum()) or 1))} of the gradient",
        "hard_from": f"{1 - microscope.easy_from:g}",
        "trained_name": _loss_name(microscope),
        "kind_rows": [
            {
                "kind": kind,
                "name": names[kind],
                "examples": _per_image(examples[kind] / max(1, microscope.images)),
                "loss": percent(loss[kind]),
                "gradient": percent(gradient[kind]),
                "trained": percent(trained[kind]),
            }
            for kind in kinds
        ],
        "places": _place_items(report, microscope, data, float(sums.gradient_G.sum())),
        "loss_rows": [_loss_row(microscope, row, kinds) for row in microscope.losses(start)],
        "class_rows": _class_rows(microscope),
        "grid_gammas": [f"{gamma:g}" for gamma in JSON_GAMMAS],
        "grid": [
            {"alpha": f"{alpha:.2f}", "cells": [_objects_share(microscope, Setting(alpha, g)) for g in JSON_GAMMAS]}
            for alpha in JSON_ALPHAS
        ],
    }


def _as_trained(microscope: LossMicroscope, imbalance: Imbalance) -> dict[str, float]:
    """Return the share of each kind of example in the gradient of the loss of training."""
    total = float(imbalance.gradient_SE.sum()) or 1.0
    rare_K = np.isin(np.array(imbalance.classes), microscope.rare)
    objects_K = imbalance.class_gradient_KS[:, 0] / total
    easy, hard = (float(value) / total for value in imbalance.gradient_SE[1])
    return {
        "objects": float(objects_K[~rare_K].sum()),
        "rare objects": float(objects_K[rare_K].sum()),
        "hard background": hard,
        "easy background": easy,
    }


def _loss_name(microscope: LossMicroscope) -> str:
    config = microscope.loss_config
    settings = {
        "focal": f", alpha {config.alpha:g}, gamma {config.gamma:g}",
        "balanced_ce": f", alpha {config.alpha:g}",
    }
    return f"the loss of training ({config.loss}{settings.get(config.loss, '')})"


def _loss_row(microscope: LossMicroscope, row: Any, kinds: Sequence[str]) -> list[str]:
    shares, images = microscope.by_kind(row.sums.gradient_G), max(1, microscope.images)
    loss = microscope.by_kind(row.sums.loss_G)
    return [
        row.name,
        *(percent(shares[kind]) for kind in kinds),
        percent(loss["objects"] + loss["rare objects"]),
        f"{row.examples / images:,.0f}",
        f"{row.effective / images:,.0f}",
    ]


def _class_rows(microscope: LossMicroscope) -> list[dict[str, Any]]:
    loss_G, gradient_G = microscope.sums(microscope.start)[:2]
    objects = dict(zip(microscope.classes, microscope.objects_K.tolist(), strict=True))
    rows = [
        {
            "group": g,
            "name": group.name + (" (rare)" if group.kind == "rare objects" else ""),
            "objects": f"{objects[group.name]:,}",
            "loss": percent(float(loss_G[g] / (loss_G.sum() or 1))),
            "gradient": percent(float(gradient_G[g] / (gradient_G.sum() or 1))),
        }
        for g, group in enumerate(microscope.groups)
        if not group.is_background
    ]
    return sorted(rows, key=lambda row: -objects[microscope.groups[row["group"]].name])


def _objects_share(microscope: LossMicroscope, setting: Setting) -> str:
    shares = microscope.by_kind(microscope.sums(setting).gradient_G)
    return percent(shares["objects"] + shares["rare objects"])


def _place_items(report: Report, microscope: LossMicroscope, data: DetectionData, total: float) -> list[dict[str, Any]]:
    """Return the places for the template: first those of the setting of training, by falling gradient."""
    ranked = microscope.ranked(microscope.start)
    shown = {index: f"{rank}. {share_text(value, total)}" for rank, (index, value) in enumerate(ranked, start=1)}
    order = [*shown, *(i for i in range(len(microscope.places)) if i not in shown)]
    sources = place_crops(report, [microscope.places[i] for i in order], data)
    items = []
    for index, source in zip(order, sources, strict=True):
        place = microscope.places[index]
        text, name = place_text(microscope, place), data.records[place.image].path.name
        items.append(
            {
                "index": index,
                "source": source,
                "alt": f"{text}, in {name}",
                "share": shown.get(index, ""),
                "text": text,
                "file": name,
            }
        )
    return items


def place_text(microscope: LossMicroscope, place: Place) -> str:
    """Return what a place is: "object, RBC, score 0.32 (43 anchors)"."""
    kind = {
        "object": "object",
        "unlabelled?": "background, perhaps an object without a label",
        "wrong class?": "background, over an object of another class",
        "distant anchor": "background, from an anchor too far from the object",
        "background": "background",
    }[place.kind]
    of = (
        ""
        if place.object_label is None or place.kind != "wrong class?"
        else f" ({microscope.classes[place.object_label]})"
    )
    examples = f"{len(place.logits)} example" + "s" * (len(place.logits) != 1)
    return f"{microscope.classes[place.label]} {place.score:.2f}: {kind}{of}, {examples}"


def step_path(heights_D: Floats) -> str:
    """Return the SVG path of a histogram: one step of width 1 for each bin, y 0 on top and 100 at the bottom."""
    steps = " ".join(f"V{100 - 100 * h:.1f}h1" for h in heights_D.tolist())
    return f"M0 100{steps}V100"


def _log_heights(count_D: Floats, most: float) -> Floats:
    """Return heights from 0 to 1 on a logarithmic scale, on which a single example is visible."""
    heights: Floats = np.where(count_D > 0, np.log10(np.maximum(count_D, 1) * 2) / np.log10(max(most, 1) * 2), 0.0)
    return heights


def share_text(value: float, total: float) -> str:
    """Return the share of a place in the gradient: "0.13% of the gradient"."""
    return f"{value / (total or 1):.2%} of the gradient"


def _per_image(value: float) -> str:
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}"


def percent(share: float) -> str:
    """Return a share in percent: "12%" or "0.3%"."""
    return f"{share:.0%}" if share >= 0.0995 or share == 0 else f"{share:.1%}"


def _command(run: Path | None, setting: Setting | None) -> str:
    """Return the command that trains with a setting. Without a setting, NAME and OPTIONS stand for its parts."""
    name, options = ("NAME", "OPTIONS") if setting is None else (command_name(setting), train_options(setting))
    if run is None:
        return f"retinanet train --train TRAIN --val VAL -o runs/{name} {options}"
    config, folder = shlex.quote(str(run / "config.yaml")), shlex.quote(str(run.parent / f"{run.name}-{name}"))
    return f"retinanet train --config {config} -o {folder} {options}"


def command_name(setting: Setting) -> str:
    """Return the name of the run folder of a setting: "focal-0.60-1.5"."""
    if setting.alpha is None and setting.gamma == 0:
        return "ce"
    return f"focal-{0.5 if setting.alpha is None else setting.alpha:.2f}-{setting.gamma:g}"
