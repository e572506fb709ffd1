"""Say in two sentences how good a model is on a dataset: what is good enough, and what is the largest loss."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from retinanet.analysis.outcomes import KINDS, STEPS, UNLABELLED
from retinanet.report.gallery import pluralise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retinanet.analysis.outcomes import Counts, Outcomes

GOOD: Final = 0.9
"""A class with at least this recall and this precision is good enough."""
NAMED: Final = 3
"""Maximum number of classes that the verdict names."""


def verdict(outcomes: Outcomes) -> list[str]:
    """Return two sentences: what is good enough at the threshold, and what is the largest loss."""
    at = f"score threshold {outcomes.step / STEPS:.2f}"
    counts = outcomes.counts()
    if not counts.objects:
        verb = "remains" if counts.detections == 1 else "remain"
        return [f"The images have no objects. At {at}, {pluralise(counts.detections, 'detection')} {verb}."]
    if not counts.found:
        return [f"At {at}, no object is found."]
    by_class = {name: outcomes.counts(label=k) for k, name in enumerate(outcomes.classes)}
    by_class = {name: one for name, one in by_class.items() if one.objects}
    return [_good(by_class, at), *_largest_loss(outcomes, by_class)]


def _good(by_class: dict[str, Counts], at: str) -> str:
    """Return which classes are good enough."""
    good = {name: one for name, one in by_class.items() if (one.recall or 0) >= GOOD and (one.precision or 0) >= GOOD}
    if not good:
        best = max(by_class, key=lambda name: by_class[name].f1 or 0)
        return (
            f"At {at}, no class has recall and precision of {GOOD:g} or more. The best class is {best}: "
            f"{_quality(by_class[best])}."
        )
    if len(good) == len(by_class) > 1:
        return f"At {at}, all {len(good):,} classes are good: recall and precision are {GOOD:g} or more."
    names = sorted(good, key=lambda name: -(good[name].f1 or 0))
    named = [f"{name} ({_quality(good[name])})" for name in names[:NAMED]]
    others = len(names) - NAMED
    if others > 0:
        named.append(f"{others:,} other {'class' if others == 1 else 'classes'}")
    verb = "is" if len(names) == 1 else "are"
    return f"At {at}, {len(names):,} of {pluralise(len(by_class), 'class')} {verb} good: {_join(named)}."


def _quality(counts: Counts) -> str:
    precision = "–" if counts.precision is None else f"{counts.precision:.2f}"
    return f"recall {counts.recall or 0:.2f}, precision {precision}"


def _largest_loss(outcomes: Outcomes, by_class: dict[str, Counts]) -> list[str]:
    """Return the class with most missed objects or most false detections, and their most frequent kind."""
    losses = [
        (count, outcome, name)
        for name, one in by_class.items()
        for outcome, count in (("missed", one.missed), ("false", one.false))
    ]
    count, outcome, name = max(losses, key=lambda loss: loss[0])
    if not count:
        return ["No object is missed, and no detection is false."]
    label = outcomes.classes.index(name)
    table = outcomes.objects if outcome == "missed" else outcomes.false
    rows = table[(table[:, 0] == label) & ((table[:, 3] < outcomes.step) == (outcome == "missed"))]
    kinds = Counter(int(kind) for kind in rows[:, 2] if outcome == "missed" or kind != UNLABELLED)
    kind, number = kinds.most_common(1)[0]
    one, of = by_class[name], "" if len(by_class) == 1 else f" of class {name}"
    if outcome == "missed":
        loss = f"{count:,} of {pluralise(one.objects, 'object')}{of} {'is' if count == 1 else 'are'} missed"
    else:
        loss = f"{count:,} of {pluralise(one.detections, 'detection')}{of} {'is' if count == 1 else 'are'} false"
    share = "all" if number == count else f"{number:,}"
    sentences = [f"The largest loss: {loss}. Most frequent kind: {KINDS[kind]} ({share})."]
    unlabelled = outcomes.counts().unlabelled
    if unlabelled > count:
        sentences.append(f"{unlabelled:,} detections are probably objects without a label: check the labels.")
    return sentences


def _join(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
