"""The sentence of a finding."""

from retinanet.analysis.finding import Finding

PARTS = {"kind": "k", "what": "2 images are the same", "cause": "They were copied", "advice": "Remove one"}


def test_the_sentence_of_a_finding():
    assert str(Finding(severity="note", **PARTS)) == "note: 2 images are the same. They were copied. Remove one."


def test_five_places_are_named_and_more_are_hinted_at():
    assert " (a, b, c, d, e). " in str(Finding(severity="error", **PARTS, where=tuple("abcde")))
    assert " (a, b, c, d, e, ...). " in str(Finding(severity="error", **PARTS, where=tuple("abcdef")))
