"""Test a corpus of valid, broken and malicious uploads, generated here. Each has one expected answer."""

from __future__ import annotations

import asyncio
import base64
import io
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.types import Message

from retinanet.config import ServeConfig
from retinanet.serve.app import create_app
from retinanet.serve.uploads import RefusedError, read_body
from tests.conftest import made_image
from tests.serve.fakes import Fake, png

PIXELS = 1_000_000
BYTES = 400_000


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)  # type: ignore[arg-type]
    return out.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_of(width: int, height: int, data: bytes, *, before: bytes = b"") -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + before + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def zeros(count: int) -> bytes:
    packer = zlib.compressobj(9)
    return b"".join([*(packer.compress(bytes(10**6)) for _ in range(count // 10**6)), packer.flush()])


def jpeg() -> bytes:
    return saved(made_image(64, 48), "JPEG")


def exif_rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(made_image(64, 48), "JPEG", exif=exif)


def sixteen_bits() -> bytes:
    values = np.linspace(0, 65535, 64 * 48, dtype=np.uint16).reshape(48, 64)
    return saved(Image.fromarray(values), "PNG")


def animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (64, 48), (red, 0, 0)) for red in (10, 200, 90)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)


def huge_jpeg() -> bytes:
    """Return a small JPEG whose header states 65,000 x 65,000 pixels."""
    data = bytearray(jpeg())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 65000, 65000)
    return bytes(data)


def tiff_of_many_strips() -> bytes:
    """Return a TIFF header whose tags point beyond the end of the file."""
    tags = [(256, 3, 1, 64), (257, 3, 1, 48), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 4_000_000, 200), (277, 3, 1, 1)]
    tags += [(278, 3, 1, 1), (279, 4, 4_000_000, 300)]
    body = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + body + bytes(4)


GOOD: dict[str, tuple[Callable[[], bytes], tuple[int, int]]] = {
    "jpeg": (jpeg, (64, 48)),
    "grey": (lambda: saved(made_image(64, 48).convert("L"), "JPEG"), (64, 48)),
    "cmyk jpeg": (lambda: saved(made_image(64, 48).convert("CMYK"), "JPEG"), (64, 48)),
    "progressive": (lambda: saved(made_image(64, 48), "JPEG", progressive=True), (64, 48)),
    "rotated by exif": (exif_rotated, (48, 64)),
    "16-bit png": (sixteen_bits, (64, 48)),
    "palette": (lambda: saved(made_image(64, 48).quantize(16), "PNG"), (64, 48)),
    "one bit": (lambda: saved(made_image(64, 48).convert("1"), "PNG"), (64, 48)),
    "transparent": (lambda: saved(made_image(64, 48).convert("RGBA"), "PNG"), (64, 48)),
    "animated gif": (lambda: animated("GIF"), (64, 48)),
    "animated webp": (lambda: animated("WEBP"), (64, 48)),
    "animated png": (lambda: animated("PNG"), (64, 48)),
    "webp": (lambda: saved(made_image(64, 48), "WEBP"), (64, 48)),
    "bmp": (lambda: saved(made_image(64, 48), "BMP"), (64, 48)),
    "tiff": (lambda: saved(made_image(64, 48), "TIFF", compression="tiff_lzw"), (64, 48)),
    "one pixel": (lambda: png(9, 1, 1), (1, 1)),
    "one row": (lambda: png(9, 1000, 1), (1000, 1)),
    "at the limit of pixels": (lambda: png(9, 1000, 1000), (1000, 1000)),
    "a jpeg with bytes after its end": (lambda: jpeg() + bytes(1000), (64, 48)),
}

BAD: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "0 bytes": (lambda: b"", 415, "expected an image file, found 0 bytes"),
    "one byte": (lambda: b"\xff", 415, "not a readable image"),
    "text": (lambda: b"GET / HTTP/1.1", 415, "not a readable image"),
    "html": (lambda: b"<!doctype html><script>alert(1)</script>", 415, "not a readable image, found an HTML page"),
    "svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415, "found an SVG drawing: export it as PNG"),
    "base64": (
        lambda: base64.b64encode(jpeg()),
        415,
        "found base64 text: decode it to the bytes of the file",
    ),
    "data URI": (lambda: b"data:image/jpeg;base64," + base64.b64encode(jpeg()), 415, "found base64 text"),
    "base64 in JSON": (lambda: b'{"image": "' + base64.b64encode(jpeg()) + b'"}', 415, "found JSON text"),
    "zip": (lambda: b"PK\x03\x04" + bytes(100), 415, "not a readable image"),
    "pdf": (lambda: b"%PDF-1.7\n", 415, "not a readable image"),
    "postscript": (
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
        415,
        "not a readable image",
    ),
    "a Pillow format that the server refuses": (lambda: saved(made_image(64, 48), "PCX"), 415, "not a readable image"),
    "truncated jpeg": (lambda: saved(made_image(640, 480), "JPEG")[:3000], 415, "cannot be decoded"),
    "truncated png": (lambda: saved(made_image(640, 480), "PNG")[:2000], 415, "cannot be decoded"),
    "header of a jpeg only": (lambda: jpeg()[:20], 415, "image"),
    "png with invalid pixel data": (lambda: png_of(64, 48, b"\0" * 50), 415, "cannot be decoded"),
    "32-bit grey": (lambda: saved(Image.new("F", (64, 48), 0.5), "TIFF"), 415, "expected 8 or 16 bits"),
    "tiff with tags beyond its end": (tiff_of_many_strips, 415, "image"),
    "one pixel too many": (
        lambda: png(9, 1000, 1001),
        413,
        "the image has 1000 x 1001 = 1,001,000 pixels, the limit is 1,000,000",
    ),
    "huge jpeg": (huge_jpeg, 413, "1,000,000"),
    "huge png": (lambda: png_of(2**31 - 1, 2**31 - 1, b""), 413, "1,000,000"),
    "wide png": (lambda: png_of(2**31 - 1, 1, b""), 413, "1,000,000"),
    "decompression bomb": (lambda: png_of(18_000, 18_000, zeros(200 * 10**6)), 413, "1,000,000"),
    "decompression bomb in the text of a small png": (
        lambda: png_of(64, 48, zeros(10**6), before=chunk(b"zTXt", b"a\0\0" + zeros(200 * 10**6))),
        415,
        "image",
    ),
    "too many bytes": (lambda: jpeg() + bytes(BYTES), 413, "the request is larger than the limit of 0.4 MB"),
}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    config = ServeConfig(max_upload_mb=BYTES / 1e6, max_pixels=PIXELS)
    with TestClient(create_app(Fake, config)) as client:
        yield client


def post_raw_and_as_form(client: TestClient, data: bytes) -> Iterator[Any]:
    yield client.post("/v1/detect", content=data, headers={"content-type": "image/jpeg"})
    yield client.post("/v1/detect", files={"file": ("x.jpg", data)})


@pytest.mark.parametrize("name", GOOD)
def test_images_of_all_formats_are_accepted(client: TestClient, name: str):
    make, size = GOOD[name]
    for answer in post_raw_and_as_form(client, make()):
        assert answer.status_code == 200, answer.text
        (image,) = answer.json()["images"]
        assert (image["width"], image["height"]) == size


@pytest.mark.parametrize("name", BAD)
def test_refused_uploads_have_a_status_and_a_reason(client: TestClient, name: str):
    make, status, message = BAD[name]
    data = make()
    for answer in post_raw_and_as_form(client, data):
        assert answer.status_code == status, answer.text
        detail = answer.json()["detail"]
        assert message in detail
        assert "Traceback" not in detail
    for query in ("v1/detect?format=jpeg", "v1/explain?x=0&y=0"):
        assert client.post(query, content=data).status_code == status


def test_a_decompression_bomb_is_refused_from_its_header(client: TestClient):
    bomb = BAD["decompression bomb"][0]()
    assert len(bomb) < BYTES
    tracemalloc.start()
    try:
        assert client.post("/v1/detect", content=bomb).status_code == 413
        assert tracemalloc.get_traced_memory()[1] < 10 * len(bomb)
    finally:
        tracemalloc.stop()


def test_a_body_of_unknown_length_is_refused_at_the_limit(client: TestClient):
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while read < 100 * BYTES:
            read += 10_000
            yield bytes(10_000)

    answer = client.post("/v1/detect", content=endless(), headers={"content-type": "image/jpeg"})
    assert answer.status_code == 413


def test_file_names_are_returned_without_folders_and_control_characters(client: TestClient):
    answer = client.post("/v1/detect", files={"file": ("..\\..\\C:\\a/b/evil\x01name.png", png(3))})
    assert "/" not in answer.json()["images"][0]["name"]
    assert "\\" not in answer.json()["images"][0]["name"]


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=x", "image/jpeg"])
def test_a_refusal_reads_nothing_after_the_end_of_the_body(kind: str, at_once: bool):
    """Regression: a refused form was answered after two seconds, because the server waited for the disconnect."""
    rest: list[Message] = [{"type": "http.request", "body": b"no form, much too long", "more_body": not at_once}]
    rest += [] if at_once else [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        assert rest, "the server read after the end of the body"
        return rest.pop(0)

    request = Request({"type": "http", "headers": [(b"content-type", kind.encode())]}, receive)
    with pytest.raises(RefusedError):
        asyncio.run(read_body(request, limit=10_000 if kind.startswith("multi") else 10, max_files=1))
    assert not rest
