"""Findings by kind, and the settings of a data check on small images."""

from retinanet.config import CheckConfig, resolve


def kinds(findings):
    return [finding.kind for finding in findings]


def only(findings, kind):
    (found,) = [finding for finding in findings if finding.kind == kind]
    return found


def settings(squares, **options):
    return resolve(CheckConfig, {"preset": "small", "image_size": 64, "max_size": 96, "workers": 1, **options})
