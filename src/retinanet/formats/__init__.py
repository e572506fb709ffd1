"""Annotation formats: one file recognises, reads and writes each format; `registry` lists all formats.

Another package adds a format by an `AnnotationFormat` and an entry point: see `registry`.
"""

from retinanet.formats.annotated_image import AnnotatedImage, AnnotatedObject
from retinanet.formats.annotation_format import AnnotationFormat, Candidate, DataSource, Evidence, FormatWriter
from retinanet.formats.box_numbers import BoxNumbers
from retinanet.formats.builder import DatasetBuilder, ReadOptions
from retinanet.formats.output import WriteTarget
from retinanet.formats.reading import read, splits_of
from retinanet.formats.recognition import Recognised, recognise
from retinanet.formats.registry import all_formats, find_format, find_writer
from retinanet.formats.writing import Written, write

__all__ = [
    "AnnotatedImage",
    "AnnotatedObject",
    "AnnotationFormat",
    "BoxNumbers",
    "Candidate",
    "DataSource",
    "DatasetBuilder",
    "Evidence",
    "FormatWriter",
    "ReadOptions",
    "Recognised",
    "WriteTarget",
    "Written",
    "all_formats",
    "find_format",
    "find_writer",
    "read",
    "recognise",
    "splits_of",
    "write",
]
