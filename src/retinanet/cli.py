"""The command line: parse, call one function, print. Flags and YAML keys are the fields of the config dataclasses."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import App, ArgumentCollection, Parameter, Token

from retinanet import __version__
from retinanet.config import (
    PRESETS,
    CheckConfig,
    ConfigError,
    ConvertConfig,
    ConvertWeightsConfig,
    EvaluateConfig,
    ExportConfig,
    PredictConfig,
    ServeConfig,
    SplitConfig,
    StudyConfig,
    TrainConfig,
    UserError,
    did_you_mean,
    explain_missing,
)
from retinanet.demo import DemoConfig
from retinanet.parse import ParseError, parse_yaml

Flat = Parameter(name="*")
Output = Parameter(alias="-o", help="Folder for what is written.")

_FROM = "Checkpoint to start from: its network is used, and what it knows of the classes that stay is kept."

app = App(
    name="retinanet",
    help="RetinaNet with focal loss: train on your own pictures, understand, export and serve.",
    version=__version__,
    help_format="plaintext",
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
)


def _batch_size(_: Any, tokens: Sequence[Token]) -> int:
    """Take auto for 0."""
    value = _text(tokens[-1])
    return 0 if value == "auto" else int(value)


BatchSize = Annotated[int, Parameter(converter=_batch_size)]


@dataclass(frozen=True, kw_only=True)
class _TrainFlags(TrainConfig):
    output: Annotated[Path, Output]
    batch_size: BatchSize = TrainConfig.batch_size
    start_from: Annotated[Path | None, Parameter(alias="--from", help=_FROM)] = TrainConfig.start_from


@dataclass(frozen=True, kw_only=True)
class _PredictFlags(PredictConfig):
    output: Annotated[Path, Output]


@dataclass(frozen=True, kw_only=True)
class _CheckFlags(CheckConfig):
    output: Annotated[Path, Output] = CheckConfig.output


@dataclass(frozen=True, kw_only=True)
class _StudyFlags(StudyConfig):
    train: Annotated[Path, Parameter(parse=False)] = Path()
    output: Annotated[Path, Output]
    batch_size: BatchSize = StudyConfig.batch_size


@dataclass(frozen=True, kw_only=True)
class _SplitFlags(SplitConfig):
    output: Annotated[Path, Output]


@dataclass(frozen=True, kw_only=True)
class _ConvertWeightsFlags(ConvertWeightsConfig):
    output: Annotated[Path, Parameter(alias="-o")]


@dataclass(frozen=True, kw_only=True)
class _ExportFlags(ExportConfig):
    output: Annotated[Path | None, Parameter(alias="-o", help="File to write: .onnx, .xml (OpenVINO) or .pt2.")] = None


@dataclass(frozen=True, kw_only=True)
class _DemoFlags(DemoConfig):
    output: Annotated[Path, Output] = DemoConfig.output


@app.command
def train(*, options: Annotated[_TrainFlags, Flat]) -> None:
    """Train a detector; writes best.ckpt, last.ckpt, metrics.csv, config.yaml and report.html.

    `retinanet train --train data/train.json --val data/val.json -o runs/first --preset small`
    """
    from retinanet.train import fit

    fit(options)


@app.command
def replay(record: Path, /) -> int:
    """Run a step again that was not finite, from the record that `train` wrote, on the CPU; says where it went wrong.

    `retinanet replay runs/first/nonfinite.pt`
    """
    from retinanet.train.recorder import run

    return run(record)


@app.command
def evaluate(model: Path, *, options: Annotated[EvaluateConfig, Flat]) -> None:
    """Evaluate a checkpoint or a COCO results file: the 12 COCO numbers and the AP of each class.

    `retinanet evaluate runs/first/best.ckpt --data data/test.json --json out.json`
    """
    from retinanet.evaluate import run

    run(model, options)


@app.command
def predict(model: Path, inputs: list[str], *, options: Annotated[_PredictFlags, Flat]) -> int:
    """Detect in files, folders and globs; writes the detections and drawn pictures.

    `retinanet predict runs/first/best.ckpt pictures/ -o found --format csv`
    """
    if options.engine == "ray":
        from retinanet.scale import run as run_on_ray

        return run_on_ray(model, inputs, options)
    from retinanet.predict import run

    return run(model, inputs, options)


@app.command
def check(
    model_or_data: Path, data: Path | None = None, /, *, options: Annotated[_CheckFlags | None, Flat] = None
) -> int:
    """Check data, or a trained model on data: faults, statistics, anchor coverage, hard examples.

    `retinanet check data/train.json --val data/val.json --preset small --report check.html`
    `retinanet check runs/first/best.ckpt data/val.json --hard`
    """
    from retinanet.analysis.check import run

    options = options or _CheckFlags()
    return run(options, model=None if data is None else model_or_data, data=data or model_or_data)


@app.command
def study(data: Path, /, *, options: Annotated[_StudyFlags, Flat]) -> None:
    """Train each loss on the same data with several seeds, and say which differences the data supports.

    `retinanet study data/train.json --val data/val.json -o runs/study --preset small --epochs 12`
    """
    from retinanet.analysis.study import run

    run(data, options)


@app.command
def convert(source: Path, target: Path, /, *, options: Annotated[ConvertConfig, Flat]) -> None:
    """Write a data set in another format, with all its splits; says what that format cannot hold.

    `retinanet convert data.yaml data-coco --format coco`
    """
    from retinanet.data.convert import convert as convert_data

    sets, written = convert_data(source, target, options)
    for name, data in sets.items():
        for note in (*data.notes, *(str(fault) for fault in data.faults)):
            print(f"note: {note}")
        print(f"{name + ': ' if name else ''}{len(data.records):,} pictures, {data.num_objects:,} objects")
    for said in written.lost:
        print(f"lost: {said}")
    for path in written.files.values():
        print(f"written: {path}")


@app.command
def convert_weights(file: Path, /, *, options: Annotated[_ConvertWeightsFlags, Flat]) -> None:
    """Write a RetinaNet of torchvision (.pth) or Detectron2 (.pkl, .pth) as a checkpoint, to use as one of ours.

    `retinanet convert-weights retinanet_resnet50_fpn_coco-eeacb38b.pth -o coco.ckpt`
    """
    from retinanet.weights import run

    run(file, options)


@app.command
def split(data: Path, /, *, options: Annotated[_SplitFlags, Flat]) -> None:
    """Divide a data set by picture: every class on both sides, groups and near-duplicates on one.

    `retinanet split data.json --val 0.2 -o parts`
    """
    from retinanet.data import load
    from retinanet.data.split import divide
    from retinanet.data.write import write

    found = load(data, images=options.images, skip_bad=options.skip_bad, workers=options.workers, **options.reading)
    shares = {"train": 1 - options.val - options.test, "val": options.val}
    if options.test:
        shares["test"] = options.test
    division = divide(
        found,
        shares,
        group_by=options.group_by,
        near_duplicates=options.near_duplicates,
        seed=options.seed,
        workers=options.workers,
    )
    written = write(division.parts, options.output, options.to, pictures=options.pictures)
    for said in (*found.notes, *division.sentences(), *(f"lost: {what}" for what in written.lost)):
        print(said)
    for path in written.files.values():
        print(f"written: {path}")


@app.command
def serve(model: Path, *, options: Annotated[ServeConfig | None, Flat] = None) -> None:
    """Serve a model: an HTTP API with a page for people, at http://127.0.0.1:8000 unless told otherwise.

    `retinanet serve model.onnx`
    """
    from retinanet.predict import load

    options = options or ServeConfig()
    try:
        from retinanet.serve import run
    except ModuleNotFoundError as error:
        raise explain_missing(error, "retinanet serve") from error
    run(load, model, options)


@app.command
def export(model: Path, *, options: Annotated[_ExportFlags | None, Flat] = None) -> None:
    """Write a checkpoint as ONNX, OpenVINO or torch.export, checked against it on real pictures.

    `retinanet export runs/first/best.ckpt -o m.onnx`
    `retinanet export runs/first/best.ckpt -o m.xml --int8 --calibrate data/train.json --data data/val.json`
    """
    from retinanet.export.run import run

    run(model, options or _ExportFlags())


@app.command
def demo(*, options: Annotated[_DemoFlags | None, Flat] = None) -> None:
    """Make scenes from real pixels, train on them, evaluate, draw and report; minutes on two cores, no network.

    `retinanet demo`
    """
    from retinanet.demo import run_demo

    run_demo(options or DemoConfig())


class _Layers:
    """What fills the options that the command line leaves open: the YAML file, the resumed run's config, the preset."""

    def __init__(self, file: Path | None) -> None:
        self.file = file

    def __call__(self, _: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        if self.file is not None:
            self._fill(read_yaml(self.file), str(self.file), commands, arguments)
        if _given(arguments, "--resume") == "True" and (folder := _given(arguments, "--output")):
            path = Path(folder) / "config.yaml"
            if path.exists():
                values = {k: v for k, v in read_yaml(path).items() if k not in {"output", "resume"}}
                self._fill(values, str(path), commands, arguments)
        preset = _given(arguments, "--preset")
        if preset in PRESETS:
            known = _names(arguments)  # a command such as `check` has part of the options that a preset sets
            values = {key: value for key, value in PRESETS[preset].items() if key in known}
            self._fill(values, f"preset {preset}", commands, arguments)

    @staticmethod
    def _fill(values: dict[str, Any], source: str, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
        known = _names(arguments)
        for key in values:
            if key.replace("-", "_") not in known:
                raise ConfigError(f"{source}: unknown option {key!r}{did_you_mean(key, sorted(known))}")
        present = {key: value for key, value in values.items() if value is not None}
        # Nested under the command: at the root, cyclopts would take the key `train` for the command of that name.
        cyclopts.config.Dict({commands[0]: present}, source=source)(app[commands[0]], commands, arguments)


def _names(arguments: ArgumentCollection) -> set[str]:
    return {name.removeprefix("--").replace("-", "_") for argument in arguments for name in argument.names}


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the options of a YAML file. Raises `ConfigError` with the line at fault."""
    try:
        values = parse_yaml(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"config: {path} cannot be read: {error.strerror}") from error
    except ParseError as error:
        raise ConfigError(f"config: {error.at(path)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"config: {path}: not UTF-8 text ({error})") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"config: {path} must hold `option: value` lines, found {type(values).__name__}")
    return values


def _given(arguments: ArgumentCollection, name: str) -> str | None:
    argument = arguments.get(name, None)
    if argument is None or not argument.tokens:
        return None
    return _text(argument.tokens[-1])


def _text(token: Token) -> str:
    """Return a value as it was written, on the command line or in a file."""
    return str(
        token.implicit_value if token.value == "" and token.implicit_value is not cyclopts.UNSET else token.value
    )


@app.meta.default
def _launch(
    *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)], config: Path | None = None
) -> Any:
    """Run a command.

    Args:
        tokens: command and options.
        config: YAML file with options; flags go before it, and it before the preset.
    """
    app.config = (_Layers(config),)
    try:
        return app(tokens, result_action="return_value")
    finally:
        app.config = ()  # the next call in this process parses its own --config without this one's


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 done with faults or refused by the data, 2 wrong options."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        status = app.meta(arguments, result_action="return_value")
    except (UserError, ModuleNotFoundError) as error:
        if isinstance(error, ModuleNotFoundError):
            error = explain_missing(error, "this command")
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    sys.exit(status if isinstance(status, int) else 0)
