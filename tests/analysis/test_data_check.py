"""`check DATA`: model settings, and the JSON document."""

import numpy as np

from retinanet.analysis.data_check import check_data
from tests.analysis.findings import settings


def test_the_check_uses_the_settings_of_the_preset(squares):
    result = check_data(squares[0], settings(squares))
    assert result.expected.loss_config.loss == "focal"
    assert result.coverage.classes == ("square", "bar")
    assert np.isclose(result.coverage.share, 1 - result.coverage.unreached / result.coverage.objects)
    document = result.to_json()
    assert [row["assigner"] for row in document["assigners"]] == ["iou", "atss", "task_aligned"]
    assert document["assigners"][0]["unreached"] == document["anchors"]["unreached"]
    assert document["sets"]["train"]["images"] == 12
    assert document["sets"]["train"]["pictures"] == 12
    assert document["statistics"]["images"] == document["statistics"]["pictures"] == 12
