"""What a trained network gets most wrong on labelled data: probably objects nobody labelled, and wrong labels.

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

from retinanet.analysis.model_outputs import dense_outputs
from retinanet.boxes import clip, decode, iou
from retinanet.files import write_atomically
from retinanet.losses import DetectionLoss
from retinanet.progress import ProgressBar, no_progress_bar
from retinanet.types import AnchorTargets, HeadOutputs, Target

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from retinanet.checkpoint.loaded_model import LoadedModel
    from retinanet.data import DetectionData
    from retinanet.images import Frame


Kind = Literal["unlabelled?", "wrong class?", "hard object", "no anchor"]

CANDIDATES: Final = 200
"""Background anchors of an image that are looked at: the hardest ones, before neighbours are thinned out."""
SAME: Final = 0.5
"""A box that overlaps an object by at least this IoU is that object, found at an anchor that did not answer for it."""
NEAR: Final = 0.3
"""Of background boxes that overlap by more than this IoU, the one with the highest loss is listed."""
COLUMNS: Final = (
    *("kind", "rank", "file", "annotation_id", "class", "x1", "y1", "x2", "y2", "loss", "score", "says", "suggestion"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class HardExample:
    """One of them.

    Args:
        kind: "unlabelled?": background that the model takes for an object. "wrong class?": the same over an object of
            another class. "hard object": an object that the model does not see as its class. "no anchor": an object
            that no anchor answers for.
        image: number of the image in the data.
        box: original pixels; the predicted one of background, the labelled one of an object.
        label: class id: what the background is taken for, what the object is labelled as.
        annotation_id: of the object; None for background.
        loss: of the anchor and class; of an object, at the anchor that suits it best.
        score: that the model gives to `label` there.
        says: the class id that the model gives the highest score there.
        says_score: that score.
    """

    kind: Kind
    image: int
    box: tuple[float, float, float, float]
    label: int
    annotation_id: int | None
    loss: float
    score: float
    says: int
    says_score: float


@dataclass(frozen=True, kw_only=True, eq=False)
class HardExamples:
    """The hardest of a dataset, each list the highest loss first.

    Args:
        data: where they are.
        background: of the kinds "unlabelled?" and "wrong class?".
        objects: of the kind "hard object".
        unreached: of the kind "no anchor", in the order of the data.
    """

    data: DetectionData
    background: tuple[HardExample, ...]
    objects: tuple[HardExample, ...]
    unreached: tuple[HardExample, ...]

    def suggestion(self, example: HardExample) -> str:
        """Return in plain words what to look for."""
        classes = self.data.classes
        if example.kind == "unlabelled?":
            return f"looks like {classes[example.label]} that nobody labelled"
        if example.kind == "wrong class?":
            return f"labelled as another class than {classes[example.label]}, which it looks like"
        if example.kind == "no anchor":
            return "no anchor answers for it: other anchors or larger images, see `retinanet check DATA`"
        if example.says != example.label and example.says_score >= 0.5:
            return f"labelled {classes[example.label]}, looks like {classes[example.says]}: wrong label?"
        return f"labelled {classes[example.label]}, the model sees little there: wrong or misplaced box, or hard?"

    def rows(self) -> list[dict[str, object]]:
        """Return a row for each, by `COLUMNS`."""
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
                        "says": self.data.classes[example.says],
                        "suggestion": self.suggestion(example),
                    }
                )
        return rows

    def sentences(self) -> list[str]:
        """Return what was found in words."""
        unlabelled = [e for e in self.background if e.kind == "unlabelled?" and e.score >= SAME]
        other = [e for e in self.background if e.kind == "wrong class?" and e.score >= SAME]
        mislabelled = [e for e in self.objects if e.says != e.label and e.says_score >= SAME]
        numbers = len(self.background), len(self.objects)
        said = [f"Listed are the {numbers[0]} hardest background boxes and the {numbers[1]} hardest objects."]
        if unlabelled:
            images = len({e.image for e in unlabelled})
            said.append(
                f"{len(unlabelled)} background boxes in {images} images have a score of {SAME:g} or more: probably "
                "objects that nobody labelled. Training on them as background teaches the model to miss such objects."
            )
        if other or mislabelled:
            said.append(
                f"{max(len(other), len(mislabelled))} objects are seen as another class than their label, with a score "
                f"of {SAME:g} or more: probably wrong labels."
            )
        if self.unreached:
            count = "1 object has" if len(self.unreached) == 1 else f"{len(self.unreached)} objects have"
            said.append(f"{count} no positive anchor, and so no part in training.")
        return said

    def write_csv(self, path: Path) -> None:
        """Write all rows, beside the target and renamed."""
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

    The loss is the one that the network was trained with; for hard example mining, that of all anchors.
    No more than `count` of each kind are kept at any time.

    Args:
        trained: see `model_outputs.load_for_analysis`.
        data: loaded with `classes=trained.classes`.
        count: how many of the background and of the objects.
        batch_size: images at once.
        progress: opens a progress bar.
    """
    loss = DetectionLoss(config=trained.loss_config)
    background, objects = _Hardest(count), _Hardest(count)
    unreached: list[HardExample] = []
    for dense in dense_outputs(trained, data, batch_size=batch_size, progress=progress):
        loss_NAK = loss.classification_NAK(dense.outputs, dense.targets, mine=False)
        for n, index in enumerate(dense.batch.indices):
            one = _Image(
                number=index,
                annotation_ids=data.records[index].annotation_ids,
                loss_AK=loss_NAK[n],
                scores_AK=dense.outputs.logits_NAK[n].float().sigmoid(),
                outputs=dense.outputs,
                targets=dense.targets,
                n=n,
                target=dense.batch.targets[n],
                frame=dense.batch.frames[n],
            )
            background.add(one.background())
            for example in one.objects():
                if example.kind == "no anchor":
                    unreached.append(example)
                else:
                    objects.add([example])
    unreached.sort(key=lambda example: (example.image, example.annotation_id or 0))
    return HardExamples(data=data, background=background.sorted(), objects=objects.sorted(), unreached=tuple(unreached))


class _Hardest:
    """The `count` examples with the highest loss of all that were added."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.heap: list[tuple[float, int, HardExample]] = []
        self.seen = 0

    def add(self, examples: Iterable[HardExample]) -> None:
        for example in examples:
            self.seen += 1
            item = (example.loss, -self.seen, example)
            if len(self.heap) < self.count:
                heapq.heappush(self.heap, item)
            else:
                heapq.heappushpop(self.heap, item)

    def sorted(self) -> tuple[HardExample, ...]:
        return tuple(item[2] for item in sorted(self.heap, key=lambda item: item[:2], reverse=True))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Image:
    """One image of a batch, number `n` of it."""

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
        """Yield the hardest background of the image, one for each place."""
        negative_A = ~self.targets.positive_NA[self.n] & ~self.targets.ignored_NA[self.n]
        loss_AK = self.loss_AK.masked_fill(~negative_A[:, None], -1.0)
        values_C, place_C = loss_AK.flatten().topk(min(CANDIDATES, loss_AK.numel()))
        place_C = place_C[values_C > 0]
        K = loss_AK.shape[1]
        anchor_C, label_C = place_C // K, place_C % K
        boxes_C4 = decode(self.outputs.deltas_NA4[self.n, anchor_C].float(), self.outputs.anchors_A4[anchor_C])
        boxes_C4 = clip(boxes_C4, width=self.frame.resized_width, height=self.frame.resized_height)
        visible_C = ((boxes_C4[:, 2:] - boxes_C4[:, :2]) > 1).all(dim=1)
        anchor_C, label_C, boxes_C4 = anchor_C[visible_C], label_C[visible_C], boxes_C4[visible_C]
        loss_C = self.loss_AK[anchor_C, label_C]
        kept = batched_nms(boxes_C4, loss_C, torch.zeros_like(label_C), NEAR)
        overlap_CG = iou(boxes_C4[:, None], self.target.boxes_G4.to(boxes_C4.dtype)[None])
        for c in kept.tolist():
            label, overlap_G = int(label_C[c]), overlap_CG[c]
            over_G = overlap_G >= SAME
            if (over_G & ((self.target.labels_G == label) | self.target.crowd_G)).any():
                continue  # the object itself, found from an anchor that lies too far off to answer for it
            scores_K = self.scores_AK[anchor_C[c]]
            yield HardExample(
                kind="wrong class?" if over_G.any() else "unlabelled?",
                image=self.number,
                box=self._original(boxes_C4[c]),
                label=label,
                annotation_id=None,
                loss=float(loss_C[c]),
                score=float(scores_K[label]),
                says=int(scores_K.argmax()),
                says_score=float(scores_K.max()),
            )

    def objects(self) -> Iterable[HardExample]:
        """Yield every object with the lowest loss among the anchors that answer for it."""
        positive_A = self.targets.positive_NA[self.n]
        anchor_C = torch.nonzero(positive_A).squeeze(1)
        matched_C = self.targets.matched_NA[self.n, anchor_C]
        for g in torch.nonzero(~self.target.crowd_G).squeeze(1).tolist():
            label = int(self.target.labels_G[g])
            mine = anchor_C[matched_C == g]
            box = self._original(self.target.boxes_G4[g])
            annotation_id = self.annotation_ids[g] if g < len(self.annotation_ids) else None
            if not len(mine):
                yield HardExample(
                    kind="no anchor",
                    image=self.number,
                    box=box,
                    label=label,
                    annotation_id=annotation_id,
                    loss=float("nan"),
                    score=float("nan"),
                    says=label,
                    says_score=float("nan"),
                )
                continue
            best = mine[self.loss_AK[mine, label].argmin()]
            scores_K = self.scores_AK[mine].amax(dim=0)
            yield HardExample(
                kind="hard object",
                image=self.number,
                box=box,
                label=label,
                annotation_id=annotation_id,
                loss=float(self.loss_AK[best, label]),
                score=float(scores_K[label]),
                says=int(scores_K.argmax()),
                says_score=float(scores_K.max()),
            )

    def _original(self, box_4: Tensor) -> tuple[float, float, float, float]:
        """Return a box of the input in original pixels."""
        x = self.frame.width / self.frame.resized_width
        y = self.frame.height / self.frame.resized_height
        x1, y1, x2, y2 = box_4.tolist()
        return x1 * x, y1 * y, x2 * x, y2 * y
