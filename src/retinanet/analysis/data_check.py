"""`retinanet check`: every fault of a dataset, and what training on it would meet."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from retinanet.analysis.anchor_findings import anchor_findings, start_findings
from retinanet.analysis.auto_anchors import FittedAnchors, fit_anchors
from retinanet.analysis.coverage import Coverage
from retinanet.analysis.data_findings import data_findings, duplicate_findings, split_findings
from retinanet.analysis.expected_loss import ExpectedLoss, expected_loss
from retinanet.analysis.statistics import DataStatistics, statistics
from retinanet.config import CheckConfig
from retinanet.data import DetectionData, load
from retinanet.formats import splits_of, voc

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from retinanet.analysis.finding import Finding


@dataclass(frozen=True, kw_only=True, eq=False)
class DataCheck:
    """What a check of a dataset found.

    Args:
        data: without what is faulty; `data.faults` lists that.
        others: the validation and test data, likewise.
        statistics: counts.
        fitted: anchors before and after fitting.
        expected: the loss of the first step, None where it cannot be computed.
        findings: what to know, the worst first.
    """

    data: DetectionData
    others: Mapping[str, DetectionData]
    statistics: DataStatistics
    fitted: FittedAnchors
    expected: ExpectedLoss | None
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """Return faults, findings and statistics as plain values."""
        sets = {"train": self.data, **self.others}
        return {
            "sets": {name: {"images": len(d.records), "objects": d.num_objects} for name, d in sets.items()},
            "classes": list(self.data.classes),
            "notes": [note for data in sets.values() for note in data.notes],
            "faults": [
                {"set": name, "file": str(f.file), "where": f.where, "what": f.what, "advice": f.advice}
                for name, data in sets.items()
                for f in data.faults
            ],
            "findings": [dataclasses.asdict(finding) for finding in self.findings],
            "statistics": self.statistics.to_json(),
            "anchors": {
                "objects": self.coverage.objects,
                "unreached": self.coverage.unreached,
                "fitted": self.fitted.flags() if self.fitted.changed else None,
                "unreached_if_fitted": self.fitted.after.unreached,
            },
        }

    @property
    def coverage(self) -> Coverage:
        """What the anchors reach as they are configured."""
        return self.fitted.before


def check_data(path: Path, config: CheckConfig) -> DataCheck:
    """Read, decode, count and match a dataset as training would.

    Raises:
        DataError: a source that cannot be read at all, or nothing left of it.
    """
    sets = _sets(path, config)
    data, val = sets["train"], sets.get("val")
    model_config = config.model
    fitted = fit_anchors(
        data,
        model_config=model_config,
        match_config=config.matching,
        image_config=config.image,
        seed=config.random.seed,
    )
    positives, _, negatives = fitted.before.anchors_P3.sum(axis=0).tolist()
    expected = expected_loss(
        positives=positives,
        negatives=negatives,
        num_classes=len(data.classes),
        prior=config.model.prior,
        loss_config=config.loss,
    )
    findings = [
        *anchor_findings(fitted.before, model_config, fitted),
        *start_findings(config.model.prior, expected),
        *duplicate_findings(list(sets.items()), workers=config.loading.workers),
        *data_findings(data),
        *(split_findings(data, val) if val is not None else []),
    ]
    order = ("error", "warning", "note")
    return DataCheck(
        data=data,
        others={name: found for name, found in sets.items() if name != "train"},
        statistics=statistics(data),
        fitted=fitted,
        expected=expected,
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.severity))),
    )


def _sets(path: Path, config: CheckConfig) -> dict[str, DetectionData]:
    """Return the training data and what there is beside it: `--val`, or the other splits of the same dataset."""
    paths = splits_of(path, config.dataset.format)
    if voc.is_voc(path):  # the whole folder, as `train` would read it
        paths = {"": path}
    train = paths.get("train") or next(iter(paths.values()))
    others = {name: place for name, place in paths.items() if place != train}
    options: dict[str, Any] = {"skip_invalid": True, "workers": config.loading.workers, **config.dataset.reading}
    sets = {"train": load(train, images=config.dataset.selection.images, split="train", **options)}
    if config.validation.val is not None:
        others = {"val": config.validation.val}
    for name, place in others.items():
        sets[name] = load(
            place,
            images=config.validation.val_images or config.dataset.selection.images,
            split=name,
            **{**options, "keep": ()},
        )
    return sets


def data_sentences(found: DataCheck) -> list[str]:
    """Return the counts, the anchors and the start in words."""
    said = found.statistics.sentences()
    coverage = found.coverage
    positive, ignored, negative = coverage.anchors_P3.mean(axis=0).tolist()
    said.append(f"Anchors: {coverage.sentence().removesuffix('.')}.")
    ratio = f", one positive for every {negative / positive:,.0f} negatives" if positive else ""
    said.append(
        f"An image has {positive:,.0f} positive, {ignored:,.0f} ignored and {negative:,.0f} negative anchors{ratio}."
    )
    if len(coverage.anchors_P3) < len(found.data.records):
        said.append(f"(Anchors were measured on an even sample of {len(coverage.anchors_P3):,} images.)")
    said.append(f"Auto-anchors: {found.fitted.sentence()}.")
    if found.expected is not None:
        said.append(
            f"Expected classification loss of the first step: {found.expected.total:.3g} (background "
            f"{found.expected.background:.3g}, objects {found.expected.foreground:.3g}), from the prior "
            f"{found.expected.prior:g} and loss {found.expected.loss_config.loss}."
        )
    return said
