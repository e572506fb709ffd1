"""Registry of annotation formats: built-in formats and formats of other packages.

Another package adds a format by an entry point of the group `retinanet.formats` whose value is an `AnnotationFormat`:

    [project.entry-points."retinanet.formats"]
    via = "my_package.via:VIA"
"""

from __future__ import annotations

import logging
import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from retinanet.errors import ConfigError, did_you_mean
from retinanet.formats.annotation_format import AnnotationFormat, FormatWriter
from retinanet.formats.coco import COCO
from retinanet.formats.csv import CSV
from retinanet.formats.cvat import CVAT
from retinanet.formats.dota import DOTA
from retinanet.formats.kitti import KITTI
from retinanet.formats.label_studio import LABEL_STUDIO
from retinanet.formats.labelme import LABELME
from retinanet.formats.lvis import LVIS
from retinanet.formats.open_images import OPEN_IMAGES
from retinanet.formats.visdrone import VISDRONE
from retinanet.formats.voc import VOC
from retinanet.formats.yolo import YOLO

ENTRY_POINT_GROUP: Final = "retinanet.formats"
BUILT_IN: Final[dict[str, AnnotationFormat]] = {
    format.name: format
    for format in (
        COCO,
        VOC,
        YOLO,
        CSV,
        LABELME,
        LABEL_STUDIO,
        CVAT,
        LVIS,
        OPEN_IMAGES,
        KITTI,
        VISDRONE,
        DOTA,
    )
}

_logger = logging.getLogger(__name__)


def all_formats() -> dict[str, AnnotationFormat]:
    """Return all formats by name: built-in formats first, then formats of other packages."""
    return {**BUILT_IN, **_formats_of_other_packages(tuple(sys.path))[0]}


def find_format(name: str, option: str = "format") -> AnnotationFormat:
    """Return a format by its name.

    Args:
        name: name of the format.
        option: option that names the format, for the message.

    Raises:
        ConfigError: no format has this name, or its package cannot be loaded.
    """
    return _find(name, option, must_write=False)


def find_writer(name: str, option: str = "format") -> tuple[AnnotationFormat, FormatWriter]:
    """Return a format that can be written, and its writer. Raises `ConfigError`: see `find_format`."""
    format = _find(name, option, must_write=True)
    assert format.writer is not None  # noqa: S101 - for the type checker
    return format, format.writer


def _find(name: str, option: str, *, must_write: bool) -> AnnotationFormat:
    known = BUILT_IN
    broken: dict[str, str] = {}
    if name not in BUILT_IN:  # load formats of other packages only if needed: this takes time
        others, broken = _formats_of_other_packages(tuple(sys.path))
        known = {**BUILT_IN, **others}
    if name in broken:
        raise ConfigError(f"{option}: {broken[name]}")
    usable = {key: format for key, format in known.items() if format.writer is not None or not must_write}
    if name not in usable:
        raise ConfigError(f"{option} must be one of {', '.join(usable)}, found {name!r}{did_you_mean(name, usable)}")
    return usable[name]


def expected_inputs() -> str:
    """Return a list of the accepted inputs, for messages."""
    own = ", ".join(format.expects for format in BUILT_IN.values() if format.expects)
    others = [format.expects for name, format in all_formats().items() if name not in BUILT_IN and format.expects]
    return f"{', '.join([own, *others])}, or an export of Roboflow, Label Studio, CVAT or labelme"


@lru_cache(maxsize=1)
def _formats_of_other_packages(_: tuple[str, ...]) -> tuple[dict[str, AnnotationFormat], dict[str, str]]:
    """Return the formats of other packages by name, and a message for each broken entry point.

    Reading the metadata of all installed packages takes about 50 ms, so the result is cached for one `sys.path`.
    """
    formats: dict[str, AnnotationFormat] = {}
    broken: dict[str, str] = {}
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        package = entry_point.dist.name if entry_point.dist is not None else "unknown"
        try:
            format = _load(entry_point)
            if format.name in BUILT_IN or format.name in formats:
                raise ValueError(f"the name {format.name!r} already belongs to another format")
        except Exception as error:  # noqa: BLE001 - an error in another package must not stop other formats
            broken[entry_point.name] = (
                f"the annotation format {entry_point.name!r} of the package {package} cannot be used "
                f"({type(error).__name__}: {error})"
            )
            _logger.warning("%s", broken[entry_point.name])
        else:
            formats[format.name] = format
    return formats, broken


def _load(entry_point: EntryPoint) -> AnnotationFormat:
    found: Any = entry_point.load()
    if not isinstance(found, AnnotationFormat):
        raise TypeError(f"expected a retinanet.formats.AnnotationFormat at {entry_point.value}, found {found!r:.100}")
    return found
