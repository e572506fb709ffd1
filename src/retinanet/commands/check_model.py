"""`retinanet check MODEL DATA`: metrics, class imbalance, findings, hard examples. MODEL may be COCO results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from retinanet.commands.terminal import (
    print_faults,
    print_findings,
    print_next_steps,
    progress_bar,
    result_console,
    write_json,
)
from retinanet.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from retinanet.analysis.error_causes import ErrorCauses
    from retinanet.analysis.finding import Finding
    from retinanet.analysis.hard_examples import HardExamples
    from retinanet.analysis.imbalance import Imbalance
    from retinanet.analysis.loss_microscope import LossMicroscope
    from retinanet.analysis.miss_map import MissMap
    from retinanet.analysis.next_steps import NextStep
    from retinanet.checkpoint.loaded_model import LoadedModel
    from retinanet.config import CheckConfig, TrainConfig
    from retinanet.data import DetectionData

WITHOUT_NETWORK: Final = (
    "the file holds detections only: the imbalance of the loss and the objects without a positive anchor were not "
    "measured. They need the checkpoint of the network"
)
"""Note about what a check of COCO results cannot measure."""


def check_model(model: Path, path: Path, config: CheckConfig) -> int:
    """Check a model on a dataset and print the results. Return the exit status: 1 if the dataset has faults.

    Args:
        model: checkpoint.
        path: dataset.
        config: the options of data, output and device are used; the network's settings come from its training.
    """
    from retinanet.analysis.diagnose import diagnose
    from retinanet.analysis.error_causes import error_causes
    from retinanet.analysis.imbalance_meter import measure
    from retinanet.analysis.loss_microscope_meter import LossMicroscopeMeter
    from retinanet.analysis.miss_map import miss_map
    from retinanet.analysis.miss_remedies import model_files
    from retinanet.analysis.model_outputs import load_for_analysis
    from retinanet.analysis.next_steps import after_check, data_flags
    from retinanet.evaluate import evaluate_model
    from retinanet.evaluate.per_image import best_threshold, items_from_results
    from retinanet.predict.torch_detector import Detector

    trained = load_for_analysis(model, device=config.hardware.device).with_nms(config.nms)
    data = _load(path, config, classes=trained.classes)
    console = result_console(config.files.json)
    faults = print_faults(console, [data])
    detector = Detector(model=trained.model, info=trained, device=trained.device)
    metrics, results = evaluate_model(
        detector, data, batch_size=config.batch.batch_size, workers=config.loading.workers, progress=progress_bar
    )
    numbers = metrics.to_json()
    _print_metrics(console, numbers, data)
    easy_from = config.imbalance.easy_from
    meter = LossMicroscopeMeter(classes=trained.classes, loss_config=trained.loss_config, easy_from=easy_from)
    found = measure(
        trained,
        data,
        batch_size=config.batch.batch_size,
        easy_from=easy_from,
        progress=progress_bar,
        further=[meter.add],
    )
    microscope = meter.result()
    for sentence in found.sentences():
        console.print(sentence, markup=False, highlight=False)
    findings = diagnose(data, results, train_config=trained.train_config)
    print_findings(console, findings)
    items = items_from_results(data, results)
    causes = error_causes(
        trained,
        data,
        threshold=best_threshold(items),
        batch_size=config.batch.batch_size,
        progress=progress_bar,
    )
    _print_causes(console, causes)
    misses = miss_map(causes, items, model_files(model, path, config.dataset))
    hard = _find_hard(console, trained, data, found, config) if config.hard else None
    write_json(
        _document(numbers, found, findings, data, hard, causes, microscope=microscope, misses=misses), config.files.json
    )
    _write_report(
        console,
        config,
        data=data,
        metrics=numbers,
        results=results,
        name=model.name,
        source=path,
        findings=findings,
        hard=hard,
        imbalance=found,
        microscope=microscope,
        run=model.parent if (model.parent / "config.yaml").is_file() else None,
        causes=causes,
        next_steps=_next_steps(model, path, config, causes),
        misses=misses,
    )
    costs = causes.regained
    steps = after_check(
        model,
        path,
        sorted(costs, key=lambda cause: -costs[cause]),
        flags=data_flags(config.dataset),
        run=_run_options(trained),
    )
    print_next_steps([step for step in steps if not (config.hard and "--hard" in step.command)][:1], console)
    return 1 if faults and not config.dataset.selection.skip_invalid else 0


def _run_options(trained: LoadedModel) -> TrainConfig | None:
    """Return the options of the training run of a model; None if its run folder has moved."""
    from retinanet.config import TrainConfig, section_from_dict

    folder = str(trained.train_config.get("output", ""))
    if not folder or not (Path(folder) / "config.yaml").is_file():
        return None
    return section_from_dict(TrainConfig, trained.train_config)


def check_results(results_file: Path, path: Path, config: CheckConfig) -> int:
    """Check a file of COCO results on a dataset and print the results. Return 1 if the dataset has faults.

    The imbalance of the loss and the objects without a positive anchor need the network, and are not measured.

    Args:
        results_file: COCO results (.json), such as out_of_fold.json of a cross-validation.
        path: dataset.
        config: the options of data and output are used.
    """
    from retinanet.analysis.diagnose import diagnose
    from retinanet.analysis.hard_results import hard_examples_from_results
    from retinanet.analysis.miss_map import miss_map
    from retinanet.analysis.miss_remedies import model_files
    from retinanet.analysis.result_errors import errors_from_results
    from retinanet.config import EvaluateConfig, section_from_dict, to_dict
    from retinanet.evaluate import evaluate
    from retinanet.evaluate.per_image import best_threshold, items_from_results

    data = _load(path, config)
    console = result_console(config.files.json)
    faults = print_faults(console, [data])
    values = {**to_dict(config), "data": path, "skip_invalid": True, "json": None, "report": None}
    found = evaluate(results_file, section_from_dict(EvaluateConfig, values))
    numbers, results = found.metrics.to_json(), found.results
    _print_metrics(console, numbers, data)
    for note in (*found.notes, WITHOUT_NETWORK):
        console.print(f"note: {note}", markup=False, highlight=False)
    findings = diagnose(data, results)
    print_findings(console, findings)
    hard = None
    if config.hard:
        hard = hard_examples_from_results(data, results, count=config.hard_examples)
        _write_hard(console, hard, config)
    items = items_from_results(data, results)
    errors = errors_from_results(data, items, threshold=best_threshold(items))
    misses = miss_map(errors, items, model_files(results_file, path, config.dataset))
    write_json(_document(numbers, None, findings, data, hard, misses=misses), config.files.json)
    _write_report(
        console,
        config,
        data=data,
        metrics=numbers,
        results=results,
        name=results_file.name,
        source=path,
        findings=findings,
        hard=hard,
        notes=(WITHOUT_NETWORK,),
        misses=misses,
    )
    return 1 if faults and not config.dataset.selection.skip_invalid else 0


def _load(path: Path, config: CheckConfig, *, classes: Sequence[str] | None = None) -> DetectionData:
    """Return the dataset without its faulty annotations, in the class list of a model or in its own."""
    from retinanet.data import load

    return load(
        path,
        images=config.dataset.selection.images,
        classes=classes,
        skip_invalid=True,
        workers=config.loading.workers,
        split="val",
        **config.dataset.reading,
    )


def _document(
    metrics: dict[str, Any],
    imbalance: Imbalance | None,
    findings: Sequence[Finding],
    data: DetectionData,
    hard: HardExamples | None,
    causes: ErrorCauses | None = None,
    misses: MissMap | None = None,
    microscope: LossMicroscope | None = None,
) -> dict[str, Any]:
    """Return the results as JSON values, for `--json`."""
    return {
        "metrics": metrics,
        "imbalance": None if imbalance is None else imbalance.to_json(),
        "loss_microscope": None if microscope is None else microscope.to_json(data),
        "findings": [finding.to_json() for finding in findings],
        "faults": [str(fault) for fault in data.faults],
        "hard_examples": hard.rows() if hard else [],
        "errors": None if causes is None else causes.to_json(),
        "miss_map": None if misses is None else misses.to_json(),
    }


def _find_hard(
    console: Console, loaded: LoadedModel, data: DetectionData, imbalance: Imbalance, config: CheckConfig
) -> HardExamples:
    """Find hard examples, print a summary, and write hard.csv and imbalance.json into the output folder."""
    from retinanet.analysis.hard_examples import hard_examples

    hard = hard_examples(
        loaded, data, count=config.hard_examples, batch_size=config.batch.batch_size, progress=progress_bar
    )
    _write_hard(console, hard, config)
    write_atomically(config.folder.output / "imbalance.json", json.dumps(imbalance.to_json(), indent=2) + "\n")
    return hard


def _write_hard(console: Console, hard: HardExamples, config: CheckConfig) -> None:
    """Print a summary of the hard examples, and write hard.csv into the output folder."""
    config.folder.output.mkdir(parents=True, exist_ok=True)
    hard.write_csv(config.folder.output / "hard.csv")
    for sentence in hard.sentences():
        console.print(sentence, markup=False, highlight=False)
    console.print(f"hard examples: {config.folder.output / 'hard.csv'}", markup=False, highlight=False)


def _print_causes(console: Console, causes: ErrorCauses) -> None:
    """Print the number of errors, and the table of their causes without the last column, which the report has."""
    from rich.table import Table

    from retinanet.analysis.error_causes import COLUMN_TITLES

    for sentence in causes.sentences():
        console.print(sentence, markup=False, highlight=False)
    if rows := causes.rows():
        table = Table(title="Causes of the errors", title_justify="left")
        for place, name in enumerate(COLUMN_TITLES[:-1]):
            table.add_column(name, justify="right" if place else "left")
        for row in rows:
            table.add_row(*row[:-1])
        console.print(table)


def _print_metrics(console: Console, numbers: dict[str, Any], data: DetectionData) -> None:
    where = f"{len(data.records)} images with {data.num_objects} objects"
    console.print(f"AP {numbers['AP']:.3f}, AP50 {numbers['AP50']:.3f} on {where}.", highlight=False)


def _next_steps(model: Path, data: Path, config: CheckConfig, causes: ErrorCauses) -> list[NextStep]:
    """Return the most useful next commands: the cause of errors that costs most AP comes first."""
    from retinanet.analysis.next_steps import after_check, data_flags

    costly = sorted(causes.regained, key=lambda cause: -causes.regained[cause])
    return after_check(model, data, costly, flags=data_flags(config.dataset))


def _write_report(console: Console, config: CheckConfig, *, name: str, source: Path, **content: Any) -> None:
    """Write the report of `report.evaluation.model_report` if the options ask for a report or for hard examples."""
    target = config.files.report or (config.folder.output / "report.html" if config.hard else None)
    if target is not None:
        from retinanet.report.evaluation import model_report

        page = model_report(target, title=f"Check of {name} on {source.name}", **content)
        console.print(f"report: {page}", markup=False, highlight=False)
