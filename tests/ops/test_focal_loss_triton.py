"""The Triton form of the focal loss without a GPU, through Triton's interpreter, and the choice of a form."""

import logging
from pathlib import Path

import pytest
import torch

from retinanet.ops import focal_loss as focal
from retinanet.ops.focal_loss_torch import focal_loss_torch
from tests.ops.triton_interpreter import run_triton_tests

FORMS = Path(__file__).with_name("test_focal_loss.py")


@pytest.mark.slow
def test_the_triton_form_passes_its_tests_in_the_interpreter():
    # The interpreter casts NaN to an integer, about which NumPy warns.
    run_triton_tests(FORMS, ignored_warning="ignore:invalid value encountered in cast:RuntimeWarning")


@pytest.fixture
def uncached_cpu():
    """Return the CPU device. The cache of `triton_works` is cleared before and after the test."""
    focal.triton_works.cache_clear()
    yield torch.device("cpu")
    focal.triton_works.cache_clear()


@pytest.mark.parametrize(
    "fault", [ImportError("No module named 'triton'"), RuntimeError("0 active drivers"), ValueError()]
)
def test_if_triton_fails_it_is_logged_once_and_the_torch_form_is_used(uncached_cpu, monkeypatch, caplog, fault):
    def broken(*_):
        raise fault

    monkeypatch.setattr(focal, "focal_loss_triton", broken)
    with caplog.at_level(logging.WARNING):
        assert [focal.triton_works(uncached_cpu) for _ in range(3)] == [False] * 3
    assert caplog.text.count("Triton cannot be used on cpu") == 1
    monkeypatch.setattr(focal, "triton_works", lambda _: False)
    assert focal.implementation(torch.device("cuda:0")) is focal_loss_torch


def test_triton_is_not_used_if_it_computes_a_wrong_loss(uncached_cpu, monkeypatch, caplog):
    monkeypatch.setattr(focal, "focal_loss_triton", lambda *_: (torch.tensor([0.5]), None))
    assert not focal.triton_works(uncached_cpu)
    assert "expected a loss of 0.1733, found 0.5" in caplog.text


def test_triton_is_used_if_it_works(uncached_cpu, monkeypatch):
    monkeypatch.setattr(focal, "focal_loss_triton", lambda *arguments: focal_loss_torch(*arguments))
    assert focal.triton_works(uncached_cpu)
    monkeypatch.setattr(focal, "triton_works", lambda _: True)
    assert focal.implementation(torch.device("cuda:0")) is focal.focal_loss_triton
