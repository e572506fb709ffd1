"""Number formats of training."""

import pytest
import torch

from retinanet.train.precision import PRECISIONS, autocast


@pytest.mark.parametrize(("precision", "dtype"), [("32", torch.float32), ("bf16", torch.bfloat16)])
def test_products_have_the_dtype_of_the_precision(precision: str, dtype: torch.dtype):
    with autocast(precision, "cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_precisions_have_lightnings_names():
    assert PRECISIONS == {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
