"""The description of an exported model, and the names of its inputs and outputs. Needs neither torch nor onnx.

The description is stored as JSON in the metadata of the exported file. Reading it runs no code from the file, and
checks every field.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from retinanet.checkpoint.model_info import ModelInfo
from retinanet.checkpoint.tuned_thresholds import TunedThresholds
from retinanet.config import ImageConfig, PostprocessConfig, TileConfig, section_from_dict, to_dict
from retinanet.errors import ConfigError, UserError
from retinanet.parse import parse_json, shorten

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import numpy.typing as npt

KEY: Final = "retinanet"
"""Name of the description's entry in the file's metadata."""
FORMAT: Final = 1
"""Version of the description's format."""
OPSET: Final = 18
"""Version of the ONNX operator set. Only standard operators are used."""

IMAGES: Final = "images"
"""Input: images N x 3 x H x W, RGB, float in [0, 1] or uint8, not normalised. The images are resized, and padded at
the right and bottom."""
FRAMES: Final = "frames"
"""Input: N x 4 float, one `images.Frame` per image: original width and height, then resized width and height, pixels.
Pixels outside the resized size are padding, and their values have no effect. Boxes are clipped to the resized size, and
returned in original pixels. Zeros (the default in ONNX) mean that the image fills the input and was not resized."""
SCORE_THRESHOLD: Final = "score_threshold"
CLASS_THRESHOLDS: Final = "class_thresholds"
"""Input of a model with tuned thresholds: the lowest score of a detection of each class, of shape (K,). It is applied
after NMS, so that 0 changes nothing. In ONNX, the default is the tuned thresholds."""
NMS_THRESHOLD: Final = "nms_threshold"
MAX_DETECTIONS: Final = "max_detections"
"""Inputs: score threshold, NMS threshold and largest number of detections, each of shape (1,). In ONNX, the defaults
are the values of `postprocess_config`."""
DETECTIONS: Final = ("boxes", "scores", "labels", "counts")
"""Outputs: boxes N x D x 4 (xyxy, original pixels), scores N x D, labels N x D (int64), counts N (int64). D is
max_detections. The first `counts[n]` rows of image n are its detections, best first. Further rows hold box 0, score 0
and label -1."""


def dense_names(levels: tuple[int, ...]) -> list[str]:
    """Return the names of the dense outputs, the logits and the offsets of each level, finest level first.

    `p3_logits` has shape N x (H/8 x W/8 x C) x K: logits before the sigmoid, for the C anchors of each of the
    H/8 x W/8 positions, row by row. `p3_deltas` has shape N x (H/8 x W/8 x C) x 4: offsets as in `boxes.decode`.
    """
    return [f"p{level}_{what}" for level in levels for what in ("logits", "deltas")]


class GraphInput(NamedTuple):
    """Element type of a graph's input, such as float32, and its shape: None for a dimension of any size."""

    dtype: str
    shape: tuple[int | None, ...]


class ExportError(UserError):
    """The model cannot be exported, or a file was not written by `retinanet export`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Description(ModelInfo):
    """Description of an exported model, stored beside its graph.

    The graph itself contains the normalisation of `image_config`, and the `candidates_per_level`, `clip_before_nms` and
    `agnostic_nms` of `postprocess_config`. The thresholds of `postprocess_config` are the defaults of the graph's
    inputs.

    Args:
        levels: pyramid levels; level l has stride 2^l.
        cells: anchors of each level around (0, 0), C x 4 xyxy, input pixels.
        anchor_style: "exact" or "torchvision": see `ModelConfig`.
        uint8: True if the input images are uint8, False if they are float in [0, 1].
        raw: True if the model returns only the dense outputs.
        precision: precision of the network's layers: float32, bf16 (a hint) or int8.
        version: version of retinanet that wrote the file.
    """

    levels: tuple[int, ...]
    cells: tuple[tuple[tuple[float, ...], ...], ...]
    anchor_style: str
    uint8: bool
    raw: bool
    precision: str
    version: str

    def threshold_inputs(self) -> dict[str, npt.NDArray[Any]]:
        """Return the inputs of the graph with thresholds and limits, by name, with their default values."""
        config = self.postprocess_config
        inputs: dict[str, npt.NDArray[Any]] = {
            SCORE_THRESHOLD: np.array([config.score_threshold], np.float32),
            NMS_THRESHOLD: np.array([config.nms_threshold], np.float32),
            MAX_DETECTIONS: np.array([config.max_detections], np.int64),
        }
        if self.tuned is not None:
            inputs[CLASS_THRESHOLDS] = np.array(self.tuned.thresholds, np.float32)
        return inputs

    def to_json(self) -> str:
        """Return the description as JSON."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name in ("image_config", "postprocess_config", "tiling"):
            values[name] = to_dict(values[name])
        tuned = values.pop("tuned")
        if tuned is not None:
            values["tuned"] = tuned.to_dict()
        values["train_config"] = values.pop("train_config")  # last, as in files of earlier versions
        return json.dumps({"format": FORMAT, "opset": OPSET, **values}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, where: str) -> Description:
        """Return the description from the JSON that `to_json` returned.

        Args:
            text: JSON.
            where: name of the file in error messages.

        Raises:
            ExportError: the JSON is not a valid description, or a later version of retinanet wrote it.
        """
        try:
            values: dict[str, Any] = parse_json(text.encode("utf-8", "surrogatepass"))
            version = values["format"]
            if not isinstance(version, int) or version > FORMAT:
                raise ExportError(f"{where}: expected format {FORMAT} or lower, found {version}: update retinanet")
            out = cls(
                classes=(classes := tuple(str(name) for name in values["classes"])),
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
                tuned=TunedThresholds.from_dict(values["tuned"], classes=len(classes)) if "tuned" in values else None,
            )
        except (ConfigError, KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            if isinstance(error, ExportError):
                raise
            raise ExportError(
                f"{where}: the model's description is not valid ({shorten(str(error))}): export the model again"
            ) from error
        if len(out.classes) != len(out.category_ids) or not out.classes or len(out.levels) != len(out.cells):
            raise ExportError(
                f"{where}: the model's description contradicts itself ({len(out.classes)} classes and "
                f"{len(out.category_ids)} category ids, {len(out.levels)} levels and {len(out.cells)} sets of "
                "anchors): export the model again"
            )
        return out

    def check_graph(self, inputs: Mapping[str, GraphInput], outputs: Collection[str], where: str) -> None:
        """Check that the graph in the file is still the exported one. Other tools can rewrite a graph.

        Args:
            inputs: inputs of the graph.
            outputs: names of the graph's outputs.
            where: name of the file in error messages.

        Raises:
            ExportError: an input or output is missing, or has another type or a fixed size.
        """
        names = (IMAGES, FRAMES) if self.raw else (IMAGES, FRAMES, *self.threshold_inputs())
        rewritten = "Another tool rewrote this file"
        if missing := [name for name in names if name not in inputs]:
            raise ExportError(
                f"{where}: expected the inputs {', '.join(names)}, found no {', '.join(missing)}. {rewritten}: onnxsim "
                "and onnxslim turn inputs that have default values into constants. Give the file as exported, or "
                "export the model with --no-input-defaults before the tool rewrites the file"
            )
        if missing := [name for name in (dense_names(self.levels) if self.raw else DETECTIONS) if name not in outputs]:
            raise ExportError(
                f"{where}: expected the output {', '.join(missing)}, found {', '.join(sorted(outputs))}. {rewritten}: "
                "use the file as exported"
            )
        dtype, images = "uint8" if self.uint8 else "float32", inputs[IMAGES]
        if images.dtype != dtype or images.shape[:1] + images.shape[2:] != (None, None, None):
            shape = " x ".join("any" if size is None else str(size) for size in images.shape)
            raise ExportError(
                f"{where}: expected the input {IMAGES} of type {dtype} and shape any x 3 x any x any, found "
                f"{images.dtype}, {shape}. {rewritten}: use the file as exported, or keep the types and shapes of "
                "inputs and outputs when the tool rewrites it"
            )
