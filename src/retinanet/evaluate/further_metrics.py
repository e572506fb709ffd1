"""Metrics in addition to COCO's: Pascal VOC, LVIS, Open Images, and the threshold with the highest F1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from retinanet.evaluate.best_f1 import BestF1Metrics, best_f1_metrics
from retinanet.evaluate.coco import NOT_COMPUTED
from retinanet.evaluate.federated import (
    FederatedMetrics,
    lvis_metrics,
    open_images_metrics,
    with_federated_fields,
)
from retinanet.evaluate.voc import VocMetrics, voc_metrics

if TYPE_CHECKING:
    from retinanet.config.evaluate import FurtherMetric
    from retinanet.data import DetectionData

ALL_CLASSES: Final = "all classes"


class MetricsTable(NamedTuple):
    """A table of metrics. The first row has the metrics of all classes, each further row those of a class."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str | int | float | None, ...]]


@dataclass(frozen=True, kw_only=True)
class FurtherMetrics:
    """Metrics in addition to COCO's; None if they were not selected."""

    voc: VocMetrics | None = None
    lvis: FederatedMetrics | None = None
    open_images: FederatedMetrics | None = None
    best_f1: BestF1Metrics | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the selected metrics as plain values for JSON."""
        return {name: value.to_json() for name, value in vars(self).items() if value is not None}

    def tables(self) -> list[MetricsTable]:
        """Return a table for each of the selected metrics. None stands for a metric without objects."""
        tables = []
        if (voc := self.voc) is not None:
            names: tuple[str, ...] = ("objects", "AP50", "AP50_11_point")
            every = [(ALL_CLASSES, voc), *voc.per_class.items()]
            columns = ("class", "objects", "AP50", "AP50, 11-point")
            tables.append(MetricsTable("Pascal VOC", columns, [_row(name, row, names) for name, row in every]))
        if (lvis := self.lvis) is not None:
            tables.append(MetricsTable("LVIS", ("metric", "value"), [(n, _value(v)) for n, v in lvis.summary.items()]))
            of_class = [(name, lvis.frequencies[name], _value(AP)) for name, AP in lvis.per_class.items()]
            tables.append(MetricsTable("LVIS, classes", ("class", "frequency", "AP"), list(of_class)))
        if (oid := self.open_images) is not None:
            values = [(ALL_CLASSES, oid.summary["AP50"]), *oid.per_class.items()]
            tables.append(MetricsTable("Open Images", ("class", "AP50"), [(n, _value(v)) for n, v in values]))
        if (best := self.best_f1) is not None:
            names = ("objects", "threshold", "F1", "precision", "recall")
            together = [(ALL_CLASSES, best), *best.per_class.items()]
            rows = [_row(name, row, names) for name, row in together]
            tables.append(MetricsTable("Thresholds with the highest F1 at IoU 0.5", ("class", *names), rows))
        return tables


def further_metrics(
    data: DetectionData, results: Sequence[dict[str, Any]], names: Sequence[FurtherMetric]
) -> FurtherMetrics:
    """Return the selected metrics.

    Args:
        data: ground truth. For LVIS and Open Images, further fields are read from its COCO file.
        results: COCO results with the ids of the data.
        names: selected metrics.
    """
    truth, rows = data.to_coco(), list(results)
    federated = with_federated_fields(truth, data.source) if {"lvis", "open_images"} & set(names) else truth
    return FurtherMetrics(
        voc=voc_metrics(truth, rows) if "voc" in names else None,
        lvis=lvis_metrics(federated, rows) if "lvis" in names else None,
        open_images=open_images_metrics(federated, rows) if "open_images" in names else None,
        best_f1=best_f1_metrics(truth, rows) if "best_f1" in names else None,
    )


def _row(name: str, metrics: object, names: Sequence[str]) -> tuple[str | int | float | None, ...]:
    return (name, *(_value(getattr(metrics, column)) for column in names))


def _value(number: float | None) -> float | None:
    return None if number == NOT_COMPUTED else number
