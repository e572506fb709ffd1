"""Studies with given AP values, without training."""

from pathlib import Path

from retinanet.config import StudyConfig, resolve
from retinanet.data import DetectionData
from retinanet.study.outcomes import Outcome, Run, Variant
from retinanet.study.results import Study


def config(**options):
    return resolve(StudyConfig, {"output": "out", **options})


def outcome(name, aps, *, diverged=0, options=None):
    runs = tuple(
        Run(
            seed=seed,
            seconds=60.0,
            metrics={"AP": ap, "AP50": ap, "AP75": ap} if seed >= diverged else {},
            diverged="NaN" if seed < diverged else "",
            early_loss=1.0,
            folder=Path("nowhere"),
        )
        for seed, ap in enumerate(aps)
    )
    return Outcome(variant=Variant(name=name, label=name, options=options or {"loss": name}), runs=runs)


def study_of(*outcomes):
    empty = DetectionData(records=(), classes=(), category_ids=(), source=Path("val.json"))
    return Study(config=config(), outcomes=outcomes, train="t", val="v", val_data=empty)
