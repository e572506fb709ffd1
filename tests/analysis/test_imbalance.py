"""The bins of the losses."""

import math

import pytest
import torch

from retinanet.analysis.imbalance import bin_losses
from retinanet.analysis.imbalance_meter import histogram


def test_bins():
    counts = histogram(torch.tensor([-30.0, -29.995, -0.005, 0.005, 29.999, 40.0]))
    assert counts.sum() == 6
    assert counts[0] == 2
    assert counts[2999] == counts[3000] == 1
    assert counts[-1] == 2
    assert bin_losses(0.0)[3000] == pytest.approx(math.log(2), rel=0.01)
