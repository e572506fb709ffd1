"""Tests of `DetectionDataset` and `collate`: deterministic for any number of workers, correct boxes and pixels."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from retinanet import images
from retinanet.config import AugmentConfig, ImageConfig
from retinanet.data import Batch, DataError, DetectionDataset, SampleKey, TrainBatchSampler, collate, eval_batches, load

Write = Callable[..., Path]
CONFIG = ImageConfig(image_size=32, max_size=64, size_divisor=32)
ALL_AUGMENTATIONS = AugmentConfig(
    flip=0.5,
    vertical_flip=0.5,
    color_jitter=0.5,
    crop=0.5,
    scale_jitter=(0.8, 1.25),
    copy_paste=0.5,
    mosaic=0.5,
    mixup=0.5,
)


@pytest.fixture
def root(write_voc: Write) -> Path:
    return write_voc({c: [("cat", (5 + i, 6, 40, 40))] if i % 4 else [] for i, c in enumerate("abcdefghi")})


def load_batches(root: Path, *, workers: int, epoch: int = 0, seed: int = 0) -> list[Batch]:
    data = load(root)
    sampler = TrainBatchSampler(
        widths=[r.width for r in data.records],
        heights=[r.height for r in data.records],
        batch_size=2,
        seed=seed,
        image_size=32,
        multi_scale=(24, 32, 48),
    )
    sampler.set_epoch(epoch)
    loader = DataLoader(
        DetectionDataset(data=data, image_config=CONFIG, augment=ALL_AUGMENTATIONS),
        batch_sampler=sampler,
        collate_fn=partial(collate, image_config=CONFIG),
        num_workers=workers,
    )
    return [batch.to("cpu") for batch in loader]


def equal(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x.images_N3HW, y.images_N3HW)
        and x.indices == y.indices
        and x.frames == y.frames
        and all(torch.equal(t.boxes_G4, u.boxes_G4) for t, u in zip(x.targets, y.targets, strict=True))
        for x, y in zip(a, b, strict=True)
    )


def test_batches_depend_on_the_seed_and_not_on_the_number_of_workers(root: Path) -> None:
    torch.manual_seed(1)
    batches = load_batches(root, workers=0)
    torch.manual_seed(2)  # the global random state has no effect
    assert equal(batches, load_batches(root, workers=2))
    assert not equal(batches, load_batches(root, workers=0, seed=1))


def test_augmentation_differs_between_epochs(root: Path) -> None:
    dataset = DetectionDataset(data=load(root), image_config=CONFIG, augment=ALL_AUGMENTATIONS)
    sampler = TrainBatchSampler(widths=[64] * 9, heights=[48] * 9, batch_size=2, seed=0, image_size=32)
    pixels = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        by_index = {key.index: key for batch in sampler for key in batch}
        pixels.append({i: dataset[by_index[i]].pixels_3HW.numpy().tobytes() for i in range(9)})
    assert all(len({epoch[i] for epoch in pixels}) == 3 for i in range(9))


def test_a_sample_key_determines_the_sample_and_an_index_gives_no_augmentation(root: Path) -> None:
    dataset = DetectionDataset(data=load(root), image_config=CONFIG, augment=ALL_AUGMENTATIONS)
    key = SampleKey(index=1, seed=2**63 - 1, image_size=48)
    a, b = dataset[key], dataset[key]
    assert torch.equal(a.pixels_3HW, b.pixels_3HW)
    assert torch.equal(a.target.boxes_G4, b.target.boxes_G4)
    plain = DetectionDataset(data=load(root), image_config=CONFIG, augment=None)
    off = DetectionDataset(data=load(root), image_config=CONFIG, augment=AugmentConfig(augment=False, crop=1.0))
    expected = plain[1]
    assert torch.equal(dataset[1].pixels_3HW, expected.pixels_3HW)
    assert torch.equal(off[SampleKey(1, 7, 32)].pixels_3HW, expected.pixels_3HW)


def test_an_evaluation_sample_equals_the_input_of_prediction(root: Path) -> None:
    data = load(root)
    sample = DetectionDataset(data=data, image_config=CONFIG)[1]
    assert sample.frame == (64, 48, 43, 32)  # 64 * 32/48 = 42.7
    assert sample.pixels_3HW.dtype == torch.uint8
    assert sample.pixels_3HW.shape == (3, 32, 43)
    assert (sample.index, sample.image_id) == (1, 2)
    expected = np.array([[6, 6, 40, 40]]) * [43 / 64, 32 / 48, 43 / 64, 32 / 48]
    np.testing.assert_allclose(sample.target.boxes_G4, expected, rtol=1e-6)
    assert sample.target.boxes_G4.dtype == torch.float32
    batch = collate([sample], CONFIG).to("cpu")
    prepared, frames = images.prepare([images.decode(data.records[1].path)], CONFIG)
    np.testing.assert_array_equal(batch.images_N3HW, prepared)
    assert list(batch.frames) == frames


def test_batches_are_padded_and_include_images_without_objects(root: Path, write_image: Write) -> None:
    dataset = DetectionDataset(data=load(root), image_config=CONFIG)
    pixels = collate([dataset[0], dataset[1]], CONFIG)
    assert pixels.pixels_N3HW.dtype == torch.uint8, "a quarter of the shared memory of float32"
    batch = pixels.to("cpu")
    assert len(pixels) == len(batch) == 2
    assert batch.images_N3HW.shape == (2, 3, 32, 64)
    assert batch.images_N3HW.dtype == torch.float32
    assert batch.images_N3HW[:, :, :, :43].any()
    assert not batch.images_N3HW[:, :, :, 43:].any()
    assert [len(t.labels_G) for t in batch.targets] == [0, 1]
    assert batch.targets[0].boxes_G4.shape == (0, 4)
    moved = batch.to("cpu")
    assert moved.indices == (0, 1)
    assert torch.equal(moved.images_N3HW, batch.images_N3HW)
    assert batch.to("meta").targets[1].boxes_G4.device.type == "meta"


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, image_mean=(0.5, 0.1, 1 / 3), image_std=(0.5, 0.07, 0.3))])
def test_a_batch_has_the_bits_of_normalise_and_pad(root: Path, config: ImageConfig) -> None:
    dataset = DetectionDataset(data=load(root), image_config=config)
    samples = [dataset[SampleKey(i, i, 20 + 7 * i)] for i in range(4)]
    arrays = [sample.pixels_3HW.permute(1, 2, 0).numpy() for sample in samples]
    normalised = [images.normalise(a, mean=config.image_mean, std=config.image_std) for a in arrays]
    expected = images.pad(normalised, divisor=config.size_divisor)
    found = collate(samples, config).to("cpu").images_N3HW.numpy()
    assert found.tobytes() == expected.tobytes()


def test_only_the_pixels_of_a_batch_need_shared_memory(root: Path) -> None:
    """Each tensor in shared memory needs an open file: three for each image would exceed the limit of 1024."""
    dataset = DetectionDataset(data=load(root), image_config=CONFIG)
    batch = collate([dataset[i] for i in range(9)], CONFIG)
    shared = []

    class Pickler(pickle.Pickler):
        def reducer_override(self, value: object) -> object:
            shared.append(value) if isinstance(value, torch.Tensor) else None
            return NotImplemented

    file = io.BytesIO()
    Pickler(file).dump(batch)
    copy = pickle.loads(file.getvalue())  # noqa: S301
    assert len(shared) == 1
    assert torch.equal(copy.pixels_N3HW, batch.pixels_N3HW)
    assert equal([copy.to("cpu")], [batch.to("cpu")])


# torch waits 5 seconds for a worker after an error
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_an_image_that_is_damaged_after_the_check_is_named(root: Path, workers: int) -> None:
    data = load(root)
    loader = DataLoader(
        DetectionDataset(data=data, image_config=CONFIG),
        batch_sampler=eval_batches(data, 3),
        collate_fn=partial(collate, image_config=CONFIG),
        num_workers=workers,
    )
    data.records[4].path.write_bytes(b"")
    with pytest.raises(DataError, match=r"e\.jpg: empty file"):
        list(loader)
    Image.new("RGB", (48, 64)).save(data.records[4].path)
    with pytest.raises(DataError, match=r"e\.jpg: expected 64x48 pixels, found 48x64"):
        list(loader)


@pytest.mark.parametrize("option", ["copy_paste", "mosaic", "mixup"])
def test_a_further_image_that_is_damaged_is_named(root: Path, option: str) -> None:
    data = load(root)
    dataset = DetectionDataset(data=data, image_config=CONFIG, augment=AugmentConfig(**{option: 1.0}))
    for record in data.records[1:]:
        record.path.write_bytes(b"")
    with pytest.raises(DataError, match=r"[b-i]\.jpg: empty file.*restore the file and start again"):
        dataset[SampleKey(0, 1, 32)]


def test_boxes_follow_the_upright_image(tmp_path: Path, write_coco: Write) -> None:
    """A white square lies inside its box, although the file stores the image rotated, with an EXIF orientation."""
    source = write_coco([{"image_id": 1, "bbox": [40, 8, 16, 16]}])
    upright = np.zeros((48, 64, 3), np.uint8)
    upright[8:24, 40:56] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(upright))).save(tmp_path / "images/1.jpg", exif=exif, quality=95)
    sample = DetectionDataset(data=load(source), image_config=ImageConfig(image_size=48, max_size=64))[0]
    assert sample.target.boxes_G4.tolist() == [[40, 8, 56, 24]]
    inside = sample.pixels_3HW[:, 8:24, 40:56].float()
    assert inside.mean() > 250
    assert sample.pixels_3HW.float().sum() < 1.02 * inside.sum()
