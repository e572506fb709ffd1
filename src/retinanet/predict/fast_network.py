"""A copy of a network that only predicts: it returns the outputs of the original network in less time.

BatchNorm, activations and residual additions are folded into the convolutions, which `ops.convolution` computes. If
every layer of the box head can be computed tile by tile, offsets are computed only around the positions with a score
above the threshold. With bfloat16, the output convolutions stay in float32, because rounding in the last layer changes
scores and large boxes most.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Final

import torch
import torch.nn.functional as F
from torch import nn

from retinanet.errors import ConfigError
from retinanet.model.backbone import Backbone
from retinanet.model.fpn import FeaturePyramid
from retinanet.model.heads import Head
from retinanet.model.retinanet import CompilableNetwork, level_sizes
from retinanet.ops.convolution import prepare_convolution
from retinanet.predict.batchnorm_folding import fold_batchnorm, join_activations
from retinanet.predict.skipping_head import SkippingHead, positions_above
from retinanet.types import HeadOutputs

if TYPE_CHECKING:
    from torch import Tensor

    from retinanet.model.retinanet import RetinaNet

DTYPES: Final = {"32": torch.float32, "bf16": torch.bfloat16}
"""Data type of each value of the option `precision`."""


class Cast(nn.Module):
    """A module that computes in a fixed data type."""

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module = module
        self.dtype = dtype

    def forward(self, x: Tensor) -> Any:
        """Return the module's output for the input converted to the data type."""
        return self.module(x.to(self.dtype))


class SteadyGroupNorm(nn.Module):
    """GroupNorm whose outputs do not depend on the number of threads, for feature maps in channels_last on the CPU.

    torch's GroupNorm divides the positions among the threads, so the rounding of its sums depends on their number. This
    form sums each channel in one thread.

    Args:
        norm: GroupNorm with weight and bias.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.groups, self.eps, self.weight, self.bias = norm.num_groups, norm.eps, norm.weight, norm.bias

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Return the normalised feature maps."""
        if x_NCHW.device.type != "cpu":
            return F.group_norm(x_NCHW, self.groups, self.weight, self.bias, self.eps)
        N, C, H, W = x_NCHW.shape
        x_NPC = x_NCHW.permute(0, 2, 3, 1).reshape(N, H * W, C).float()
        size, each = H * W * C // self.groups, C // self.groups
        mean_NG = x_NPC.sum(dim=1).view(N, self.groups, each).sum(dim=2) / size
        square_NG = (x_NPC * x_NPC).sum(dim=1).view(N, self.groups, each).sum(dim=2) / size
        inverse_NG = ((square_NG - mean_NG * mean_NG).clamp(min=0) + self.eps).rsqrt()
        scale_NC = inverse_NG.repeat_interleave(each, dim=1) * self.weight.float()
        shift_NC = self.bias.float() - mean_NG.repeat_interleave(each, dim=1) * scale_NC
        y_NPC = torch.addcmul(shift_NC[:, None], x_NPC, scale_NC[:, None])
        return y_NPC.to(x_NCHW.dtype).view(N, H, W, C).permute(0, 3, 1, 2)


class FastNetwork(CompilableNetwork):
    """A network in eval mode that only predicts: see `for_inference`. Its parts have the names of `RetinaNet`'s parts.

    Args:
        model: network whose parts are reused and changed.
        dtype: data type of weights and feature maps. The outputs are float32.
    """

    def __init__(self, model: RetinaNet, dtype: torch.dtype) -> None:
        super().__init__()
        self.backbone, self.fpn, self.anchors = model.backbone, model.fpn, model.anchors
        self.class_head, self.box_head = model.class_head, model.box_head
        levels = len(self.fpn.output) + len(self.fpn.coarse)
        if isinstance(self.backbone, Backbone):
            self.backbone.body = Cast(fold_batchnorm(self.backbone.body), dtype)
        else:
            self.backbone = Cast(fold_batchnorm(self.backbone), dtype)
        for head in (self.class_head, self.box_head):
            layers = [SteadyGroupNorm(layer) if type(layer) is nn.GroupNorm else layer for layer in head.hidden]
            head.hidden = join_activations(layers, shapes=levels)
            head.output = Cast(prepare_convolution(head.output, shapes=levels), torch.float32)
        float32_parts: list[nn.Module] = [self.class_head.output, self.box_head.output]
        self.skips_offsets = SkippingHead.supports(self.box_head)
        """Whether `above` has an effect. It may be set to False."""
        if self.skips_offsets:
            self.box_head = SkippingHead(self.box_head)
            float32_parts = [self.class_head.output, self.box_head]
        for convolutions in (self.fpn.lateral, self.fpn.output, self.fpn.coarse):
            for i, convolution in enumerate(convolutions):
                convolutions[i] = prepare_convolution(convolution)
        float32 = {id(m) for part in float32_parts for m in part.modules()}
        for module in self.modules():
            if id(module) not in float32:
                for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                    if tensor.is_floating_point():
                        tensor.data = tensor.data.to(dtype)

    def forward(self, images_N3HW: Tensor, above: float | None = None) -> HeadOutputs:
        """Return logits and offsets at every anchor.

        Args:
            images_N3HW: images as returned by `images.prepare`, of any height and width.
            above: logit up to which the offsets of a position are not needed and may be 0. None: all are needed.
        """
        if above is None or not self.skips_offsets:
            logits_NAK, deltas_NA4, sizes = self._dense(self, images_N3HW)
        else:
            levels = self.fpn(self.backbone(images_N3HW))
            logits_NAK = self.class_head(levels)
            deltas_NA4 = self.box_head(levels, wanted=positions_above(logits_NAK, levels, above))
            sizes = level_sizes(levels)
        anchors_A4, per_level = self.anchors(
            sizes, like=images_N3HW, input_size=(images_N3HW.shape[-2], images_N3HW.shape[-1])
        )
        return HeadOutputs(
            logits_NAK=logits_NAK, deltas_NA4=deltas_NA4, anchors_A4=anchors_A4, anchors_per_level=per_level
        )


def for_inference(model: RetinaNet, *, precision: str = "32") -> nn.Module:
    """Return a faster copy of a network in eval mode, with equal outputs, on the same device.

    The given network does not change, and later changes of its weights do not affect the copy. A network with other
    classes than `FeaturePyramid` and `Head` is copied without simplification.

    Args:
        model: network.
        precision: "32", or "bf16" for weights and feature maps in bfloat16. The output convolutions and the outputs
            are always float32.

    Raises:
        ConfigError: precision bf16 for a network with other classes than `FeaturePyramid` and `Head`.
    """
    network = copy.deepcopy(model).eval().requires_grad_(False).to(memory_format=torch.channels_last)
    if type(model.fpn) is FeaturePyramid and type(model.class_head) is type(model.box_head) is Head:
        return FastNetwork(network, DTYPES[precision])
    if precision != "32":
        raise ConfigError(
            f"precision {precision} expects a network with FeaturePyramid and Head, found {type(model.fpn).__name__}, "
            f"{type(model.class_head).__name__} and {type(model.box_head).__name__}: use precision 32"
        )
    return network


def has_fast_bf16() -> bool:
    """Return whether the processor has instructions for bfloat16 arithmetic (avx512_bf16, AMX)."""
    if hasattr(torch.cpu, "get_capabilities"):  # not in torch 2.6
        capabilities: Any = torch.cpu.get_capabilities()
        return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return bool(torch.cpu._is_avx512_bf16_supported())
