"""Measure matching in C and in torch, in comparison with torchvision's box_iou and Matcher, for 800 x 1333 pixels.

Our times include the labels and boxes of `AnchorTargets`. torchvision's times include only the matched indices.
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
    """Return the anchors of an image of 800 x 1333, padded, (A, 4)."""
    config = ModelConfig()
    sizes = [(-(-HEIGHT // 2**level), -(-WIDTH // 2**level)) for level in config.levels]
    return AnchorGenerator(config=config)(sizes, like=torch.zeros(0))[0]


def random_target(count: int) -> Target:
    """Return `count` objects at random positions. Their sides are log-uniform from 10 to 500 pixels."""
    rng = torch.Generator().manual_seed(count)
    side = torch.exp(torch.rand(count, 2, generator=rng) * 3.9 + 2.3).clamp(max=500)
    corner = torch.rand(count, 2, generator=rng) * (torch.tensor([WIDTH, HEIGHT]) - side)
    return Target(
        boxes_G4=torch.cat([corner, corner + side], 1),
        labels_G=torch.randint(0, 80, (count,), generator=rng),
        crowd_G=torch.zeros(count, dtype=torch.bool),
    )


def torchvision(anchors_A4: Tensor, objects: Target, matcher: Matcher) -> Tensor:
    """Return the index of the matched object of each anchor, below 0 for an anchor without a match."""
    return matcher(box_iou(objects.boxes_G4, anchors_A4))


def main() -> None:
    """Print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds")
    arguments = parser.parse_args()
    anchors_A4 = anchors()
    sections = []
    for low_quality in (False, True):
        config = MatchConfig(low_quality_matches=low_quality)
        matcher = Matcher(config.positive_iou, config.negative_iou, allow_low_quality_matches=low_quality)
        for count in (10, 100, 500):
            objects = random_target(count)
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
            results = {name: run() for name, run in cases.items()}
            index_A = results.pop("torchvision")
            for ours in results.values():
                assert torch.equal(ours.positive_NA[0], index_A >= 0)
                assert torch.equal(ours.ignored_NA[0], index_A == Matcher.BETWEEN_THRESHOLDS)
                assert torch.equal(ours.matched_NA[0][index_A >= 0], index_A[index_A >= 0])
                assert all(torch.equal(getattr(ours, f), getattr(results["ours, torch"], f)) for f in FIELDS)
            times = interleave(cases, rounds=arguments.rounds)
            memory = {name: extra_memory(run) for name, run in cases.items()}
            title = f"{len(anchors_A4):,} anchors x {count} boxes, low_quality_matches={low_quality}"
            note = f"{int((index_A >= 0).sum()):,} positive anchors. All results are equal, bit for bit."
            sections.append(Section(title, times, "torchvision", memory, note))
    write("matching", "Matching anchors to objects", sections)


if __name__ == "__main__":
    main()
