"""Reads a dataset and decodes every image of it once, so that faults show before the hours of work, not within."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinanet.files import is_file
from retinanet.formats import read
from retinanet.formats.records import SKIP_IMAGE, DataError, DetectionData, Fault, Record
from retinanet.images import ImageError, verify

if TYPE_CHECKING:
    from retinanet.config import StudyConfig, TrainConfig


def load(
    source: Path | str,
    *,
    images: Path | str | None = None,
    classes: Sequence[str] | None = None,
    skip_invalid: bool = False,
    workers: int = 2,
    **reading: Any,
) -> DetectionData:
    """Read and check a dataset.

    Args:
        source: see `formats.read`.
        images: folder of the images, where they do not lie beside the annotations.
        classes: the class list to use; by default the data's own.
        skip_invalid: leave out what is faulty (it stays listed in `faults`) rather than refuse the data.
        workers: threads that decode images.
        **reading: format, split, keep, ignore, rename, allow_outside: see `formats.read`.

    Raises:
        DataError: something is faulty (all of it is listed) and `skip_invalid` is false; no image or object is left.
    """
    data = read(source, images=images, classes=classes, **reading)
    if not data.records and not data.faults:
        raise DataError(f"{data.source}: expected at least one image, found none")
    missing = [record for record in data.records if not is_file(record.path)]
    if missing and len(missing) == len(data.records):
        raise DataError(
            f"{data.source}: none of its {len(missing)} images was found; the first was expected at "
            f"{missing[0].path}. Give the folder that holds them with --images"
        )
    image_faults = verify_images(data, workers=workers)
    faults = (*data.faults, *image_faults)
    if faults and not skip_invalid:
        raise DataError(f"{data.source}: {len(faults)} {'fault' if len(faults) == 1 else 'faults'}", faults)
    bad = {fault.file for fault in image_faults}
    kept = tuple(record for record in data.records if record.path not in bad)
    data = dataclasses.replace(data, records=kept, faults=faults)
    left_out = f" after {len(faults)} faults were left out" if faults else ""
    if not kept:
        raise DataError(f"{data.source}: expected at least one image, found none{left_out}", faults)
    if data.num_objects == data.num_crowd:
        crowd = f", only {data.num_crowd} crowd or difficult ones" if data.num_crowd else ""
        raise DataError(f"{data.source}: expected objects, found none in {len(kept)} images{crowd}{left_out}", faults)
    return data


def load_both(config: TrainConfig) -> tuple[DetectionData, DetectionData]:
    """Return the training and the validation data of a run; the second has the class list of the first.

    Raises:
        DataError: see `load`.
    """
    train = load_train(config)
    return train, load_val(config, train.classes)


def load_train(config: TrainConfig | StudyConfig) -> DetectionData:
    """Return the training data of a run. Raises `DataError`."""
    return load(
        config.train,
        images=config.dataset.selection.images,
        skip_invalid=config.dataset.selection.skip_invalid,
        workers=max(1, config.loading.workers),
        split="train",
        **config.dataset.reading,
    )


def load_val(config: TrainConfig, classes: Sequence[str]) -> DetectionData:
    """Return the validation data of a run, with the class list of its training data. Raises `DataError`."""
    return load(
        config.val,
        images=config.validation.val_images or config.dataset.selection.images,
        classes=classes,
        skip_invalid=config.dataset.selection.skip_invalid,
        workers=max(1, config.loading.workers),
        split="val",
        **config.dataset.reading,
    )


def verify_images(data: DetectionData, *, workers: int = 2) -> list[Fault]:
    """Decode every image fully, and return what is wrong with them, in the order of the records.

    Only a full decode finds a file that was cut off.
    """
    with ThreadPoolExecutor(max(1, workers)) as pool:
        return [fault for fault in pool.map(_verify, data.records) if fault is not None]


def _verify(record: Record) -> Fault | None:
    advice = SKIP_IMAGE
    if not is_file(record.path):
        advice = "Put it there, give its folder with --images, or give --skip-invalid to go on without this image"
        return Fault(file=record.path, where="", what="image not found", advice=advice)
    try:
        width, height = verify(record.path)
    except ImageError as error:
        what = str(error).removeprefix(f"{record.path}: ")
        return Fault(file=record.path, where="", what=what, advice=advice)
    if (width, height) == (record.width, record.height):
        return None
    what = f"expected {record.width}x{record.height} pixels as annotated, found {width}x{height}"
    if (height, width) == (record.width, record.height):
        what += ": the annotation is of the image before its EXIF rotation, or of one turned since"
        advice = "Annotate the upright image, or remove its EXIF orientation; --skip-invalid goes on without this image"
    return Fault(file=record.path, where="", what=what, advice=advice)
