"""Compare losses on the outputs of one network: which examples cause the loss and the gradient under each setting.

An example is one (anchor, class) pair. Its loss and its gradient are functions of its wrong logit z, see
`loss_settings`. So histograms of z hold the sums for every weight and gamma g. A bin stores the number of its examples
and the mean of their logits. Both functions change by at most a factor of exp(g + 1) per unit of z, and their second
derivative is at most (g + 1)^2 times their value. So the sum of a bin of width h within +-30 is off by at most
exp((g + 1) h) ((g + 1) h)^2 / 8: 0.12 % for g = 5. Softplus is linear above 30, so the last bin is exact, too.

The weights and gamma order places (objects, background boxes) by gradient. A weight is equal for all positives, and for
all negatives, so it does not change the order among objects or among background. The best places of each kind for
each gamma therefore contain the best places for each alpha and gamma. `PlacePool` keeps exactly these.

This module is torch-free. `report/scripts/loss_terms.js` computes the same numbers from the same data.

Shape suffixes: G groups of examples, B bins of a group, D bins of a drawing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np

from retinanet.analysis.gradient_place import PLACES, Place
from retinanet.analysis.loss_settings import ALPHAS, GAMMAS, Setting, example_terms, setting_text

if TYPE_CHECKING:
    import numpy.typing as npt

    from retinanet.config import LossConfig
    from retinanet.data import DetectionData

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

LOWEST, HIGHEST, BINS_PER_UNIT = -30.0, 30.0, 64
"""Range and resolution of the histograms of wrong logits. Logits beyond +-30 count in the outermost bins."""
DRAWN_TO, DRAWN_PER_UNIT = 10.0, 4
"""Range and resolution of the drawn histograms. Logits beyond +-10 count in the outermost bins."""
JSON_ALPHAS, JSON_GAMMAS = (0.25, 0.5, 0.75), (0.0, 0.5, 1.0, 2.0, 5.0)
"""Settings of the table of shares that reports and JSON documents contain."""

GroupKind = Literal["objects", "rare objects", "hard background", "easy background"]
KINDS: Final[tuple[GroupKind, ...]] = ("objects", "rare objects", "hard background", "easy background")


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """Histogram of a group of examples: the used bins, by rising wrong logit.

    Args:
        name: class name for objects; the kind for background.
        kind: kind of the examples. A background example is hard if its p_t is below the minimum of an easy example.
        logit_B: mean wrong logit of the examples of each bin.
        count_B: number of examples of each bin, above 0.
    """

    name: str
    kind: GroupKind
    logit_B: Floats
    count_B: Ints

    @property
    def is_background(self) -> bool:
        """Whether the examples are negatives."""
        return self.kind.endswith("background")


class Sums(NamedTuple):
    """Sums over the examples of each group: loss, absolute gradient, squared gradient."""

    loss_G: Floats
    gradient_G: Floats
    squares_G: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class LossRow:
    """What a loss sees of the outputs: its shares by group, and how many examples it uses.

    Args:
        name: name of the loss.
        sums: sums over the used examples of each group.
        examples: number of used examples.
    """

    name: str
    sums: Sums
    examples: int

    @property
    def effective(self) -> float:
        """Effective number of examples, (sum |g|)^2 / sum g^2 (Kish, 1965): so many equal gradients weigh as much."""
        squares = float(self.sums.squares_G.sum())
        return float(self.sums.gradient_G.sum()) ** 2 / squares if squares > 0 else 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class LossMicroscope:
    """Histograms of the wrong logits of a network on a dataset, and the places that can have the largest gradients.

    Args:
        classes: name of each class id.
        images: number of measured images.
        easy_from: minimum p_t of an easy example.
        loss_config: the loss that the network was trained with.
        objects_K: number of objects of each class without crowd regions.
        groups: examples of each class with positives, in the order of the class ids, then hard and easy background.
        mined: losses with hard example mining, with exact sums over the anchors that these losses keep.
        places: union of the `PLACES` objects and background places with the largest gradient for each of `GAMMAS`.
    """

    classes: tuple[str, ...]
    images: int
    easy_from: float
    loss_config: LossConfig
    objects_K: Ints
    groups: tuple[Group, ...]
    mined: tuple[LossRow, ...]
    places: tuple[Place, ...]

    @property
    def start(self) -> Setting:
        """The alpha and gamma of training, rounded to offered values. The default for losses without these."""
        default = type(self.loss_config)
        settings = {
            "focal": (self.loss_config.alpha, self.loss_config.gamma),
            "balanced_ce": (self.loss_config.alpha, 0.0),
            "ce": (None, 0.0),
        }
        alpha, gamma = settings.get(self.loss_config.loss, (default.alpha, default.gamma))
        return Setting(None if alpha is None else _nearest(ALPHAS, alpha), _nearest(GAMMAS, gamma))

    @property
    def is_start_exact(self) -> bool:
        """Whether training used exactly the alpha and gamma of `start`, for all classes."""
        config, start = self.loss_config, self.start
        used = {"focal": (config.alpha, config.gamma), "balanced_ce": (config.alpha, 0.0), "ce": (None, 0.0)}
        return used.get(config.loss) == tuple(start) and not (config.class_alpha and config.loss != "ce")

    @property
    def rare(self) -> tuple[str, ...]:
        """Names of the rare classes, see `class_balance.rare_classes`."""
        return tuple(group.name for group in self.groups if group.kind == "rare objects")

    def sums(self, setting: Setting) -> Sums:
        """Return the sums of the focal loss over the examples of each group."""
        return self._sums(setting.weights, setting.gamma)

    def losses(self, setting: Setting) -> list[LossRow]:
        """Return what each loss sees of the outputs: the focal loss of a setting first.

        Alpha-balanced cross-entropy has the alpha of the setting. Weighted cross-entropy and mining have the options
        of training.
        """
        everything = sum(int(group.count_B.sum()) for group in self.groups)
        rows = [
            ("focal loss, this setting", setting.weights, setting.gamma),
            ("cross-entropy", (1.0, 1.0), 0.0),
            ("alpha-balanced cross-entropy", setting.weights, 0.0),
            ("weighted cross-entropy (YOLO)", (1.0, self.loss_config.negative_weight), 0.0),
        ]
        return [
            *(
                LossRow(name=name, sums=self._sums(weights, gamma), examples=everything)
                for name, weights, gamma in rows
            ),
            *self.mined,
        ]

    def by_kind(self, values_G: Floats) -> dict[str, float]:
        """Return the share of each kind of group in the sum; zeros if the sum is 0."""
        total = float(values_G.sum())
        return {
            kind: sum((float(v) for group, v in zip(self.groups, values_G, strict=True) if group.kind == kind), 0.0)
            / (total or 1.0)
            for kind in KINDS
        }

    def ranked(self, setting: Setting) -> list[tuple[int, float]]:
        """Return the `PLACES` places with the largest gradient: index in `places`, sum of its examples' gradients.

        No other object, and no other background place, has a larger gradient: see the module's docstring.
        """
        if not self.places:
            return []
        wrong = np.concatenate([place.logits for place in self.places])
        first = np.cumsum([0, *(len(place.logits) for place in self.places)])[:-1]
        weights = np.where([place.is_object for place in self.places], *setting.weights)
        gradients = weights * np.add.reduceat(example_terms(wrong, setting.gamma)[1], first)
        return [(int(i), float(gradients[i])) for i in np.argsort(-gradients, kind="stable")[:PLACES]]

    def densities(self, setting: Setting) -> dict[str, tuple[Floats, Floats]]:
        """Return number and gradient of the examples by class logit x, for the drawing: kind -> (count_D, gradient_D).

        The kind "background" holds easy and hard background. A bin of a histogram counts at its mean logit.
        """
        half = round(DRAWN_TO * DRAWN_PER_UNIT)
        found = {kind: (np.zeros(2 * half), np.zeros(2 * half)) for kind in ("objects", "rare objects", "background")}
        for group in self.groups:
            logit_B = group.logit_B if group.is_background else -group.logit_B
            bin_B = np.clip(np.floor(logit_B * DRAWN_PER_UNIT).astype(np.int64) + half, 0, 2 * half - 1)
            weight = setting.weights[1 if group.is_background else 0]
            gradient_B = weight * example_terms(group.logit_B, setting.gamma)[1] * group.count_B
            count_D, gradient_D = found["background" if group.is_background else group.kind]
            np.add.at(count_D, bin_B, group.count_B)
            np.add.at(gradient_D, bin_B, gradient_B)
        return found

    def sentences(self, setting: Setting | None = None) -> list[str]:
        """Return sentences about the gradient under a setting, by default the setting of training."""
        setting = self.start if setting is None else setting
        shares = self.by_kind(self.sums(setting).gradient_G)
        rare = f" (rare classes {_percent(shares['rare objects'])})" if self.rare else ""
        objects = shares["objects"] + shares["rare objects"]
        return [
            f"With {setting_text(setting)}, objects cause {_percent(objects)} of the gradient{rare}, hard background "
            f"{_percent(shares['hard background'])} and easy background {_percent(shares['easy background'])}."
        ]

    def to_json(self, data: DetectionData) -> dict[str, Any]:
        """Return the numbers as plain values for JSON.

        Args:
            data: the measured dataset, for the image ids of the places.
        """
        start = self.start
        gradient = float(self.sums(start).gradient_G.sum()) or 1.0
        return {
            "alpha": start.alpha,
            "gamma": start.gamma,
            "is_training_setting": self.is_start_exact,
            "rare_classes": list(self.rare),
            "losses": [
                {
                    "name": row.name,
                    "loss_shares": self._keyed(row.sums.loss_G),
                    "gradient_shares": self._keyed(row.sums.gradient_G),
                    "examples_per_image": row.examples / max(1, self.images),
                    "effective_examples_per_image": row.effective / max(1, self.images),
                }
                for row in self.losses(start)
            ],
            "gradient_shares": [
                {"alpha": alpha, "gamma": gamma, **self._keyed(self.sums(Setting(alpha, gamma)).gradient_G)}
                for alpha in JSON_ALPHAS
                for gamma in JSON_GAMMAS
            ],
            "per_class": {
                group.name: {"loss_share": float(loss), "gradient_share": float(share)}
                for group, loss, share in zip(
                    self.groups, *(_shares(values) for values in self.sums(start)[:2]), strict=True
                )
                if not group.is_background
            },
            "places": [
                {
                    "kind": place.kind,
                    "image_id": data.records[place.image].image_id,
                    "class": self.classes[place.label],
                    "box": [round(value, 1) for value in place.box],
                    "score": place.score,
                    "gradient_share": value / gradient,
                }
                for i, value in self.ranked(start)
                for place in [self.places[i]]
            ],
        }

    def _keyed(self, values_G: Floats) -> dict[str, float]:
        return {kind.replace(" ", "_"): share for kind, share in self.by_kind(values_G).items()}

    def _sums(self, weights: tuple[float, float], gamma: float) -> Sums:
        sums_G3 = np.zeros((len(self.groups), 3))
        for g, group in enumerate(self.groups):
            weight = weights[1 if group.is_background else 0]
            loss_B, gradient_B = (weight * values_B for values_B in example_terms(group.logit_B, gamma))
            for i, values_B in enumerate((loss_B, gradient_B, gradient_B**2)):
                sums_G3[g, i] = float((group.count_B * values_B).sum())
        return Sums(*sums_G3.T.copy())


def _shares(values_G: Floats) -> Floats:
    shares: Floats = values_G / (values_G.sum() or 1.0)
    return shares


def _nearest(values: tuple[float, ...], wanted: float) -> float:
    return min(values, key=lambda value: abs(value - wanted))


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.0995 or share == 0 else f"{share:.1%}"
