"""The set-ups that a study compares."""

from __future__ import annotations

from retinanet.config import LOSSES, StudyConfig, resolve
from retinanet.study.variants import variants
from tests.study.made import config

OUTSIDE = "tests.outside_parts"


def test_a_study_names_every_loss_by_its_class():
    config = resolve(StudyConfig, {"output": "x", "losses": [*LOSSES, f"{OUTSIDE}:LinearLoss"]})
    found = {variant.name: (variant.label, variant.options) for variant in variants(config)}
    assert len(found) == len(LOSSES) + 1
    assert found["tests.outside_parts.LinearLoss-alpha0.75"] == (
        "linear, alpha 0.75",
        {"loss": f"{OUTSIDE}:LinearLoss", "alpha": 0.75},
    )
    assert found["focal-gamma2-alpha0.75"][0] == "focal, gamma 2, alpha 0.75"


def test_the_set_ups():
    """Focal as configured first; the grid without repeating it; the prior off on request."""
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
