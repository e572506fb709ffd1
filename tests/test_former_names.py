"""Tests of former names of options and JSON fields, which still work with one warning."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from retinanet import former_names
from retinanet.cli import app
from retinanet.commands.layers import current_flags
from retinanet.config import ConvertConfig, ExportConfig, TrainConfig, flatten, options_of, resolve, section_from_dict
from retinanet.former_names import FormerNameWarning, current_options, with_former_fields

RUN = {"train": "a.json", "val": "b.json", "output": "c"}


@pytest.fixture(autouse=True)
def _fresh_warnings() -> None:
    former_names._warn.cache_clear()


@pytest.mark.parametrize(
    ("config", "former", "now"),
    [
        (TrainConfig, {**RUN, "skip_bad": True}, {"skip_invalid": True}),
        (TrainConfig, {**RUN, "max_skipped_in_a_row": 7}, {"max_skipped_steps": 7}),
        (TrainConfig, {**RUN, "max_skipped": 7}, {"max_skipped_steps": 3}),
        (ExportConfig, {"pictures": ["a.jpg"], "calibration_pictures": 5}, {"calibration_images": 5}),
        (ExportConfig, {"pictures": ["a.jpg"]}, {"compare_images": ("a.jpg",)}),
        (ConvertConfig, {"format": "coco", "pictures": "link"}, {"image_files": "link"}),
    ],
)
def test_an_option_under_its_former_name(config, former, now) -> None:
    with pytest.warns(FormerNameWarning):
        resolved = resolve(config, former)
    values = flatten(resolved)
    assert {name: values[name] for name in now} == now


def test_one_warning_names_the_current_option() -> None:
    known = options_of(TrainConfig)
    with pytest.warns(FormerNameWarning, match="'skip_bad' is now called 'skip_invalid'"):
        current_options({"skip_bad": True}, known)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert current_options({"skip_bad": True}, known) == {"skip_invalid": True}


def test_a_current_name_takes_precedence_and_an_unknown_name_stays() -> None:
    known = ("skip_invalid",)
    assert current_options({"skip_bad": True, "skip_invalid": False}, known, warn=False) == {"skip_invalid": False}
    assert current_options({"other": 1}, known, warn=False) == {"other": 1}


def test_a_saved_config_is_read_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = section_from_dict(TrainConfig, {**RUN, "skip_bad": True, "max_skipped": 20, "max_skipped_in_a_row": 9})
    assert config.dataset.selection.skip_invalid
    assert config.nonfinite.max_skipped_steps == 9


@pytest.mark.filterwarnings("ignore::retinanet.former_names.FormerNameWarning")
@pytest.mark.parametrize(
    ("former", "now"),
    [
        (["convert", "a", "b", "--pictures", "none"], ["convert", "a", "b", "--image-files", "none"]),
        (["export", "m", "--pictures", "a", "b"], ["export", "m", "--compare-images", "a", "b"]),
        (["export", "m", "--calibration-pictures=5"], ["export", "m", "--calibration-images=5"]),
        (["check", "a", "--skip-bad", "--json", "j"], ["check", "a", "--skip-invalid", "--json", "j"]),
        (["check", "a", "--no-skip-bad"], ["check", "a", "--no-skip-invalid"]),
        (["train", "--max-skipped", "20", "--lr", "1"], ["train", "--lr", "1"]),
        (["train", "--max-skipped=20", "--lr", "1"], ["train", "--lr", "1"]),
        (["train", "--max-skipped-in-a-row", "2"], ["train", "--max-skipped-steps", "2"]),
        (["train", "--lr", "1"], ["train", "--lr", "1"]),
        (["--help"], ["--help"]),
        (["check", "a", "--json", "-"], ["check", "a", "--json=-"]),
    ],
)
def test_former_flags(former: list[str], now: list[str]) -> None:
    assert current_flags(former, app) == now


def test_every_former_flag_is_accepted() -> None:
    """`former_flags.json` lists the flags of 2026-11-25, before any option was renamed."""
    commands = json.loads((Path(__file__).parent / "golden" / "former_flags.json").read_text())
    for command, flags in commands.items():
        known = {name for argument in app[command].assemble_argument_collection() for name in argument.names}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            current = {flag: current_flags([command, flag], app)[1:] for flag in flags}
        lost = {flag: new for flag, new in current.items() if not set(new) <= known}
        assert not lost, command
        assert [flag for flag, new in current.items() if not new] in ([], ["--max-skipped"])


def test_a_json_document_holds_renamed_fields_under_both_names() -> None:
    assert with_former_fields({"images": 3, "objects": 4}) == {"images": 3, "pictures": 3, "objects": 4}
