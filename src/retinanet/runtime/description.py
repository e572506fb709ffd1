"""What an exported file says of itself, and the names of its inputs and outputs. Needs neither torch nor onnx.

The description travels as JSON in the file's metadata. It is data: nothing in it is run, and it is checked on reading.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Final

from retinanet.checkpoint.model_info import ModelInfo
from retinanet.config import ImageConfig, PostprocessConfig, TileConfig, section_from_dict, to_dict
from retinanet.errors import ConfigError, UserError
from retinanet.parse import parse_json, shorten

KEY: Final = "retinanet"
"""Of the entry in the file's metadata."""
FORMAT: Final = 1
OPSET: Final = 18
"""Version of ONNX's operators; all are plain ones."""

IMAGES: Final = "images"
"""Input: N x 3 x H x W, RGB, not normalised: float in [0, 1], or uint8. Resized, and padded at the right and bottom."""
FRAMES: Final = "frames"
"""Input: N x 4 float, `images.Frame`: width and height of the original, width and height of the resized image.
Pixels beyond the latter are padding, whatever they hold; boxes are clipped to it and come in original pixels. Zeros,
the default in ONNX, stand for an image that fills the input and was not resized."""
SCORE_THRESHOLD: Final = "score_threshold"
NMS_THRESHOLD: Final = "nms_threshold"
MAX_DETECTIONS: Final = "max_detections"
"""Inputs: scalars (of shape 1), by default as in training."""
DETECTIONS: Final = ("boxes", "scores", "labels", "counts")
"""Outputs: N x D x 4 xyxy original pixels, N x D, N x D (int64), N (int64); D is max_detections, the first `counts[n]`
of each image are detections, best first, and what follows is 0, 0 and -1."""


def dense_names(levels: tuple[int, ...]) -> list[str]:
    """Return the names of the dense outputs: what the network says at every anchor, level by level, finest first.

    p3_logits is N x (H/8 x W/8 x C) x K, before the sigmoid, of the C anchors at each of H/8 x W/8 positions, row by
    row; p3_deltas the same with 4 offsets, see `boxes.decode`.
    """
    return [f"p{level}_{what}" for level in levels for what in ("logits", "deltas")]


class ExportError(UserError):
    """A model that cannot be exported as asked, or a file that is no export of ours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Description(ModelInfo):
    """What an exported file holds beside its graph.

    The normalisation of `image_config` and the candidates per level of `postprocess_config` are in the graph; the
    thresholds of `postprocess_config` are its defaults.

    Args:
        levels: pyramid levels; level l has stride 2^l.
        cells: C x 4 of each level, the anchors around (0, 0), input pixels.
        anchor_style: exact, or torchvision: see `ModelConfig`.
        uint8: images are uint8 rather than float in [0, 1].
        raw: there are the dense outputs only.
        precision: of the network's layers: float32, bf16 (a hint) or int8.
        version: of retinanet that wrote it.
    """

    levels: tuple[int, ...]
    cells: tuple[tuple[tuple[float, ...], ...], ...]
    anchor_style: str
    uint8: bool
    raw: bool
    precision: str
    version: str

    def to_json(self) -> str:
        """Return it as JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("image_config", "postprocess_config", "tiling"):
            values[name] = to_dict(values[name])
        values["train_config"] = values.pop("train_config")  # last, as in all files so far
        return json.dumps({"format": FORMAT, "opset": OPSET, **values}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, where: str) -> Description:
        """Return what `to_json` wrote.

        Raises:
            ExportError: it is something else, or written by a later version; `where` names the file.
        """
        try:
            values: dict[str, Any] = parse_json(text.encode("utf-8", "surrogatepass"))
            found = values["format"]
            if not isinstance(found, int) or found > FORMAT:
                raise ExportError(f"{where} has format {found}, this version reads up to {FORMAT}: update retinanet")
            out = cls(
                classes=tuple(str(name) for name in values["classes"]),
                category_ids=tuple(int(number) for number in values["category_ids"]),
                image_config=section_from_dict(ImageConfig, values["image_config"]),
                postprocess_config=section_from_dict(PostprocessConfig, values["postprocess_config"]),
                tiling=section_from_dict(TileConfig, values["tiling"]),
                levels=tuple(int(level) for level in values["levels"]),
                cells=tuple(tuple(tuple(float(v) for v in cell) for cell in cells) for cells in values["cells"]),
                anchor_style=str(values.get("anchor_style", "exact")),
                uint8=bool(values["uint8"]),
                raw=bool(values["raw"]),
                precision=str(values["precision"]),
                version=str(values["version"]),
                train_config=dict(values["train_config"]),
            )
        except (ConfigError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, ExportError):
                raise
            raise ExportError(
                f"{where}: what the file says of itself cannot be read ({shorten(str(error))})"
            ) from error
        if len(out.classes) != len(out.category_ids) or not out.classes or len(out.levels) != len(out.cells):
            raise ExportError(f"{where}: what the file says of itself does not fit together")
        return out
