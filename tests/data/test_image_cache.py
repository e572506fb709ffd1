"""The image cache gives exactly the samples of reading the files, for every kind of file and augmentation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from retinanet import images
from retinanet.config import AugmentConfig, ImageConfig, TileConfig, with_options
from retinanet.data import DataError, DetectionData, DetectionDataset, SampleKey, collate, cut_into_tiles
from retinanet.data.image_cache import ImageCache, plan_cache
from retinanet.data.user_transform import TrainingSample
from retinanet.formats.records import Record
from tests.conftest import made_image

CONFIG = with_options(ImageConfig(image_size=48, max_size=80, size_divisor=32), bit_depth=12)
AUGMENTATIONS = {
    "none": None,
    "flip": AugmentConfig(flip=0.5, color_jitter=0.5),
    "sizes": AugmentConfig(scale_jitter=(0.5, 1.5), multi_scale=(32, 64, 200)),
    "crop": AugmentConfig(crop=0.7, scale_jitter=(0.8, 1.25)),
}


def brighter(sample: TrainingSample) -> TrainingSample:
    """A custom transform, which works on original pixels."""
    sample.image_HW3[:] = np.minimum(sample.image_HW3, 200) + 30
    return sample


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Images of many kinds, large enough to decode a JPEG at an eighth of its size."""
    rotated = Image.Exif()
    rotated[0x0112] = 6
    image = made_image(403, 301, seed=1)
    image.save(tmp_path / "plain.jpg")
    made_image(97, 645, seed=2).save(tmp_path / "tall.JPEG", progressive=True)
    image.save(tmp_path / "turned.jpg", exif=rotated)
    image.convert("L").save(tmp_path / "grey.jpg")
    image.convert("CMYK").save(tmp_path / "cmyk.jpg")
    image.save(tmp_path / "rgb.png")
    made_image(7, 5, seed=3).save(tmp_path / "tiny.jpg")
    image.convert("P").save(tmp_path / "palette.png")
    image.convert("RGBA").rotate(20).save(tmp_path / "transparent.png")
    values_HW = np.random.default_rng(4).integers(0, 4096, (130, 200)).astype(np.uint16)
    Image.fromarray(values_HW).save(tmp_path / "deep.png")
    image.save(tmp_path / "turned.tif", exif=rotated)
    return sorted(tmp_path.iterdir())


def data_of(paths: Sequence[Path]) -> DetectionData:
    records = []
    for i, path in enumerate(paths):
        width, height = images.decode(path).size
        records.append(
            Record(
                path=path,
                width=width,
                height=height,
                boxes_G4=np.array([[1, 1, width - 1, height - 2]], np.float64),
                labels_G=np.zeros(1, np.int64),
                crowd_G=np.zeros(1, np.bool_),
                areas_G=np.ones(1),
                annotation_ids=(i,),
                image_id=i,
            )
        )
    return DetectionData(records=tuple(records), classes=("a",), category_ids=(1,), source=Path("made"))


def datasets(data: DetectionData, kind: str) -> tuple[DetectionDataset, DetectionDataset]:
    """Return the dataset without and with a cache."""
    augment = AUGMENTATIONS.get(kind)
    transform = brighter if kind == "transform" else None
    forms = plan_cache(data.records, CONFIG, augment=augment, whole=transform is not None)
    cache = ImageCache(forms, bit_depth=CONFIG.bit_depth, threads=2)
    plain, cached = (
        DetectionDataset(data=data, image_config=CONFIG, augment=augment, transform=transform, cache=c)
        for c in (None, cache)
    )
    assert cache.nbytes == sum(forms.values())
    return plain, cached


def keys(data: DetectionData, kind: str) -> list[SampleKey | int]:
    if kind == "none":
        return list(range(len(data.records)))
    sizes = (32, 64, 200) if kind == "sizes" else (48,)
    indices = range(len(data.records))
    return [SampleKey(i, 100 * seed + i, sizes[seed % len(sizes)]) for i in indices for seed in range(6)]


def assert_equal(first: DetectionDataset, second: DetectionDataset, kind: str) -> None:
    samples = [(first[key], second[key]) for key in keys(first.data, kind)]
    for a, b in samples:
        path = first.data.records[a.index].path
        assert torch.equal(a.pixels_3HW, b.pixels_3HW), (path, a.frame)
        assert torch.equal(a.target.boxes_G4, b.target.boxes_G4)
        assert (a.frame, a.index, a.image_id) == (b.frame, b.index, b.image_id)


@pytest.mark.parametrize("kind", [*AUGMENTATIONS, "transform"])
def test_samples_are_equal_and_no_file_is_read_again(files: list[Path], kind: str, tmp_path: Path) -> None:
    plain, cached = datasets(data_of(files), kind)
    assert len(cached.cache or ()) == len(files)
    before = [plain[key].pixels_3HW for key in keys(plain.data, kind)]
    assert_equal(plain, cached, kind)
    for file in files:
        file.unlink()
    after = [cached[key].pixels_3HW for key in keys(plain.data, kind)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("kind", ["none", "sizes", "crop"])
def test_each_file_is_opened_for_decoding_once(files: list[Path], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[Path] = []
    decode_for, read_bytes = images.decode_for, Path.read_bytes

    def recorded_decode(path: Path, **options: int) -> images.Scaled:
        decoded.append(path)
        return decode_for(path, **options)

    def recorded_read(path: Path) -> bytes:
        decoded.append(path)
        return read_bytes(path)

    monkeypatch.setattr(images, "decode_for", recorded_decode)
    monkeypatch.setattr(Path, "read_bytes", recorded_read)
    _, cached = datasets(data_of(files), kind)
    for _ in range(2):
        assert [cached[key] for key in keys(cached.data, kind)]
    assert sorted(decoded) == files


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "sizes", "crop"])
def test_tiles_share_the_whole_image(files: list[Path], kind: str) -> None:
    """Tiles need the image in original pixels. The complete image is a further record, with a form of its own."""
    tiles = cut_into_tiles(data_of(files), TileConfig(tile=160, overlap=0.3)).data
    data = dataclasses.replace(tiles, records=tiles.records[::3])
    assert {record.window is None for record in data.records} == {True, False}
    plain, cached = datasets(data, kind)
    assert_equal(plain, cached, kind)
    assert_equal(*datasets(tiles, "none"), "none")
    wholes = [form for form in plan_cache(tiles.records, CONFIG) if form.kind == "whole"]
    assert len(wholes) == len({record.path for record in tiles.records if record.window})


@pytest.mark.parametrize("kind", ["none", "sizes"])
def test_a_file_with_the_suffix_of_another_format_gives_equal_samples(tmp_path: Path, kind: str) -> None:
    """A JPEG named .png has no form for random sizes, because resizing the whole image gives other pixels."""
    image = made_image(403, 301)
    image.save(tmp_path / "jpeg.png", format="JPEG")
    image.save(tmp_path / "png.jpg", format="PNG")
    assert_equal(*datasets(data_of(sorted(tmp_path.iterdir())), kind), kind)


@pytest.mark.parametrize("kind", ["none", "sizes", "crop"])
def test_unreadable_and_changed_files_give_the_error_of_reading_them(files: list[Path], kind: str) -> None:
    data = data_of(files)
    broken, changed, gone = (data.records[i].path for i in (0, 4, 7))
    broken.write_bytes(broken.read_bytes()[:200])
    made_image(50, 60).save(changed, format="PNG")
    gone.unlink()
    plain, cached = datasets(data, kind)
    for key in keys(data, kind):
        index = key if isinstance(key, int) else key.index
        if index not in {0, 4, 7}:
            continue
        with pytest.raises(DataError) as expected:
            plain[key]
        with pytest.raises(DataError) as found:
            cached[key]
        assert str(found.value) == str(expected.value)


def test_a_file_that_changes_later_has_no_effect(files: list[Path]) -> None:
    plain, cached = datasets(data_of(files), "none")
    before = plain[0].pixels_3HW
    files[0].write_bytes(b"no image")
    assert torch.equal(cached[0].pixels_3HW, before)


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_get_the_batches_of_the_main_process(files: list[Path], start: str) -> None:
    data = data_of(files)
    plain, cached = datasets(data, "sizes")
    batches = [[SampleKey(i, 7 * i, 64), SampleKey(i + 1, i, 64)] for i in range(0, len(files) - 1, 2)]
    options = {"batch_sampler": batches, "collate_fn": partial(collate, image_config=CONFIG)}
    expected = [plain_batch.to("cpu") for plain_batch in DataLoader(plain, **options)]
    for file in files:
        file.unlink()
    loader = DataLoader(cached, **options, num_workers=2, multiprocessing_context=start, persistent_workers=True)
    for _ in range(2):
        for a, b in zip(expected, (batch.to("cpu") for batch in loader), strict=True):
            assert torch.equal(a.images_N3HW, b.images_N3HW)


def test_the_room_of_each_form_is_known_before_decoding(files: list[Path]) -> None:
    """403 x 301 in 48 x 64 at most 80, and as a JPEG from 1/1 to 1/8: sizes 16 to 300 are below and above 301 / 2."""
    record = next(record for record in data_of(files).records if record.path.name == "plain.jpg")
    assert plan_cache([record], CONFIG) == {(record.path, "resized", (48, 80)): 3 * 64 * 48}
    rooms = plan_cache([record], CONFIG, augment=AUGMENTATIONS["sizes"])
    assert rooms == {
        (record.path, "jpeg", (1,)): 3 * 403 * 301,
        (record.path, "jpeg", (2,)): 3 * 202 * 151,
        (record.path, "jpeg", (4,)): 3 * 101 * 76,
        (record.path, "jpeg", (8,)): 3 * 51 * 38,
    }
    assert plan_cache([record], CONFIG, whole=True) == {(record.path, "whole", ()): 3 * 403 * 301}
