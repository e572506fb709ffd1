"""Measure post-processing and NMS in C and in torch, in comparison with torchvision.

The input has 163,206 anchors x 91 classes (800 x 1088 pixels). There are three cases: no candidates; the scores of a
trained network (few anchors with high scores); and the scores of an untrained network, of which millions exceed the
threshold.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial

import torch
from harness import Section, extra_memory, interleave, write
from torch import Tensor
from torchvision.models.detection import retinanet_resnet50_fpn
from torchvision.ops import batched_nms

from retinanet import postprocess as ours
from retinanet.config import ModelConfig, PostprocessConfig
from retinanet.images import Frame
from retinanet.model.anchors import AnchorGenerator
from retinanet.ops.candidates import candidates, candidates_torch
from retinanet.ops.native_library import available
from retinanet.ops.nms import nms, nms_torch
from retinanet.types import HeadOutputs, ImageDetections

HEIGHT, WIDTH, K = 800, 1088, 91
CONFIG = PostprocessConfig(max_detections=300)


def head_outputs(kind: str) -> HeadOutputs:
    """Return random outputs of a network with `none`, a `realistic` number or `millions` of candidates."""
    model = ModelConfig()
    sizes = [(-(-HEIGHT // 2**level), -(-WIDTH // 2**level)) for level in model.levels]
    anchors_A4, per_level = AnchorGenerator(config=model)(sizes, like=torch.zeros(0))
    rng = torch.Generator().manual_seed(1)
    logits_AK = torch.randn(len(anchors_A4), K, generator=rng)
    if kind == "millions":
        logits_AK -= 4.07
    else:
        logits_AK -= 9.5
    if kind == "realistic":
        chosen = torch.randperm(len(anchors_A4), generator=rng)[:6000]
        logits_AK[chosen, :3] += 6.9
    deltas_A4 = torch.randn(len(anchors_A4), 4, generator=rng) * 0.2
    return HeadOutputs(
        logits_NAK=logits_AK[None], deltas_NA4=deltas_A4[None], anchors_A4=anchors_A4, anchors_per_level=per_level
    )


def in_torch(outputs: HeadOutputs, frame: Frame) -> list[ImageDetections]:
    """Return the detections that `postprocess` computes without the C library."""
    ours.candidates, ours.nms = candidates_torch, nms_torch
    try:
        return ours.postprocess(outputs, frames=[frame], config=CONFIG)
    finally:
        ours.candidates, ours.nms = candidates, nms


def torchvisions(outputs: HeadOutputs) -> Callable[[], list[dict[str, Tensor]]]:
    """Return a function that runs torchvision's post-processing on these outputs."""
    model = retinanet_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=K,
        score_thresh=CONFIG.score_threshold,
        nms_thresh=CONFIG.nms_threshold,
        topk_candidates=CONFIG.candidates_per_level,
        detections_per_img=CONFIG.max_detections,
    )
    counts = list(outputs.anchors_per_level)
    heads = {
        "cls_logits": list(outputs.logits_NAK.split(counts, dim=1)),
        "bbox_regression": list(outputs.deltas_NA4.split(counts, dim=1)),
    }
    anchors = [list(outputs.anchors_A4.split(counts))]
    return lambda: model.postprocess_detections(heads, anchors, [(HEIGHT, WIDTH)])


def check_equal(detections: ImageDetections, expected: dict[str, Tensor]) -> None:
    """Check that our detections equal torchvision's, in the same order."""
    assert torch.equal(detections.labels_D, expected["labels"])
    assert torch.allclose(detections.scores_D, expected["scores"], rtol=0, atol=1e-5)
    assert torch.allclose(detections.boxes_D4, expected["boxes"], rtol=0, atol=1e-3)


@torch.inference_mode()
def postprocess_sections(rounds: int) -> list[Section]:
    """Return the tables of the whole post-processing."""
    sections = []
    frame = Frame(width=WIDTH, height=HEIGHT, resized_width=WIDTH, resized_height=HEIGHT)
    for kind in ("none", "realistic", "millions"):
        outputs = head_outputs(kind)
        cases: dict[str, Callable[[], object]] = {
            "ours, torch": partial(in_torch, outputs, frame),
            "torchvision": torchvisions(outputs),
        }
        run = partial(ours.postprocess, outputs, frames=[frame], config=CONFIG)
        if available():
            half = HeadOutputs(
                logits_NAK=outputs.logits_NAK.bfloat16(),
                deltas_NA4=outputs.deltas_NA4,
                anchors_A4=outputs.anchors_A4,
                anchors_per_level=outputs.anchors_per_level,
            )
            cases = {
                "ours, C": run,
                "ours, C, bfloat16 logits": partial(ours.postprocess, half, frames=[frame], config=CONFIG),
                **cases,
            }
        expected = cases["torchvision"]()[0]  # type: ignore[index]
        for detections in (run()[0], in_torch(outputs, frame)[0]):
            check_equal(detections, expected)
        passing = int((outputs.logits_NAK.sigmoid() > CONFIG.score_threshold).sum())
        times = interleave(cases, rounds=rounds)
        memory = {name: extra_memory(case) for name, case in cases.items()}
        title = f"{outputs.logits_NAK.shape[1]:,} anchors x {K} classes, {passing:,} candidates ({kind})"
        sections.append(
            Section(title, times, "torchvision", memory, f"{len(expected['labels'])} detections in each case")
        )
    return sections


def nms_sections(rounds: int) -> list[Section]:
    """Return the tables of NMS alone."""
    sections = []
    for count, classes in ((1_000, K), (5_000, K), (20_000, K), (20_000, 1)):
        rng = torch.Generator().manual_seed(count)
        corner = torch.rand(count, 2, generator=rng) * torch.tensor([WIDTH - 100.0, HEIGHT - 100.0])
        boxes_B4 = torch.cat([corner, corner + torch.rand(count, 2, generator=rng) * 95 + 5], 1)
        scores_B = torch.linspace(0.05, 1, count)[torch.randperm(count, generator=rng)]
        labels_B = torch.randint(0, classes, (count,), generator=rng)
        cases: dict[str, Callable[[], object]] = {
            "ours, torch": partial(nms_torch, boxes_B4, scores_B, labels_B, threshold=0.5),
            "ours, torch, limit 300": partial(nms_torch, boxes_B4, scores_B, labels_B, threshold=0.5, limit=300),
            "torchvision": partial(batched_nms, boxes_B4, scores_B, labels_B, 0.5),
        }
        if available():
            cases = {
                "ours, C": partial(nms, boxes_B4, scores_B, labels_B, threshold=0.5),
                "ours, C, limit 300": partial(nms, boxes_B4, scores_B, labels_B, threshold=0.5, limit=300),
                **cases,
            }
        expected = batched_nms(boxes_B4, scores_B, labels_B, 0.5)
        for name, run in cases.items():
            assert torch.equal(run(), expected[:300] if "300" in name else expected), name  # type: ignore[arg-type]
        times = interleave(cases, rounds=rounds)
        sections.append(
            Section(
                f"NMS of {count:,} boxes, {classes} classes", times, "torchvision", {}, f"{len(expected):,} boxes kept"
            )
        )
    return sections


def main() -> None:
    """Print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds")
    arguments = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    sections = postprocess_sections(arguments.rounds) + nms_sections(arguments.rounds)
    write("postprocess", "From network outputs to detections", sections)


if __name__ == "__main__":
    main()
