"""Decode, resize, normalise and pad images: from a file to the input of the network.

Training, prediction and the server share these functions. They need NumPy and Pillow, never torch.
"""

from retinanet.images.decoding import (
    ReducedJpeg,
    Verified,
    decode,
    decode_for,
    decode_for_display,
    decode_jpeg,
    jpeg_scale,
    open_windows,
    read_size,
    verify,
)
from retinanet.images.network_input import (
    InputSettings,
    group_equal,
    normalise,
    pad,
    padded_size,
    prepare,
    prepare_pixels,
)
from retinanet.images.resizing import Frame, Scaled, resize, resized_size, tiles
from retinanet.images.source import IMAGE_SUFFIXES, VIDEO_SUFFIXES, ImageError, Source
from retinanet.images.windows import MAX_PIXELS_AT_ONCE, Windows

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS_AT_ONCE",
    "VIDEO_SUFFIXES",
    "Frame",
    "ImageError",
    "InputSettings",
    "ReducedJpeg",
    "Scaled",
    "Source",
    "Verified",
    "Windows",
    "decode",
    "decode_for",
    "decode_for_display",
    "decode_jpeg",
    "group_equal",
    "jpeg_scale",
    "normalise",
    "open_windows",
    "pad",
    "padded_size",
    "prepare",
    "prepare_pixels",
    "read_size",
    "resize",
    "resized_size",
    "tiles",
    "verify",
]
