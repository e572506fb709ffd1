"""The random states of Python, numpy and torch."""

import random

import numpy as np
import torch

from retinanet.train.random_state import restore_randomness, state_of_randomness


def draw() -> tuple[float, float, float, float]:
    # gauss and randn keep a second number for the next call, which belongs to the state too
    return random.random(), random.gauss(0, 1), float(np.random.randn()), float(torch.rand(()))  # noqa: NPY002


def test_a_restored_state_gives_the_same_numbers_again():
    draw()
    state = state_of_randomness()
    first = [draw() for _ in range(3)]
    assert [draw() for _ in range(3)] != first
    restore_randomness(state)
    assert [draw() for _ in range(3)] == first


def test_the_state_survives_a_file_of_plain_values(tmp_path):
    torch.save(state_of_randomness(), tmp_path / "state.pt")
    first = draw()
    restore_randomness(torch.load(tmp_path / "state.pt", weights_only=True))
    assert draw() == first
