"""Files that contain something else than expected, recognised by their first bytes."""

from __future__ import annotations

import base64
import gzip

import pytest

from retinanet.file_kinds import recognise_content


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "a pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "an HTML page"),
        (b'<?xml version="1.0"?>\n<svg width="5"/>', "an SVG drawing"),
        (b'<?xml version="1.0"?><net name="model"/>', "XML text"),
        (b"%PDF-1.7\n", "a PDF document"),
        (gzip.compress(b"pixels", mtime=0), "data packed with gzip"),
        (b"\x89PNG\r\n\x1a\n", "an image"),
        (b"\xff\xd8\xff\xe0", "an image"),
        (b"\x00\x00\x00\x18ftypmp42", "a video"),
        (b"PK\x03\x04\x00\x00", "a ZIP archive"),
        (b"\x08\x08\x12\x07pytorch", "an ONNX model"),
        (b"data:image/png;base64,iVBORw0KGgo=", "base64 text"),
        (base64.b64encode(bytes(range(256)) * 8), "base64 text"),
        (base64.encodebytes(bytes(range(256))), "base64 text"),
        (b'{"image": "iVBORw0KGgo="}', "JSON text"),
        (b"path,x1,y1\n", "text"),
        (b"\x80\x02}q\x00", ""),  # a pickle, which torch.load reads
        (bytes(100), ""),
    ],
)
def test_content_is_recognised(content: bytes, kind: str) -> None:
    found = recognise_content(content)
    assert found.startswith(kind) if kind else not found
