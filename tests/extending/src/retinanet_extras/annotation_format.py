"""Annotation format: text files `NAME.boxes` with a line `image x1 y1 x2 y2 class` for each object.

Boxes are xyxy in image pixels. An image without objects has a line that holds only its path.
"""

from __future__ import annotations

from typing import Final

from retinanet.formats import (
    AnnotatedImage,
    AnnotatedObject,
    AnnotationFormat,
    DatasetBuilder,
    DataSource,
    Evidence,
    ReadOptions,
)
from retinanet.formats.records import DetectionData
from retinanet.images import read_size


def _recognise_file(source: DataSource) -> Evidence | None:
    return Evidence.OWN_FILE if source.suffix == ".boxes" else None


def read_boxes(source: DataSource, options: ReadOptions) -> DetectionData:
    """Return the dataset of a `.boxes` file. Invalid lines are left out and listed as faults."""
    builder = DatasetBuilder(source.path, options)
    folder = options.images or source.path.parent
    images: dict[str, AnnotatedImage] = {}
    for number, line in enumerate(source.path.read_text().splitlines(), start=1):
        words = line.split()
        if len(words) not in {1, 6}:
            builder.add_fault(source.path, f"line {number}", f"expected 1 or 6 words, found {len(words)}", "Correct it")
            continue
        if words[0] not in images:
            path = folder / words[0]
            images[words[0]] = AnnotatedImage(path, *read_size(path))
        image = images[words[0]]
        if len(words) == 6 and (name := builder.selection.new_name(words[5])) is not None:
            x1, y1, x2, y2 = (float(word) for word in words[1:5])
            # The builder checks the box and clips it to the image. An invalid box is a fault.
            item = AnnotatedObject(number, name, (x1, y1, x2, y2))
            builder.add_object(image, item, file=source.path, where=f"line {number}")
    builder.images = list(images.values())
    return builder.build()


BOXES: Final = AnnotationFormat(
    name="boxes", title="boxes", read=read_boxes, recognise_file=_recognise_file, expects="a .boxes file"
)
