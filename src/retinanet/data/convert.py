"""All splits of a dataset, read with one class list and written in another format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinanet.data.loading import load
from retinanet.errors import ConfigError
from retinanet.formats import Written, find_writer, splits_of, write

if TYPE_CHECKING:
    from retinanet.config import ConvertConfig
    from retinanet.formats.records import DetectionData


def load_splits(source: Path, *, reading: dict[str, Any], **options: Any) -> dict[str, DetectionData]:
    """Return every split of a dataset, all with the same class list.

    Args:
        source: see `formats.read`.
        reading: format, keep, ignore, rename.
        **options: images, skip_invalid, workers: see `check.load`.

    Raises:
        DataError: faults, and `skip_invalid` is false.
    """
    paths = splits_of(source, reading.get("format"))
    sets = {name: load(path, **options, **reading) for name, path in paths.items()}
    classes = tuple(dict.fromkeys(name for data in sets.values() for name in data.classes))
    return {
        name: data if data.classes == classes else load(paths[name], classes=classes, **options, **reading)
        for name, data in sets.items()
    }


def convert(source: Path, target: Path, config: ConvertConfig) -> tuple[dict[str, DetectionData], Written]:
    """Write a dataset in another format. Return what was read of each split, and what was written.

    Raises:
        DataError: faults in the data.
        UserError: the target is in use.
        ConfigError: no format that can be written has the name `format`, or it needs copies of the images or links.
    """
    format, writer = find_writer(config.format)
    if writer.images_found_by == "place" and config.image_files.image_files == "none":
        raise ConfigError(f"{format.title} finds labels by the place of the images: images must be copy or link")
    sets = load_splits(
        source,
        reading=config.reading,
        images=config.selection.images,
        skip_invalid=config.selection.skip_invalid,
        workers=config.loading.workers,
    )
    return sets, write(sets, target, config.format, image_files=config.image_files.image_files)
