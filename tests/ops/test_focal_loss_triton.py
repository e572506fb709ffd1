"""The Triton form of the focal loss without a GPU: through Triton's interpreter; and what happens without Triton."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from retinanet.ops import focal_loss as focal
from retinanet.ops.focal_loss_torch import focal_loss_torch

FORMS = Path(__file__).with_name("test_focal_loss.py")


@pytest.mark.slow
def test_the_kernel_through_the_interpreter():
    """The variable must be set before Triton is imported, so the tests of all forms run once more, in a new process."""
    pytest.importorskip("triton", reason="Triton is not installed")
    if os.environ.get("RETINANET_NATIVE_LIBRARY"):
        pytest.skip("no C code is called here: nothing for a sanitizer to see")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "triton", str(FORMS)]
    command += [
        "-W",
        "ignore:invalid value encountered in cast:RuntimeWarning",
    ]  # NumPy's, of a NaN made a whole number
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "passed" in done.stdout


@pytest.fixture
def fresh():
    """The answer of `triton_works` is kept for a process: not that of these tests."""
    focal.triton_works.cache_clear()
    yield torch.device("cpu")
    focal.triton_works.cache_clear()


@pytest.mark.parametrize(
    "fault", [ImportError("No module named 'triton'"), RuntimeError("0 active drivers"), ValueError()]
)
def test_what_cannot_be_used_is_said_once_and_the_torch_form_serves(fresh, monkeypatch, caplog, fault):
    def broken(*_):
        raise fault

    monkeypatch.setattr(focal, "focal_loss_triton", broken)
    with caplog.at_level(logging.WARNING):
        assert [focal.triton_works(fresh) for _ in range(3)] == [False] * 3
    assert caplog.text.count("Triton cannot be used on cpu") == 1
    monkeypatch.setattr(focal, "triton_works", lambda _: False)
    assert focal.implementation(torch.device("cuda:0")) is focal_loss_torch


def test_a_compiler_that_computes_nonsense_is_not_used(fresh, monkeypatch, caplog):
    monkeypatch.setattr(focal, "focal_loss_triton", lambda *_: (torch.tensor([0.5]), None))
    assert not focal.triton_works(fresh)
    assert "expected a loss of 0.1733, found 0.5" in caplog.text


def test_one_that_works_is_used(fresh, monkeypatch):
    monkeypatch.setattr(focal, "focal_loss_triton", lambda *arguments: focal_loss_torch(*arguments))
    assert focal.triton_works(fresh)
    monkeypatch.setattr(focal, "triton_works", lambda _: True)
    assert focal.implementation(torch.device("cuda:0")) is focal.focal_loss_triton
