"""Fixtures for the tests of the kernels."""

import os

import pytest
import torch

from retinanet.ops import native_library


@pytest.fixture
def native():
    """Return the module `retinanet.ops.native_library`; skip the test if the C library is missing."""
    if not native_library.available():
        if os.environ.get("RETINANET_NATIVE_LIBRARY"):  # a sanitized run that skips its tests must fail
            pytest.fail("RETINANET_NATIVE_LIBRARY: expected a library that loads; the log states what was found")
        pytest.skip("the native kernels are not built")
    return native_library


@pytest.fixture
def threads():
    """Return a function that sets the number of torch's threads. The former number is restored after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
