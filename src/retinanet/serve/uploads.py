"""Read request bodies up to a limit, and decode images after their headers have been checked."""

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

from retinanet.file_kinds import recognise_content
from retinanet.images import ImageError, Scaled, decode_for, decode_for_display

Image.init()  # fills Image.OPEN; some builds of Pillow lack some formats
FORMATS: Final = tuple(
    name for name in ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM") if name in Image.OPEN
)
"""Accepted image formats, by Pillow's names. Others are refused: EPS starts Ghostscript, many are hardly tested."""
READ_SECONDS: Final = 30.0
"""Maximum seconds until a request body has arrived, so that a stalled client does not hold its slot."""
LINGER_SECONDS: Final = 2.0
"""Maximum seconds for which the rest of a refused body is read and discarded, so that the client reads the answer."""
MAX_FIELDS: Final = 100
"""Maximum number of text fields of a form."""


class RefusedError(Exception):
    """A request is refused with an HTTP status, a message and optional headers."""

    def __init__(self, status: int, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class Upload:
    """The bytes of one file of a request, and its name. The name is used in messages and answers, never as a path."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Body:
    """Files and text fields of a request body."""

    uploads: list[Upload]
    fields: dict[str, list[str]]


class _InMemory(MultiPartParser):
    spool_max_size = 2**40  # never write to disk: `_limited` bounds the size of the body


async def read_body(request: Request, *, limit: int, max_files: int) -> Body:
    """Return the files and fields of a multipart form, or the raw body as a single file.

    Args:
        request: request whose body has not been read yet.
        limit: maximum size of the body, bytes.
        max_files: maximum number of files in a form.

    Raises:
        RefusedError: 400 invalid form, 408 body too slow, 413 body too large or too many files, 422 form without file.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        async with asyncio.timeout(READ_SECONDS):
            if content_type == "multipart/form-data":
                return await _read_form(request, limit, max_files)
            chunks = [chunk async for chunk in _limited(request, limit)]
    except TimeoutError as error:
        raise RefusedError(408, f"the request body did not arrive within {READ_SECONDS:g} seconds") from error
    return Body(uploads=[Upload("image", b"".join(chunks))], fields={})


async def _read_form(request: Request, limit: int, max_files: int) -> Body:
    stream = _limited(request, limit)
    parser = _InMemory(request.headers, stream, max_files=max_files, max_fields=MAX_FIELDS)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        await discard(request)
        if error.message.startswith("Too many files"):
            raise RefusedError(
                413, f"expected at most {max_files} images in a request, found more: send several requests"
            ) from error
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
        raise RefusedError(422, "expected an image file in the form, found none: send it as a part with a filename")
    return Body(uploads=uploads, fields=fields)


async def _limited(request: Request, limit: int) -> AsyncGenerator[bytes]:
    """Yield the chunks of the body. Raises `RefusedError` 413 as soon as the body exceeds `limit` bytes."""
    too_large = RefusedError(413, f"the request is larger than the limit of {limit / 1e6:g} MB (--max-upload-mb)")
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
    """Return whether the whole body has been read. The next message would then be the client's disconnect."""
    return bool(getattr(request.state, "body_ended", False))


async def discard(request: Request) -> None:
    """Read and drop the rest of the body for up to `LINGER_SECONDS`.

    A client that is still sending would otherwise see a closed connection instead of the error answer.
    """
    if _ended(request) or request.headers.get("expect", "").lower() == "100-continue":
        return  # nothing is left to read, or the client waits for permission to send
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            more = True
            while more:
                message = await request.receive()
                more = message["type"] == "http.request" and message.get("more_body", False)
    except TimeoutError:
        return


def _printable(name: str | None) -> str:
    """Return a file name for messages: without folders and control characters, at most 100 characters."""
    return re.sub(r"[\x00-\x1f\x7f]", "", (name or "").replace("\\", "/").rpartition("/")[2])[:100]


def size_of(upload: Upload, *, max_pixels: int) -> tuple[int, int]:
    """Return (width, height) in stored pixels, before EXIF rotation. Only the header is read.

    Raises:
        RefusedError: 415 the file is empty or not an image, 413 the image has more than `max_pixels` pixels.
    """
    if not upload.data:
        raise RefusedError(415, f"{upload.name}: expected an image file, found 0 bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `max_pixels` is checked below
            with Image.open(io.BytesIO(upload.data), formats=FORMATS) as image:
                width, height = image.size
    except Image.DecompressionBombError as error:
        raise RefusedError(413, f"{upload.name}: the image exceeds the limit of {max_pixels:,} pixels") from error
    except Exception as error:
        found = recognise_content(upload.data)
        reason = f", found {found}" if found not in {"", "an image"} else ""
        raise RefusedError(
            415, f"{upload.name}: not a readable image{reason}. Send the bytes of one of {', '.join(FORMATS)}"
        ) from error
    if width * height > max_pixels:
        raise RefusedError(
            413,
            f"{upload.name}: the image has {width} x {height} = {width * height:,} pixels, the limit is {max_pixels:,}",
        )
    return width, height


def to_input(upload: Upload, *, image_size: int, max_size: int, bit_depth: int, max_pixels: int) -> Scaled:
    """Return the decoded image, resized for the network. Raises `RefusedError` 413 or 415, see `size_of`."""
    size_of(upload, max_pixels=max_pixels)
    try:
        return decode_for(upload.data, image_size=image_size, max_size=max_size, bit_depth=bit_depth)
    except ImageError as error:
        raise _undecodable(upload, error) from error


def to_image(upload: Upload, *, max_pixels: int) -> Image.Image:
    """Return the image in full size: RGB, after EXIF rotation. Raises `RefusedError` 413 or 415, see `size_of`."""
    size_of(upload, max_pixels=max_pixels)
    try:
        return decode_for_display(upload.data)
    except ImageError as error:
        raise _undecodable(upload, error) from error


def _undecodable(upload: Upload, error: ImageError) -> RefusedError:
    message = str(error).removeprefix(f"{len(upload.data)} bytes: ")
    return RefusedError(415, f"{upload.name}: {message}")


async def wait_for_disconnect(request: Request) -> None:
    """Return when the client disconnects. The body of the request must have been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
