"""Make the beds: seeded datasets of demo scenes whose difficulty is known.

- `long_tail`: training objects of the ten digit classes fall geometrically from 1,000 to 10.
- `hard_boxes`: boxes with sides from 6 pixels and aspect ratios from 1:6 to 6:1.
- `unreached`: the demo's scenes with some smaller digits, so that 5 to 10 % of the objects match no default anchor.
- `plain`: the demo's scenes in a smaller size, in which the default settings have nothing to cure.
- `few`: as `plain`, with 150 training objects.

The classes of the test scenes are balanced in every bed.

    python benchmarks/beds/scenes.py long_tail runs/beds/long_tail
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from retinanet.data.demo_scenes import CLASSES, Material, Scene, demo_digit_size, load_material, make_scene, write_split

SIZE: Final = (224, 160)
"""(width, height) of the scenes, pixels. Training uses the same size."""
MOST, FEWEST = 1000, 10
"""Number of training objects of the first and of the last class of the long tail."""
COMMON: Final = CLASSES[:3]
RARE: Final = CLASSES[-3:]
SHORT_SIDE: Final = 6
"""Shortest side of a box of the bed `hard_boxes`, pixels."""
RATIO: Final = 6.0
"""Largest aspect ratio of a digit of the bed `hard_boxes`."""

DigitSize = Callable[[np.random.Generator, int], tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Bed:
    """A kind of dataset: the digits of the training scenes, and the sizes of all digits."""

    train_digits: Callable[[np.random.Generator], list[int]]
    digit_size: DigitSize
    min_side: int
    digits_per_scene: int = 5
    val: int = 60
    test: int = 200
    size: ClassVar[tuple[int, int]] = SIZE
    training: ClassVar[dict[str, Any]] = {
        "flip": 0.0,  # a mirrored digit is not a digit
        "ema": 0.99,
    }
    """Options of every run that differ from the defaults of `retinanet train`; those of `retinanet demo`."""

    def make(self, folder: Path, *, seed: int = 0) -> Path:
        """Write train.json, val.json, test.json and their images into `folder`, unless it exists. Return `folder`."""
        if folder.exists():
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        material = load_material()
        rng = np.random.default_rng(seed)
        digits = {
            "train": self.train_digits(rng),
            "val": balanced(self.val * self.digits_per_scene, rng),
            "test": balanced(self.test * self.digits_per_scene, rng),
        }
        with tempfile.TemporaryDirectory(prefix=".bed-", dir=folder.parent) as scratch:
            built = Path(scratch) / "bed"
            for split, labels in digits.items():
                write_split(built, split, self._scenes(material[split], labels, rng))
            built.rename(folder)
        return folder

    def _scenes(self, material: Material, digits: Sequence[int], rng: np.random.Generator) -> Iterator[Scene]:
        """Yield scenes until every digit has a place. A digit without free space moves to the next scene."""
        left = list(digits)
        while left:
            scene = make_scene(
                material,
                rng,
                size=SIZE,
                digits=left[: self.digits_per_scene],
                digit_size=self.digit_size,
                min_side=self.min_side,
            )
            yield scene
            left = left[len(scene.labels) :]


def long_tail_counts() -> list[int]:
    """Return the number of training objects of each class of the long tail: 1,000, 599, 359, ..., 10."""
    return [round(count) for count in np.geomspace(MOST, FEWEST, len(CLASSES))]


def balanced(count: int, rng: np.random.Generator) -> list[int]:
    """Return `count` class ids in random order, whose numbers differ by at most 1."""
    return rng.permutation(np.arange(count) % len(CLASSES)).tolist()


def hard_size(rng: np.random.Generator, scene_height: int) -> tuple[float, float]:
    """Return a width and height: short side 7 to 32 pixels, ratio 1:6 to 6:1, both uniform in the logarithm."""
    short = float(np.exp(rng.uniform(np.log(SHORT_SIDE + 1), np.log(32))))
    long = min(short * float(np.exp(rng.uniform(0, np.log(RATIO)))), 0.8 * scene_height)
    return (short, long) if rng.random() < 0.5 else (long, short)


def partly_small_size(rng: np.random.Generator, scene_height: int) -> tuple[float, float]:
    """Return a width and height of the demo's digits; one digit in 25 has 12 to 18 pixels."""
    width, height = demo_digit_size(rng, scene_height)
    if rng.random() < 0.04:
        small = rng.uniform(12, 18)
        return width / height * small, small
    return width, height


BEDS: Final = {
    "long_tail": Bed(
        train_digits=lambda rng: rng.permutation(np.repeat(np.arange(len(CLASSES)), long_tail_counts())).tolist(),
        digit_size=demo_digit_size,
        min_side=17,
    ),
    "hard_boxes": Bed(train_digits=lambda rng: balanced(2500, rng), digit_size=hard_size, min_side=SHORT_SIDE),
    "unreached": Bed(train_digits=lambda rng: balanced(1500, rng), digit_size=partly_small_size, min_side=8),
    "plain": Bed(train_digits=lambda rng: balanced(1500, rng), digit_size=demo_digit_size, min_side=17),
    "few": Bed(train_digits=lambda rng: balanced(150, rng), digit_size=demo_digit_size, min_side=17),
}


def main() -> None:
    """Make one bed."""
    parser = argparse.ArgumentParser(description="Make a bed: a dataset of demo scenes whose difficulty is known.")
    parser.add_argument("bed", choices=BEDS, help="kind of the dataset")
    parser.add_argument("folder", type=Path, help="output folder, which must not exist")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    args = parser.parse_args()
    print(BEDS[args.bed].make(args.folder, seed=args.seed))


if __name__ == "__main__":
    main()
