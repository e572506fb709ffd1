"""Train settings on a dataset with equal steps and several seeds, and compare each with the first one, paired by seed.

    python benchmarks/beds/run.py long_tail default repeat:sampler=repeat_factor both:sampler=balanced,loss=eql_v2

A setting is a name, or a name with changed options of `retinanet train`. A setting whose name begins with `torchvision`
trains torchvision's RetinaNet (`torchvision_retinanet.py`) with the same images, backbone, input size, flips and steps;
its only option is `lr`. Finished runs are read, not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from real import REAL, WEIGHTS  # noqa: E402
from scenes import BEDS, COMMON, RARE, Bed  # noqa: E402

RESULTS: Final = HERE.parent / "results" / "beds"
DATASETS: Final[dict[str, Any]] = {**BEDS, **REAL}
BATCH_SIZE: Final = 4
"""Batch size of the preset `small` and of torchvision_retinanet.py."""
GROUPS: Final = {"common": COMMON, "rare": RARE}
"""Groups of classes of the beds, whose mean AP is a column."""
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


def run(name: str, changes: dict[str, Any], *, dataset: str, epochs: int, seed: int, work: Path) -> dict[str, Any]:
    """Train one setting with one seed, and return the numbers on the test images.

    Every setting has the steps of `epochs` epochs in which each image comes once; some samplers have longer epochs.
    """
    source = DATASETS[dataset]
    bed = source.make(work / dataset)
    folder = work / f"{dataset}-runs" / f"{name}-seed{seed}"
    if name.startswith("torchvision"):
        options = {"flip": source.training.get("flip"), **changes}
        numbers = run_torchvision(bed, source.size, options, epochs=epochs, seed=seed, folder=folder)
    else:
        numbers = run_retinanet(bed, source.size, source.training | changes, epochs=epochs, seed=seed, folder=folder)
    per_class = {name: values["AP"] for name, values in numbers.pop("per_class").items()}
    groups = GROUPS if isinstance(source, Bed) else {}
    means = {group: float(np.mean([per_class[name] for name in names])) for group, names in groups.items()}
    return {**numbers, **means, "per_class": per_class}


def run_retinanet(
    bed: Path, size: tuple[int, int], changes: dict[str, Any], *, epochs: int, seed: int, folder: Path
) -> dict[str, Any]:
    """Train with the preset `small`. Return the metrics on the test images, `per_class` and the training seconds."""
    from retinanet.evaluate import evaluate
    from retinanet.train import fit

    images = len(json.loads((bed / "train.json").read_text())["images"])
    options: dict[str, Any] = {
        "preset": "small",
        **{"image_size": min(size), "max_size": max(size), "measure_imbalance": 0},
        **{"epochs": epochs, "evaluate_every": epochs, "max_steps": epochs * -(-images // BATCH_SIZE)},
    } | changes
    result = fit(
        train=bed / "train.json", val=bed / "val.json", output=folder, seed=seed, overwrite=True, workers=1, **options
    )
    numbers = evaluate(result.best, data=bed / "test.json").metrics.to_json()
    return {**numbers, "seconds": result.seconds}


def run_torchvision(
    bed: Path, size: tuple[int, int], changes: dict[str, Any], *, epochs: int, seed: int, folder: Path
) -> dict[str, Any]:
    """Train torchvision's RetinaNet, with the option `lr`, and without flips if `flip` is 0.

    Return the metrics on the test images, `per_class` and the training seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report = folder / "report.json"
    options: dict[str, Any] = {
        **{"train": bed / "train.json", "test": bed / "test.json", "weights": WEIGHTS, "out": report},
        **{"min-size": min(size), "max-size": max(size), "epochs": epochs, "batch-size": BATCH_SIZE, "seed": seed},
        "threads": os.environ.get("OMP_NUM_THREADS", os.cpu_count()),
    } | {name: value for name, value in changes.items() if name == "lr"}
    command = [sys.executable, str(HERE.parent / "torchvision_retinanet.py")]
    command += [f"--{name}={value}" for name, value in options.items()]
    subprocess.run(command + ["--no-flip"] * (changes.get("flip") == 0), check=True)
    found = json.loads(report.read_text())
    return {**found["metrics"], "per_class": found["per_class"], "seconds": found["train_seconds"]}


def table(rows: dict[str, list[dict[str, Any]]]) -> str:
    """Return means over the seeds, and the differences to the first setting with their 95 % intervals, in Markdown."""
    from retinanet.study.statistics import paired_difference

    first = next(iter(rows))
    columns = [column for column in COLUMNS if column in rows[first][0]]
    lines = ["| setting | " + " | ".join(f"{c} | difference" for c in columns) + " | seeds | minutes |"]
    lines.append("|---" * (2 * len(columns) + 3) + "|")
    for name, results in rows.items():
        cells = []
        for column in columns:
            pairs = list(zip(results, rows[first], strict=False))  # only the seeds that both have
            values, reference = ([100 * row[column] for row in side] for side in zip(*pairs, strict=True))
            difference = paired_difference(values, reference)
            interval = f" ({difference.low:+.1f} to {difference.high:+.1f})" if len(pairs) > 1 else ""
            cells += [f"{np.mean(values):.1f}", "" if name == first else f"{difference.mean:+.1f}{interval}"]
        minutes = np.mean([row["seconds"] for row in results]) / 60
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {len(results)} | {minutes:.1f} |")
    return "\n".join(lines) + "\n"


def stored(bed: str, epochs: int, *, first: str) -> dict[str, list[dict[str, Any]]]:
    """Return the results of all settings of a bed by name and in order of the seeds, beginning with setting `first`."""
    rows: dict[str, list[dict[str, Any]]] = {first: []}
    for file in sorted((RESULTS / bed).glob(f"*-{epochs}-seed*.json")):
        rows.setdefault(file.name.rsplit(f"-{epochs}-seed", 1)[0], []).append(json.loads(file.read_text()))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Run all settings, seed by seed, and print and write the table."""
    parser = argparse.ArgumentParser(description="Compare training settings on a bed, paired by seed.")
    parser.add_argument("bed", choices=DATASETS, help="dataset")
    parser.add_argument("settings", nargs="+", help="name, or name:option=value,...; the first one is the reference")
    parser.add_argument("--epochs", type=int, default=10, help="number of epochs of every run")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds; the bed is the same for all of them")
    parser.add_argument("--work", type=Path, default=Path("runs/beds"), help="folder of the beds and the runs")
    args = parser.parse_args(arguments)
    rows: dict[str, list[dict[str, Any]]] = {}
    RESULTS.mkdir(parents=True, exist_ok=True)
    for seed in range(args.seeds):
        for name, changes in map(parse_setting, args.settings):
            file = RESULTS / args.bed / f"{name}-{args.epochs}-seed{seed}.json"
            if not file.exists():
                numbers = run(name, changes, dataset=args.bed, epochs=args.epochs, seed=seed, work=args.work)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps({"options": changes, "epochs": args.epochs, **numbers}, indent=1) + "\n")
            result = json.loads(file.read_text())
            if result["options"] != changes:
                raise SystemExit(f"{file} holds {name} with {result['options']}, not {changes}: choose another name")
            rows.setdefault(name, []).append(result)
        print(table(rows), flush=True)
    heading = f"{args.bed}, {args.epochs} epochs, AP x 100 on the test images; difference to the first row (95 %)."
    every = stored(args.bed, args.epochs, first=next(iter(rows)))
    (RESULTS / f"{args.bed}.md").write_text(f"{heading}\n\n{table(every)}")


if __name__ == "__main__":
    main()
