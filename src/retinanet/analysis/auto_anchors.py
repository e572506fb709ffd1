"""Fit feature levels and anchors to the objects of a dataset, and decide whether a training run needs them.

`anchor_search` proposes the anchors. The matching of training then measures these before they replace the configured
anchors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from retinanet.analysis.anchor_search import FEW, SEARCHED, AnchorSearch, InputObjects
from retinanet.analysis.coverage import Coverage, coverage, sampled_images
from retinanet.config import TrainConfig, given_options
from retinanet.model import has_level_2

if TYPE_CHECKING:
    from retinanet.config import AugmentConfig, CheckConfig, ImageConfig, MatchConfig, ModelConfig
    from retinanet.data import DetectionData

MOST_IMAGES: Final = 2000
"""Maximum number of images to measure; a larger dataset is sampled evenly."""
NEEDED_BELOW: Final = 0.98
"""Fitted anchors are needed if the configured anchors match a smaller share of the objects."""
ANCHOR_OPTIONS: Final = ("levels", "anchor_sizes", "anchor_scales", "anchor_ratios", "anchor_style")
"""Options that describe the anchors. `as_needed` keeps the anchors of a run in which one of these options is given."""
WORTHWHILE: Final = 0.005
"""Minimum gain, as a share of the objects, for which other anchors are proposed."""
WORTHWHILE_IOU: Final = 0.01
"""Minimum gain of the mean best IoU for which other anchors are proposed."""
FEWER_ANCHORS: Final = 0.95
"""Other anchors that match as many objects are proposed if the number of anchors falls to this share or less."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedAnchors:
    """Anchors fitted to a dataset, with the coverage before and after.

    Args:
        original: the config with the configured anchors.
        model_config: the config with fitted anchors, or the original config if fitting gains too little.
        before: coverage by the original anchors.
        after: coverage by the anchors of `model_config`.
        positive_iou: minimum IoU of a positive anchor.
    """

    original: ModelConfig
    model_config: ModelConfig
    before: Coverage
    after: Coverage
    positive_iou: float

    @property
    def changed(self) -> bool:
        """Whether the fitted anchors differ from the original ones."""
        return self.after is not self.before

    @property
    def gain(self) -> float:
        """Share of the objects that only the fitted anchors match; low-quality matches do not count."""
        return _share(self.after, self.positive_iou) - _share(self.before, self.positive_iou)

    @property
    def needed(self) -> bool:
        """Whether too few objects have a positive anchor, and fitted anchors give more of the objects one."""
        return self.gain >= WORTHWHILE and self.before.share < NEEDED_BELOW

    def flags(self) -> str:
        """Return the options of `retinanet train` for these anchors; "" if the anchors did not change."""
        if not self.changed:
            return ""
        config = self.model_config
        options: dict[str, Any] = {"anchor-sizes": config.anchor_sizes, "anchor-scales": config.anchor_scales}
        options["anchor-ratios"] = config.anchor_ratios
        if config.levels != self.original.levels:
            options = {"levels": config.levels, **options}
        return " ".join(f"--{name} {' '.join(f'{value:g}' for value in values)}" for name, values in options.items())

    def sentence(self) -> str:
        """Return the result as sentences without a capital at the start and a full stop at the end."""
        before = _share(self.before, self.positive_iou)
        if not self.changed:
            return (
                f"the anchors fit: {before:.1%} of the objects have a positive anchor, and fitted anchors gain less "
                f"than {WORTHWHILE:.1%}"
            )
        after = _share(self.after, self.positive_iou)
        text = (
            f"fitted anchors give {after:.1%} of the objects a positive anchor, the original anchors {before:.1%} "
            f"(mean best IoU {_mean_iou(self.after):.2f}, originally {_mean_iou(self.before):.2f}): {self.flags()}. "
            f"{self.cost_sentence()}"
        )
        if after < NEEDED_BELOW:
            text += (
                f". The other {1 - after:.1%} of the objects are too small for the distance between two anchors, or of "
                "rare shapes: larger images (--image-size, --max-size) or --low-quality-matches match more objects"
            )
        return text

    def cost_sentence(self) -> str:
        """Return the levels and the number of anchors, as a sentence without a full stop."""
        new, old = anchors_per_image(self.after), anchors_per_image(self.before)
        text = (
            f"Levels {level_range(self.model_config)} (originally {level_range(self.original)}) with "
            f"{self.model_config.anchors_per_position} anchors per position (originally "
            f"{self.original.anchors_per_position}) have {new:,.0f} anchors per image, {new / max(old, 1):.2g} times "
            "the original number"
        )
        if self.model_config.levels[0] < min(3, self.original.levels[0]):
            text += ". Small objects need level P2, which makes a training step several times as long"
        return text


def fit_anchors(
    data: DetectionData,
    *,
    model_config: ModelConfig,
    match_config: MatchConfig,
    image_config: ImageConfig,
    augment_config: AugmentConfig | None = None,
    keep_levels: bool = False,
    before: Coverage | None = None,
    seed: int = 0,
) -> FittedAnchors:
    """Fit feature levels, anchor sizes, scales and ratios to the objects' sizes in the network's input.

    The search maximises the weighted share of objects that have an anchor with an IoU of at least `positive_iou`, plus
    half the weighted mean of the best IoU. It adds scales, ratios or a level P2 only while objects match no anchor. It
    leaves out levels, scales and ratios that the objects do not need. No result matches fewer objects than the original
    anchors.

    Args:
        data: images and objects.
        model_config: the anchors to start from.
        match_config: the IoU thresholds of positive and negative anchors.
        image_config: the size of the network's input.
        augment_config: the augmentation, whose range of sizes the anchors cover too.
        keep_levels: keep the feature levels, and fit only sizes, scales and ratios.
        before: result of `sampled_coverage` for these options; measured by default.
        seed: seed of the search; the same seed gives the same anchors.
    """
    settings: dict[str, Any] = {"match_config": match_config, "image_config": image_config}
    if before is None:
        before = sampled_coverage(data, model_config=model_config, **settings)
    objects = InputObjects.of(data, image_config, sampled_images(data, MOST_IMAGES))
    best, after = model_config, before
    if len(objects):
        search = AnchorSearch(
            objects=objects.varied(SEARCHED, _size_factors(image_config, augment_config), seed),
            real=objects,
            positive_iou=match_config.positive_iou,
            least=_share(before, match_config.positive_iou),
            fixed=(3,) if len(objects) < FEW else (),
            can_add_p2=lambda: has_level_2(model_config),
            keep_levels=keep_levels,
        )
        fitted = search.run(model_config)
        measured = sampled_coverage(data, model_config=fitted, **settings)
        if _is_better(measured, before, match_config.positive_iou):
            best, after = fitted, measured
    return FittedAnchors(
        original=model_config,
        model_config=best,
        before=before,
        after=after,
        positive_iou=match_config.positive_iou,
    )


def sampled_coverage(
    data: DetectionData, *, model_config: ModelConfig, match_config: MatchConfig, image_config: ImageConfig
) -> Coverage:
    """Return the coverage on the sample of images that the choice of anchors uses."""
    return coverage(
        data, model_config=model_config, match_config=match_config, image_config=image_config, images=MOST_IMAGES
    )


def why_kept(config: TrainConfig | CheckConfig, measured: Coverage) -> str | None:
    """Return why `as_needed` keeps the anchors without fitting, or None if fitted anchors may be needed.

    Args:
        config: options of the run.
        measured: coverage of the training objects by the configured anchors.
    """
    given = given_options(config)
    if isinstance(config, TrainConfig) and config.start.start_from is not None:
        return "the model of --from has its own anchors"
    if names := [name for name in ANCHOR_OPTIONS if name in given]:
        return f"these options were given: {', '.join(names)}"
    if config.base.preset == "paper":
        return "the preset paper has the paper's anchors"
    if measured.share >= NEEDED_BELOW:
        return (
            f"{measured.share:.1%} of the objects have a positive anchor, and anchors are fitted below "
            f"{NEEDED_BELOW:.0%}"
        )
    return None


def as_needed_sentence(kept: str | None, fitted: FittedAnchors | None) -> str:
    """Return which anchors `as_needed` uses and why, without a capital at the start and a full stop at the end.

    Args:
        kept: result of `why_kept`.
        fitted: the fitted anchors; needed if `kept` is None.
    """
    if kept is not None:
        return f"unchanged, because {kept}"
    assert fitted is not None  # noqa: S101
    low = f"only {fitted.before.share:.1%} of the objects have a positive anchor, less than {NEEDED_BELOW:.0%}"
    if not fitted.needed:
        return f"unchanged: {low}, but fitted anchors do not give more of the objects a positive anchor"
    return f"fitted, because {low}: {fitted.sentence()}"


def anchors_per_image(measured: Coverage) -> float:
    """Return the mean number of anchors of an image."""
    return float(measured.anchors_P3.sum(axis=1).mean()) if len(measured.anchors_P3) else 0.0


def level_range(config: ModelConfig) -> str:
    """Return the first and the last feature level, such as "P3 to P7"."""
    first, last = config.levels[0], config.levels[-1]
    return f"P{first}" if first == last else f"P{first} to P{last}"


def _is_better(after: Coverage, before: Coverage, positive_iou: float) -> bool:
    """Return whether other anchors match more objects, match these better, or need fewer anchors."""
    gain = _share(after, positive_iou) - _share(before, positive_iou)
    return gain >= WORTHWHILE or (
        gain >= 0
        and (
            _mean_iou(after) - _mean_iou(before) >= WORTHWHILE_IOU
            or anchors_per_image(after) <= FEWER_ANCHORS * anchors_per_image(before)
        )
    )


def _size_factors(image_config: ImageConfig, augment_config: AugmentConfig | None) -> tuple[float, float]:
    """Return the smallest and the largest factor of the augmentation on the size of an image."""
    if augment_config is None or not augment_config.augment:
        return (1.0, 1.0)
    sizes = [size / image_config.image_size for size in augment_config.multi_scale] or [1.0]
    low, high = augment_config.scale_jitter
    return (low * min(sizes), high * max(sizes))


def _share(measured: Coverage, positive_iou: float) -> float:
    """Return the share of objects with an anchor of at least `positive_iou`; low-quality matches do not count."""
    return float((measured.best_iou_O >= positive_iou).mean()) if measured.objects else 1.0


def _mean_iou(measured: Coverage) -> float:
    return float(measured.best_iou_O.mean()) if measured.objects else 1.0
