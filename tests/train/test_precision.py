"""Number formats of training."""

import pytest
import torch

from retinanet.train.precision import PRECISIONS, BFloat16Precision, autocast


@pytest.mark.parametrize(("precision", "dtype"), [("32", torch.float32), ("bf16", torch.bfloat16)])
def test_products_have_the_dtype_of_the_precision(precision: str, dtype: torch.dtype):
    with autocast(precision, "cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_precisions_have_lightnings_names():
    assert PRECISIONS == {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def test_bfloat16_clips_the_gradients_of_a_fused_optimiser():
    """The gradient (3, 4) has the norm 5. Clipped to 1, it is (0.6, 0.8). Lightning refuses fused optimisers."""
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    optimizer = torch.optim.SGD([weight], lr=1, fused=True)
    BFloat16Precision("cpu").clip_gradients(optimizer, clip_val=1.0)
    torch.testing.assert_close(weight.grad, torch.tensor([0.6, 0.8]))
