"""Coverage of each assigner before training: hand-worked numbers, and the advice that follows."""

from retinanet.analysis.anchor_findings import anchor_findings
from retinanet.analysis.assigner_coverage import AssignerCoverage, assigner_coverages
from retinanet.analysis.coverage import coverage
from retinanet.config import ImageConfig, MatchConfig, ModelConfig
from tests.analysis.datasets import dataset_from_boxes
from tests.analysis.findings import finding_of_kind
from tests.outside_parts import CentreAssigner

IMAGE = ImageConfig(image_size=384, max_size=512)
ONE = ModelConfig(anchor_scales=(1.0,), anchor_ratios=(1.0,))


def rows_of(data, match=None):
    settings = {"model_config": ONE, "match_config": match or MatchConfig(), "image_config": IMAGE}
    rows = assigner_coverages(data, coverage(data, **settings), **settings)
    return {row.assigner: row for row in rows}


def test_a_small_object_that_contains_an_anchor_centre():
    """One anchor of 32 pixels per position of P3. The object of 12 pixels around (56, 56) has an IoU of 144 / 1024.

    Its centre is the only one inside the object. IoU thresholds leave the object without a positive anchor. The object
    of 32 pixels has an IoU of 1 with one anchor, 24 x 32 / (2 x 1024 - 24 x 32) = 0.6 with its four neighbours, and
    0.391 with its diagonal neighbours.
    """
    data = dataset_from_boxes([[(0, 50, 50, 62, 62), (1, 240, 240, 272, 272)], []])
    rows = rows_of(data)
    assert list(rows) == ["iou", "atss", "task_aligned"]
    assert rows["iou"] == AssignerCoverage(
        assigner="iou", objects=2, unreached=1, median_positives=2.5, min_positives=0
    )
    assert (rows["atss"].unreached, rows["atss"].min_positives, rows["atss"].share) == (0, 1, 1.0)
    assert (rows["task_aligned"].unreached, rows["task_aligned"].min_positives) == (0, 1)
    assert rows_of(data, MatchConfig(low_quality_matches=True))["iou"].unreached == 0


def test_the_configured_assigner_of_another_package_is_a_row():
    name = f"{CentreAssigner.__module__}:CentreAssigner"
    rows = rows_of(dataset_from_boxes([[(0, 50, 50, 62, 62)]]), MatchConfig(assigner=name))
    assert list(rows) == ["iou", "atss", "task_aligned", name]
    assert rows[name].unreached == 0


def test_data_without_objects():
    for row in rows_of(dataset_from_boxes([[]])).values():
        assert (row.share, row.median_positives, row.min_positives) == (1.0, 0.0, 0)


def test_the_advice_names_atss_only_if_it_reaches_more_objects():
    """Objects of 12 x 12 pixels, each around one position."""
    data = dataset_from_boxes([[(0, x, 50, x + 12, 62) for x in range(50, 50 + 40 * 5, 40)] for _ in range(3)])
    settings = {"model_config": ONE, "match_config": MatchConfig(), "image_config": IMAGE}
    measured = coverage(data, **settings)
    rows = assigner_coverages(data, measured, **settings)
    finding = finding_of_kind(anchor_findings(measured, ONE, None, rows), "anchors too large")
    assert "--assigner atss gives 100.0% of the objects a positive anchor, now 0.0%" in finding.advice
    finding = finding_of_kind(anchor_findings(measured, ONE, None, rows[:1]), "anchors too large")
    assert "atss" not in finding.advice
