"""Recognise what a file contains by its first bytes, for the errors about files that contain something else."""

from __future__ import annotations

import re
from typing import Final

START_BYTES: Final = 1024
"""Number of bytes that `recognise_content` needs at most."""

_KINDS: Final = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), kind)
    for pattern, kind in (
        (rb"version https://git-lfs", "a pointer of Git LFS: run `git lfs pull` to download the file itself"),
        (rb"\s*(<!doctype html|<html)", "an HTML page, as a download without permission returns it"),
        (rb"\s*(<\?xml.*?|<!--.*?)?<svg", "an SVG drawing: export it as PNG"),
        (rb"%PDF-", "a PDF document: export its pages as images"),
        (rb"\x1f\x8b", "data packed with gzip: unpack them"),
        (rb"(\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP|II\*\0|MM\0\*)", "an image"),
        (rb"....ftyp", "a video or a HEIF image"),
        (rb"PK\x03\x04", "a ZIP archive, as a checkpoint or a packed folder is"),
        (rb"\x08[\x01-\x1f][\x12\x1a\x22\x2a\x32\x3a\x42]", "an ONNX model: name it .onnx"),
        (rb"data:[a-z/+-]*;base64,", "base64 text: decode it to the bytes of the file"),
        (rb"[A-Za-z0-9+/_-]{64,}[\r\nA-Za-z0-9+/_-]*=*\s*\Z", "base64 text: decode it to the bytes of the file"),
        (rb"\s*[\[{]", "JSON text"),
        (rb"\s*<\?xml", "XML text"),
    )
)


def recognise_content(start: bytes) -> str:
    """Return what a file contains, in words for an error message; an empty text if it is not recognised.

    Args:
        start: first bytes of the file, `START_BYTES` or all of them.
    """
    if not start:
        return "an empty file"
    start = start[:START_BYTES]
    for pattern, kind in _KINDS:
        if pattern.match(start):
            return kind
    return "text" if re.fullmatch(rb"[\t\r\n\x20-\x7e]+", start) else ""
