"""Train settings on a bed with equal steps and several seeds, and compare each with the first one, paired by seed.

    python benchmarks/beds/run.py long_tail default repeat:sampler=repeat_factor both:sampler=balanced,loss=eql_v2

A setting is a name, or a name with changed options of `retinanet train`. Finished runs are read, not repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from scenes import BEDS, COMMON, RARE, SIZE  # noqa: E402

RESULTS: Final = HERE.parent / "results" / "beds"
TRAINING: Final[dict[str, Any]] = {
    "preset": "small",
    "image_size": min(SIZE),
    "max_size": max(SIZE),
    "flip": 0.0,  # a mirrored digit is not a digit
    "ema": 0.99,
    "measure_imbalance": 0,
}
"""Options of every run that differ from the defaults of `retinanet train`; those of `retinanet demo`, mostly."""
COLUMNS: Final = ("AP", "AP50", "common", "rare")


def parse_setting(text: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the changed options of a setting such as `name:option=value,option=[value, value]`."""
    name, _, changes = text.partition(":")
    options, depth, start = [], 0, 0
    for place, sign in enumerate(changes + ","):
        depth += (sign == "[") - (sign == "]")
        if sign == "," and not depth:
            options.append(changes[start:place])
            start = place + 1
    pairs = (option.split("=", 1) for option in options if option)
    return name, {key: yaml.safe_load(value) for key, value in pairs}


def run(bed: Path, changes: dict[str, Any], *, epochs: int, seed: int, folder: Path) -> dict[str, Any]:
    """Train one setting with one seed, and return the numbers on the test scenes.

    Every setting has the steps of `epochs` epochs in which each image comes once; some samplers have longer epochs.
    """
    from retinanet.config import PRESETS
    from retinanet.evaluate import evaluate
    from retinanet.train import fit

    images = len(json.loads((bed / "train.json").read_text())["images"])
    steps = epochs * -(-images // PRESETS["small"]["batch_size"])
    options = TRAINING | {"epochs": epochs, "evaluate_every": epochs, "max_steps": steps} | changes
    result = fit(
        train=bed / "train.json", val=bed / "val.json", output=folder, seed=seed, overwrite=True, workers=1, **options
    )
    numbers = evaluate(result.best, data=bed / "test.json").metrics.to_json()
    per_class = {name: values["AP"] for name, values in numbers.pop("per_class").items()}
    groups = {"common": COMMON, "rare": RARE}
    means = {group: float(np.mean([per_class[name] for name in names])) for group, names in groups.items()}
    return {**numbers, **means, "per_class": per_class, "seconds": result.seconds}


def table(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Return means over the seeds, and the differences to the first setting with their 95 % intervals, in Markdown."""
    from retinanet.study.statistics import paired_difference

    first = next(iter(rows))
    lines = ["| setting | " + " | ".join(f"{c} | difference" for c in COLUMNS) + " | seeds | minutes |"]
    lines.append("|---" * (2 * len(COLUMNS) + 3) + "|")
    for name, results in rows.items():
        cells = []
        for column in COLUMNS:
            pairs = list(zip(results, rows[first], strict=False))  # only the seeds that both have
            values, reference = ([100 * row[column] for row in side] for side in zip(*pairs, strict=True))
            difference = paired_difference(values, reference)
            interval = f" ({difference.low:+.1f} to {difference.high:+.1f})" if len(pairs) > 1 else ""
            cells += [f"{np.mean(values):.1f}", "" if name == first else f"{difference.mean:+.1f}{interval}"]
        minutes = np.mean([row["seconds"] for row in results]) / 60
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {len(results)} | {minutes:.1f} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all settings, seed by seed, and print and write the table."""
    parser = argparse.ArgumentParser(description="Compare training settings on a bed, paired by seed.")
    parser.add_argument("bed", choices=BEDS, help="kind of the dataset")
    parser.add_argument("settings", nargs="+", help="name, or name:option=value,...; the first one is the reference")
    parser.add_argument("--epochs", type=int, default=10, help="number of epochs of every run")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds; the bed is the same for all of them")
    parser.add_argument("--work", type=Path, default=Path("runs/beds"), help="folder of the beds and the runs")
    args = parser.parse_args(arguments)
    bed = BEDS[args.bed].make(args.work / args.bed)
    rows: dict[str, list[dict[str, Any]]] = {}
    RESULTS.mkdir(parents=True, exist_ok=True)
    for seed in range(args.seeds):
        for name, changes in map(parse_setting, args.settings):
            file = RESULTS / args.bed / f"{name}-{args.epochs}-seed{seed}.json"
            if not file.exists():
                folder = args.work / f"{args.bed}-runs" / f"{name}-seed{seed}"
                numbers = run(bed, changes, epochs=args.epochs, seed=seed, folder=folder)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps({"options": changes, "epochs": args.epochs, **numbers}, indent=1) + "\n")
            stored = json.loads(file.read_text())
            if stored["options"] != changes:
                raise SystemExit(f"{file} holds {name} with {stored['options']}, not {changes}: choose another name")
            rows.setdefault(name, []).append(stored)
        print(table(rows), flush=True)
    heading = f"{args.bed}, {args.epochs} epochs, AP x 100 on balanced test scenes; difference to the first row (95 %)."
    (RESULTS / f"{args.bed}.md").write_text(f"{heading}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
