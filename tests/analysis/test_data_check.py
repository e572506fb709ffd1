"""`check DATA`: model settings, and the JSON document."""

import numpy as np

from retinanet.analysis.data_check import check_data, data_sentences
from retinanet.config import CheckConfig, resolve
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


def test_the_check_shows_whether_training_fits_anchors(squares):
    """The smallest default anchor has sides of 32 pixels. In the smaller input, it is too large for the objects."""
    matched = check_data(squares[0], settings(squares, image_size=96))
    assert "keeps the configured anchors, because" in " ".join(data_sentences(matched))
    assert matched.to_json()["anchors"]["fitted_as_needed"] is False
    unmatched = check_data(squares[0], resolve(CheckConfig, {"preset": "small", "image_size": 64, "max_size": 64}))
    assert unmatched.coverage.share < 0.98 < unmatched.fitted.after.share
    assert "uses the fitted anchors" in " ".join(data_sentences(unmatched))
    assert unmatched.to_json()["anchors"]["fitted_as_needed"] is True
    (finding,) = [found for found in unmatched.findings if "positive anchor" in found.what]
    assert "--anchors as_needed" in finding.advice
