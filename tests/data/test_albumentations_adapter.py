"""Transforms of Albumentations."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from retinanet.data.albumentations_adapter import AlbumentationsTransform
from retinanet.data.user_transform import apply_transform
from retinanet.errors import ConfigError
from tests.data.made_transforms import apply, scene


class TestAlbumentations:
    """The adapter, with the real package."""

    def pipeline(self, *steps: Any, **params: Any) -> AlbumentationsTransform:
        A = pytest.importorskip("albumentations")
        wanted = {"format": "pascal_voc", "label_fields": ["labels"], **params}
        return AlbumentationsTransform(A.Compose(list(steps), bbox_params=A.BboxParams(**wanted)))

    def test_boxes_labels_and_crowd_flags_follow_the_image(self) -> None:
        A = pytest.importorskip("albumentations")
        found = apply(self.pipeline(A.HorizontalFlip(p=1.0)))
        np.testing.assert_allclose(found.boxes_G4, [[28, 3, 38, 13], [2, 5, 15, 28]], atol=1e-4)
        assert found.crowd_G.tolist() == [False, True]
        np.testing.assert_array_equal(np.asarray(found.image), np.asarray(scene().image)[:, ::-1])
        right = apply(self.pipeline(A.Crop(20, 0, 40, 30)))
        np.testing.assert_allclose(right.boxes_G4, [[5, 5, 18, 28]], atol=1e-4)
        assert right.labels_G.tolist() == [1]
        assert right.crowd_G.tolist() == [True]

    def test_the_seed_decides(self) -> None:
        A = pytest.importorskip("albumentations")
        transform = self.pipeline(A.RandomCrop(20, 20), A.RandomBrightnessContrast(p=1.0))
        first, other, again = (np.asarray(apply(transform, seed).image) for seed in (1, 2, 1))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()

    def test_without_objects(self) -> None:
        A = pytest.importorskip("albumentations")
        empty = scene().keep(torch.zeros(2, dtype=torch.bool))
        transform = self.pipeline(A.HorizontalFlip(p=1.0))
        found = apply_transform(empty, transform, seed=0, num_classes=2, name="t", path=Path("a.png"))
        assert found.boxes_G4.shape == (0, 4)

    def test_without_bbox_params_it_is_refused(self) -> None:
        A = pytest.importorskip("albumentations")
        with pytest.raises(ConfigError, match="expected bbox_params=.*, found none"):
            AlbumentationsTransform(A.Compose([A.HorizontalFlip()]))
        with pytest.raises(ConfigError, match="found format 'coco' and label_fields"):
            self.pipeline(format="coco")
        with pytest.raises(ConfigError, match="found none"):
            AlbumentationsTransform(SimpleNamespace())
