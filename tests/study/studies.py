"""Studies with given AP values, without training."""

from pathlib import Path

from retinanet.config import StudyConfig, resolve
from retinanet.data import DetectionData
from retinanet.study.outcomes import Outcome, Run, Variant
from retinanet.study.results import Study


def config(**options):
    return resolve(StudyConfig, {"output": "out", **options})


def outcome(name, aps, *, diverged=0, options=None, classes=None):
    """Return runs with the given AP, one for each seed. `classes`: AP of each class for each seed."""
    runs = tuple(
        Run(
            seed=seed,
            seconds=60.0,
            metrics={"AP": ap, "AP50": ap, "AP75": ap, "per_class": _per_class(classes or {}, seed)}
            if seed >= diverged
            else {},
            diverged="NaN" if seed < diverged else "",
            early_loss=1.0,
            folder=Path("nowhere"),
        )
        for seed, ap in enumerate(aps)
    )
    return Outcome(variant=Variant(name=name, label=name, options=options or {"loss": name}), runs=runs)


def _per_class(classes, seed):
    return {name: {"AP": aps[seed], "AP50": aps[seed], "objects": 1} for name, aps in classes.items()}


def study_of(*outcomes):
    empty = DetectionData(records=(), classes=(), category_ids=(), source=Path("val.json"))
    return Study(config=config(), outcomes=outcomes, train="t", val="v", val_data=empty)
