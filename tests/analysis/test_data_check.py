"""The settings of `check DATA`."""

import numpy as np

from retinanet.analysis.data_check import check_data
from tests.analysis.made_findings import settings


def test_the_model_settings_are_those_of_the_preset(squares):
    found = check_data(squares[0], settings(squares))
    assert found.expected.loss_config.loss == "focal"
    assert found.coverage.classes == ("square", "bar")
    assert np.isclose(found.coverage.share, 1 - found.coverage.unreached / found.coverage.objects)
