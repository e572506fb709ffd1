"""The loss microscope: its formulas against the losses of training, its histograms, and its pool of places."""

import math

import numpy as np
import pytest
import torch

from retinanet.analysis import gradient_places
from retinanet.analysis.gradient_place import PLACES, best_places
from retinanet.analysis.loss_microscope import BINS_PER_UNIT, KINDS
from retinanet.analysis.loss_settings import ALPHAS, GAMMAS, Setting, example_terms, train_options
from retinanet.config import LossConfig
from retinanet.losses import DetectionLoss, sigmoid_focal_loss
from tests.analysis.microscope_inputs import CLASSES, measured, random_batch

SETTINGS = [Setting(alpha, gamma) for alpha in (0.05, 0.6) for gamma in (0.0, 0.25, 2.0, 5.0)]


def exact_shares(batches, config, *, hard_above=0.0):
    """Return the shares of KINDS in loss and gradient by the loss of training and autograd."""
    sums = np.zeros((2, 4))
    loss = DetectionLoss(config=config)
    for dense in batches:
        outputs, targets = dense.outputs, dense.targets
        logits = outputs.logits_NAK.double().requires_grad_()
        double = type(outputs)(
            logits_NAK=logits,
            deltas_NA4=outputs.deltas_NA4,
            anchors_A4=outputs.anchors_A4,
            anchors_per_level=outputs.anchors_per_level,
        )
        loss_NAK = loss.classification_NAK(double, targets)
        (gradient_NAK,) = torch.autograd.grad(loss_NAK.sum(), logits)
        label_NAK = torch.nn.functional.one_hot(targets.labels_NA, len(CLASSES)).bool() & targets.positive_NA[..., None]
        hard = logits > hard_above
        rare = torch.zeros_like(hard)
        rare[..., 1] = True
        masks = (label_NAK & ~rare, label_NAK & rare, ~label_NAK & hard, ~label_NAK & ~hard)
        for i, values in enumerate((loss_NAK.detach(), gradient_NAK.abs())):
            sums[i] += [float(values[mask].sum()) for mask in masks]
    return sums / sums.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_shares_equal_those_of_focal_loss_and_autograd(setting):
    batches = [random_batch(0), random_batch(1)]
    microscope = measured(batches)
    loss, gradient, _ = microscope.sums(setting)
    exact = exact_shares(batches, LossConfig(alpha=setting.alpha, gamma=setting.gamma))
    assert microscope.rare == ("rare",)
    assert (exact > 1e-5).all(), "every kind contributes, so the comparison is not empty"
    for values, expected in zip((loss, gradient), exact, strict=True):
        np.testing.assert_allclose(list(microscope.by_kind(values).values()), expected, rtol=2.5e-3)


def test_terms_of_an_example_equal_focal_loss_and_its_gradient():
    z = torch.linspace(-40, 40, 4001, dtype=torch.float64, requires_grad=True)
    for gamma in GAMMAS:
        loss = sigmoid_focal_loss(z, torch.zeros_like(z), alpha=-1, gamma=gamma)
        (gradient,) = torch.autograd.grad(loss.sum(), z)
        own_loss, own_gradient = example_terms(z.detach().numpy(), gamma)
        np.testing.assert_allclose(own_loss, loss.detach(), rtol=1e-9)
        np.testing.assert_allclose(own_gradient, gradient, rtol=1e-8)  # torch: softplus is linear above 20
    assert example_terms(0.0, 0.0)[0] == pytest.approx(math.log(2))
    assert example_terms(1e4, 2.0)[0] == 1e4
    assert example_terms(-1e4, 0.5)[1] == 0


def test_the_bound_of_the_error_of_a_bin_holds():
    """Loss and gradient grow by at most gamma + 1 per unit (as logarithms), with a bounded second derivative."""
    z, h = np.linspace(-30, 30, 24001), 0.0025
    for gamma in GAMMAS:
        for values in example_terms(z, gamma):
            growth = np.diff(np.log(values)) / h
            curvature = np.diff(values, 2) / h**2 / values[1:-1]
            assert growth.max() <= gamma + 1 + 1e-6
            assert np.abs(curvature).max() <= (gamma + 1) ** 2 * 1.001
    width = 6 / BINS_PER_UNIT
    assert math.exp(width) * width**2 / 8 < 0.0013


@pytest.mark.parametrize("gamma", GAMMAS)
def test_the_gradient_rises_to_one_maximum_and_then_falls(gamma):
    """So a wrong logit above the maximum has a smaller gradient: the order of examples depends on gamma."""
    gradient = example_terms(np.linspace(-30, 25, 5001), gamma)[1]
    signs = np.sign(np.diff(gradient))
    changes = np.count_nonzero(np.diff(signs[signs != 0]))
    assert changes == (1 if gamma else 0)


def test_mining_equals_the_losses_of_training():
    config = LossConfig(ohem_examples=64, negatives_per_positive=2.0)
    batches = [random_batch(2), random_batch(3)]
    microscope = measured(batches, config)
    for row, name in zip(microscope.mined, ("hard_negative_mining", "ohem"), strict=True):
        exact = exact_shares(batches, LossConfig(loss=name, ohem_examples=64, negatives_per_positive=2.0))
        for values, expected in zip(row.sums, exact, strict=False):
            np.testing.assert_allclose(list(microscope.by_kind(values).values()), expected, rtol=1e-6)
    images, positives = 4, 80 + 80
    anchors = [positives + 2 * positives + 2 * 2, images * 64]  # an image without objects keeps 2 negatives
    assert [row.examples for row in microscope.mined] == [count * len(CLASSES) for count in anchors]


def test_compared_losses_equal_the_losses_of_training():
    batches = [random_batch(4)]
    microscope = measured(batches)
    rows = {row.name: row for row in microscope.losses(Setting(0.6, 1.5))}
    for name, config in {
        "focal loss, this setting": LossConfig(alpha=0.6, gamma=1.5),
        "cross-entropy": LossConfig(loss="ce"),
        "alpha-balanced cross-entropy": LossConfig(loss="balanced_ce", alpha=0.6),
        "weighted cross-entropy (YOLO)": LossConfig(loss="weighted"),
    }.items():
        exact = exact_shares(batches, config)
        for values, expected in zip(rows[name].sums, exact, strict=False):
            np.testing.assert_allclose(list(microscope.by_kind(values).values()), expected, rtol=2.5e-3)
        assert rows[name].examples == 2 * (400 - 30) * len(CLASSES)
    effective = [row.effective for row in rows.values()]
    assert effective[0] < effective[2] < effective[1], "focal loss concentrates the gradient on few examples"


def test_the_limit_of_hard_background_follows_easy_from():
    batches = [random_batch(5)]
    microscope = measured(batches, easy_from=0.8)
    exact = exact_shares(batches, LossConfig(), hard_above=math.log(0.2 / 0.8))
    shares = microscope.by_kind(microscope.sums(Setting(0.75, 2.0)).gradient_G)
    np.testing.assert_allclose(list(shares.values()), exact[1], rtol=2.5e-3)


def all_places(batches):
    """Return (is object, wrong logits) of every object and every background place, without a pool."""
    found = []
    for dense in batches:
        for n, index in enumerate(dense.batch.indices):
            outputs, targets = dense.outputs, dense.targets
            one = type(outputs)(
                logits_NAK=outputs.logits_NAK[n : n + 1],
                deltas_NA4=outputs.deltas_NA4[n : n + 1],
                anchors_A4=outputs.anchors_A4,
                anchors_per_level=outputs.anchors_per_level,
            )
            parts = {name: getattr(targets, name)[n : n + 1] for name in targets.__dataclass_fields__}
            arguments = (index, one, type(targets)(**parts), dense.batch.targets[n], dense.batch.frames[n])
            for find in (gradient_places.object_places, gradient_places.background_places):
                found += find(*arguments)[0]
    return found


def test_the_pool_holds_the_top_places_of_every_setting(monkeypatch):
    """Without a limit for each image, every place is found. The pool of all images must hold the best of these."""
    batches = [random_batch(seed, indices=(2 * seed, 2 * seed + 1)) for seed in range(4)]
    monkeypatch.setattr(gradient_places, "MOST_KEPT", 100)
    microscope = measured(batches)
    monkeypatch.setattr(gradient_places, "best_places", lambda values: np.arange(len(values)))
    everything = all_places(batches)
    assert len(everything) > 400 > len(microscope.places)
    assert len({place.image for place in everything}) == 8
    kept = [(place.image, place.box, place.logits) for place in microscope.places]
    is_object = np.array([place.is_object for place in everything])
    for gamma in GAMMAS:
        sums = np.array([example_terms(np.array(place.logits), gamma)[1].sum() for place in everything])
        for alpha in (None, *ALPHAS):
            setting = Setting(alpha, gamma)
            gradients = np.where(is_object, *setting.weights) * sums
            best = [everything[i] for i in np.argsort(-gradients, kind="stable")[:PLACES]]
            found = [kept[i] for i, _ in microscope.ranked(setting)]
            assert found == [(p.image, p.box, p.logits) for p in best]


def test_the_places_of_an_image_by_hand():
    """One object with 4 anchors; its background places exclude its own examples and the ignored anchors."""
    dense = random_batch(7)
    dense.outputs.logits_NAK[0, :4, 1] -= 4
    microscope = measured([dense])
    objects = [place for place in microscope.places if place.is_object]
    assert all(len(place.logits) == 4 for place in objects)
    rare = next(place for place in objects if place.label == 1)
    expected = -dense.outputs.logits_NAK[0, :4, 1].double().numpy()
    np.testing.assert_allclose(rare.logits, expected, atol=1e-4)
    assert rare.score == pytest.approx(1 / (1 + math.exp(min(expected))), rel=1e-3)
    np.testing.assert_allclose(rare.box, 2 * dense.batch.targets[0].boxes_G4[0], rtol=1e-5)
    background = [place for place in microscope.places if not place.is_object]
    ignored = dense.outputs.logits_NAK[:, 80:110].double().round(decimals=4).flatten().tolist()
    assert not {round(z, 4) for place in background for z in place.logits} & {round(z, 4) for z in ignored}
    assert {place.kind for place in background} <= {"unlabelled?", "wrong class?", "distant anchor", "background"}


def test_best_places_of_equal_gradients_are_the_first():
    values = np.ones((5, 2))
    values[4, 1] = 2
    assert best_places(values, 2).tolist() == [0, 1, 4]


def test_no_objects_no_images_and_large_logits():
    empty = measured([])
    assert empty.ranked(Setting(0.75, 2.0)) == []
    assert sum(empty.by_kind(empty.sums(Setting(0.75, 2.0)).loss_G).values()) == 0
    dense = random_batch(8, indices=(0,))
    dense.outputs.logits_NAK[0, 200] = 1e4
    dense.outputs.logits_NAK[0, 201] = -1e4
    microscope = measured([dense])
    assert dict.fromkeys(KINDS) == dict.fromkeys(microscope.by_kind(microscope.sums(Setting(0.5, 0.0)).loss_G))
    assert microscope.sums(Setting(None, 0.0)).loss_G.sum() > 3e4
    assert microscope.sentences()


@pytest.mark.parametrize(
    ("config", "start", "exact"),
    [
        (LossConfig(alpha=0.25, gamma=1.5), (0.25, 1.5), True),
        (LossConfig(alpha=0.26, gamma=7), (0.25, 5.0), False),
        (LossConfig(loss="ce"), (None, 0.0), True),
        (LossConfig(loss="balanced_ce", alpha=0.4), (0.4, 0.0), True),
        (LossConfig(loss="varifocal", alpha=0.4), (0.75, 2.0), False),
        (LossConfig(class_alpha=(0.5, 0.6, 0.7)), (0.75, 2.0), False),
    ],
)
def test_the_start_is_the_setting_of_training(config, start, exact):
    microscope = measured([], config)
    assert tuple(microscope.start) == start
    assert microscope.is_start_exact is exact


def test_options_of_a_setting():
    assert train_options(Setting(0.6, 1.5)) == "--loss focal --alpha 0.60 --gamma 1.5"
    assert train_options(Setting(None, 0.0)) == "--loss ce"
    assert train_options(Setting(None, 2.0)) == "--loss focal --alpha 0.50 --gamma 2"
