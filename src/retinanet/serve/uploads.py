"""From a request to images: bodies are read up to a limit, and headers are looked at before anything is decoded."""

from __future__ import annotations

import asyncio
import io
import re
import warnings
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

from PIL import Image
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from retinanet.images import ImageError, Scaled, decode, decode_for

Image.init()  # registers the formats, of which some builds of Pillow lack one or another
FORMATS: Final = tuple(
    name for name in ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM") if name in Image.OPEN
)
"""What is read, Pillow's names. Not all that Pillow knows: EPS would start Ghostscript, others are hardly tested."""
READ_SECONDS: Final = 30.0
"""How long a body may take to arrive: a client that stalls does not keep its place."""
LINGER_SECONDS: Final = 2.0
"""How long what is too much is still read and thrown away, so that the client gets to read the answer."""
MOST_FIELDS: Final = 100
"""Text fields of a form."""


class RefusedError(Exception):
    """A request that is answered with an error: its HTTP status and what to say."""

    def __init__(self, status: int, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class Upload:
    """The bytes of one file as they were sent, and its name, for messages only: no file of that name is opened."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Body:
    """What a request brought: files, and the text fields of a form."""

    uploads: list[Upload]
    fields: dict[str, list[str]]


class _InMemory(MultiPartParser):
    spool_max_size = 2**40  # the body's limit is what bounds it; nothing goes to the disk


async def read_body(request: Request, *, limit: int, most_files: int) -> Body:
    """Return the files of a multipart form, or the raw body as the one file.

    Args:
        request: not read yet.
        limit: bytes of the whole body.
        most_files: files of a form.

    Raises:
        RefusedError: 400 no form, 408 too slow, 413 too large, 422 nothing in it.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        async with asyncio.timeout(READ_SECONDS):
            if kind == "multipart/form-data":
                return await _read_form(request, limit, most_files)
            chunks = [chunk async for chunk in _limited(request, limit)]
    except TimeoutError as error:
        raise RefusedError(408, f"the image did not arrive within {READ_SECONDS:g} seconds") from error
    return Body(uploads=[Upload("image", b"".join(chunks))], fields={})


async def _read_form(request: Request, limit: int, most_files: int) -> Body:
    stream = _limited(request, limit)
    parser = _InMemory(request.headers, stream, max_files=most_files, max_fields=MOST_FIELDS)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        await discard(request)
        if error.message.startswith("Too many files"):
            raise RefusedError(413, f"too many images in a request: the limit is {most_files}") from error
        raise RefusedError(400, f"the form cannot be read: {error.message}") from error
    except (FormParserError, UnicodeDecodeError) as error:
        await discard(request)
        raise RefusedError(400, f"the form cannot be read: {error}") from error
    try:
        uploads: list[Upload] = []
        fields: dict[str, list[str]] = {}
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                uploads.append(Upload(_printable(value.filename) or f"image {len(uploads) + 1}", await value.read()))
            else:
                fields.setdefault(name, []).append(value)
    finally:
        await form.close()
    if not uploads:
        raise RefusedError(422, "the form has no file: send the image as a part with a filename")
    return Body(uploads=uploads, fields=fields)


async def _limited(request: Request, limit: int) -> AsyncGenerator[bytes]:
    """Yield the body's chunks. Raises `RefusedError` 413 as soon as it is known to be larger than `limit` bytes."""
    too_large = RefusedError(413, f"the request is larger than {limit / 1e6:g} MB, which is the limit")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        await discard(request)
        raise too_large
    read = 0
    while not _ended(request):
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        request.state.body_ended = not message.get("more_body", False)
        chunk = message.get("body", b"")
        read += len(chunk)
        if read > limit:
            await discard(request)
            raise too_large
        yield chunk


def _ended(request: Request) -> bool:
    """Whether the whole body has been read: there is nothing to wait for after it but that the client goes."""
    return bool(getattr(request.state, "body_ended", False))


async def discard(request: Request) -> None:
    """Read on for a moment and keep nothing: a client that still sends would see a broken pipe, not the answer."""
    if _ended(request) or request.headers.get("expect", "").lower() == "100-continue":
        return  # all is here, or it asks before it sends
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            more = True
            while more:
                message = await request.receive()
                more = message["type"] == "http.request" and message.get("more_body", False)
    except TimeoutError:
        return


def _printable(name: str | None) -> str:
    """Return a file's name fit for a message: one short line, without folders."""
    return re.sub(r"[\x00-\x1f\x7f]", "", (name or "").replace("\\", "/").rpartition("/")[2])[:100]


def size_of(upload: Upload, *, max_pixels: int) -> tuple[int, int]:
    """Return (width, height) as stored, from the header alone.

    Raises:
        RefusedError: 415 empty or no image, 413 more than `max_pixels`.
    """
    if not upload.data:
        raise RefusedError(415, f"{upload.name}: empty, expected the bytes of an image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit follows
            with Image.open(io.BytesIO(upload.data), formats=FORMATS) as image:
                width, height = image.size
    except Image.DecompressionBombError as error:
        raise RefusedError(413, f"{upload.name}: more than {max_pixels:,} pixels, which is the limit") from error
    except Exception as error:
        known = ", ".join(FORMATS)
        raise RefusedError(415, f"{upload.name}: not an image that can be read (read are {known})") from error
    if width * height > max_pixels:
        raise RefusedError(
            413, f"{upload.name}: {width} x {height} is {width * height:,} pixels, the limit is {max_pixels:,}"
        )
    return width, height


def to_input(upload: Upload, *, image_size: int, max_size: int, max_pixels: int) -> Scaled:
    """Decode and resize, after a look at the header. Raises `RefusedError`: 413 or 415."""
    size_of(upload, max_pixels=max_pixels)
    try:
        return decode_for(upload.data, image_size=image_size, max_size=max_size)
    except ImageError as error:
        raise _broken(upload, error) from error


def to_image(upload: Upload, *, max_pixels: int) -> Image.Image:
    """Decode in full, upright RGB, after a look at the header. Raises `RefusedError`: 413 or 415."""
    size_of(upload, max_pixels=max_pixels)
    try:
        return decode(upload.data)
    except ImageError as error:
        raise _broken(upload, error) from error


def _broken(upload: Upload, error: ImageError) -> RefusedError:
    said = str(error).removeprefix(f"{len(upload.data)} bytes: ")
    return RefusedError(415, f"{upload.name}: {said}")


async def until_gone(request: Request) -> None:
    """Return when the client has gone. Its body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
