"""The detector that runs a PyTorch network. Boxes are xyxy in original pixels, after EXIF rotation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from retinanet.checkpoint.model_info import ModelInfo
from retinanet.config import (
    ImageConfig,
    InferenceConfig,
    PostprocessConfig,
    Precision,
    TileConfig,
    torch_device_name,
)
from retinanet.errors import ConfigError, did_you_mean
from retinanet.files import existing_path
from retinanet.images import Frame, Scaled
from retinanet.plugins import check_allowed_parts
from retinanet.predict.batches import Pixels, Source
from retinanet.predict.detector import BaseDetector
from retinanet.predict.sources import to_source
from retinanet.torch_state import building_state, inference_state
from retinanet.types import ArrayDetections

if TYPE_CHECKING:
    import numpy.typing as npt
    import torch
    from torch import nn

    from retinanet.predict.dense import DenseOutputs
    from retinanet.types import HeadOutputs


log = logging.getLogger(__name__)


class Detector(BaseDetector):
    """A PyTorch network with preprocessing and post-processing: from images to detections.

    Args:
        model: network from images_N3HW to HeadOutputs. It is moved to the device and set to eval mode.
        info: classes, preprocessing, post-processing and tiling, for example a `LoadedModel`. It replaces the
            arguments `classes`, `category_ids`, `image_config`, `postprocess_config` and `tiling`.
        classes: name of each 0-based class id.
        category_ids: COCO category id of each class id.
        image_config: preprocessing: image size, padding and normalisation.
        postprocess_config: post-processing: thresholds and the largest number of detections.
        tiling: tiling of large images, unless a call overrides it.
        device: auto (the accelerator if there is one, otherwise the CPU), cpu, cuda, cuda:1, mps.
        precision: 32 or bf16, see `fast_network.for_inference`. A RetinaNet is copied for prediction, so that later
            changes of its weights have no effect.
        compile: True to compile a RetinaNet on a GPU with torch.compile, with a CUDA graph for each input size.

    Raises:
        ConfigError: `compile` is set for a CPU, or for a model that is not a RetinaNet.
        ValueError: neither `info` nor `classes` is given, or both are given.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        info: ModelInfo | None = None,
        classes: Sequence[str] = (),
        category_ids: Sequence[int] = (),
        image_config: ImageConfig | None = None,
        postprocess_config: PostprocessConfig | None = None,
        tiling: TileConfig | None = None,
        device: str | torch.device = "auto",
        precision: Precision = InferenceConfig.precision,
        compile: bool = InferenceConfig.compile,
    ) -> None:
        import torch

        if info is None:
            info = ModelInfo(
                classes=tuple(classes),
                category_ids=tuple(category_ids),
                image_config=image_config or ImageConfig(),
                postprocess_config=postprocess_config or PostprocessConfig(),
                tiling=tiling or TileConfig(),
            )
            if not info.classes or len(info.classes) != len(info.category_ids):
                raise ValueError(
                    f"expected classes and as many category_ids, found {len(info.classes)} and "
                    f"{len(info.category_ids)}: give classes and category_ids, or info"
                )
        elif classes or category_ids or image_config or postprocess_config or tiling:
            raise ValueError(
                "expected either info or the settings classes, category_ids, image_config, postprocess_config and "
                "tiling, found both: leave out the settings"
            )
        self.device: torch.device = pick_device(device)
        super().__init__(info, images_per_call=1 if self.device.type == "cpu" else None)
        self.model = model.to(self.device).to(memory_format=torch.channels_last).eval()
        with building_state():
            self._network = _prediction_network(self.model, self.device, precision)
        if compile:
            _compile_network(self._network, self.device)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        device: str | torch.device = "auto",
        precision: Precision = InferenceConfig.precision,
        *,
        allow: Sequence[str] = (),
        compile: bool = InferenceConfig.compile,
    ) -> Detector:
        """Return the detector of a checkpoint that `retinanet train` wrote. `allow`: see `load_checkpoint`."""
        from retinanet.checkpoint.loading import load_checkpoint

        loaded = load_checkpoint(existing_path(Path(path)), allow=allow)
        return cls(model=loaded.model, info=loaded, device=device, precision=precision, compile=compile)

    def _infer(self, images_N3HW: Pixels, frames: Sequence[Frame], config: PostprocessConfig) -> list[ArrayDetections]:
        import torch

        from retinanet.postprocess import postprocess, score_threshold_logit
        from retinanet.predict.fast_network import FastNetwork

        with inference_state(self.device):
            input_N3HW = torch.from_numpy(images_N3HW).to(
                self.device, memory_format=torch.channels_last, non_blocking=True
            )
            # Post-processing never uses the offsets of anchors with lower scores. A GPU would have to wait for the
            # number of positions with higher scores, and computes all offsets instead.
            skips = self.device.type == "cpu" and isinstance(self._network, FastNetwork)
            options = {"above": score_threshold_logit(config)} if skips else {}
            outputs: HeadOutputs = self._network(input_N3HW, **options)
            return [detections.numpy() for detections in postprocess(outputs, frames=frames, config=config)]

    def dense(self, source: Source | Scaled) -> DenseOutputs:
        """Return the predictions at every position of every feature level for one image: see `BaseDetector.dense`."""
        import torch

        from retinanet.model import RetinaNet
        from retinanet.predict.dense import DenseOutputs, level_outputs

        assert isinstance(self.model, RetinaNet)  # noqa: S101
        if not isinstance(source, Scaled):
            source = self._decode(to_source(source), self.image_config)
        image_3HW, frame = self._prepare(source, self.image_config)
        with inference_state(self.device):
            outputs = self._network(
                torch.from_numpy(image_3HW[None]).to(self.device, memory_format=torch.channels_last)
            )
        logits = outputs.logits_NAK[0].float().cpu().split(outputs.anchors_per_level)
        deltas = outputs.deltas_NA4[0].float().cpu().split(outputs.anchors_per_level)
        levels = [
            level_outputs(
                level,
                cells.numpy(),
                logits_AK.numpy(),
                deltas_A4.numpy(),
                image_3HW.shape[1:],
                frame,
                style=self.model.config.anchor_style,
            )
            for level, cells, logits_AK, deltas_A4 in zip(
                self.model.config.levels, self.model.anchors.cells, logits, deltas, strict=True
            )
        ]
        return DenseOutputs(frame=frame, levels=tuple(levels))

    def assigned_objects(
        self, dense: DenseOutputs, boxes_G4: npt.NDArray[np.floating], labels_G: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """Return the index of the object that training makes each anchor positive for, or -1: (A,).

        The assigner of the training run gets the outputs of the network that `dense` follows from, in input pixels.
        `dense` and `boxes_G4` are in original pixels.

        Raises:
            ConfigError: the assigner is code of another package that the user has not allowed.
        """
        import torch

        from retinanet.matching import make_assigner
        from retinanet.predict.trace import FlatOutputs
        from retinanet.types import HeadOutputs, Target

        flat, frame = FlatOutputs.of(dense), dense.frame
        scale_4 = torch.tensor([frame.resized_width / frame.width, frame.resized_height / frame.height] * 2)
        deltas = [level.deltas_HWC4.reshape(-1, 4) for level in dense.levels if level.deltas_HWC4 is not None]
        outputs = HeadOutputs(
            logits_NAK=torch.from_numpy(flat.scores_AK)[None].logit(),
            deltas_NA4=torch.from_numpy(np.concatenate(deltas))[None],
            anchors_A4=torch.from_numpy(flat.anchors_A4) * scale_4,
            anchors_per_level=tuple(np.diff(flat.starts).tolist()),
        )
        check_allowed_parts(self.info.train_config, ("assigner",))
        target = Target(
            boxes_G4=torch.from_numpy(boxes_G4).float() * scale_4,
            labels_G=torch.from_numpy(labels_G),
            crowd_G=torch.zeros(len(labels_G), dtype=torch.bool),
        )
        targets = make_assigner(self.info.match_config).assign(outputs, [target])
        object_A: npt.NDArray[np.int64] = targets.matched_NA[0].masked_fill(~targets.positive_NA[0], -1).numpy()
        return object_A


def _prediction_network(model: nn.Module, device: torch.device, precision: str) -> nn.Module:
    """Return the network that runs predictions: a simplified copy of a RetinaNet, or any other model unchanged."""
    from retinanet.model import RetinaNet
    from retinanet.predict.fast_network import for_inference, has_fast_bf16

    if precision not in get_args(Precision):
        raise ConfigError(
            f"precision must be one of {', '.join(get_args(Precision))}, found {precision!r}"
            f"{did_you_mean(precision, get_args(Precision))}"
        )
    if not isinstance(model, RetinaNet):
        if precision != "32":
            raise ConfigError(
                f"precision {precision} expects a RetinaNet, found {type(model).__name__}: use precision 32"
            )
        return model
    if precision == "bf16" and device.type == "cpu" and not has_fast_bf16():
        log.warning("this processor has no bfloat16 instructions: --precision bf16 works, but may be slower than 32")
    return for_inference(model, precision=precision)


def _compile_network(network: nn.Module, device: torch.device) -> None:
    """Compile a network in place."""
    from retinanet.predict.fast_network import FastNetwork

    if device.type == "cpu":
        raise ConfigError("compile expects a GPU, found device cpu, whose network is already optimised: leave it out")
    if not isinstance(network, FastNetwork):
        raise ConfigError(f"compile expects a RetinaNet, found {type(network).__name__}: leave out compile")
    network.compile(mode="reduce-overhead", dynamic=False)


def pick_device(name: str | torch.device) -> torch.device:
    """Return the named device. "auto" is the accelerator if there is one, otherwise the CPU.

    Raises:
        ConfigError: the name is unknown, or this machine does not have the device.
    """
    import torch

    known = torch_device_name(str(name))
    if known == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.empty(0, device=known).device
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch without CUDA
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {str(name)!r} is not available ({reason}): give --device cpu or auto") from error
    if device.type == "meta":  # a device without memory, which computes nothing
        raise ConfigError(f"device {str(name)!r} computes no numbers: give --device cpu or auto")
    return device
