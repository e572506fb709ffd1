"""Tests of `AlbumentationsTransform`."""

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
from tests.data.transform_helpers import apply, scene


class TestAlbumentations:
    """Tests of the adapter with the installed albumentations package."""

    def pipeline(self, *steps: Any, **options: Any) -> AlbumentationsTransform:
        A = pytest.importorskip("albumentations")
        params = {"format": "pascal_voc", "label_fields": ["labels"], **options}
        return AlbumentationsTransform(A.Compose(list(steps), bbox_params=A.BboxParams(**params)))

    def test_boxes_labels_and_crowd_flags_follow_the_image(self) -> None:
        A = pytest.importorskip("albumentations")
        flipped = apply(self.pipeline(A.HorizontalFlip(p=1.0)))
        np.testing.assert_allclose(flipped.boxes_G4, [[28, 3, 38, 13], [2, 5, 15, 28]], atol=1e-4)
        assert flipped.crowd_G.tolist() == [False, True]
        np.testing.assert_array_equal(np.asarray(flipped.image), np.asarray(scene().image)[:, ::-1])
        right_half = apply(self.pipeline(A.Crop(20, 0, 40, 30)))
        np.testing.assert_allclose(right_half.boxes_G4, [[5, 5, 18, 28]], atol=1e-4)
        assert right_half.labels_G.tolist() == [1]
        assert right_half.crowd_G.tolist() == [True]

    def test_the_result_depends_only_on_the_seed(self) -> None:
        A = pytest.importorskip("albumentations")
        transform = self.pipeline(A.RandomCrop(20, 20), A.RandomBrightnessContrast(p=1.0))
        first, other, again = (np.asarray(apply(transform, seed).image) for seed in (1, 2, 1))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()

    def test_an_image_without_objects_is_transformed(self) -> None:
        A = pytest.importorskip("albumentations")
        empty = scene().keep(torch.zeros(2, dtype=torch.bool))
        transform = self.pipeline(A.HorizontalFlip(p=1.0))
        flipped = apply_transform(empty, transform, seed=0, num_classes=2, name="t", path=Path("a.png"))
        assert flipped.boxes_G4.shape == (0, 4)

    def test_a_pipeline_without_suitable_bbox_params_is_refused(self) -> None:
        A = pytest.importorskip("albumentations")
        with pytest.raises(ConfigError, match="expected bbox_params=.*, found none"):
            AlbumentationsTransform(A.Compose([A.HorizontalFlip()]))
        with pytest.raises(ConfigError, match="found format 'coco' and label_fields"):
            self.pipeline(format="coco")
        with pytest.raises(ConfigError, match="found none"):
            AlbumentationsTransform(SimpleNamespace())
