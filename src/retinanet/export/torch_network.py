"""The network as torch exports it: wrapped in a module of its own, on a copy; the model that was given stays as it is.

Shape suffixes: N batch, A anchors of a level, K classes, H, W.
"""

from __future__ import annotations

import copy
import io
import warnings
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any, Final

import onnx
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from retinanet import boxes
from retinanet.export.onnx_graph import NORMALISED
from retinanet.runtime.description import OPSET, ExportError, dense_names

if TYPE_CHECKING:
    from torch import Tensor

    from retinanet.model import RetinaNet
    from retinanet.runtime.description import Description

DIVISOR: Final = 32
"""Height and width of what an exported network takes are multiples of this."""
_EXAMPLE: Final = (2, 3, 512, 640)


class Dense(nn.Module):
    """normalised_N3HW -> for each level, its logits N x A x K and its offsets N x A x 4."""

    def __init__(self, model: RetinaNet) -> None:
        super().__init__()
        self.model = fixed_padding(copy.deepcopy(model).eval())

    def forward(self, normalised_N3HW: Tensor) -> tuple[Tensor, ...]:
        """Return logits and offsets of the finest level, then of the next, and so on."""
        out = []
        for level in self.model.fpn(self.model.backbone(normalised_N3HW)):
            out += [self.model.class_head([level]), self.model.box_head([level])]
        return tuple(out)


class Decoded(nn.Module):
    """Images -> the probability of each class and the box of every anchor: all but clipping, top-k and NMS."""

    def __init__(self, model: RetinaNet, about: Description) -> None:
        super().__init__()
        self.dense = Dense(model)
        self.uint8 = about.uint8
        for name in ("mean", "std"):
            values = torch.tensor(getattr(about.image_config, f"image_{name}")).reshape(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, images_N3HW: Tensor, sizes_N2: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores_NAK and boxes_NA4 (xyxy, input pixels) of all anchors, finest level first.

        Args:
            images_N3HW: float in [0, 1] or uint8.
            sizes_N2: int64, width and height of each image within it; what lies beyond is padding.
        """
        images_N3HW = images_N3HW.float() / 255 if self.uint8 else images_N3HW
        H, W = images_N3HW.shape[2:]
        normalised_N3HW = (images_N3HW - self.mean) / self.std
        inside = torch.arange(W).view(1, 1, 1, W) < sizes_N2[:, 0].view(-1, 1, 1, 1)
        inside = inside & (torch.arange(H).view(1, 1, H, 1) < sizes_N2[:, 1].view(-1, 1, 1, 1))
        model = self.dense.model
        levels = model.fpn(model.backbone(torch.where(inside, normalised_N3HW, 0.0)))
        sizes = [(m.shape[-2], m.shape[-1]) for m in levels]
        anchors_A4, _ = model.anchors(sizes, like=normalised_N3HW, input_size=(H, W))
        return model.class_head(levels).sigmoid(), boxes.decode(model.box_head(levels), anchors_A4)


def fixed_padding(model: RetinaNet) -> RetinaNet:
    """Give "SAME" convolutions (TensorFlow's) the padding that they have on sides that are multiples of `DIVISOR`.

    They compute it anew from every input's size, which torch.export cannot follow in reasonable time. For an input of
    n = s * stride, it is kernel - stride in all, the larger half at the right and bottom. Changes `model`.
    """
    for name, module in list(model.backbone.named_modules()):
        if not isinstance(module, Conv2dSame):
            continue
        total = [
            max(d * (k - 1) + 1 - s, 0)
            for k, s, d in zip(module.kernel_size, module.stride, module.dilation, strict=True)
        ]
        (top, bottom), (left, right) = ((p // 2, p - p // 2) for p in total)
        plain: Any = nn.Conv2d(
            module.in_channels,
            module.out_channels,
            module.kernel_size,  # type: ignore[arg-type]
            module.stride,  # type: ignore[arg-type]
            dilation=module.dilation,  # type: ignore[arg-type]
            groups=module.groups,
            bias=module.bias is not None,
        )
        plain.load_state_dict(module.state_dict())
        parent, _, child = name.rpartition(".")
        padded = nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), plain).eval()
        setattr(model.backbone.get_submodule(parent), child, padded)
    return model


def least_side(model: RetinaNet) -> int:
    """Return the least height and width that a program of torch.export takes: the coarsest level has two positions."""
    return int(2 ** model.config.levels[-1]) + DIVISOR


def _dimensions(least: int = DIVISOR) -> dict[int, Any]:
    dim = torch.export.Dim
    side = {axis: DIVISOR * dim(name, min=least // DIVISOR, max=4096) for axis, name in ((2, "h"), (3, "w"))}
    return {0: dim("n", min=1, max=4096), **side}


def dense_onnx(model: RetinaNet) -> onnx.ModelProto:
    """Return the network as ONNX, from `graph.NORMALISED` to the dense outputs.

    Raises:
        ExportError: torch cannot export this backbone.
    """
    names = dense_names(model.config.levels)
    said = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stdout(said), redirect_stderr(said):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                Dense(model).cpu().float(),
                (torch.zeros(_EXAMPLE),),
                input_names=[NORMALISED],
                output_names=names,
                opset_version=OPSET,
                dynamic_shapes=(_dimensions(),),
                dynamo=True,
                optimize=True,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise ExportError(f"torch cannot export {model.config.backbone} to ONNX: {error}") from error
    assert program is not None  # noqa: S101 - it is only for dynamo=False
    return program.model_proto


def program(model: RetinaNet, about: Description) -> torch.export.ExportedProgram:
    """Return `Decoded` as a program of torch.export, for any number of images with sides of `least_side` or more.

    Raises:
        ExportError: torch cannot export this backbone.
    """
    images = torch.zeros(_EXAMPLE, dtype=torch.uint8 if about.uint8 else torch.float32)
    sizes = torch.tensor([[_EXAMPLE[3], _EXAMPLE[2]]] * _EXAMPLE[0])
    dimensions = _dimensions(least_side(model))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(
                Decoded(model, about).cpu().float().eval(),
                (images, sizes),
                dynamic_shapes=(dimensions, {0: dimensions[0]}),
                strict=False,
            )
    except (torch._dynamo.exc.UserError, RuntimeError, ValueError) as error:
        raise ExportError(f"torch.export cannot export {model.config.backbone}: {error}") from error
