"""Findings as sentences and as JSON."""

import pytest

from retinanet.analysis.finding import Finding

PARTS = {"kind": "k", "what": "2 images are the same", "cause": "They were copied", "advice": "Remove one"}


def test_the_sentence_of_a_finding():
    assert str(Finding(severity="note", **PARTS)) == "note: 2 images are the same. They were copied. Remove one."


def test_the_sentence_names_at_most_five_places():
    assert " (a, b, c, d, e). " in str(Finding(severity="error", **PARTS, where=tuple("abcde")))
    assert " (a, b, c, d, e, ...). " in str(Finding(severity="error", **PARTS, where=tuple("abcdef")))


@pytest.mark.parametrize(("kind", "former"), [("duplicate images", "duplicate pictures"), ("rare class", "rare class")])
def test_json_keeps_the_former_kind(kind, former):
    document = Finding(severity="note", **{**PARTS, "kind": kind}, where=("a.png",)).to_json()
    assert (document["kind"], document["title"]) == (former, kind)
    assert document["where"] == ["a.png"]
