"""The memory of the fused gradient. `test_focal_loss.py` tests the formula in all forms."""

import pytest
import torch

from retinanet.ops.focal_terms import empty_gradient


@pytest.mark.parametrize(
    ("dtype", "gradient"),
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),  # 8 bits of exponent, as float32
        (torch.float16, torch.float32),  # 1e-8 would be 0
    ],
)
def test_the_type_of_the_gradient(dtype: torch.dtype, gradient: torch.dtype):
    found = empty_gradient(torch.zeros(2, 3, 4, dtype=dtype))
    assert (found.dtype, found.shape) == (gradient, (2, 3, 4))
