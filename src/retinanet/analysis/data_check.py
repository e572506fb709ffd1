"""Check a dataset: faults, statistics, anchor coverage, and findings about training on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from retinanet.analysis.anchor_findings import anchor_findings, start_findings
from retinanet.analysis.assigner_coverage import AssignerCoverage, assigner_coverages
from retinanet.analysis.auto_anchors import FittedAnchors, fit_anchors, why_kept
from retinanet.analysis.coverage import Coverage
from retinanet.analysis.data_findings import data_findings, duplicate_findings, split_findings, value_findings
from retinanet.analysis.expected_loss import ExpectedLoss, expected_loss
from retinanet.analysis.imbalance import anchor_sentence
from retinanet.analysis.statistics import DataStatistics, statistics
from retinanet.config import CheckConfig, FittedConfig, given_options
from retinanet.data import DetectionData, load
from retinanet.formats import splits_of, voc
from retinanet.former_names import with_former_fields

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from retinanet.analysis.finding import Finding


@dataclass(frozen=True, kw_only=True, eq=False)
class DataCheck:
    """Result of a check of a dataset.

    Args:
        data: the valid part of the training data; `data.faults` lists the faults.
        other_splits: the valid part of the validation and test data, by split.
        statistics: counts of the training data.
        fitted: anchors before and after fitting.
        assigners: coverage of the objects by each assigner, with the configured anchors.
        anchors_kept: why `train --anchors as_needed` keeps the configured anchors without fitting; None otherwise.
        expected: expected loss of the first step, None if it cannot be computed.
        findings: findings, errors first.
    """

    data: DetectionData
    other_splits: Mapping[str, DetectionData]
    statistics: DataStatistics
    fitted: FittedAnchors
    assigners: tuple[AssignerCoverage, ...]
    anchors_kept: str | None
    expected: ExpectedLoss | None
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """Return faults, findings and statistics as plain values for JSON."""
        sets = {"train": self.data, **self.other_splits}
        return {
            "sets": {
                name: with_former_fields({"images": len(d.records), "objects": d.num_objects})
                for name, d in sets.items()
            },
            "classes": list(self.data.classes),
            "notes": [note for data in sets.values() for note in data.notes],
            "faults": [
                {"set": name, "file": str(f.file), "where": f.where, "what": f.what, "advice": f.advice}
                for name, data in sets.items()
                for f in data.faults
            ],
            "findings": [finding.to_json() for finding in self.findings],
            "statistics": self.statistics.to_json(),
            "anchors": {
                "objects": self.coverage.objects,
                "unreached": self.coverage.unreached,
                "fitted": self.fitted.flags() if self.fitted.changed else None,
                "unreached_if_fitted": self.fitted.after.unreached,
                "fitted_as_needed": self.anchors_kept is None and self.fitted.needed,
            },
            "assigners": [row.to_json() for row in self.assigners],
        }

    @property
    def coverage(self) -> Coverage:
        """Coverage by the configured anchors."""
        return self.fitted.before


def check_data(path: Path, config: CheckConfig) -> DataCheck:
    """Read, decode, count and match a dataset with the functions that training uses.

    Raises:
        DataError: the source cannot be read, or no valid image is left.
    """
    sets = _sets(path, config)
    data, val = sets["train"], sets.get("val")
    model_config = config.model
    fitted = fit_anchors(
        data,
        model_config=model_config,
        match_config=config.matching,
        image_config=config.image,
        keep_levels="levels" in given_options(config),
        seed=config.random.seed,
    )
    assigners = assigner_coverages(
        data,
        fitted.before,
        model_config=model_config,
        match_config=config.matching,
        image_config=config.image,
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
        *anchor_findings(fitted.before, model_config, fitted, assigners),
        *start_findings(config.model.prior, expected),
        *duplicate_findings(list(sets.items()), workers=config.loading.workers),
        *value_findings(list(sets.values()), config.image.bit_depth),
        *data_findings(data),
        *(split_findings(data, val) if val is not None else []),
    ]
    order = ("error", "warning", "note")
    return DataCheck(
        data=data,
        other_splits={name: split for name, split in sets.items() if name != "train"},
        statistics=statistics(data),
        fitted=fitted,
        assigners=assigners,
        anchors_kept=why_kept(config, fitted.before),
        expected=expected,
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.severity))),
    )


def _sets(path: Path, config: CheckConfig) -> dict[str, DetectionData]:
    """Return the training data ("train") and the other splits: the data of `--val`, or those of the same dataset."""
    paths = splits_of(path, config.dataset.format)
    if voc.is_voc(path):  # `retinanet train` reads the whole folder, not one of its lists
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


_AS_NEEDED: Final = "--anchors as_needed" + (" (the default)" if FittedConfig.anchors == "as_needed" else "")


def data_sentences(result: DataCheck) -> list[str]:
    """Return sentences about the counts, the anchors and the start of training."""
    sentences = result.statistics.sentences()
    coverage = result.coverage
    can_fit = result.fitted.changed and result.fitted.gain > 0
    sentences.append(f"Anchors: {coverage.sentence(can_fit=can_fit).removesuffix('.')}.")
    sentences.append(anchor_sentence(*coverage.anchors_P3.mean(axis=0).tolist()))
    if len(coverage.anchors_P3) < len(result.data.records):
        sentences.append(f"(The anchors were measured on an even sample of {len(coverage.anchors_P3):,} images.)")
    sentences.append(f"Anchors fitted to the data: {result.fitted.sentence()}.")
    if result.anchors_kept is None and result.fitted.needed:
        sentences.append(f"Training with {_AS_NEEDED} uses the fitted anchors.")
    else:
        reason = result.anchors_kept or "fitted anchors do not give more of the objects a positive anchor"
        sentences.append(f"Training with {_AS_NEEDED} keeps the configured anchors, because {reason}.")
    if result.expected is not None:
        sentences.append(
            f"Expected classification loss of the first step: {result.expected.total:.3g} (background "
            f"{result.expected.background:.3g}, objects {result.expected.foreground:.3g}), for the prior "
            f"{result.expected.prior:g} and the loss {result.expected.loss_config.loss}."
        )
    return sentences
