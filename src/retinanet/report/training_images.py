"""Show training images as the network sees them: augmented and resized, with the boxes that it learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Final

from PIL import Image

from retinanet.report.gallery import OBJECT, OTHER_OBJECT, class_label, draw_boxes, pluralise
from retinanet.report.html import MAX_SIDE, ReportImage

if TYPE_CHECKING:
    from retinanet.config import AugmentConfig
    from retinanet.data.dataset import Sample
    from retinanet.report.html import Section


SMALL: Final = 480
"""Width of an image, pixels, up to which three or four images have place in a row."""


def training_images_section(
    section: Section, images: Sequence[tuple[str, Sample]], classes: Sequence[str], augment: AugmentConfig
) -> None:
    """Add the first training images of a run.

    Args:
        section: section of the report.
        images: names and samples of the images.
        classes: name of each class id.
        augment: options of the augmentation.
    """
    section.text(
        f"The first {pluralise(len(images), 'image')} of the first epoch after augmentation and resizing, before "
        f"normalisation. Augmentation: {augmentation_text(augment)}. Dashed blue: objects that the network "
        "learns. Dashed grey: crowd regions, which are ignored. If a box does not fit its object here, the network "
        "learns wrong boxes."
    )
    drawn = [_draw(name, sample, classes) for name, sample in images]
    section.gallery(drawn, small=max(image.image.width for image in drawn) <= SMALL)


def augmentation_text(augment: AugmentConfig) -> str:
    """Return the options of the augmentation that change images, with their values."""
    parts = []
    for field in fields(augment) if augment.augment else ():
        value = getattr(augment, field.name)
        if field.name in ("augment", "min_crop", "close_augment", "transform") or value in (0, (), (1.0, 1.0)):
            continue
        text = " to ".join(f"{v:g}" for v in value) if field.name == "scale_jitter" else value
        text = ", ".join(map(str, value)) if field.name == "multi_scale" else text
        parts.append(f"{field.name} {text}")
    if augment.transform is not None:
        parts.append(f"transform {augment.transform}")
    return "; ".join(parts) or "none"


def _draw(name: str, sample: Sample, classes: Sequence[str]) -> ReportImage:
    """Draw a training image with its boxes."""
    image = Image.fromarray(sample.pixels_3HW.permute(1, 2, 0).numpy())
    width, height = image.size
    scale = min(1.0, MAX_SIDE / max(image.size))
    if scale < 1:
        image = image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.LANCZOS)
    target = sample.target
    styles = [OTHER_OBJECT if is_crowd else OBJECT for is_crowd in target.crowd_G.tolist()]
    labels = zip(target.labels_G.tolist(), target.crowd_G.tolist(), strict=True)
    names = ["ignored" if is_crowd else class_label(classes, label) for label, is_crowd in labels]
    draw_boxes(image, list(zip(target.boxes_G4.numpy() * scale, names, styles, strict=True)))
    text = f"{name}, {width}x{height} pixels: {pluralise(len(target.boxes_G4), 'object')}"
    return ReportImage(image=image, alt=text, caption=f"{text}.")
