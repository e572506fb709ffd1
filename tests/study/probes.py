"""Measurements, candidates and runs of a probe with given numbers, without training."""

import dataclasses
from pathlib import Path

from retinanet.config import TrainConfig, resolve
from retinanet.study.candidates import AP, AP50, OTHER_AP, RARE_AP, Candidate
from retinanet.study.measurements import ClassCount, Measurements
from retinanet.study.outcomes import Run


def train_config(**options):
    return resolve(TrainConfig, {"train": "train.json", "val": "val.json", "output": "run", **options})


def measurements(objects=(200, 180, 190), *, val_objects=20, **values):
    """Return measurements of data without a problem, except for the given values."""
    classes = tuple(
        ClassCount(name=name, objects=n, images=n, val_objects=val_objects)
        for name, n in zip("abcdefghij", objects, strict=False)
    )
    return Measurements(images=300, val_images=60, objects=sum(objects), classes=classes, **values)


def candidate(name="change", *, cause="cause", target=AP, options=None, cost=1.0):
    return Candidate(
        name=name,
        label=name,
        options=options or {name: True},
        cause=cause,
        reason="measured",
        target=target,
        guards=(AP, OTHER_AP) if target == RARE_AP else (AP50,),
        cost=cost,
    )


def runs(aps, *, first=0, rare=(), other=(), ap50=()):
    """Return runs with consecutive seeds. Class c is rare, classes a and b are not."""
    rare, other, ap50 = rare or [0.0] * len(aps), other or aps, ap50 or aps
    return [
        Run(
            seed=first + i,
            seconds=10.0,
            metrics={
                "AP": ap,
                "AP50": ap50[i],
                "per_class": {"a": {"AP": other[i]}, "b": {"AP": other[i]}, "c": {"AP": rare[i]}},
            },
            diverged="",
            early_loss=1.0,
            folder=Path("nowhere"),
        )
        for i, ap in enumerate(aps)
    ]


def seen_by(trained, aps):
    """Return runs with an AP for classes a and b on images that they were trained on."""
    return [
        dataclasses.replace(run, train_metrics={"per_class": {name: {"AP": ap} for name in "ab"}})
        for run, ap in zip(trained, aps, strict=True)
    ]
