"""The type of the stored gradient. `test_focal_loss.py` tests the formula in all forms."""

import pytest
import torch

from retinanet.ops.focal_terms import empty_gradient


@pytest.mark.parametrize(
    ("dtype", "gradient"),
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.bfloat16),  # its exponent has 8 bits, like that of float32
        (torch.float16, torch.float32),  # float16 rounds 1e-8 to 0
    ],
)
def test_the_type_of_the_gradient(dtype: torch.dtype, gradient: torch.dtype):
    memory = empty_gradient(torch.zeros(2, 3, 4, dtype=dtype))
    assert (memory.dtype, memory.shape) == (gradient, (2, 3, 4))
