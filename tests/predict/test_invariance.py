"""The detections of an image are the same, whatever else the call, the process and the machine do.

The tolerances are 1e-5 pixels and 1e-6 in score. bf16 is compared with itself: it gives the same detections in every
cell, but not those of float32. int8 is not in this matrix, because its calibration takes minutes.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import retinanet
from retinanet.config import TileConfig
from retinanet.predict.batches import batched
from retinanet.predict.detector import BaseDetector
from retinanet.predict.runtime_detector import RuntimeDetector
from retinanet.types import ArrayDetections
from tests.export.made import checkpoint, network, train_config, write_images

SIZES = (
    *((200, 140), (140, 200), (200, 140), (96, 96), (333, 100), (199, 141), (200, 140), (64, 192)),
    *((200, 139), (100, 333), (200, 140), (640, 480)),
)
"""Width and height of the images: several of one shape, and several of which one is padded less than another."""
BOX_TOLERANCE, SCORE_TOLERANCE = 1e-5, 1e-6

Detections = list[ArrayDetections]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model with GroupNorm in the heads, model.ckpt, and images/."""
    root = tmp_path_factory.mktemp("invariance")
    wide = {"fpn_width": 32, "head_width": 32, "head_depth": 2, "head_norm": "group"}
    config = train_config(root / "gone.json", **wide)
    checkpoint(root / "model.ckpt", network(config), config)
    write_images(root / "images", SIZES)
    return root


@pytest.fixture(scope="module")
def images(folder: Path) -> list[Path]:
    return [folder / "images" / f"{i}.png" for i in range(len(SIZES))]


@pytest.fixture(scope="module")
def exported(folder: Path) -> Callable[..., Path]:
    """Return a function that exports the model once for each combination of options."""
    from retinanet.export.exporter import export

    def get(name: str, **options: object) -> Path:
        if not (folder / name).exists():
            export(folder / "model.ckpt", output=folder / name, compare_images=(str(folder / "images"),), **options)
        return folder / name

    return get


def load_checkpoint(folder: Path, exported: Callable[..., Path]) -> BaseDetector:
    return retinanet.load(folder / "model.ckpt", "cpu")


def load_bf16(folder: Path, exported: Callable[..., Path]) -> BaseDetector:
    return retinanet.load(folder / "model.ckpt", "cpu", "bf16")


def load_onnx(folder: Path, exported: Callable[..., Path]) -> BaseDetector:
    pytest.importorskip("onnxruntime")
    return retinanet.load(exported("m.onnx"), threads=2)


def load_openvino(folder: Path, exported: Callable[..., Path]) -> BaseDetector:
    pytest.importorskip("openvino")
    return retinanet.load(exported("m.xml"), threads=2)


def load_openvino_bf16(folder: Path, exported: Callable[..., Path]) -> BaseDetector:
    pytest.importorskip("openvino")
    return retinanet.load(exported("m.xml"), precision="bf16", threads=2)


LOADERS = [
    load_checkpoint,
    *(pytest.param(load, marks=pytest.mark.slow) for load in (load_bf16, load_onnx, load_openvino, load_openvino_bf16)),
]


@pytest.fixture(params=LOADERS, ids=lambda loader: loader.__name__.removeprefix("load_"))
def detector(request: pytest.FixtureRequest, folder: Path, exported: Callable[..., Path]) -> BaseDetector:
    return request.param(folder, exported)


def run(detector: BaseDetector, images: list[Path], batch_size: int = 1, workers: int = 0, **options) -> Detections:
    stream = detector.stream(batched(images, batch_size), workers=workers, **options)
    return [result.result() for result in stream]


def assert_same(found: Detections, expected: Detections) -> None:
    assert sum(map(len, expected)) > 200, "many detections are compared"
    for own, other in zip(found, expected, strict=True):
        assert own.labels_D.tolist() == other.labels_D.tolist()
        np.testing.assert_allclose(own.boxes_D4, other.boxes_D4, rtol=0, atol=BOX_TOLERANCE)
        np.testing.assert_allclose(own.scores_D, other.scores_D, rtol=0, atol=SCORE_TOLERANCE)


def test_batches_order_and_neighbours(detector: BaseDetector, images: list[Path]) -> None:
    alone = [run(detector, [image])[0] for image in images]
    for batch_size in (3, 8):
        assert_same(run(detector, images, batch_size, workers=2), alone)
    order = np.random.default_rng(0).permutation(len(images)).tolist()
    shuffled = run(detector, [images[i] for i in order], 8)
    assert_same([shuffled[order.index(i)] for i in range(len(images))], alone)
    with ThreadPoolExecutor(4) as pool:
        assert_same([rows[0] for rows in pool.map(lambda image: run(detector, [image]), images)], alone)


@pytest.mark.slow
def test_tiles_and_views(detector: BaseDetector, images: list[Path]) -> None:
    for options in ({"tiling": TileConfig(tile=96)}, {"tta": True}):
        alone = [run(detector, [image], **options)[0] for image in images[:6]]
        assert_same(run(detector, images[:6], 5, **options), alone)


@pytest.mark.slow
def test_a_detector_may_be_copied(folder: Path, images: list[Path]) -> None:
    detector = retinanet.load(folder / "model.ckpt", "cpu")
    expected = run(detector, images)
    for duplicate in (pickle.loads(pickle.dumps(detector)), copy.deepcopy(detector)):  # noqa: S301
        assert_same(run(duplicate, images, 3), expected)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def number_of_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


STATES: dict[str, Callable[[], contextlib.AbstractContextManager]] = {
    **{f"default dtype {dtype}": lambda dtype=dtype: default_dtype(dtype) for dtype in (torch.bfloat16, torch.float64)},
    "default device": lambda: torch.device("meta"),
    **{f"{dtype}": lambda dtype=dtype: torch.autocast("cpu", dtype) for dtype in (torch.bfloat16, torch.float16)},
    **{f"{count} threads": lambda count=count: number_of_threads(count) for count in (1, 2, 3)},
    "gradients": torch.enable_grad,
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
}


IN_EVERY_RUN = ("default dtype torch.bfloat16",)


@pytest.mark.slow
@pytest.mark.parametrize(
    "state",
    [pytest.param(s, id=name, marks=() if name in IN_EVERY_RUN else pytest.mark.slow) for name, s in STATES.items()],
)
@pytest.mark.parametrize("precision", ["32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_the_state_of_torch(state: Callable, precision: str, folder: Path, images: list[Path]) -> None:
    """Neither the state in which the detector is loaded nor the state in which it predicts has an effect."""
    before = retinanet.load(folder / "model.ckpt", "cpu", precision)
    expected, dense = run(before, images), before.dense(images[0])
    with state():
        within = retinanet.load(folder / "model.ckpt", "cpu", precision)
        for detector in (before, within):
            assert_same(run(detector, images, 3), expected)
        for own, other in zip(within.dense(images[0]).levels, dense.levels, strict=True):
            np.testing.assert_allclose(own.scores_HWCK, other.scores_HWCK, rtol=0, atol=SCORE_TOLERANCE)
    assert_same(run(within, images), expected)


@pytest.mark.slow
@pytest.mark.parametrize("load", [load_onnx, load_openvino])
def test_threads_of_an_exported_model(
    load: Callable, folder: Path, exported: Callable[..., Path], images: list[Path]
) -> None:
    """The number of threads is chosen when the file is loaded."""
    load(folder, exported)
    path = exported("m.onnx" if load is load_onnx else "m.xml")
    first, *others = (RuntimeDetector.from_file(path, threads=count) for count in (1, 2, 3))
    expected = run(first, images)
    for detector in others:
        assert_same(run(detector, images, 3), expected)


@pytest.mark.slow
def test_images_of_one_shape_share_a_call_on_an_accelerator(folder: Path, images: list[Path]) -> None:
    """A call never processes images of two shapes. Without a limit, as on a GPU, rounding is the only difference."""
    detector = retinanet.load(folder / "model.ckpt", "cpu")
    expected = run(detector, images)
    shapes: list[tuple[int, ...]] = []
    infer = detector._infer
    detector._infer = lambda images_N3HW, *rest: shapes.append(images_N3HW.shape) or infer(images_N3HW, *rest)
    detector.images_per_call = None
    found = run(detector, images, len(images))
    assert len(set(shapes)) == len(shapes) < len(images)
    assert max(shape[0] for shape in shapes) > 3
    for own, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(own.boxes_D4, other.boxes_D4, rtol=0, atol=1e-3)
        np.testing.assert_allclose(own.scores_D, other.scores_D, rtol=0, atol=1e-5)


def test_padding_of_an_image_depends_on_its_size_only(folder: Path, images: list[Path]) -> None:
    """Without padding to the other shapes, the frames of one batch keep their own input shapes."""
    detector = retinanet.load(folder / "model.ckpt", "cpu")
    batch = detector._load(images)
    divisor = dataclasses.asdict(detector.image_config)["size_divisor"]
    for image_3HW, frame in zip(batch.images, batch.frames, strict=True):
        assert 0 <= image_3HW.shape[1] - frame.resized_height < divisor
        assert 0 <= image_3HW.shape[2] - frame.resized_width < divisor
