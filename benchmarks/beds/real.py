"""Datasets of photographs, and the demo's scenes, for the comparison of settings with `run.py`.

- `bccd`: blood cells, 205 training images with up to 30 crowded objects; 72 test images.
- `cards`: playing cards, 296 training photographs of large objects; 67 test photographs, also used for validation.
- `demo`: the scenes of `retinanet demo`, with its size of the network's input.

BCCD and the cards are read from ../shared/data, which only the project's own machines have.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

BENCHMARKS: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(BENCHMARKS))
from torchvision_retinanet import SHARED  # noqa: E402

WEIGHTS: Final = SHARED / "weights" / "tf_efficientnet_lite0-imagenet-timm.safetensors"
TRAINING: Final[dict[str, Any]] = {
    "backbone_weights": WEIGHTS,
    "skip_invalid": True,  # two boxes of BCCD have no area
}
"""Options of every run on photographs that differ from the defaults of `retinanet train`."""


@dataclass(frozen=True, kw_only=True)
class Photographs:
    """A dataset of photographs.

    Args:
        train: annotations of the training images.
        val: annotations of the validation images.
        test: annotations of the test images.
        size: longest and shortest side of the network's input, pixels.
    """

    train: Path
    val: Path
    test: Path
    size: tuple[int, int]

    @property
    def training(self) -> dict[str, Any]:
        """Options of every run that differ from the defaults of `retinanet train`."""
        return TRAINING

    def make(self, folder: Path) -> Path:
        """Write train.json, val.json and test.json (COCO) into `folder`, unless these exist. Return `folder`."""
        from retinanet.data import load
        from retinanet.formats import write

        for split in ("train", "val", "test"):
            target = folder / f"{split}.json"
            if not target.exists():
                data = load(getattr(self, split), skip_invalid=True)
                write({split: data}, target, "coco", image_files="none")
        return folder


class DemoScenes:
    """The scenes of `retinanet demo`."""

    size = (320, 256)

    @property
    def training(self) -> dict[str, Any]:
        """Options of `retinanet demo` that differ from the defaults of `retinanet train`."""
        from retinanet.commands.demo import TRAINING

        return TRAINING

    def make(self, folder: Path) -> Path:
        """Write the scenes into `folder`, unless it holds these. Return `folder`."""
        from retinanet.data.demo_scenes import make_scenes

        return make_scenes(folder).folder


BCCD: Final = SHARED / "bccd" / "ImageSets" / "Main"
CARDS: Final = SHARED / "cards"
REAL: Final = {
    "bccd": Photographs(train=BCCD / "train.txt", val=BCCD / "val.txt", test=BCCD / "test.txt", size=(320, 240)),
    "cards": Photographs(train=CARDS / "train", val=CARDS / "test", test=CARDS / "test", size=(256, 256)),
    "demo": DemoScenes(),
}
