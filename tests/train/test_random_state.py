"""Random states of Python, NumPy and PyTorch."""

import random

import numpy as np
import torch

from retinanet.train.random_state import get_random_state, set_random_state


def draw() -> tuple[float, float, float, float]:
    # gauss and randn store a second number for the next call, which is also part of the state
    return random.random(), random.gauss(0, 1), float(np.random.randn()), float(torch.rand(()))  # noqa: NPY002


def test_a_restored_state_gives_the_same_numbers_again():
    draw()
    state = get_random_state()
    first = [draw() for _ in range(3)]
    assert [draw() for _ in range(3)] != first
    set_random_state(state)
    assert [draw() for _ in range(3)] == first


def test_the_state_can_be_saved_as_plain_values(tmp_path):
    torch.save(get_random_state(), tmp_path / "state.pt")
    first = draw()
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draw() == first
