"""Help texts: panels, order, and that each text stands alone with unit and range."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from retinanet.cli import COMMANDS, app, main
from retinanet.commands.options import MOST_USED, PANELS, flags_of
from retinanet.config import TrainConfig, options_of

NAMES = [command.replace("_", "-") for command in COMMANDS]
OPENINGS = re.compile(r"(Or|And|But|There|Then|Them|Those|It|They|How many|What|Which|Where)\b")
NEIGHBOURS = re.compile(r"\b(like[w]ise|them|the same (with|for|of|in))\b")


def shown(command: str) -> list[Any]:
    """Return the arguments of a command that its help shows."""
    return [argument for argument in app[command].assemble_argument_collection() if argument.parse and argument.show]


def test_the_panels_of_train_and_their_order(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    panels = re.findall(r"╭─ (.+?) ─", capsys.readouterr().out)
    assert panels == [
        *("Required", "Most used", "Data", "Model", "Anchors and matching", "Loss", "Augmentation", "Optimisation"),
        *("Run", "Output", "Option file"),
    ]


def test_ten_options_of_train_are_most_used_and_none_is_lost() -> None:
    names = {argument.field_info.name: argument.parameter.group[0] for argument in shown("train")}
    assert len([group for group in names.values() if group is MOST_USED]) == 10
    assert set(names) == set(options_of(TrainConfig))
    assert flags_of(TrainConfig) is flags_of(TrainConfig)


@pytest.mark.parametrize("command", NAMES)
def test_required_options_come_first(command: str) -> None:
    required = [argument.required for argument in shown(command) if argument.names[0].startswith("--")]
    assert required == sorted(required, reverse=True)


@pytest.mark.parametrize("command", NAMES)
def test_each_help_text_stands_alone(command: str) -> None:
    assert not OPENINGS.match(app[command].help)
    for argument in shown(command):
        text = argument.parameter.help or ""
        assert len(text) > 15, f"{argument.names} of {command} has no help text"
        assert not OPENINGS.match(text), text
        assert not NEIGHBOURS.search(text), text


@pytest.mark.parametrize("command", NAMES)
def test_each_number_has_a_range(command: str) -> None:
    """From the annotation ("Range: above 0"), or in words where a value has a meaning of its own."""
    for argument in shown(command):
        text = argument.parameter.help or ""
        if argument.hint in {int, float, int | None, float | None}:
            assert re.search(r"Range: |at least \d|otherwise above 0", text), f"{argument.names}: {text}"


def test_a_section_of_a_large_config_has_a_panel_that_exists() -> None:
    assert {option.section.PANEL for option in options_of(TrainConfig).values()} <= set(PANELS)


def test_the_reference_pages_are_those_of_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = Path(__file__).parents[2] / "docs"
    monkeypatch.syspath_prepend(pages)
    import make_reference

    for name, make in make_reference.PAGES.items():
        message = "run `python docs/make_reference.py`"
        assert (pages / "reference" / name).read_text(encoding="utf-8") == make(), message


def test_json_on_standard_output_is_all_that_is_printed_there(
    trained_run: Path, squares: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, data = str(trained_run / "best.ckpt"), str(squares[1])
    results = str(trained_run / "detections.json")
    for words, key in (
        (["check", data], "statistics"),
        (["check", model, data], "imbalance"),
        (["check", results, data], "hard_examples"),
        (["evaluate", model, "--data", data], "AP50"),
        (["compare", results, results, "--data", data], "models"),
        (["tune", model, data, "-o", str(tmp_path / "tuned.ckpt")], "per_class"),
    ):
        with pytest.raises(SystemExit):
            main([*words, "--json", "-"])
        captured = capsys.readouterr()
        assert key in json.loads(captured.out)


def test_check_of_a_model_writes_json_into_a_file(
    trained_run: Path, squares: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`check MODEL DATA --json FILE` once took the option without writing a file."""
    with pytest.raises(SystemExit):
        main(["check", str(trained_run / "best.ckpt"), str(squares[1]), "--json", str(tmp_path / "check.json")])
    assert "AP50" in capsys.readouterr().out
    document = json.loads((tmp_path / "check.json").read_text())
    assert set(document) == {
        *("metrics", "imbalance", "loss_microscope", "findings", "faults", "hard_examples", "errors"),
    }
    assert 0 <= document["metrics"]["AP"] <= 1
