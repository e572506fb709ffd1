"""Sections of the report with slices and with the metrics in addition to COCO's."""

from retinanet.evaluate.further_metrics import FurtherMetrics
from retinanet.evaluate.slices import Slice
from retinanet.evaluate.voc import voc_metrics
from retinanet.report import Report
from retinanet.report.slices import further_section, slices_section
from tests.evaluate.cats_and_dogs import CAT, detection, ground_truth
from tests.report.test_html import assert_self_contained


def part(value, ap, **changes):
    numbers = {"images": 40, "objects": 1500, "AP": ap, "AP50": ap, "AR": ap, "difference": ap - 0.5, **changes}
    return Slice(attribute="<weather>", value=value, **numbers)


def test_slices_are_drawn_and_listed_with_the_worst_in_words():
    report = Report(title="t")
    small = part("fog", 0.1, images=3)
    slices_section(report.section("Slices"), [part("rain", 0.25), part("sun", 0.75), small])
    page = report.html()
    assert_self_contained(page)
    assert "The slice with the lowest AP is &lt;weather&gt;: rain: AP 0.250 on 1,500 objects." in page
    assert "<svg" in page
    assert "-0.250" in page
    assert page.count("few") >= 2


def test_slices_without_a_reliable_one_are_listed_only():
    report = Report(title="t")
    slices_section(report.section("Slices"), [part("fog", -1.0, objects=0, difference=None)])
    page = report.html()
    assert "<svg" not in page
    assert "fog" in page


def test_further_metrics_are_tables():
    box = [0.0, 0, 10, 10]
    report = Report(title="t")
    voc = voc_metrics(ground_truth((CAT, box, 0)), [detection(CAT, box, 0.9)])
    further_section(report.section("Further metrics"), FurtherMetrics(voc=voc))
    page = report.html()
    assert_self_contained(page)
    assert "AP50, 11-point" in page
    report = Report(title="t")
    further_section(report.section("Further metrics"), FurtherMetrics())
    assert "Further metrics" not in report.html()
