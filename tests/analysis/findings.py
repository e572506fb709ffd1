"""Select findings by kind, and configure a data check for small images."""

from retinanet.config import CheckConfig, resolve


def finding_kinds(findings):
    return [finding.kind for finding in findings]


def finding_of_kind(findings, kind):
    (result,) = [finding for finding in findings if finding.kind == kind]
    return result


def settings(squares, **options):
    return resolve(CheckConfig, {"preset": "small", "image_size": 64, "max_size": 96, "workers": 1, **options})
