"""Load a dataset and check it: every image is decoded once, so that faults show before training starts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinanet.errors import list_names
from retinanet.files import is_file
from retinanet.formats import read
from retinanet.formats.image_files import advice_for_missing_image, images_below
from retinanet.formats.records import SKIP_IMAGE, DataError, DetectionData, Fault, Record
from retinanet.images import ImageError, Verified, verify
from retinanet.pixel_values import ValueRange

if TYPE_CHECKING:
    from retinanet.config import StudyConfig, TrainConfig


def load(
    source: Path | str,
    *,
    images: Path | str | None = None,
    classes: Sequence[str] | None = None,
    skip_invalid: bool = False,
    workers: int = 2,
    open_images: bool = True,
    **reading: Any,
) -> DetectionData:
    """Read and check a dataset, and return it.

    Args:
        source: path of the annotations, see `formats.read`.
        images: image folder. By default, the folder that the annotations refer to.
        classes: class list to use. By default, the class list of the dataset.
        skip_invalid: leave out invalid images and annotations, and list them in `faults`, instead of raising.
        workers: number of threads that decode images.
        open_images: check the image files too. Without this check, the images need not exist.
        **reading: the arguments format, split, keep, ignore, regions, rename and allow_outside of `formats.read`.

    Raises:
        DataError: the dataset has faults (all are listed) and `skip_invalid` is false, or it has no image or no object.
    """
    data = read(source, images=images, classes=classes, **reading)
    if not data.records and not data.faults:
        raise DataError(f"{data.source}: expected at least one image, found none{_reasons(data)}")
    missing = [record for record in data.records if not is_file(record.path)] if open_images else []
    if missing and len(missing) == len(data.records):
        raise DataError(
            f"{data.source}: expected {len(missing)} image files, found none of them. The first was expected at "
            f"{missing[0].path}. {_advice_for_missing_images(images)}"
        )
    folder = None if images is None else Path(images)
    checked = _check_images(data, workers=workers, images=folder) if open_images else ([], None, [])
    image_faults, value_range, notes = checked
    faults = (*data.faults, *image_faults)
    if faults and not skip_invalid:
        raise DataError(f"{data.source}: {len(faults)} {'fault' if len(faults) == 1 else 'faults'}", faults)
    invalid_files = {fault.file for fault in image_faults}
    records = tuple(record for record in data.records if record.path not in invalid_files)
    if lost := data.num_objects - dataclasses.replace(data, records=records).num_objects:
        notes.append(f"{lost:,} objects of missing or invalid image files were left out")
    notes = [*data.notes, *notes]
    data = dataclasses.replace(data, records=records, faults=faults, notes=tuple(notes), value_range=value_range)
    left_out = (f"; {len(faults)} faults were left out" if faults else "") + _reasons(data)
    if not records:
        raise DataError(f"{data.source}: expected at least one image, found none{left_out}", faults)
    if data.num_objects == data.num_crowd:
        crowd = f"; {data.num_crowd} ignore regions (crowd or difficult) do not count" if data.num_crowd else ""
        crowd += " (set `iscrowd` or `difficult` to 0 for single objects)" if data.num_crowd else ""
        raise DataError(
            f"{data.source}: expected objects, found none in {len(records)} images{crowd}{left_out}", faults
        )
    return data


def _reasons(data: DetectionData) -> str:
    """Return the notes of the reading, which may explain why nothing was found."""
    return "".join(f". {note}" for note in data.notes)


def _advice_for_missing_images(images: Path | str | None) -> str:
    if images is None:
        return "Give the image folder with --images"
    found = images_below(Path(images))
    example = f"such as {found[0]}" if found else "so give another folder"
    return (
        f"The folder {images} of --images contains no image with these names; images found: {len(found):,}, {example}"
    )


def load_train_and_val(config: TrainConfig) -> tuple[DetectionData, DetectionData]:
    """Return the training and the validation data of a training run, both with the class list of the training data.

    Raises:
        DataError: see `load`.
    """
    train = load_train(config)
    return train, load_val(config, train.classes)


def load_train(config: TrainConfig | StudyConfig) -> DetectionData:
    """Return the training data of a training run. Raises `DataError`, see `load`."""
    return load(
        config.train,
        images=config.dataset.selection.images,
        skip_invalid=config.dataset.selection.skip_invalid,
        workers=max(1, config.loading.workers),
        split="train",
        **config.dataset.reading,
    )


def load_val(config: TrainConfig, classes: Sequence[str]) -> DetectionData:
    """Return the validation data of a training run, with a given class list. Raises `DataError`, see `load`."""
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
    """Decode every image completely and return the faults, in the order of the records.

    Only a complete decode detects a truncated file.
    """
    return _check_images(data, workers=workers)[0]


def _check_images(
    data: DetectionData, *, workers: int, images: Path | None = None
) -> tuple[list[Fault], ValueRange | None, list[str]]:
    """Return the faults of the images, the value range of the valid images with 16 bits per channel, and notes."""
    with ThreadPoolExecutor(max(1, workers)) as pool:
        results = pool.map(lambda record: _check_image(record, images), data.records)
        checked = list(zip(data.records, results, strict=True))
    faults = [result for _, result in checked if isinstance(result, Fault)]
    valid = {record.path: result for record, result in checked if isinstance(result, Verified)}
    return faults, ValueRange.of(result.largest for result in valid.values()), _several_note(valid)


def _several_note(valid: Mapping[Path, Verified]) -> list[str]:
    """Return a note about the files of which only the first image is used."""
    several = [str(path) for path, result in valid.items() if result.is_first_of_several]
    if not several:
        return []
    count = "1 file holds" if len(several) == 1 else f"{len(several):,} files hold"
    return [
        f"{count} several images (pages of a TIFF, or an animation), of which only the first is used: "
        f"{list_names(several)}"
    ]


def _check_image(record: Record, images: Path | None) -> Fault | Verified:
    """Return the fault of an image, or what decoding it gives. `images` is the folder that `--images` gives."""
    advice = SKIP_IMAGE
    if not is_file(record.path):
        advice = advice_for_missing_image(images)
        return Fault(file=record.path, where="", what="image not found", advice=advice)
    try:
        verified = verify(record.path)
    except ImageError as error:
        what = str(error).removeprefix(f"{record.path}: ")
        return Fault(file=record.path, where="", what=what, advice=advice)
    width, height = verified.size
    if (width, height) == (record.width, record.height):
        return verified
    what = f"expected {record.width}x{record.height} pixels as annotated, found {width}x{height}"
    if (height, width) == (record.width, record.height):
        what += ". The image was annotated before its EXIF rotation, or rotated after annotation"
        advice = "Annotate the upright image, remove its EXIF orientation, or leave the image out with --skip-invalid"
    return Fault(file=record.path, where="", what=what, advice=advice)
