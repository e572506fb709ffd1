"""Tests of error messages: suggestions, missing packages and lists of names."""

import pytest

from retinanet.errors import UserError, did_you_mean, explain_missing, list_names


def test_only_a_near_word_is_suggested():
    assert did_you_mean("foca", ["focal", "ce"]) == ". Did you mean 'focal'?"
    assert did_you_mean(12, [123, 900]) == ". Did you mean '123'?"
    assert did_you_mean("COCO", ["coco", "voc"]) == ". Did you mean 'coco'?"
    assert did_you_mean("xyz", ["focal", "ce"]) == ""
    assert did_you_mean("focal", []) == ""


def test_a_missing_package_names_its_extra():
    error = explain_missing(ModuleNotFoundError(name="ray.data"), "the Ray engine")
    assert isinstance(error, UserError)
    assert str(error) == "the Ray engine needs ray, which is not installed: pip install 'retinanet[scale]'"


def test_a_missing_module_without_an_extra_is_raised_again():
    missing = ModuleNotFoundError(name="numpy")
    with pytest.raises(ModuleNotFoundError) as raised:
        explain_missing(missing, "anything")
    assert raised.value is missing


def test_list_names_counts_the_names_after_ten():
    names = [f"c{number}" for number in range(12)]
    assert list_names(names[:2]) == "c0, c1"
    assert list_names(names[:10]).endswith("c9")
    assert list_names(names) == "c0, c1, c2, c3, c4, c5, c6, c7, c8, c9 and 2 more"
