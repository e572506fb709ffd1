"""Read a dataset in any format."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from retinanet.config import separate_names
from retinanet.errors import did_you_mean
from retinanet.formats.builder import ReadOptions
from retinanet.formats.class_selection import ClassSelection
from retinanet.formats.recognition import Recognised, recognise
from retinanet.formats.records import DataError
from retinanet.formats.registry import expected_inputs
from retinanet.formats.splits import choose_file, choose_folder, choose_split, separate_split, split_paths

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from retinanet.formats.records import DetectionData


def read(
    source: Path | str,
    *,
    images: Path | str | None = None,
    classes: Sequence[str] | None = None,
    format: str | None = None,
    split: str | None = None,
    keep: Sequence[str] = (),
    ignore: Sequence[str] = (),
    regions: Sequence[str] = (),
    rename: Mapping[str, str] | None = None,
    allow_outside: bool = False,
) -> DetectionData:
    """Read a dataset's annotations. Invalid images and objects are left out and listed in `faults`.

    An image is opened only if the annotations lack its size. `data.load` decodes all images.

    Args:
        source: file or folder in any format of the registry; `data.yaml#val` names one of several splits.
        images: folder of the images, if they are not beside the annotations.
        classes: class list of the training data or of a model; None for the classes of the dataset.
        format: name of the format; None to recognise it.
        split: train, val or test, for a source with several splits; ignored for other sources. A missing val is
            replaced by test, a missing test by val, and a missing train by val or test.
        keep: classes to keep; objects of other classes are left out. Empty: all classes. A value that is no class of
            the dataset is split at its commas; double quotes protect a comma, as in CSV.
        ignore: classes whose objects are left out. A value that is no class is split as in `keep`.
        regions: classes whose objects are ignore regions for every class. A value that is no class is split as in
            `keep`.
        rename: new name of each renamed class; `keep`, `ignore`, `regions` and `classes` hold the new names.
        allow_outside: whether relative paths may lead anywhere. Otherwise a relative path with `..` is a fault unless
            it leads into the annotations' folder, the folder above it, or `images`.

    Raises:
        DataError: the path does not exist, or its content cannot be read in any format.
        ConfigError: no format has the name `format`, a value of `keep`, `ignore` or `regions` cannot be split into
            names, or `regions` names a class of `keep` or `ignore`.
    """
    if images is not None and not Path(images).is_dir():
        raise DataError(f"images is no folder, expected the folder of the images: {_describe(Path(images))}")
    source, named = separate_split(Path(source))
    _check_exists(source)
    requested = named or split
    folder, notes = choose_folder(source, requested, strict=named is not None)
    recognised = recognise(folder, format)
    image_folder = Path(images) if images is not None else None
    recognised, file_notes = choose_file(recognised, folder, requested, images=image_folder, strict=named is not None)
    chosen, split_notes = choose_split(recognised, requested, strict=named is not None)
    options = ReadOptions(
        selection=ClassSelection(class_list=None if classes is None else tuple(classes), rename=rename or {}),
        images=image_folder,
        split=chosen,
        allow_outside=allow_outside,
    )
    data = _read_classes(recognised, options, keep, ignore, regions)
    if format is None and (recognised.why or recognised.others):
        alternatives = f"; it could also be {' or '.join(recognised.others)}" if recognised.others else ""
        title = recognised.format.title + recognised.why
        notes.append(f"{folder} was read as {title}{alternatives} (--format overrides)")
    return dataclasses.replace(data, notes=(*notes, *file_notes, *split_notes, *data.notes))


def _read_classes(
    recognised: Recognised,
    options: ReadOptions,
    keep: Sequence[str],
    ignore: Sequence[str],
    regions: Sequence[str],
) -> DetectionData:
    """Read a dataset with the classes that `keep`, `ignore` and `regions` name: see `read`."""
    selection = dataclasses.replace(
        options.selection,
        keep=tuple(separate_names(keep)),
        ignore=tuple(separate_names(ignore)),
        regions=tuple(separate_names(regions)),
    )
    data = recognised.format.read(recognised.source, dataclasses.replace(options, selection=selection))
    # All classes are known only now. If the name of a class turns out to contain a comma, the data is read again.
    exact = dataclasses.replace(
        selection,
        keep=selection.names_in(keep),
        ignore=selection.names_in(ignore),
        regions=selection.names_in(regions),
    )
    if exact != selection:
        selection = exact
        data = recognised.format.read(recognised.source, dataclasses.replace(options, selection=selection))
    selection.check_names(recognised.source.path)
    return data


def splits_of(source: Path | str, format: str | None = None) -> dict[str, Path]:
    """Return the path of each split of a dataset, for `read`.

    The key is "" for a dataset without splits, or whose only split is not named train, val or test.

    Raises:
        DataError: the path does not exist, or no format recognises it.
    """
    source, named = separate_split(Path(source))
    if named is not None:
        return {named: source.with_name(f"{source.name}#{named}")}
    _check_exists(source)
    return split_paths(source, format)


def _check_exists(source: Path) -> None:
    if not source.exists():
        raise DataError(f"the dataset does not exist: {_describe(source)}. Give {expected_inputs()}")


def _describe(path: Path) -> str:
    """Describe a wrong path for a message, with the nearest existing name."""
    if path.exists():
        return f"the file {path}"
    for folder in path.parents:
        if folder.is_dir():
            missing = path.relative_to(folder).parts[0]
            return f"no {missing!r} in {folder}{did_you_mean(missing, sorted(p.name for p in folder.iterdir()))}"
    return f"nothing at {path}"
