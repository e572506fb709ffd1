"""The set-ups that a study compares."""

from __future__ import annotations

from retinanet.config import LOSSES, StudyConfig, resolve
from retinanet.study.variants import variants
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
