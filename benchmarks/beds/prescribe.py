"""Run `retinanet prescribe` on datasets with a planted cause, and count the right answers.

    python benchmarks/beds/prescribe.py --minutes 10 --seeds 20 21 22 23 24

Four kinds of dataset: a rare class, unreachable boxes, too few images, and nothing wrong. Finished probes are read, not
repeated. A measurement of a changed `prescribe` needs seeds that the change has not seen.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from run import RESULTS  # noqa: E402
from scenes import BEDS  # noqa: E402

CURES: Final = {
    "long_tail": {"copy_paste", "sampler", "balance_classes", "loss"},
    "hard_boxes": {"anchors", "assigner", "low_quality_matches"},
}
"""Options of which at least one must be changed, by bed."""
ANSWERS: Final = {"long_tail": "change", "hard_boxes": "change", "few": "collect images", "plain": "keep the default"}
"""The right answer for each bed."""


def is_right(bed: str, answer: str, changes: dict[str, Any]) -> bool:
    """Return whether a probe gives the answer that the planted cause of a bed needs."""
    return answer == ANSWERS[bed] and (bed not in CURES or bool(CURES[bed].intersection(changes)))


def probe(bed: str, seed: int, *, minutes: float, work: Path) -> dict[str, Any]:
    """Return the answer of a probe on a new dataset of a bed."""
    from retinanet.study.prescribe import prescribe

    source = BEDS[bed]
    data = source.make(work / f"{bed}-{seed}", seed=seed)
    found = prescribe(
        data / "train.json",
        val=data / "val.json",
        output=work / f"{bed}-{seed}-probe",
        minutes=minutes,
        seed=seed,
        workers=1,
        preset="small",
        image_size=min(source.size),
        max_size=max(source.size),
        flip=source.training["flip"],
    )
    answer, changes = found.decision.answer, found.changes
    return {
        **{"bed": bed, "seed": seed, "minutes": found.seconds / 60, "answer": answer, "changes": changes},
        **{"right": is_right(bed, answer, changes), "sentences": found.sentences(), "rows": found.rows(guards=True)},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all probes, and print and write the table."""
    parser = argparse.ArgumentParser(description="Count the right answers of retinanet prescribe.")
    parser.add_argument("--beds", nargs="+", choices=ANSWERS, default=list(ANSWERS), help="kinds of dataset")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="seed of each dataset of a kind")
    parser.add_argument("--minutes", type=float, default=10.0, help="time of each probe")
    parser.add_argument("--work", type=Path, default=Path("runs/beds/prescribe"), help="folder of datasets and probes")
    args = parser.parse_args(arguments)
    folder = RESULTS / "prescribe"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for seed in args.seeds:
        for bed in args.beds:
            file = folder / f"{bed}-seed{seed}.json"
            if not file.exists():
                result = probe(bed, seed, minutes=args.minutes, work=args.work)
                file.write_text(json.dumps(result, indent=1) + "\n")
            row = json.loads(file.read_text())
            rows.append(row)
            print(f"{bed} {seed}: {'right' if row['right'] else 'WRONG'}: {row['sentences'][0]}", flush=True)
    lines = ["| bed | seed | answer | changes | right | minutes |", "|---" * 6 + "|"]
    for row in sorted(rows, key=lambda row: (row["bed"], row["seed"])):
        changes = ", ".join(f"{name} {value}" for name, value in row["changes"].items()) or "–"
        right = "yes" if row["right"] else "no"
        lines.append(f"| {row['bed']} | {row['seed']} | {row['answer']} | {changes} | {right} | {row['minutes']:.1f} |")
    text = f"{sum(row['right'] for row in rows)} of {len(rows)} answers are right.\n\n" + "\n".join(lines) + "\n"
    (RESULTS / "prescribe.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
