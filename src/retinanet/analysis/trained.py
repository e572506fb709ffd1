"""`retinanet check MODEL DATA`: where the loss comes from, what looks wrong in labels and model, hard examples."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich.console import Console

from retinanet.analysis.check import print_faults, print_findings
from retinanet.analysis.dense import load_trained
from retinanet.analysis.diagnose import diagnose
from retinanet.analysis.hard import hard_examples
from retinanet.analysis.imbalance import measure
from retinanet.data import load
from retinanet.evaluate import evaluate_model
from retinanet.predict import Detector
from retinanet.results import write_text
from retinanet.train.checkpoint import read_model

if TYPE_CHECKING:
    from pathlib import Path

    from retinanet.config import CheckConfig


def run_trained(config: CheckConfig, model: Path, path: Path) -> int:
    """Do what `retinanet check MODEL DATA` does, print what was found, and return the exit status.

    Args:
        config: of it, the options about data, output and device; the network's own settings are those of its training.
        model: a checkpoint.
        path: the data.
    """
    trained = load_trained(model, device=config.device)
    data = load(
        path,
        images=config.images,
        classes=trained.classes,
        skip_bad=True,
        workers=config.workers,
        split="val",
        **config.reading,
    )
    console = Console()
    faults = print_faults(console, [data])
    detector = Detector.from_checkpoint(model, config.device)
    metrics, results = evaluate_model(
        detector, data, batch_size=config.batch_size, workers=config.workers, progress=True
    )
    numbers = metrics.to_json()
    where = f"{len(data.records)} pictures with {data.num_objects} objects"
    console.print(f"AP {numbers['AP']:.3f}, AP50 {numbers['AP50']:.3f} on {where}.", highlight=False)
    found = measure(trained, data, batch_size=config.batch_size, easy_from=config.easy_from, progress=True)
    for sentence in found.sentences():
        console.print(sentence, markup=False, highlight=False)
    findings = diagnose(data, results, train_config=read_model(model).train_config)
    print_findings(console, tuple(findings))
    hard = None
    if config.hard:
        hard = hard_examples(trained, data, count=config.hard_examples, batch_size=config.batch_size, progress=True)
        config.output.mkdir(parents=True, exist_ok=True)
        hard.write_csv(config.output / "hard.csv")
        write_text(config.output / "imbalance.json", json.dumps(found.to_json(), indent=2) + "\n")
        for sentence in hard.sentences():
            console.print(sentence, markup=False, highlight=False)
        console.print(f"hard examples: {config.output / 'hard.csv'}", markup=False, highlight=False)
    target = config.report or (config.output / "report.html" if config.hard else None)
    if target is not None:
        from retinanet.report.evaluation import model_report

        page = model_report(
            target,
            data=data,
            metrics=numbers,
            results=results,
            title=f"Check of {model.name} on {path.name}",
            findings=findings,
            imbalance=found,
            hard=hard,
        )
        console.print(f"report: {page}", markup=False, highlight=False)
    return 1 if faults and not config.skip_bad else 0
