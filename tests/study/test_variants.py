"""The set-ups that a study compares."""

from __future__ import annotations

import pytest

from retinanet.config import LOSSES, StudyConfig, TrainConfig, given_options, resolve
from retinanet.errors import ConfigError
from retinanet.study.variants import variants, with_changes
from tests.study.studies import config

OUTSIDE = "tests.outside_parts"


def test_the_loss_class_determines_name_label_and_options():
    config = resolve(StudyConfig, {"output": "x", "losses": [*LOSSES, f"{OUTSIDE}:LinearLoss"]})
    set_ups = {variant.name: (variant.label, variant.options) for variant in variants(config)}
    assert len(set_ups) == len(LOSSES) + 1
    assert set_ups["tests.outside_parts.LinearLoss-alpha0.75"] == (
        "linear, alpha 0.75",
        {"loss": f"{OUTSIDE}:LinearLoss", "alpha": 0.75},
    )
    assert set_ups["focal-gamma2-alpha0.75"][0] == "focal, gamma 2, alpha 0.75"


def test_order_and_names_of_the_set_ups():
    """The configured focal loss comes first and is not repeated; `without_prior` adds a loss with the prior 0.5."""
    chosen = variants(config(losses=["ce", "focal"], alphas=[0.25, 0.75], gammas=[2], without_prior=["ce"]))
    assert [v.name for v in chosen] == [
        "focal-gamma2-alpha0.75",
        "ce",
        "focal-gamma2-alpha0.25",
        "ce-prior0.5",
    ]
    assert chosen[-1].options == {"loss": "ce", "prior": 0.5}
    assert chosen[-1].label == "cross-entropy, no prior"
    assert len({v.label for v in chosen}) == len(chosen)


def test_assigners_samplers_and_set_ups_each_change_the_first_set_up():
    """Without `losses`, the configured loss alone is the first set-up. A set-up equal to another is left out."""
    options = {
        "samplers": ["natural", "balanced"],
        "assigners": ["iou"],
        "set_ups": ["anchors=auto, positive-iou=0.45", "anchor_ratios=[0.5, 2], low_quality_matches=true", "gamma=2"],
    }
    chosen = variants(config(loss="ce", **options))
    assert [(v.label, v.options) for v in chosen] == [
        ("cross-entropy", {"loss": "ce"}),
        ("sampler balanced", {"loss": "ce", "sampler": "balanced"}),
        ("anchors auto, positive_iou 0.45", {"loss": "ce", "anchors": "auto", "positive_iou": 0.45}),
        (
            "anchor_ratios 0.5 2, low_quality_matches yes",
            {"loss": "ce", "anchor_ratios": [0.5, 2.0], "low_quality_matches": True},
        ),
    ]
    assert chosen[2].name == "ce+anchors-auto-positive_iou-0.45"
    with_losses = variants(config(losses=["ce", "focal"], samplers=["balanced"]))
    assert [v.name for v in with_losses] == [
        "focal-gamma2-alpha0.75",
        "ce",
        "focal-gamma2-alpha0.75+sampler-balanced",
    ]


def test_the_options_of_a_run_have_the_types_of_the_options():
    base = resolve(TrainConfig, {"train": "t", "val": "v", "output": "o"})
    options = with_changes(base, {"anchor_ratios": [1, 2], "lr": 1})
    assert options.model.anchor_ratios == (1.0, 2.0)
    assert isinstance(options.optimiser.lr, float)
    assert {"anchor_ratios", "lr", "train"} <= given_options(options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"set_ups": ["sampler=balancd"]}, "sampler must be one of natural, repeat_factor, balanced, found 'balancd'"),
        ({"set_ups": ["positiv_iou=0.45"]}, "unknown option 'positiv_iou'. Did you mean 'positive_iou'"),
        ({"set_ups": ["positive_iou=0.3"]}, "negative_iou must be at most positive_iou"),
        ({"set_ups": ["balanced"]}, "form 'option=value, option=value', found 'balanced'"),
        ({"set_ups": ["sampler="]}, "form 'option=value, option=value', found 'sampler='"),
        ({"set_ups": ["levels=[3"]}, "the value of levels in .* is not valid YAML"),
        ({"set_ups": ["gamma=1, epochs=30"]}, "all set-ups of a study have the same epochs"),
        ({"assigners": ["io"]}, "assigners must be one of iou"),
        ({"samplers": ["even"]}, "samplers may hold natural"),
    ],
)
def test_invalid_set_ups_are_refused_before_the_first_run(options, message):
    with pytest.raises(ConfigError, match=message):
        variants(config(**options))
