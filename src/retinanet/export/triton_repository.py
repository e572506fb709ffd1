"""A model repository for NVIDIA's Triton Inference Server: DIR/NAME/1/model.onnx and DIR/NAME/config.pbtxt.

Source: Triton's documentation, "Model Repository" and "Model Configuration".
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

from retinanet.files import write_atomically
from retinanet.runtime.description import FRAMES, IMAGES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from retinanet.runtime.description import Description

MAX_BATCH_SIZE: Final = 8
QUEUE_DELAY_US: Final = 3000
"""Microseconds that the server waits for further requests before it runs a batch."""


def model_path(repository: Path, name: str, suffix: str) -> Path:
    """Return the path of a model's first version in the repository."""
    return repository / name / "1" / f"model{suffix}"


def write(repository: Path, model: Path, about: Description, *, backend: str, companions: Sequence[str] = ()) -> Path:
    """Add a model to the repository, and return the path of its config. A model outside the repository is copied.

    Args:
        repository: folder of the model repository.
        model: exported file.
        about: description of the exported file.
        backend: name of the Triton backend that runs the file.
        companions: suffixes of the additional files beside the exported file.
    """
    place = model_path(repository, model.stem, model.suffix)
    if model.parent.parent.parent == repository:
        place = model
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        for suffix in (model.suffix, *companions):
            if (file := model.with_suffix(suffix)).exists():
                shutil.copyfile(file, place.with_suffix(suffix))
    config = place.parent.parent / "config.pbtxt"
    write_atomically(config, config_text(config.parent.name, about, backend))
    write_atomically(config.parent / "labels.txt", "".join(f"{name}\n" for name in about.classes))
    return config


def config_text(name: str, about: Description, backend: str) -> str:
    """Return the text of config.pbtxt.

    An ONNX model uses its default thresholds, so that Triton can batch requests: threshold inputs apply to a whole
    batch and not to one image. An OpenVINO model has no defaults, so its requests carry thresholds and are not batched.
    """
    kind = "TYPE_UINT8" if about.uint8 else "TYPE_FP32"
    batched = backend == "onnxruntime"
    lead = "" if batched else "-1, "
    inputs = [(IMAGES, kind, f"{lead}3, -1, -1"), (FRAMES, "TYPE_FP32", f"{lead}4")]
    if about.raw:
        outputs = [
            (f"p{level}_{what}", "TYPE_FP32", f"{lead}-1, {values}", "")
            for level in about.levels
            for what, values in (("logits", len(about.classes)), ("deltas", 4))
        ]
    else:
        if not batched:
            types = {"float32": "TYPE_FP32", "int64": "TYPE_INT64"}
            inputs += [(n, types[str(v.dtype)], str(len(v))) for n, v in about.threshold_inputs().items()]
        one = " reshape { shape: [ ] }" if batched else ""
        outputs = [
            ("boxes", "TYPE_FP32", f"{lead}-1, 4", ""),
            ("scores", "TYPE_FP32", f"{lead}-1", ""),
            ("labels", "TYPE_INT64", f"{lead}-1", ""),
            ("counts", "TYPE_INT64", "1" if batched else "-1", one),
        ]
    lines = [f'name: "{name}"', f'backend: "{backend}"', f"max_batch_size: {MAX_BATCH_SIZE if batched else 0}"]
    for input_name, data_type, dims in inputs:
        lines.append(f'input [ {{ name: "{input_name}" data_type: {data_type} dims: [ {dims} ] }} ]')
    for output_name, data_type, dims, more in outputs:
        lines.append(f'output [ {{ name: "{output_name}" data_type: {data_type} dims: [ {dims} ]{more} }} ]')
    if batched:
        lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_DELAY_US} }}")
    return "\n".join(lines) + "\n"
