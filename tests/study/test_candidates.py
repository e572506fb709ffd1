"""Each planted problem suggests its candidates, and healthy data suggests none."""

import pytest

import retinanet.study.candidates as module
from retinanet.study.candidates import AP, OTHER_AP, RARE_AP, candidates, combine, value_of, without
from tests.study.probes import candidate, measurements, runs, train_config


def names(measured, *, given=(), **options):
    return [found.name for found in candidates(measured, train_config(**options), given=given)]


def test_healthy_data_suggests_nothing():
    healthy = measurements(unreached=0.02, tiny=0.02, reduction=1.0, easy_background=0.4, effective_negatives=800.0)
    assert names(healthy) == []


def test_unreachable_objects_suggest_anchors_and_matching():
    measured = measurements(
        unreached=0.3, unreached_side=9.0, unreached_if_fitted=0.01, adds_p2=True, unreached_by={"atss": 0.0}
    )
    found = candidates(measured, train_config())
    assert [c.name for c in found] == ["fitted-anchors", "atss", "low-quality-matches"]
    assert found[0].options == {"anchors": "auto"}
    assert found[0].label == "fitted anchors with P2"
    assert found[0].cost == module.COST_OF_P2
    assert found[0].reason == (
        "30.0% of the objects have no positive anchor (median side 9 pixels); with anchors fitted to the data 1.0%"
    )
    assert found[1].options == {"assigner": "atss"}
    assert {c.target for c in found} == {AP}


def test_fitted_anchors_are_no_candidate_where_they_change_nothing():
    assert names(measurements(unreached=0.3)) == ["low-quality-matches"]
    assert names(measurements(unreached=0.3), low_quality_matches=True) == []


def test_a_rare_class_suggests_copy_paste_samplers_and_losses():
    found = candidates(measurements((300, 280, 12)), train_config())
    expected = [
        "copy-paste",
        "copy-paste-repeat-factor",
        "balanced-sampler",
        "class-alpha",
        "repeat-factor-sampler",
        "eql-v2",
    ]
    assert [c.name for c in found] == expected
    assert {(c.target, c.guards) for c in found} == {(RARE_AP, (AP, OTHER_AP))}
    assert found[0].reason == "Few objects: c 12; a has 300"


@pytest.mark.parametrize(
    ("objects", "rare"),
    [
        ((300, 280, 15), "c"),  # 20 times as rare
        ((100, 90, 12), "c"),  # 8 times as rare, and below 20 objects
        ((300, 280, 20), ""),  # 15 times as rare, but 20 objects
        ((90, 80, 12), ""),  # 7.5 times as rare
        ((12, 10, 8), ""),  # few objects of every class
        ((300, 280, 0), ""),  # nothing to learn from
    ],
)
def test_which_classes_are_rare(objects, rare):
    assert "".join(count.name for count in measurements(objects).rare) == rare


def test_a_rare_class_without_validation_objects_suggests_nothing():
    """Its AP cannot be measured, so no run could support a change."""
    assert names(measurements((300, 280, 12), val_objects=0)) == []


def test_tiny_objects_in_large_images_suggest_tiles():
    found = candidates(measurements(tiny=0.4, tiny_in_tiles=0.05, reduction=3.0), train_config(image_size=512))
    assert [c.options for c in found] == [{"tile": 512}]
    assert names(measurements(tiny=0.4, tiny_in_tiles=0.05, reduction=1.2)) == [], "the images are hardly reduced"
    assert names(measurements(tiny=0.4, tiny_in_tiles=0.38, reduction=3.0)) == [], "the objects are tiny in tiles too"


@pytest.mark.parametrize(
    ("easy", "negatives", "gamma"), [(0.7, 900.0, 3.0), (0.1, 3.0, 1.0), (0.3, 900.0, None), (None, None, None)]
)
def test_the_loss_of_a_default_run_suggests_gamma(easy, negatives, gamma):
    found = candidates(measurements(easy_background=easy, effective_negatives=negatives), train_config())
    assert [c.options for c in found] == ([] if gamma is None else [{"gamma": gamma}])


def test_an_option_that_the_user_gave_is_not_questioned():
    measured = measurements((300, 280, 12))
    assert names(measured, given={"sampler"}) == ["copy-paste", "class-alpha", "eql-v2"]
    assert names(measured, loss="ce", sampler="balanced") == ["copy-paste"]
    assert names(measured, loss="ce", sampler="balanced", copy_paste=0.5) == []


def test_a_combination_changes_all_options_and_guards_all_metrics():
    first, second = candidate("x", options={"a": 1, "b": 1}), candidate("y", options={"b": 2, "c": 2}, target=RARE_AP)
    joint = combine([first, second])
    assert joint.options == {"a": 1, "b": 1, "c": 2}
    assert joint.guards == ("AP50", AP, OTHER_AP)


def test_the_last_candidate_of_the_largest_cause_is_dropped():
    kept = [candidate("x"), candidate("y", cause="other"), candidate("z")]
    assert [c.name for c in without(kept)] == ["x", "y"]


def test_metrics_of_a_run():
    """Rare class c has AP 0.1, the others 0.5. A class without validation objects (-1) does not count."""
    (run,) = runs([0.4], rare=[0.1], other=[0.5], ap50=[0.6])
    run.metrics["per_class"]["d"] = {"AP": -1.0}
    assert [value_of(run, name, ("c",)) for name in (AP, "AP50", RARE_AP, OTHER_AP)] == [0.4, 0.6, 0.1, 0.5]
    run.metrics.clear()
    assert [value_of(run, name, ("c",)) for name in (AP, RARE_AP)] == [0.0, 0.0], "diverged"
