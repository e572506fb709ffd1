"""Decision rules, with numbers worked by hand. t(2) = 4.303 at 97.5 %, 6.205 at 98.75 %."""

import numpy as np
import pytest

from retinanet.study.candidates import RARE_AP, combine
from retinanet.study.decision import Screened, compare, decide, is_hurt, screened, select
from retinanet.study.generalization import generalization
from retinanet.study.statistics import paired_difference
from tests.study.probes import candidate, runs, seen_by

BASE = [0.20, 0.22, 0.24]


def compared(aps, *, tested=1, change=None, **columns):
    return compare(change or candidate(), runs(aps, **columns), runs(BASE), rare=("c",), tested=tested)


def test_a_supported_change_is_recommended():
    """Differences 0.04, 0.05, 0.06: mean 0.05, s 0.01, half width 4.303 x 0.01 / sqrt(3) = 0.0248."""
    found = compared([0.24, 0.27, 0.30])
    assert (found.difference.mean, found.difference.low) == pytest.approx((0.05, 0.05 - 0.024842), abs=1e-5)
    assert found.verdict == "supported"
    decision = decide([found])
    assert decision.answer == "change"
    assert decision.chosen.name == "change"
    assert decision.sentence == "Use change. AP +0.050 (+0.025 to +0.075)."


def test_an_unsupported_change_is_not():
    """Differences 0.00, 0.05, 0.10: half width 4.303 x 0.05 / sqrt(3) = 0.124 > 0.05."""
    found = compared([0.20, 0.27, 0.34])
    assert found.verdict == "not supported: the interval contains 0"
    decision = decide([found])
    assert decision.answer == "keep the default"
    assert decision.chosen is None
    assert "change AP +0.050 (-0.074 to +0.174)" in decision.sentence


def test_two_tested_changes_need_wider_intervals():
    """Differences 0.02, 0.03, 0.04: half width 0.0248 for one test; 6.205 x 0.01 / sqrt(3) = 0.0358 for two."""
    aps = [0.22, 0.25, 0.28]
    assert compared(aps).is_supported
    found = compared(aps, tested=2)
    assert found.confidence == pytest.approx(0.975)
    assert found.difference.low == pytest.approx(0.03 - 0.035825, abs=1e-5)
    assert not found.is_supported


def test_a_negligible_gain_is_not_recommended():
    assert compared([0.203, 0.223, 0.243]).verdict == "not supported: negligible"


def test_a_worse_change_is_named():
    assert compared([0.10, 0.12, 0.14]).verdict == "worse"


def test_a_gain_that_hurts_a_guard_is_not_recommended():
    """The rare class gains 0.30, the AP of the other classes falls by 0.03 with every seed."""
    change = candidate(target=RARE_AP)
    found = compared([0.30, 0.32, 0.34], change=change, rare=[0.30, 0.31, 0.32], other=[ap - 0.03 for ap in BASE])
    assert found.gains
    assert found.hurt == ("AP of other classes",)
    assert found.verdict == "not supported: AP of other classes fell"
    decision = decide([found])
    assert decision.answer == "keep the default"
    assert decision.sentence.endswith(", but AP of other classes fell.")


@pytest.mark.parametrize(
    ("differences", "hurt"),
    [
        ((-0.03, -0.01, -0.023), True),  # mean -0.021, below -0.02
        ((-0.007, -0.008, -0.009), True),  # mean -0.008, the interval ends at -0.0055
        ((-0.003, -0.004, -0.005), False),  # below 0 with certainty, but negligible
        ((0.02, -0.03, -0.01), False),  # mean -0.007, the interval contains 0
    ],
)
def test_when_a_guard_is_hurt(differences, hurt):
    assert is_hurt(paired_difference(differences, (0.0, 0.0, 0.0))) is hurt


def supported_pair():
    first = compared([0.24, 0.27, 0.30], change=candidate("first", cause="x"))
    second = compared(
        [0.23, 0.25, 0.27], change=candidate("second", cause="y", target=RARE_AP), rare=[0.30, 0.31, 0.32]
    )
    assert first.is_supported
    assert second.is_supported
    return first, second


def joint_comparisons(first, second, aps, rare):
    joint = combine([first.candidate, second.candidate])
    return [compare(joint, runs(aps, rare=rare), runs(BASE), rare=("c",), target=target) for target in ("AP", RARE_AP)]


def test_a_verified_combination_is_recommended():
    first, second = supported_pair()
    joint = joint_comparisons(first, second, [0.30, 0.33, 0.36], [0.30, 0.31, 0.32])
    decision = decide([first, second], joint)
    assert decision.chosen.options == {"first": True, "second": True}
    assert decision.sentence == (
        "Use first + second. Together: AP +0.110 (+0.085 to +0.135); AP of rare classes +0.310 (+0.285 to +0.335)."
    )


def test_without_a_verified_combination_the_best_single_change_is_recommended():
    """Together, the rare class gains nothing. The first change gains 0.05 AP, the second 0.03."""
    first, second = supported_pair()
    joint = joint_comparisons(first, second, [0.24, 0.27, 0.30], [0.0, 0.0, 0.0])
    decision = decide([second, first], joint)
    assert decision.chosen.name == "first"
    assert decision.sentence.endswith("The runs did not support it together with second.")


def test_too_few_images():
    seen = generalization(seen_by(runs(BASE), [2 * ap for ap in BASE]))
    decision = decide([], seen=seen)
    assert decision.answer == "collect images"
    assert decision.sentence == (
        "Collect more images: AP is 0.440 on images that the default was trained on and 0.220 on validation images: "
        "-50% (-50% to -50%). The measurements suggest no change of the options."
    )
    assert decide([compared([0.24, 0.27, 0.30])], seen=seen).answer == "change", "a supported change comes first"
    assert decide([], seen=generalization(seen_by(runs(BASE), BASE))).answer == "keep the default"


def test_candidates_that_were_all_worse_are_named():
    worse = Screened(candidate=candidate("x"), gain=-0.05, guard=0.0)
    assert decide([], screening=[worse]).sentence == (
        "Keep the default. With the first seed, all candidates were clearly worse than the default: x AP -0.050."
    )


def test_healthy_data_keeps_the_default():
    decision = decide([])
    assert decision.sentence == "Keep the default. The measurements suggest no change of the options."


def test_the_screening_selects_the_best_candidate_of_each_cause():
    """A cause whose candidates all lose more than 0.02 goes no further. A hurt guard counts before the gain."""
    screening = [
        Screened(candidate=candidate(name, cause=name[0]), gain=gain, guard=guard)
        for name, gain, guard in (
            ("x1", 0.01, 0.0),
            ("x2", 0.03, 0.0),
            ("x3", 0.30, -0.05),
            ("y1", -0.05, 0.0),
            ("z1", -0.01, -0.05),
        )
    ]
    assert [c.name for c in select(screening)] == ["x2", "z1"]


def test_the_differences_of_a_screening():
    """Rare class +0.2; AP +0.01; other classes -0.04, the lowest guard."""
    (run,), (reference,) = runs([0.21], rare=[0.3], other=[0.16]), runs([0.20], rare=[0.1], other=[0.20])
    found = screened(candidate(target=RARE_AP), run, reference, rare=("c",))
    assert (found.gain, found.guard) == pytest.approx((0.2, -0.04))


def test_no_effect_leads_to_few_recommendations():
    """Of 400 probes with two changes and no effect, fewer than 5 % recommend a change."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0.3, 0.02, (400, 3, 4))
    changes = [candidate("x", cause="x"), candidate("y", cause="y")]
    wrong = 0
    for default, *others in noise.tolist():
        tested = [
            compare(change, runs(aps), runs(default), rare=(), tested=2)
            for change, aps in zip(changes, others, strict=True)
        ]
        wrong += decide(tested).answer == "change"
    assert wrong / 400 < 0.05
