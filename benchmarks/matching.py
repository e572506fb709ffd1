"""Matching: ours in C and in torch beside torchvision's box_iou and Matcher, on the anchors of an 800 x 1333 image.

Ours includes all of `AnchorTargets`, labels and boxes; the peer's time is that of its matched indices alone.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from harness import Section, extra_memory, interleave, write
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from retinanet.config import MatchConfig, ModelConfig
from retinanet.model.anchors import AnchorGenerator
from retinanet.ops.matching import match_native, match_torch, supports_match_native
from retinanet.types import Target

HEIGHT, WIDTH = 800, 1333
FIELDS = ("positive_NA", "ignored_NA", "labels_NA", "boxes_NA4", "matched_NA")


def anchors() -> Tensor:
    """Return the anchors of the padded image."""
    config = ModelConfig()
    sizes = [(-(-HEIGHT // 2**level), -(-WIDTH // 2**level)) for level in config.levels]
    return AnchorGenerator(config=config)(sizes, like=torch.zeros(0))[0]


def target(count: int) -> Target:
    """Return objects anywhere in the image, their sides log-uniform from 10 to 500 pixels."""
    rng = torch.Generator().manual_seed(count)
    side = torch.exp(torch.rand(count, 2, generator=rng) * 3.9 + 2.3).clamp(max=500)
    corner = torch.rand(count, 2, generator=rng) * (torch.tensor([WIDTH, HEIGHT]) - side)
    return Target(
        boxes_G4=torch.cat([corner, corner + side], 1),
        labels_G=torch.randint(0, 80, (count,), generator=rng),
        crowd_G=torch.zeros(count, dtype=torch.bool),
    )


def torchvision(anchors_A4: Tensor, objects: Target, matcher: Matcher) -> Tensor:
    """Return the index of each anchor's object, below 0 where there is none."""
    return matcher(box_iou(objects.boxes_G4, anchors_A4))


def main() -> None:
    """Print and write the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    anchors_A4 = anchors()
    sections = []
    for low_quality in (False, True):
        config = MatchConfig(low_quality_matches=low_quality)
        matcher = Matcher(config.positive_iou, config.negative_iou, allow_low_quality_matches=low_quality)
        for count in (10, 100, 500):
            objects = target(count)
            rule = {
                "positive_iou": config.positive_iou,
                "negative_iou": config.negative_iou,
                "low_quality_matches": low_quality,
            }
            cases = {
                "ours, torch": partial(match_torch, anchors_A4, [objects], **rule),
                "torchvision": partial(torchvision, anchors_A4, objects, matcher),
            }
            if supports_match_native(anchors_A4, [objects]):
                cases = {"ours, C": partial(match_native, anchors_A4, [objects], **rule), **cases}
            found = {name: run() for name, run in cases.items()}
            theirs = found.pop("torchvision")
            for ours in found.values():
                assert torch.equal(ours.positive_NA[0], theirs >= 0)
                assert torch.equal(ours.ignored_NA[0], theirs == Matcher.BETWEEN_THRESHOLDS)
                assert torch.equal(ours.matched_NA[0][theirs >= 0], theirs[theirs >= 0])
                assert all(torch.equal(getattr(ours, f), getattr(found["ours, torch"], f)) for f in FIELDS)
            times = interleave(cases, rounds=arguments.rounds)
            memory = {name: extra_memory(run) for name, run in cases.items()}
            title = f"{len(anchors_A4):,} anchors x {count} boxes, low_quality_matches={low_quality}"
            note = f"{int((theirs >= 0).sum()):,} positive; the same in all, bit for bit"
            sections.append(Section(title, times, "torchvision", memory, note))
    write("matching", "Matching anchors to objects", sections)


if __name__ == "__main__":
    main()
