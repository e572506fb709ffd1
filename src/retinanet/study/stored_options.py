"""Store the options of a study or a probe in its output folder, and refuse a folder with other options."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from typing import Final

from retinanet.config import PrescribeConfig, StudyConfig, section_from_dict, to_dict
from retinanet.errors import ConfigError
from retinanet.former_names import current_options
from retinanet.train.output_files import write_output
from retinanet.train.run_lock import locked_run_folder

FREE: Final = frozenset({"output", "overwrite", "resume", "workers", "worker_timeout", "cache", "device", "devices"})
"""Options that may change between two calls, because they do not change the results of a run."""


def store_options(
    config: StudyConfig | PrescribeConfig, *, what: str, free: Collection[str] = (), parts: Collection[str] = ("runs",)
) -> None:
    """Write options.json into the output folder. Runs with other options are not comparable.

    With `overwrite`, the earlier work is deleted instead.

    Args:
        config: all options.
        what: name of the work in the error message: "study" or "probe".
        free: options that may change, in addition to `FREE`.
        parts: files and folders that hold the earlier work.

    Raises:
        ConfigError: the folder holds work with other options, or a process still trains in one of its run folders.
    """
    folder = config.folder.output
    path = folder / "options.json"
    fixed = {name: value for name, value in to_dict(config).items() if name not in FREE.union(free)}
    if config.existing.overwrite:
        for run in (folder / "runs").glob("*/"):
            with locked_run_folder(run):  # raises ConfigError if a process still trains in the folder
                pass
        for part in parts:
            if (folder / part).is_dir():
                shutil.rmtree(folder / part)
            else:
                (folder / part).unlink(missing_ok=True)
    elif path.exists():
        # An option that was added after the work began has its default.
        defaults = to_dict(section_from_dict(type(config), {"output": folder, "val": config.validation.val}))
        stored = defaults | current_options(json.loads(path.read_text()), fixed, warn=False)
        changed = [name for name in fixed if fixed[name] != stored[name]]
        if changed:
            differences = ", ".join(f"{name} was {stored[name]}, is {fixed[name]}" for name in changed)
            raise ConfigError(
                f"{folder} holds a {what} with other options ({differences}): give another folder with --output, or "
                f"replace the {what} with --overwrite"
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_output(path, json.dumps(fixed, indent=2).encode())
