"""Losses chosen by name, and losses of a user's own module."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from retinanet.config import BOX_LOSSES, LossConfig
from retinanet.errors import ConfigError
from retinanet.losses import BoxLoss, ClassificationLoss, DetectionLoss, FocalLoss
from retinanet.losses.base import loss_class, make_box_loss, make_classification_loss
from tests.loss_inputs import one_positive

OUTSIDE = "tests.outside_parts"


def test_user_losses_give_hand_worked_values():
    """All logits are 0, so p = 0.5. With alpha 0.3 (an option) and factor 2 (of the class), each of 2 x 2 examples
    costs 0.3: 1.2 in total, divided by 1 positive. Box loss: |0.5| + |-1| + 0 + |2| = 3.5. Total: 1.2 + 2 x 3.5 = 8.2.
    """
    config = LossConfig(loss=f"{OUTSIDE}:LinearLoss", box_loss=f"{OUTSIDE}:DeltaNorm", alpha=0.3, box_loss_weight=2.0)
    losses = DetectionLoss(config=config)(*one_positive([[0.0, 0.0], [0.0, 0.0]], [0.5, -1.0, 0.0, 2.0]))
    assert losses.classification.item() == pytest.approx(1.2)
    assert losses.box.item() == pytest.approx(3.5)
    assert losses.total.item() == pytest.approx(8.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "foca"}, r"loss must be one of focal, .*found 'foca'. Did you mean 'focal'\?"),
        ({"loss": "a:b:c"}, "loss must be one of"),
        ({"box_loss": "smooth-l1"}, r"box_loss must be .* Did you mean 'smooth_l1'\?"),
        ({"loss": f"{OUTSIDE}:LinearLos"}, r"has no 'LinearLos'. Did you mean 'LinearLoss'\?"),
        (
            {"loss": "tests.outside_part:LinearLoss"},
            r"'tests.outside_part'. Did you mean 'tests.outside_parts'",
        ),
        ({"loss": "no_such_package_at_all:Loss"}, "no module 'no_such_package_at_all'.*PYTHONPATH"),
        ({"loss": f"{OUTSIDE}:DeltaNorm"}, "expected a subclass of retinanet.losses.base.ClassificationLoss, found"),
        ({"box_loss": f"{OUTSIDE}:strided"}, "expected a subclass of retinanet.losses.base.BoxLoss"),
        (
            {"box_loss": f"{OUTSIDE}:NeedsMore"},
            "parameter 'betta' needs a default, because it is not an option",
        ),
    ],
)
def test_unknown_or_unfit_loss_names_raise_an_error_with_a_hint(options, message):
    with pytest.raises(ConfigError, match=message):
        DetectionLoss(config=LossConfig(**options))


class Halved(FocalLoss):
    """A subclass with another formula than its parent."""

    def __call__(self, logits, targets, classes=None):
        return super().__call__(logits, targets, classes) / 2


class Named(ClassificationLoss):
    label = "a name of its own"

    def __call__(self, logits, targets, classes=None):
        return logits * 0


def test_a_loss_is_built_with_the_options_of_the_config():
    loss = make_classification_loss(LossConfig(loss="focal", gamma=1.5, alpha=0.25))
    assert type(loss) is FocalLoss is loss_class("focal")
    assert loss.focusing == 1.5
    assert loss.settings() == ("gamma 1.5", "alpha 0.25")


@pytest.mark.parametrize("name", BOX_LOSSES)
def test_every_box_loss_is_zero_for_the_exact_box(name: str):
    box_P4 = torch.tensor([[0.0, 0.0, 10.0, 20.0]])
    loss = make_box_loss(LossConfig(box_loss=name))
    assert isinstance(loss, BoxLoss)
    assert loss(torch.zeros(1, 4), box_P4, box_P4).tolist() == pytest.approx([0.0], abs=1e-6)
    assert loss(torch.full((1, 4), 0.5), box_P4, box_P4).item() > 0.1


def test_the_default_label_is_the_class_name():
    assert Halved.label == "Halved"
    assert Named.label == "a name of its own"
    assert (Named().focusing, Named().settings(), Named().mines, Named().target) == (0.0, (), False, "one")


def test_keep_drops_only_ignored_anchors_by_default():
    outputs, targets = one_positive([[0.0], [0.0], [0.0]], [0.0] * 4)
    ignored_NA = torch.tensor([[False, False, True]])
    kept = Named().keep(torch.zeros(1, 3), outputs, replace(targets, ignored_NA=ignored_NA))
    assert kept.tolist() == [[True, True, False]]


def test_a_subclass_with_another_formula_does_not_use_the_fused_kernels():
    logits_NAK = torch.zeros(1, 2, 1)
    assert FocalLoss(gamma=2.0, alpha=0.25).fused_terms(logits_NAK, 1.0) is not None
    assert Halved(gamma=2.0, alpha=0.25).fused_terms(logits_NAK, 1.0) is None
