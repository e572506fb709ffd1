"""What is in a data set, and what of it will make training harder than it need be.

Shape suffixes: K classes, P pictures, O objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from retinanet.analysis.finding import Finding
from retinanet.data.duplicates import fingerprints, nearly_same, same

if TYPE_CHECKING:
    import numpy.typing as npt

    from retinanet.analysis.auto_anchors import FittedAnchors
    from retinanet.analysis.coverage import Coverage
    from retinanet.analysis.expected import ExpectedLoss
    from retinanet.config import ModelConfig
    from retinanet.data import DetectionData, Record

RARE: Final = 20
"""A class with fewer objects than this is hardly learnt, and its AP is largely chance."""
UNEVEN: Final = 50
"""So many times more objects of one class than of another are named."""
UNREACHED: Final = 0.01
SAME_BOX: Final = 0.95
"""Two boxes of a picture with at least this IoU are one."""
TINY: Final = 8.0
"""Sides below this, in the network's input, are less than one position of the finest usual level."""
WHOLE: Final = 0.95
NO_PRIOR: Final = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class DataStatistics:
    """Counts of a data set. Crowd regions are counted apart and nowhere else.

    Args:
        classes: the name of each class id.
        pictures: how many.
        empty: pictures without any object.
        crowd: crowd regions and difficult objects.
        objects_K: of each class.
        pictures_K: pictures with each class.
        per_picture_P: objects of each picture.
        width_O, height_O: of the objects, original pixels.
        label_O: their classes.
    """

    classes: tuple[str, ...]
    pictures: int
    empty: int
    crowd: int
    objects_K: npt.NDArray[np.int64]
    pictures_K: npt.NDArray[np.int64]
    per_picture_P: npt.NDArray[np.int64]
    width_O: npt.NDArray[np.float64]
    height_O: npt.NDArray[np.float64]
    label_O: npt.NDArray[np.int64]

    @property
    def objects(self) -> int:
        """How many there are."""
        return len(self.label_O)

    def to_json(self) -> dict[str, Any]:
        """Return the counts, of sides and shapes the percentiles, as plain numbers."""
        sides_O = np.sqrt(self.width_O * self.height_O)
        places = (0, 5, 25, 50, 75, 95, 100)

        def percentiles(values: npt.NDArray[np.float64]) -> dict[str, float]:
            return {str(q): float(v) for q, v in zip(places, np.percentile(values, places), strict=True)}

        return {
            "pictures": self.pictures,
            "empty_pictures": self.empty,
            "objects": self.objects,
            "crowd": self.crowd,
            "classes": {
                name: {"objects": int(n), "pictures": int(p)}
                for name, n, p in zip(self.classes, self.objects_K, self.pictures_K, strict=True)
            },
            "class_imbalance": self.imbalance,
            "objects_per_picture": percentiles(self.per_picture_P.astype(np.float64)) if self.pictures else {},
            "side_pixels": percentiles(sides_O) if self.objects else {},
            "height_over_width": percentiles(self.height_O / self.width_O) if self.objects else {},
        }

    @property
    def imbalance(self) -> float | None:
        """Objects of the most frequent class over those of the rarest that has any; None without objects."""
        there = self.objects_K[self.objects_K > 0]
        return float(there.max() / there.min()) if len(there) else None

    def sentences(self) -> list[str]:
        """Return the counts in words."""
        said = [
            f"{self.pictures:,} pictures with {self.objects:,} objects of {len(self.classes)} classes; "
            f"{self.empty:,} pictures without objects, {self.crowd:,} crowd or difficult ones."
        ]
        if self.objects:
            sides = np.sqrt(self.width_O * self.height_O)
            low, middle, high = np.percentile(sides, [5, 50, 95])
            flat, tall = np.percentile(self.height_O / self.width_O, [5, 95])
            said.append(
                f"{self.objects / self.pictures:.1f} objects a picture, at most {self.per_picture_P.max()}; sides of "
                f"{middle:.0f} pixels in the middle, 5 % below {low:.0f} and 5 % above {high:.0f}; height over width "
                f"{flat:.2f} to {tall:.2f} for nine in ten."
            )
        return said


def statistics(data: DetectionData) -> DataStatistics:
    """Count what a data set holds."""
    K = len(data.classes)
    kept = [(record, ~record.crowd_G) for record in data.records]
    labels = [record.labels_G[keep] for record, keep in kept]
    boxes = np.concatenate([np.empty((0, 4)), *(record.boxes_G4[keep] for record, keep in kept)])
    label_O = np.concatenate([np.empty(0, np.int64), *labels])
    return DataStatistics(
        classes=data.classes,
        pictures=len(data.records),
        empty=sum(not len(found) for found in labels),
        crowd=data.num_crowd,
        objects_K=np.bincount(label_O, minlength=K),
        pictures_K=np.array([sum(k in found for found in labels) for k in range(K)], dtype=np.int64),
        per_picture_P=np.array([len(found) for found in labels], dtype=np.int64),
        width_O=boxes[:, 2] - boxes[:, 0],
        height_O=boxes[:, 3] - boxes[:, 1],
        label_O=label_O,
    )


def data_findings(data: DetectionData, *, max_detections: int = 100) -> list[Finding]:
    """Return what of the annotations looks wrong or makes learning hard; no picture is opened."""
    counts = statistics(data)
    return [
        *_classes(counts),
        *_boxes(data),
        *_crowded(data, counts, max_detections),
        *_emptiness(data, counts),
    ]


def _classes(counts: DataStatistics) -> Iterable[Finding]:
    absent = [name for name, n in zip(counts.classes, counts.objects_K, strict=True) if not n]
    if absent:
        yield Finding(
            kind="unlabelled class",
            severity="warning",
            what=f"{_number(len(absent), 'class')} without a single object",
            cause="Nobody labelled them, or they were labelled under another name; if they are in the pictures, "
            "training teaches that they are background",
            advice="Label them, or take the class out of the list",
            where=tuple(absent),
        )
    rare = [f"{name}: {n}" for name, n in zip(counts.classes, counts.objects_K.tolist(), strict=True) if 0 < n < RARE]
    if rare:
        yield Finding(
            kind="rare class",
            severity="note",
            what=f"{_number(len(rare), 'class')} with fewer than {RARE} objects",
            cause="So few are hardly learnt, and their AP is largely chance",
            advice="More pictures of them, or --balance-classes, which gives rarer classes more weight",
            where=tuple(rare),
        )
    present = counts.objects_K[counts.objects_K > 0]
    if len(present) > 1 and present.max() >= UNEVEN * present.min():
        most, least = counts.objects_K.argmax(), np.where(counts.objects_K > 0, counts.objects_K, np.inf).argmin()
        yield Finding(
            kind="uneven classes",
            severity="note",
            what=f"{present.max() // present.min()} times more objects of {counts.classes[most]} "
            f"({counts.objects_K[most]}) than of {counts.classes[least]} ({counts.objects_K[least]})",
            cause="Frequent classes make most of the loss",
            advice="--balance-classes gives rarer classes more weight; look at AP class by class",
        )


def _boxes(data: DetectionData) -> Iterable[Finding]:
    twice, contrary, whole = [], [], []
    for record in data.records:
        for first, second in _same_boxes(record):
            where = f"{record.path.name}: {_name(record, first)} and {_name(record, second)}"
            if record.labels_G[first] == record.labels_G[second]:
                twice.append(where)
            else:
                names = [data.classes[record.labels_G[i]] for i in (first, second)]
                contrary.append(f"{where} ({names[0]}, {names[1]})")
        sides = record.boxes_G4[:, 2:] - record.boxes_G4[:, :2]
        full = (sides.prod(axis=1) >= WHOLE * record.width * record.height) & ~record.crowd_G
        whole += [f"{record.path.name}: {_name(record, i)}" for i in np.flatnonzero(full).tolist()]
    if twice:
        yield Finding(
            kind="duplicate boxes",
            severity="warning",
            what=f"{_number(len(twice), 'object')} labelled twice (IoU of {SAME_BOX:g} or more, same class)",
            cause="The same object was annotated again, or two annotation files were merged",
            advice="Remove one of each: a detector can find it only once, the other counts as missed",
            where=tuple(twice),
        )
    if contrary:
        yield Finding(
            kind="contradictory labels",
            severity="warning",
            what=f"{_number(len(contrary), 'object')} labelled as two classes at once (IoU of {SAME_BOX:g} or more)",
            cause="Annotators disagreed, or a label was corrected without removing the old one",
            advice="Keep the right one of each",
            where=tuple(contrary),
        )
    if whole:
        yield Finding(
            kind="whole picture",
            severity="note",
            what=f"{_number(len(whole), 'box')} over {WHOLE:.0%} of the picture or more",
            cause="Close-ups, or a label for the picture rather than for an object",
            advice="See whether they are meant",
            where=tuple(whole),
        )


def _same_boxes(record: Record) -> Iterable[tuple[int, int]]:
    """Return the pairs of objects of a picture whose boxes are one."""
    keep = np.flatnonzero(~record.crowd_G)
    boxes = record.boxes_G4[keep]
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    for place in range(len(keep) - 1):
        rest = boxes[place + 1 :]
        sides = np.minimum(boxes[place, 2:], rest[:, 2:]) - np.maximum(boxes[place, :2], rest[:, :2])
        common = sides.clip(0).prod(axis=1)
        same = common >= SAME_BOX * (area[place] + area[place + 1 :] - common)
        for other in np.flatnonzero(same):
            yield int(keep[place]), int(keep[place + 1 + other])


def _crowded(data: DetectionData, counts: DataStatistics, max_detections: int) -> Iterable[Finding]:
    full = np.flatnonzero(counts.per_picture_P > max_detections)
    if len(full):
        yield Finding(
            kind="many objects",
            severity="warning",
            what=f"{_number(len(full), 'picture')} with more than {max_detections} objects, at most "
            f"{counts.per_picture_P.max()}",
            cause=f"A picture gets no more than {max_detections} detections, so that the others are always missed; "
            "COCO's AP counts 100",
            advice=f"--max-detections {int(counts.per_picture_P.max() * 1.5)}, or smaller pictures",
            where=tuple(data.records[i].path.name for i in full),
        )


def _emptiness(data: DetectionData, counts: DataStatistics) -> Iterable[Finding]:
    if counts.pictures and counts.empty > counts.pictures / 2:
        yield Finding(
            kind="empty pictures",
            severity="note",
            what=f"{counts.empty:,} of {counts.pictures:,} pictures have no object",
            cause="They teach what background looks like; if their objects were only not labelled, they teach it "
            "wrongly",
            advice="Look at some of them",
            where=tuple(record.path.name for record in data.records if not (~record.crowd_G).any()),
        )


def split_findings(train: DetectionData, val: DetectionData) -> list[Finding]:
    """Return the classes that only one of two data sets has."""
    found = []
    objects = [dict(zip(data.classes, statistics(data).objects_K.tolist(), strict=True)) for data in (train, val)]
    for (one, first), (other, second) in (
        (("train", objects[0]), ("val", objects[1])),
        (("val", objects[1]), ("train", objects[0])),
    ):
        only = [name for name, n in first.items() if n and not second.get(name)]
        if not only:
            continue
        found.append(
            Finding(
                kind=f"class only in {one}",
                severity="error"
                if one == "val" and only_in_list(only, train)
                else "warning"
                if one == "val"
                else "note",
                what=f"{_number(len(only), 'class')} with objects in {one} and none in {other}",
                cause="The model never sees them; `train` refuses classes that are not in its list"
                if one == "val"
                else "How well they are found is not measured",
                advice="Split so that both have them, and name them alike in both",
                where=tuple(only),
            )
        )
    return found


def only_in_list(names: Sequence[str], train: DetectionData) -> bool:
    """Return whether some of the names are not even in the training data's class list."""
    return any(name not in train.classes for name in names)


def duplicate_pictures(sets: Sequence[tuple[str, DetectionData]], *, workers: int = 2) -> list[Finding]:
    """Return pictures that are the same or look it, within and between data sets. Decodes every picture.

    Args:
        sets: (name, data), such as ("train", ...), ("val", ...).
        workers: threads that decode.
    """
    places = [(name, record) for name, data in sets for record in data.records]
    prints = fingerprints([record for _, record in places], workers=workers)
    names = [f"{name}/{record.path.name}" for name, record in places]
    found = []
    for kind, groups in (
        ("the very same pixels", same(prints)),
        ("nearly the same pixels", [[i, j] for i, j, _ in nearly_same(prints)]),
    ):
        across = [group for group in groups if len({places[i][0] for i in group}) > 1]
        within = [group for group in groups if len({places[i][0] for i in group}) == 1]
        nearly = kind.startswith("nearly")
        if across:
            found.append(
                Finding(
                    kind="near-duplicates in both sets" if nearly else "pictures in both sets",
                    severity="warning",
                    what=f"{_number(len(across), 'pair' if nearly else 'picture')} with {kind} in more than one of "
                    f"{', '.join(name for name, _ in sets)}",
                    cause="The split was not made by picture, or files were copied"
                    + ("; or frames of a film, or fields of a microscope, lie next to each other" if nearly else ""),
                    advice="Take them out of one: AP on pictures that were trained on says nothing. `retinanet split` "
                    "keeps such pictures on one side",
                    where=tuple(" = ".join(names[i] for i in group) for group in across),
                )
            )
        if within:
            found.append(
                Finding(
                    kind="near-duplicates" if nearly else "duplicate pictures",
                    severity="note" if nearly else "warning",
                    what=f"{_number(len(within), 'pair' if nearly else 'picture')} with {kind} within a set",
                    cause="Files were copied, or the same picture was annotated twice",
                    advice="Keep one of each: they count double, and their annotations may disagree",
                    where=tuple(" = ".join(places[i][1].path.name for i in group) for group in within),
                )
            )
    return found


def anchor_findings(found: Coverage, model_config: ModelConfig, fitted: FittedAnchors | None = None) -> list[Finding]:
    """Return what of the objects the anchors miss, whether the anchors are too large or too small, and what helps."""
    findings = []
    sides_O = np.sqrt(found.width_O * found.height_O)
    lost_O = ~found.reached_O
    if found.objects and lost_O.mean() > UNREACHED:
        low = min(model_config.anchor_sizes) * min(model_config.anchor_scales)
        high = max(model_config.anchor_sizes) * max(model_config.anchor_scales)
        middle = float(np.median(sides_O[lost_O]))
        robbed = float((found.best_iou_O[lost_O] >= 0.5).mean())
        if robbed > 0.5:
            kind, cause = (
                "objects too close",
                "Their anchors overlap another object more: they lie on top of each other",
            )
        elif middle < low:
            kind, cause = "anchors too large", f"The smallest anchor has sides of {low:.0f} pixels, these {middle:.0f}"
        elif middle > high:
            kind, cause = "anchors too small", f"The largest anchor has sides of {high:.0f} pixels, these {middle:.0f}"
        else:
            long = float(
                np.median(
                    np.maximum(found.width_O, found.height_O)[lost_O]
                    / np.minimum(found.width_O, found.height_O)[lost_O]
                )
            )
            kind = "anchors of other shapes"
            cause = f"Their longer side is {long:.1f} times the shorter, or they lie between two sizes"
        advice = "Larger pictures (--image-size, --max-size), or --low-quality-matches"
        if fitted is not None and fitted.changed:
            won = f"{fitted.after.share:.1%} instead of {fitted.before.share:.1%}"
            advice = f"--anchors auto, or {fitted.flags()}: {won}"
        classes = (f"{name}: {n} of {total}" for name, n, total in found.per_class() if n)
        findings.append(
            Finding(
                kind=kind,
                severity="warning",
                what=f"{found.unreached:,} of {found.objects:,} objects ({lost_O.mean():.1%}) have no "
                "positive anchor and will hardly be learnt",
                cause=cause,
                advice=advice,
                where=tuple(classes),
            )
        )
    tiny_O = np.minimum(found.width_O, found.height_O) < TINY
    if found.objects and tiny_O.mean() > UNREACHED:
        findings.append(
            Finding(
                kind="tiny objects",
                severity="warning",
                what=f"{int(tiny_O.sum()):,} objects ({tiny_O.mean():.1%}) have a side below {TINY:g} pixels when the "
                "network sees them",
                cause="The picture is made smaller than the objects can bear",
                advice="A larger --image-size and --max-size, or cut the pictures into tiles",
            )
        )
    return findings


def start_findings(prior: float, expected: ExpectedLoss | None) -> list[Finding]:
    """Return whether training starts where it is stable; `expected` is None for losses that it is not known for."""
    if prior <= NO_PRIOR:
        return []
    what = f"every anchor starts with a probability of {prior:g} for every class"
    if expected is not None:
        ratio = expected.background / max(expected.foreground, 1e-12)
        what += (
            f": the first step's loss will be about {expected.total:,.3g}, {ratio:,.0f} times as much of it from the "
        )
        what += "background as from the objects"
    return [
        Finding(
            kind="no prior",
            severity="warning",
            what=what,
            cause=f"--prior {prior:g} switches the prior off",
            advice="--prior 0.01 (the default) starts with background everywhere; without it training may diverge",
        )
    ]


def _name(record: Record, index: int) -> str:
    return f"object {record.annotation_ids[index]}"


def _number(count: int, thing: str) -> str:
    plural = f"{thing}es" if thing.endswith(("s", "x")) else f"{thing}s"
    return f"1 {thing}" if count == 1 else f"{count:,} {plural}"
