"""Measure whether tuned thresholds keep their promises, and what calibration does to scores.

    python benchmarks/thresholds.py bccd runs/bccd/best.ckpt --data val.txt test.txt --skip-invalid
    python benchmarks/thresholds.py scenes runs/demo/best.ckpt --scenes 1000 --share 0.1

The model detects once in all images. Then, 500 times, a random part of the images chooses the threshold, and the other
images measure it. Calibration is fitted on the first part of the images and measured on the other.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

RESULTS: Final = Path(__file__).resolve().parent / "results"
SPLITS: Final = 500
AIMS: Final = ("recall=0.95", "recall=0.9", "precision=0.9", "precision=0.95")


def detect(model: Path, paths: Sequence[Path], *, skip_invalid: bool) -> list[tuple[Any, Any, Any]]:
    """Return (data, COCO results, class columns) of each dataset, with scores down to the lowest that tuning uses."""
    from retinanet.analysis.tuning import LOWEST_SCORE
    from retinanet.checkpoint.loading import load_checkpoint
    from retinanet.config import with_options
    from retinanet.data import load
    from retinanet.evaluate.evaluation import evaluate_model, match_classes
    from retinanet.predict.torch_detector import Detector

    loaded = load_checkpoint(model)
    lowered = with_options(loaded.postprocess_config, score_threshold=LOWEST_SCORE)
    detector = Detector(model=loaded.model, info=dataclasses.replace(loaded, postprocess_config=lowered), device="cpu")
    found = []
    for path in paths:
        data = load(path, skip_invalid=skip_invalid, split="val")
        columns, _ = match_classes(loaded.classes, data.classes)
        found.append((data, evaluate_model(detector, data, workers=1)[1], columns))
    return found


def part(found: Any, chosen_I: Any) -> Any:
    """Return the outcomes of the chosen images, which are numbered anew."""
    from retinanet.analysis.score_thresholds import Outcomes

    place_I = np.full(len(found.objects_IK), -1)
    place_I[chosen_I] = np.arange(len(chosen_I))
    own_D = place_I[found.image_D] >= 0
    return Outcomes(
        scores_D=found.scores_D[own_D],
        correct_D=found.correct_D[own_D],
        image_D=place_I[found.image_D[own_D]],
        objects_I=found.objects_IK[chosen_I].sum(axis=1),
    )


def promises(found: Any, share: float) -> list[dict[str, Any]]:
    """Return, for each aim, what random splits of the images measure."""
    from retinanet.analysis.score_thresholds import Aim, UnsupportedAimError, choose, measure

    images = len(found.objects_IK)
    rows = []
    for text in AIMS:
        aim, values, bests, refused, needs = Aim.parse(text), [], [], 0, []
        for split in range(SPLITS):
            order_I = np.random.default_rng(split).permutation(images)
            chosen_I, other_I = np.split(order_I, [round(share * images)])
            try:
                threshold = choose(part(found, chosen_I), aim, confidence=0.95).threshold
            except UnsupportedAimError as error:
                refused += 1
                needs.append(error.images)
                continue
            held_out = part(found, other_I)
            values.append(getattr(measure(held_out, threshold), aim.kind))
            bests.append(threshold)
        row = {
            "aim": text,
            "splits": SPLITS,
            "images": round(share * images),
            "held_out": images - round(share * images),
        }
        if values:
            value_S = np.array(values)
            row |= {
                "mean": float(value_S.mean()),
                "broken": float((value_S < aim.value).sum() / SPLITS),
                "lowest_5_percent": float(np.quantile(value_S, 0.05)),
                "threshold": float(np.median(bests)),
            }
        known = [need for need in needs if need is not None]
        rows.append({**row, "refused": refused, "images_needed": int(np.median(known)) if known else None})
    return rows


def calibration(first: Any, second: Any) -> dict[str, float]:
    """Return the calibration error on the second dataset, before and after a calibration on the first one."""
    from retinanet.analysis.calibration import FOLDS, calibrate_class, calibrated
    from retinanet.analysis.scored_detections import measure_reliability, scored_detections

    found = scored_detections(*first)
    fold_D = np.random.default_rng(0).permutation(np.arange(len(found.objects_IK)) % FOLDS)[found.image_D]
    data, results, columns = second
    category = {data.category_ids[column]: k for k, column in enumerate(columns) if column is not None}
    calibrations = []
    for k in range(len(columns)):
        own_D = found.labels_D == k
        calibrations.append(calibrate_class(found.scores_D[own_D], found.correct_D[own_D], fold_D[own_D]))
    before = [row for row in results if row["score"] > 0.05]
    after = [{**row, "score": calibrated(row["score"], calibrations[category[row["category_id"]]])} for row in before]
    truth = data.to_coco()
    losses = {
        name: float(np.mean([c.log_loss[name] for c in calibrations if c.log_loss]))
        for name in ("none", "platt", "isotonic")
    }
    errors = {name: measure_reliability(truth, rows).error for name, rows in (("before", before), ("after", after))}
    return {**errors, **{f"log_loss_{name}": value for name, value in losses.items()}}


def joined(parts: Sequence[Any]) -> Any:
    """Return the detections of several datasets as those of one."""
    from retinanet.analysis.scored_detections import ScoredDetections, scored_detections

    found = [scored_detections(*one) for one in parts]
    offsets = np.cumsum([0, *(len(one.objects_IK) for one in found[:-1])])
    return ScoredDetections(
        scores_D=np.concatenate([one.scores_D for one in found]),
        labels_D=np.concatenate([one.labels_D for one in found]),
        correct_D=np.concatenate([one.correct_D for one in found]),
        image_D=np.concatenate([one.image_D + offset for one, offset in zip(found, offsets, strict=True)]),
        objects_IK=np.concatenate([one.objects_IK for one in found]),
    )


def main() -> None:
    """Measure one model, and write the results as JSON."""
    parser = argparse.ArgumentParser(description="Measure the promises of tuned thresholds over random splits.")
    parser.add_argument("name", help="name of the results file")
    parser.add_argument("model", type=Path, help="checkpoint")
    parser.add_argument("--data", type=Path, nargs=2, help="two datasets that the model was not trained on")
    parser.add_argument("--scenes", type=int, help="number of new scenes of the demo, instead of --data")
    parser.add_argument("--share", type=float, default=0.5, help="share of the images that choose the threshold")
    parser.add_argument("--skip-invalid", action="store_true", help="leave out invalid annotations")
    args = parser.parse_args()
    paths = args.data
    if args.scenes:
        from retinanet.data.demo_scenes import make_scenes

        half = args.scenes // 2
        scenes = make_scenes(Path(f"runs/thresholds-{half}"), train=1, val=half, test=half, seed=1000)
        paths = [scenes.val_json, scenes.test_json]
    parts = detect(args.model, paths, skip_invalid=args.skip_invalid)
    result = {"promises": promises(joined(parts), args.share), "calibration": calibration(*parts)}
    (RESULTS / f"thresholds_{args.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
