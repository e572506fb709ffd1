"""Find the examples with the highest loss of a trained network: probably unlabelled objects and wrong labels.

Boxes are xyxy. Shape suffixes: A anchors, K classes, G objects, C candidates of one image.
"""

from __future__ import annotations

import csv
import heapq
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import torch
from torchvision.ops import batched_nms

from retinanet.analysis.model_outputs import dense_outputs, input_objects
from retinanet.boxes import area, clip, decode, intersection, iou
from retinanet.evaluate.per_image import CONFIDENT, MATCH_IOU, parts_of_objects
from retinanet.files import write_atomically
from retinanet.progress import ProgressBar, no_progress_bar
from retinanet.types import AnchorTargets, HeadOutputs, Target

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from retinanet.checkpoint.loaded_model import LoadedModel
    from retinanet.data import DetectionData
    from retinanet.formats.records import Record
    from retinanet.images import Frame


Kind = Literal["unlabelled?", "wrong class?", "part of an object", "inaccurate box", "hard object", "no anchor"]

CANDIDATES: Final = 200
"""Number of background examples per image, by highest loss, that enter non-maximum suppression."""
SAME: Final = 0.5
"""Minimum IoU with a ground-truth box at which a background box shows that object."""
INACCURATE: Final = 0.4
"""Minimum IoU with a ground-truth box at which a background box shows that object inaccurately: below it, training
matches an anchor with background. A lower value would hide unlabelled objects that overlap labelled ones."""
NEAR: Final = 0.3
"""IoU threshold of the non-maximum suppression of background boxes, which keeps the box with the highest loss."""
COLUMNS: Final = (
    *("kind", "rank", "file", "annotation_id", "class", "x1", "y1", "x2", "y2", "loss", "score", "says", "suggestion"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HardExample:
    """A background box or an object with a high classification loss, or an object without a positive anchor.

    Args:
        kind: "unlabelled?" for background that the model predicts as an object. "wrong class?" for background over an
            object with another label than the prediction. "part of an object" for background inside an object with the
            predicted label (`evaluate.per_image.parts_of_objects`). "inaccurate box" for background whose IoU with an
            object is from 0.4 to 0.5. "hard object" for an object with a high loss. "no anchor" for an object without a
            positive anchor.
        image: index of the image in the data.
        box: xyxy, original pixels; the predicted box of background, the ground-truth box of an object.
        label: class id; the predicted class of background, the label of an object.
        annotation_id: annotation id of the object; None for background.
        loss: loss of `label` at the anchor; for an object, the lowest loss among its positive anchors.
        score: score of `label`.
        predicted_label: class id with the highest score.
        predicted_score: score of `predicted_label`.
    """

    kind: Kind
    image: int
    box: tuple[float, float, float, float]
    label: int
    annotation_id: int | None
    loss: float
    score: float
    predicted_label: int
    predicted_score: float


@dataclass(frozen=True, kw_only=True, eq=False)
class HardExamples:
    """Hard examples of a dataset, by descending loss.

    Args:
        data: the dataset with the examples.
        background: examples of the kinds "unlabelled?", "wrong class?", "part of an object" and "inaccurate box".
        objects: examples of the kind "hard object".
        unreached: examples of the kind "no anchor", in the order of the data.
    """

    data: DetectionData
    background: tuple[HardExample, ...]
    objects: tuple[HardExample, ...]
    unreached: tuple[HardExample, ...]

    def suggestion(self, example: HardExample) -> str:
        """Return the probable fault of an example, without a full stop."""
        classes = self.data.classes
        if example.kind == "unlabelled?":
            return f"the model detects {classes[example.label]} where nothing is labelled: missing label?"
        if example.kind == "wrong class?":
            return f"the model detects {classes[example.label]}, the label is another class: wrong label?"
        if example.kind == "part of an object":
            return f"the model detects {classes[example.label]} inside a labelled object of this class: a part of it"
        if example.kind == "inaccurate box":
            return (
                f"the model detects {classes[example.label]} with a box that fits no object well: loose or tight box?"
            )
        if example.kind == "no anchor":
            return "no positive anchor: use other anchors or larger images, see `retinanet check DATA`"
        if example.predicted_label != example.label and example.predicted_score >= CONFIDENT:
            return (
                f"labelled {classes[example.label]}, the model detects {classes[example.predicted_label]}: wrong label?"
            )
        return f"labelled {classes[example.label]}, not detected: wrong or misplaced box, or a hard object?"

    def rows(self) -> list[dict[str, object]]:
        """Return a CSV row for each example, by column name (`COLUMNS`)."""
        rows: list[dict[str, object]] = []
        for examples in (self.background, self.objects, self.unreached):
            for rank, example in enumerate(examples, start=1):
                box = dict(zip(("x1", "y1", "x2", "y2"), (f"{v:.1f}" for v in example.box), strict=True))
                rows.append(
                    {
                        "kind": example.kind,
                        "rank": rank,
                        "file": str(self.data.records[example.image].path),
                        "annotation_id": "" if example.annotation_id is None else example.annotation_id,
                        "class": self.data.classes[example.label],
                        **box,
                        "loss": f"{example.loss:.4g}",
                        "score": f"{example.score:.4f}",
                        "says": self.data.classes[example.predicted_label],
                        "suggestion": self.suggestion(example),
                    }
                )
        return rows

    def sentences(self) -> list[str]:
        """Return sentences about the numbers of examples and their probable causes."""
        unlabelled = [e for e in self.background if e.kind == "unlabelled?" and e.score >= CONFIDENT]
        other = [e for e in self.background if e.kind == "wrong class?" and e.score >= CONFIDENT]
        mislabelled = [e for e in self.objects if e.predicted_label != e.label and e.predicted_score >= CONFIDENT]
        sentences = [
            f"The list has the {len(self.background)} background boxes and the {len(self.objects)} objects with the "
            "highest loss."
        ]
        if unlabelled:
            images = len({e.image for e in unlabelled})
            sentences.append(
                f"{len(unlabelled)} background boxes in {images} images have a score of {CONFIDENT:g} or more: "
                "probably unlabelled objects. Training on these objects as background teaches the model to miss such "
                "objects."
            )
        if other or mislabelled:
            sentences.append(
                f"{max(len(other), len(mislabelled))} objects are detected as another class than their label, with a "
                f"score of {CONFIDENT:g} or more: probably wrong labels."
            )
        if self.unreached:
            count = "1 object has" if len(self.unreached) == 1 else f"{len(self.unreached)} objects have"
            sentences.append(f"{count} no positive anchor: training learns nothing from such an object.")
        return sentences

    def write_csv(self, path: Path) -> None:
        """Write all rows as CSV. The file is complete or absent: it is written under another name and renamed."""
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows(self.rows())
        write_atomically(path, text.getvalue())


def hard_examples(
    trained: LoadedModel,
    data: DetectionData,
    *,
    count: int = 50,
    batch_size: int = 8,
    progress: ProgressBar = no_progress_bar,
) -> HardExamples:
    """Return the background and the objects with the highest classification loss.

    The loss is the loss that the network was trained with. A loss with hard example mining is computed for all anchors.

    Args:
        trained: network with its settings, see `model_outputs.load_for_analysis`.
        data: images and objects, loaded with `classes=trained.classes`.
        count: maximum number of background examples, and of objects.
        batch_size: number of images per batch.
        progress: function that opens a progress bar.
    """
    loss = trained.make_loss()
    background, objects = _Hardest(count), _Hardest(count)
    unreached: list[HardExample] = []
    for dense in dense_outputs(trained, data, batch_size=batch_size, progress=progress):
        loss_NAK = loss.classification_NAK(dense.outputs, dense.targets, mine=False)
        for n, index in enumerate(dense.batch.indices):
            image = _Image(
                number=index,
                annotation_ids=_annotation_ids(data.records[index], dense.batch.frames[n]),
                loss_AK=loss_NAK[n],
                scores_AK=dense.outputs.logits_NAK[n].float().sigmoid(),
                outputs=dense.outputs,
                targets=dense.targets,
                n=n,
                target=dense.batch.targets[n],
                frame=dense.batch.frames[n],
            )
            background.add(image.background())
            for example in image.objects():
                if example.kind == "no anchor":
                    unreached.append(example)
                else:
                    objects.add([example])
    unreached.sort(key=lambda example: (example.image, example.annotation_id or 0))
    return HardExamples(data=data, background=background.sorted(), objects=objects.sorted(), unreached=tuple(unreached))


def background_kind(overlap: float, *, is_part: bool) -> Kind:
    """Return the kind of a background box that shows no object of its class.

    Args:
        overlap: highest IoU with an object.
        is_part: whether the box is a part of an object of its class, see `evaluate.per_image.parts_of_objects`.
    """
    if overlap >= SAME:
        return "wrong class?"
    if is_part:
        return "part of an object"
    return "inaccurate box" if overlap >= INACCURATE else "unlabelled?"


def _annotation_ids(record: Record, frame: Frame) -> list[int]:
    """Return the annotation ids of the objects of the target, as far as the record has ids."""
    _, index_T = input_objects(record, frame)
    return [record.annotation_ids[g] for g in index_T.tolist() if g < len(record.annotation_ids)]


class _Hardest:
    """Keeps the `count` examples with the highest loss, so that memory does not grow with the dataset."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.heap: list[tuple[float, int, HardExample]] = []
        self.added = 0

    def add(self, examples: Iterable[HardExample]) -> None:
        for example in examples:
            self.added += 1
            item = (example.loss, -self.added, example)
            if len(self.heap) < self.count:
                heapq.heappush(self.heap, item)
            else:
                heapq.heappushpop(self.heap, item)

    def sorted(self) -> tuple[HardExample, ...]:
        return tuple(item[2] for item in sorted(self.heap, key=lambda item: item[:2], reverse=True))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Image:
    """Outputs and targets of image `n` of a batch."""

    number: int
    annotation_ids: Sequence[int]
    loss_AK: Tensor
    scores_AK: Tensor
    outputs: HeadOutputs
    targets: AnchorTargets
    n: int
    target: Target
    frame: Frame

    def background(self) -> Iterable[HardExample]:
        """Yield the background examples with the highest loss, one for each group of overlapping boxes."""
        negative_A = ~self.targets.positive_NA[self.n] & ~self.targets.ignored_NA[self.n]
        loss_AK = self.loss_AK.masked_fill(~negative_A[:, None], -1.0)
        values_C, index_C = loss_AK.flatten().topk(min(CANDIDATES, loss_AK.numel()))
        index_C = index_C[values_C > 0]
        K = loss_AK.shape[1]
        anchor_C, label_C = index_C // K, index_C % K
        boxes_C4 = decode(self.outputs.deltas_NA4[self.n, anchor_C].float(), self.outputs.anchors_A4[anchor_C])
        boxes_C4 = clip(boxes_C4, width=self.frame.resized_width, height=self.frame.resized_height)
        visible_C = ((boxes_C4[:, 2:] - boxes_C4[:, :2]) > 1).all(dim=1)
        anchor_C, label_C, boxes_C4 = anchor_C[visible_C], label_C[visible_C], boxes_C4[visible_C]
        loss_C = self.loss_AK[anchor_C, label_C]
        kept = batched_nms(boxes_C4, loss_C, torch.zeros_like(label_C), NEAR)
        overlap_CG = iou(boxes_C4[:, None], self.target.boxes_G4.to(boxes_C4.dtype)[None])
        targets = (self.target.boxes_G4, self.target.labels_G, self.target.crowd_G)
        is_part_C = parts_of_objects(*(values.cpu().numpy() for values in (boxes_C4, label_C, *targets)))
        regions_R4 = self.target.boxes_G4[self.target.crowd_G].to(boxes_C4.dtype)
        common_CR = intersection(boxes_C4[:, None], regions_R4[None])
        ignored_C = (common_CR >= MATCH_IOU * area(boxes_C4)[:, None]).any(dim=1)
        for c in kept[~ignored_C[kept]].tolist():
            label, overlap_G = int(label_C[c]), overlap_CG[c]
            over_G = overlap_G >= SAME
            if (over_G & ((self.target.labels_G == label) | self.target.crowd_G)).any():
                continue  # the box shows a labelled object; only its anchor is too far away to be positive
            scores_K = self.scores_AK[anchor_C[c]]
            yield HardExample(
                kind=background_kind(float(overlap_G.max()) if len(overlap_G) else 0.0, is_part=bool(is_part_C[c])),
                image=self.number,
                box=self._original(boxes_C4[c]),
                label=label,
                annotation_id=None,
                loss=float(loss_C[c]),
                score=float(scores_K[label]),
                predicted_label=int(scores_K.argmax()),
                predicted_score=float(scores_K.max()),
            )

    def objects(self) -> Iterable[HardExample]:
        """Yield every object, with the lowest loss among its positive anchors."""
        positive_A = self.targets.positive_NA[self.n]
        anchor_C = torch.nonzero(positive_A).squeeze(1)
        matched_C = self.targets.matched_NA[self.n, anchor_C]
        for g in torch.nonzero(~self.target.crowd_G).squeeze(1).tolist():
            label = int(self.target.labels_G[g])
            positive_C = anchor_C[matched_C == g]
            box = self._original(self.target.boxes_G4[g])
            annotation_id = self.annotation_ids[g] if g < len(self.annotation_ids) else None
            if not len(positive_C):
                yield HardExample(
                    kind="no anchor",
                    image=self.number,
                    box=box,
                    label=label,
                    annotation_id=annotation_id,
                    loss=float("nan"),
                    score=float("nan"),
                    predicted_label=label,
                    predicted_score=float("nan"),
                )
                continue
            best = positive_C[self.loss_AK[positive_C, label].argmin()]
            scores_K = self.scores_AK[positive_C].amax(dim=0)
            yield HardExample(
                kind="hard object",
                image=self.number,
                box=box,
                label=label,
                annotation_id=annotation_id,
                loss=float(self.loss_AK[best, label]),
                score=float(scores_K[label]),
                predicted_label=int(scores_K.argmax()),
                predicted_score=float(scores_K.max()),
            )

    def _original(self, box_4: Tensor) -> tuple[float, float, float, float]:
        """Convert a box from input pixels to original pixels (xyxy)."""
        x = self.frame.width / self.frame.resized_width
        y = self.frame.height / self.frame.resized_height
        x1, y1, x2, y2 = box_4.tolist()
        return x1 * x, y1 * y, x2 * x, y2 * y
