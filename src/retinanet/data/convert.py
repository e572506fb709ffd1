"""Convert all splits of a dataset to another format, with one class list for all splits."""

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
        source: path of the dataset, see `formats.read`.
        reading: the arguments format, keep, ignore, regions and rename of `formats.read`.
        **options: the arguments images, skip_invalid and workers of `load`.

    Raises:
        DataError: the dataset has faults and `skip_invalid` is false.
    """
    paths = splits_of(source, reading.get("format"))
    splits = {name: load(path, **options, **reading) for name, path in paths.items()}
    classes = tuple(dict.fromkeys(name for data in splits.values() for name in data.classes))
    return {
        name: data if data.classes == classes else load(paths[name], classes=classes, **options, **reading)
        for name, data in splits.items()
    }


def convert(source: Path, target: Path, config: ConvertConfig) -> tuple[dict[str, DetectionData], Written]:
    """Write a dataset in another format. Return the data of each split and a list of what was written.

    Raises:
        DataError: the dataset has faults and `skip_invalid` is false.
        UserError: the target exists already.
        ConfigError: an unknown or read-only `format`, or a format that needs the image files beside the labels while
            `image_files` is none.
    """
    format, writer = find_writer(config.format)
    if writer.images_found_by == "place" and config.image_files.image_files == "none":
        raise ConfigError(
            f"{format.title} finds labels by the location of the image files: image_files must be copy or link, "
            "found none"
        )
    splits = load_splits(
        source,
        reading=config.reading,
        images=config.selection.images,
        skip_invalid=config.selection.skip_invalid,
        workers=config.loading.workers,
    )
    return splits, write(splits, target, config.format, image_files=config.image_files.image_files)
