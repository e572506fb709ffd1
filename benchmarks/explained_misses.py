"""Measure whether the server names the right cause of real misses. An independent intervention checks each answer.

    python benchmarks/explained_misses.py bccd runs/bccd/best.ckpt --data test.txt --skip-invalid --threshold 0.5

`error_causes` finds the misses of every kind. Each one is sent to the real server application as a box and a class,
with the objects that overlap it, as the page does. An answer is right if it names the kind, and if the intervention
agrees: the real detector runs again with the stated value (a threshold of NMS or of scores, a limit), or anchors and
predictions are compared anew with torchvision. A kind that the settings of the model do not produce is provoked by
other settings of post-processing and matching, which each case states.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torchvision.ops import box_iou

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from retinanet.analysis.image_errors import Missed
    from retinanet.checkpoint.loaded_model import LoadedModel
    from retinanet.data import DetectionData, Record
    from retinanet.predict.torch_detector import Detector

RESULTS: Final = Path(__file__).resolve().parent / "results"
PER_KIND: Final = 3
CLICKS: Final = 100
CLICK_THRESHOLD: Final = 0.7
"""Second threshold of the clicks, with more misses."""
MATCH_IOU, NEAR_IOU = 0.5, 0.1
Settings = dict[str, float]
PROVOKED: Final[tuple[Settings, ...]] = (
    {},
    {"max_detections": 5},
    {"max_detections": 1},
    {"candidates_per_level": 20},
    {"candidates_per_level": 5},
    {"nms_threshold": 0.3},
    {"nms_threshold": 0.1},
    {"nms_threshold": 0.05, "candidates_per_level": 5},
    {"score_threshold": 0.5},
    {"score_threshold": 0.7},
    {"score_threshold": 0.7, "positive_iou": 0.8, "negative_iou": 0.7},
    {"score_threshold": 0.8, "positive_iou": 0.95, "negative_iou": 0.8},
    {"score_threshold": 0.8, "positive_iou": 0.3, "negative_iou": 0.2},
)
"""Settings that are tried in this order until every kind has enough cases. The first are those of the model."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A missed object with the objects of its image that overlap it. The missed object comes first."""

    detector: Detector
    record: Record
    miss: Missed
    boxes_G4: torch.Tensor
    labels: list[int]
    threshold: float

    def found(self, **options: Any) -> Any:
        """Return the real detections of the image with other options of post-processing, above a threshold."""
        from retinanet.images import decode_for

        config = self.detector.postprocess_config
        threshold = options.pop("threshold", self.threshold)
        config = dataclasses.replace(config, **options, score_threshold=threshold)
        c = self.detector.image_config
        image = decode_for(self.record.path, image_size=c.image_size, max_size=c.max_size)
        return self.detector.detect([image], config=config)[0]

    def is_found(self, **options: Any) -> bool:
        """Return whether a detection matches the object: by score, each object once, as COCO does."""
        found, free = self.found(**options), set(range(len(self.labels)))
        iou_DG = box_iou(torch.as_tensor(found.boxes_D4, dtype=torch.float64), self.boxes_G4)
        for d in np.argsort(-found.scores_D, kind="stable").tolist():
            fits = [g for g in free if self.labels[g] == found.labels_D[d] and iou_DG[d, g] >= MATCH_IOU]
            if fits:
                free.discard(max(fits, key=lambda g: float(iou_DG[d, g])))
        return 0 not in free

    def dense(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the scores, the predicted boxes and the anchors of all levels."""
        levels = self.detector.dense(self.record.path).levels
        parts = [
            (one.scores_HWCK.reshape(-1, one.scores_HWCK.shape[-1]), one.boxes_HWC4.reshape(-1, 4)) for one in levels
        ]
        scores, boxes = (torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True))
        anchors = np.concatenate([one.anchors_HWC4.reshape(-1, 4) for one in levels])
        return scores, boxes.double(), torch.from_numpy(anchors).double()


def agrees(case: Case, answer: dict[str, Any]) -> tuple[bool, str]:
    """Return whether an intervention confirms the cause that the server names, and what was done."""
    cause, label = answer["cause"], case.labels[0]
    if cause == "below the threshold":
        t = answer["visible_from"]
        shown, hidden = case.is_found(threshold=t), not case.is_found(threshold=t + 0.001)
        return shown and hidden, f"detected at threshold {t:g}: {shown}; missed at {t + 0.001:g}: {hidden}"
    if cause == "suppressed":
        value = math.ceil((answer["nms_iou"] + 1e-6) * 100) / 100
        if (answer["remedy"] or {}).get("option") == "nms_threshold":
            value = answer["remedy"]["value"]
        shown, hidden = case.is_found(nms_threshold=value), not case.is_found()
        return shown and hidden, f"detected with nms_threshold {value:g}: {shown}; missed without: {hidden}"
    if cause in {"not a candidate", "beyond max_detections"}:
        if answer["remedy"] is None:
            return False, "no value of the option is named"
        option, value = answer["remedy"]["option"], answer["remedy"]["value"]
        shown, hidden = case.is_found(**{option: value}), not case.is_found()
        return shown and hidden, f"detected with {option} {value}: {shown}; missed without: {hidden}"
    if cause in {"wrong class", "badly localised"}:
        found = case.found()
        iou_D = box_iou(torch.as_tensor(found.boxes_D4, dtype=torch.float64), case.boxes_G4[:1])[:, 0].numpy()
        low, same_D = (NEAR_IOU, found.labels_D == label) if cause == "badly localised" else (MATCH_IOU, None)
        involved_D = (iou_D >= low) & (same_D if same_D is not None else found.labels_D != label)
        missed = not case.is_found()
        return bool(
            involved_D.any()
        ) and missed, f"detections that overlap so: {int(involved_D.sum())}; missed: {missed}"
    scores_AK, boxes_A4, anchors_A4 = case.dense()
    if cause == "low scores":
        iou_AG = box_iou(boxes_A4, case.boxes_G4)
        same = [g for g, k in enumerate(case.labels) if k == label]
        fits_A = (iou_AG[:, 0] >= MATCH_IOU) & (iou_AG[:, 0] >= iou_AG[:, same].amax(1))
        score = float(scores_AK[fits_A, label].max()) if bool(fits_A.any()) else 0.0
        return score < case.threshold, f"highest score of {int(fits_A.sum())} boxes that fit: {score:.3f}"
    return anchors_agree(case, cause, answer, anchors_A4)


def anchors_agree(case: Case, cause: str, answer: dict[str, Any], anchors_A4: torch.Tensor) -> tuple[bool, str]:
    """Return whether the IoU rule, applied by hand, gives the cause, and the IoU of the best anchor."""
    config = case.detector.info.match_config
    iou_AG = box_iou(anchors_A4, case.boxes_G4)
    owner_A = torch.where(iou_AG.amax(1) >= config.positive_iou, iou_AG.argmax(1), -1)
    best = float(iou_AG[:, 0].max())
    none_positive = not bool((owner_A == 0).any())
    by_hand = "no anchor" if best < config.negative_iou else "anchors ignored"
    if best >= config.positive_iou:
        by_hand = "anchors taken"
        fitting = (iou_AG[:, 0] >= config.positive_iou) & (owner_A > 0)
        none_positive &= answer["taken_by"] in owner_A[fitting].unique().tolist()
    close = abs(best - answer["anchor"]["iou"]) < 1e-3
    done = f"best anchor by hand: IoU {best:.3f}, {by_hand}; no positive anchor: {none_positive}"
    return by_hand == cause and none_positive and close, done


def cases(detector: Detector, data: DetectionData, misses: Sequence[Missed], threshold: float) -> Iterator[Case]:
    """Yield each missed object with its overlapping neighbours, at most 19 of them."""
    for miss in misses:
        record = data.records[miss.image]
        boxes_G4 = torch.as_tensor(record.boxes_G4, dtype=torch.float64)
        overlap_G = box_iou(boxes_G4[miss.object : miss.object + 1], boxes_G4)[0]
        overlap_G[miss.object], overlap_G[torch.as_tensor(record.crowd_G)] = 2.0, 0.0
        chosen = [g for g in overlap_G.argsort(descending=True, stable=True).tolist() if overlap_G[g] > 0][:20]
        labels = record.labels_G[chosen].tolist()
        yield Case(
            detector=detector,
            record=record,
            miss=miss,
            boxes_G4=boxes_G4[chosen],
            labels=labels,
            threshold=threshold,
        )


def ask(client: TestClient, case: Case) -> dict[str, Any]:
    """Return the answer of the server about the first object."""
    names = [case.detector.classes[k] for k in case.labels]
    boxes = [",".join(f"{value:.2f}" for value in box) for box in case.boxes_G4.tolist()]
    query = {"box": boxes, "class": names, "threshold": case.threshold}
    response = client.post("/v1/explain", params=query, content=case.record.path.read_bytes())
    response.raise_for_status()
    answer: dict[str, Any] = response.json()["objects"][0]
    return answer


def served(trained: LoadedModel, settings: Settings) -> LoadedModel:
    """Return the model with other settings of post-processing and matching."""
    names = {field.name for field in dataclasses.fields(trained.postprocess_config)}
    postprocess = {key: value for key, value in settings.items() if key in names}
    match = {key: value for key, value in settings.items() if key not in names}
    return dataclasses.replace(
        trained,
        postprocess_config=dataclasses.replace(trained.postprocess_config, **postprocess),
        train_config={**trained.train_config, **match},
    )


def explained_misses(trained: LoadedModel, data: DetectionData, threshold: float) -> list[dict[str, Any]]:
    """Return up to `PER_KIND` explained misses of every kind, from as few settings as possible."""
    from starlette.testclient import TestClient

    from retinanet.analysis.error_causes import error_causes
    from retinanet.predict.torch_detector import Detector
    from retinanet.serve.app import create_app

    by_kind: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for settings in PROVOKED:
        model = served(trained, settings)
        own = max(threshold, settings.get("score_threshold", 0.0))
        misses = [m for m in error_causes(model, data, threshold=own).missed if len(by_kind[m.cause]) < PER_KIND]
        detector = Detector(model=model.model, info=model, device="cpu")
        with TestClient(create_app(lambda detector=detector: detector)) as client:
            for case in cases(detector, data, misses, own):
                kind = case.miss.cause
                if len(by_kind[kind]) >= PER_KIND or case.record.path.name in {c["image"] for c in by_kind[kind]}:
                    continue
                answer = ask(client, case)
                agreed, done = agrees(case, answer) if answer["cause"] == kind else (False, "another cause")
                by_kind[kind].append(
                    {
                        "kind": kind,
                        "image": case.record.path.name,
                        "class": detector.classes[case.labels[0]],
                        "box": [round(value, 2) for value in case.boxes_G4[0].tolist()],
                        "neighbours": [
                            {"box": [round(value, 2) for value in box], "class": detector.classes[k]}
                            for box, k in zip(case.boxes_G4[1:].tolist(), case.labels[1:], strict=True)
                        ],
                        "threshold": own,
                        "settings": settings,
                        "answer": answer["cause"],
                        "summary": answer["summary"],
                        "visible_from": answer["visible_from"],
                        "remedy": (answer["remedy"] or {}).get("text"),
                        "intervention": done,
                        "right": agreed,
                    }
                )
                print(kind, "right" if agreed else "WRONG", answer["cause"], done, settings, flush=True)
    return [case for kind in sorted(by_kind) for case in by_kind[kind]]


def clicks(trained: LoadedModel, data: DetectionData, threshold: float) -> dict[str, Any]:
    """Return how often one click in the middle of a missed object suggests a box that fits it, and its class."""
    from starlette.testclient import TestClient

    from retinanet.analysis.error_causes import error_causes
    from retinanet.predict.torch_detector import Detector
    from retinanet.serve.app import create_app

    missed = error_causes(trained, data, threshold=threshold).missed
    chosen = np.random.default_rng(0).permutation(len(missed))[:CLICKS].tolist()
    detector = Detector(model=trained.model, info=trained, device="cpu")
    first = second = classes = 0
    with TestClient(create_app(lambda: detector)) as client:
        for miss in (missed[i] for i in chosen):
            x1, y1, x2, y2 = miss.box
            query = {"x": (x1 + x2) / 2, "y": (y1 + y2) / 2, "threshold": threshold}
            content = data.records[miss.image].path.read_bytes()
            answer = client.post("/v1/explain", params=query, content=content).json()
            suggested = torch.tensor([one["box"] for one in (answer["object"], *answer["others"])])
            fits = (box_iou(suggested, torch.tensor([miss.box]))[:, 0] >= MATCH_IOU).tolist()
            first += fits[0]
            classes += fits[0] and answer["object"]["class_id"] == miss.label
            second += any(fits)
    return {
        "threshold": threshold,
        "misses": len(chosen),
        "first_fits": first,
        "first_fits_with_class": classes,
        "any_fits": second,
    }


def main() -> None:
    """Explain the misses of one model, and write the results as JSON."""
    parser = argparse.ArgumentParser(description="Check the causes that the server names by interventions.")
    parser.add_argument("name", help="name of the results file")
    parser.add_argument("model", type=Path, help="checkpoint")
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="datasets, joined in this order")
    parser.add_argument("--threshold", type=float, default=0.5, help="score threshold of detections")
    parser.add_argument("--skip-invalid", action="store_true", help="leave out invalid annotations")
    args = parser.parse_args()
    from retinanet.analysis.model_outputs import load_for_analysis
    from retinanet.data import load

    trained = load_for_analysis(args.model, device="cpu")
    parts = [load(path, classes=trained.classes, skip_invalid=args.skip_invalid) for path in args.data]
    data = dataclasses.replace(parts[0], records=tuple(record for part in parts for record in part.records))
    found = explained_misses(trained, data, args.threshold)
    kinds = {kind: [c["right"] for c in found if c["kind"] == kind] for kind in {c["kind"] for c in found}}
    result = {
        "images": len(data.records),
        "threshold": args.threshold,
        "right": sum(case["right"] for case in found),
        "cases": len(found),
        "kinds": {kind: f"{sum(right)} of {len(right)}" for kind, right in sorted(kinds.items())},
        "clicks": [clicks(trained, data, threshold) for threshold in (args.threshold, CLICK_THRESHOLD)],
        "misses": found,
    }
    (RESULTS / f"explained_misses_{args.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "misses"}, indent=1))


if __name__ == "__main__":
    main()
