"""Fixtures of the kernels' tests."""

import os

import pytest
import torch

from retinanet.ops import native_library


@pytest.fixture
def native():
    """The module `retinanet.ops.native_library`, with a library behind it."""
    if not native_library.available():
        if os.environ.get("RETINANET_NATIVE_LIBRARY"):  # the sanitized run must not pass by skipping
            pytest.fail("the library that RETINANET_NATIVE_LIBRARY names cannot be used")
        pytest.skip("the native kernels are not built")
    return native_library


@pytest.fixture
def threads():
    """Set the number of torch's threads, and set it back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
