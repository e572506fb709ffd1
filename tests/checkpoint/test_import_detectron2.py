"""Tests of the import of Detectron2's RetinaNets.

Detectron2 cannot be installed here. `Reference` implements its network, anchors and post-processing in plain torch and
uses the tensor names of its files. Sources: Detectron2's documentation, configs and published model listings.

Shape suffixes: N batch, A anchors, K classes, G ground-truth boxes, C candidates.
"""

import collections
import math
import os
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import batched_nms

import retinanet
from retinanet.checkpoint.import_weights import WeightsError, from_detectron2, import_model
from retinanet.images import Frame, normalise
from retinanet.postprocess import postprocess
from retinanet.train import CheckpointError, load_checkpoint

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
SIZES = [[x, x * 2 ** (1 / 3), x * 2 ** (2 / 3)] for x in (32, 64, 128, 256, 512)]
RATIOS = [0.5, 1.0, 2.0]


def zoo_file(*, depth=50, K=80, width=256, seed=0):
    """Return the content of a model-zoo .pkl with random weights, 9 anchors per position and frozen BatchNorm."""
    rng = np.random.default_rng(seed)
    arrays = {}

    def convolution(name, inputs, outputs, size, *, bias, gain=1.0):
        scale = gain * math.sqrt(2 / (inputs * size * size))
        arrays[f"{name}.weight"] = rng.normal(0, scale, (outputs, inputs, size, size)).astype(np.float32)
        if bias:
            arrays[f"{name}.bias"] = rng.normal(0, 0.1, outputs).astype(np.float32)

    def norm(name, channels):
        arrays[f"{name}.weight"] = rng.uniform(0.3, 0.8, channels).astype(np.float32)
        arrays[f"{name}.bias"] = rng.normal(0, 0.1, channels).astype(np.float32)
        arrays[f"{name}.running_mean"] = rng.normal(0, 0.1, channels).astype(np.float32)
        arrays[f"{name}.running_var"] = rng.uniform(0.5, 1.5, channels).astype(np.float32)

    up = "backbone.bottom_up"
    convolution(f"{up}.stem.conv1", 3, 64, 7, bias=False, gain=0.02)
    norm(f"{up}.stem.conv1.norm", 64)
    inputs = 64
    for stage, count in enumerate(BLOCKS[depth], 2):
        middle, outputs = 64 * 2 ** (stage - 2), 256 * 2 ** (stage - 2)
        for block in range(count):
            name = f"{up}.res{stage}.{block}"
            if block == 0:
                convolution(f"{name}.shortcut", inputs, outputs, 1, bias=False)
                norm(f"{name}.shortcut.norm", outputs)
            for i, (a, b, size) in enumerate([(inputs, middle, 1), (middle, middle, 3), (middle, outputs, 1)], 1):
                convolution(f"{name}.conv{i}", a, b, size, bias=False)
                norm(f"{name}.conv{i}.norm", b)
            inputs = outputs
    for level in (3, 4, 5):
        convolution(f"backbone.fpn_lateral{level}", 64 * 2**level, width, 1, bias=True, gain=0.3)
        convolution(f"backbone.fpn_output{level}", width, width, 3, bias=True)
    convolution("backbone.top_block.p6", 2048, width, 3, bias=True, gain=0.3)
    convolution("backbone.top_block.p7", width, width, 3, bias=True)
    for subnet in ("cls_subnet", "bbox_subnet"):
        for i in (0, 2, 4, 6):
            convolution(f"head.{subnet}.{i}", width, width, 3, bias=True)
    convolution("head.cls_score", width, 9 * K, 3, bias=True, gain=1.2)
    convolution("head.bbox_pred", width, 36, 3, bias=True, gain=0.3)
    arrays["head.cls_score.bias"] -= 4
    return {"model": arrays, "__author__": "Detectron2 Model Zoo"}


class Reference:
    """Detectron2's RetinaNet: BGR pixels, 0 to 255, to logits, offsets, anchors and detections."""

    def __init__(self, content):
        self.weights = {name: torch.from_numpy(value) for name, value in content["model"].items()}
        self.K = len(self.weights["head.cls_score.bias"]) // 9

    def conv(self, name, x, stride=1):
        weight = self.weights[f"{name}.weight"]
        x = F.conv2d(x, weight, self.weights.get(f"{name}.bias"), stride, weight.shape[-1] // 2)
        if f"{name}.norm.weight" not in self.weights:
            return x
        weight, bias, mean, var = (
            self.weights[f"{name}.norm.{kind}"][:, None, None]
            for kind in ("weight", "bias", "running_mean", "running_var")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias

    def levels(self, x):
        up = "backbone.bottom_up"
        x = F.max_pool2d(F.relu(self.conv(f"{up}.stem.conv1", x, 2)), 3, 2, 1)
        maps = {}
        for stage in (2, 3, 4, 5):
            block = 0
            while f"{up}.res{stage}.{block}.conv1.weight" in self.weights:
                name = f"{up}.res{stage}.{block}"
                stride = 2 if stage > 2 and block == 0 else 1
                y = F.relu(self.conv(f"{name}.conv1", x, stride))  # STRIDE_IN_1X1
                y = self.conv(f"{name}.conv3", F.relu(self.conv(f"{name}.conv2", y)))
                x = F.relu(y + (self.conv(f"{name}.shortcut", x, stride) if block == 0 else x))
                block += 1
            maps[stage] = x
        inner, out = None, []
        for level in (5, 4, 3):
            lateral = self.conv(f"backbone.fpn_lateral{level}", maps[level])
            inner = lateral if inner is None else lateral + F.interpolate(inner, scale_factor=2, mode="nearest")
            out.insert(0, self.conv(f"backbone.fpn_output{level}", inner))
        out.append(self.conv("backbone.top_block.p6", maps[5], 2))
        out.append(self.conv("backbone.top_block.p7", F.relu(out[-1]), 2))
        return out

    def __call__(self, images_N3HW):
        """Return logits (N, A, K), offsets (N, A, 4) and anchors (A, 4) of each level."""
        out = []
        for level, x in enumerate(self.levels(images_N3HW)):
            values = []
            for subnet, last, V in (("cls_subnet", "cls_score", self.K), ("bbox_subnet", "bbox_pred", 4)):
                y = x
                for i in (0, 2, 4, 6):
                    y = F.relu(self.conv(f"head.{subnet}.{i}", y))
                y = self.conv(f"head.{last}", y)
                N, _, H, W = y.shape
                values.append(y.view(N, -1, V, H, W).permute(0, 3, 4, 1, 2).reshape(N, -1, V))
            stride = 8 * 2**level
            cells = []
            for size in SIZES[level]:
                for ratio in RATIOS:
                    w = math.sqrt(size**2 / ratio)
                    cells.append([-w / 2, -w * ratio / 2, w / 2, w * ratio / 2])
            anchors = [
                [cell[0] + i * stride, cell[1] + j * stride, cell[2] + i * stride, cell[3] + j * stride]
                for j in range(H)
                for i in range(W)
                for cell in cells
            ]
            out.append((*values, torch.tensor(anchors)))
        return out

    def detect(self, out, n, frame, *, clip_first=False):
        """Return boxes, scores and labels of image n.

        Score threshold 0.05, 1000 candidates per level, NMS at 0.5, 100 detections. Boxes are scaled and clipped, and
        empty boxes dropped, after NMS. With `clip_first`, boxes are also clipped before NMS.
        """
        boxes, scores, labels = [], [], []
        for logits_NAK, deltas_NA4, anchors_A4 in out:
            score, index = logits_NAK[n].sigmoid().flatten().sort(descending=True, stable=True)
            index = index[: int((score > 0.05).sum())][:1000]
            a = anchors_A4[index // self.K]
            d = deltas_NA4[n][index // self.K]
            wh = a[:, 2:] - a[:, :2]
            centre = a[:, :2] + wh / 2 + d[:, :2] * wh
            half = torch.exp(d[:, 2:].clamp(max=math.log(1000 / 16))) * wh / 2
            boxes.append(torch.cat([centre - half, centre + half], 1))
            scores.append(score[: len(index)])
            labels.append(index % self.K)
        boxes, scores, labels = torch.cat(boxes), torch.cat(scores), torch.cat(labels)
        if clip_first:
            boxes[:, 0::2] = boxes[:, 0::2].clamp(0, frame.resized_width)
            boxes[:, 1::2] = boxes[:, 1::2].clamp(0, frame.resized_height)
        keep = batched_nms(boxes, scores, labels, 0.5)[:100]
        boxes = boxes[keep]
        boxes[:, 0::2] = (boxes[:, 0::2] * frame.width / frame.resized_width).clamp(0, frame.width)
        boxes[:, 1::2] = (boxes[:, 1::2] * frame.height / frame.resized_height).clamp(0, frame.height)
        nonempty = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(dim=1)
        return boxes[nonempty], scores[keep][nonempty], labels[keep][nonempty]


def to_detectron2_order(per_position):
    """Return values of the 9 anchors per position, converted from ratio-major to Detectron2's scale-major order."""
    N, A = per_position.shape[:2]
    grid = per_position.view(N, A // 9, 3, 3, *per_position.shape[2:])
    return grid.transpose(2, 3).reshape(per_position.shape)


@pytest.fixture(scope="module")
def zoo():
    return zoo_file()


@pytest.fixture(scope="module")
def narrow():
    """Return the content of a model-zoo file whose pyramid and heads have 32 channels."""
    return zoo_file(width=32)


def make_images(height, width, *, count=2, seed=0):
    """Return smooth random images, RGB pixels HW3, and frames with twice that size as the original size."""
    rng = np.random.default_rng(seed)
    pixels = []
    for _ in range(count):
        coarse = torch.from_numpy(rng.integers(0, 256, (1, 3, 9, 12))).float()
        smooth = F.interpolate(coarse, size=(height, width), mode="bicubic")[0].clamp(0, 255)
        pixels.append(smooth.byte().permute(1, 2, 0).numpy())
    return pixels, [Frame(2 * width, 2 * height, width, height)] * count


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(192, 288), pytest.param(480, 640, marks=pytest.mark.slow)])
def test_network_and_detections_equal_the_reference(zoo, height, width):
    """Sizes are not multiples of 128, the largest stride."""
    saved = import_model(zoo, "detectron2")
    pixels, frames = make_images(height, width)
    mean = torch.tensor([103.53, 116.28, 123.675])
    bgr = torch.stack([torch.from_numpy(p[:, :, ::-1].copy()).float() - mean for p in pixels]).permute(0, 3, 1, 2)
    config = saved.image_config
    rgb = torch.stack([torch.from_numpy(normalise(p, mean=config.image_mean, std=config.image_std)) for p in pixels])
    torch.testing.assert_close(rgb.flip(1), bgr, rtol=0, atol=2e-5)
    reference = Reference(zoo)
    expected, outputs = reference(bgr.contiguous()), saved.model(rgb)
    logits_NAK, deltas_NA4 = (torch.cat([level[i] for level in expected], 1) for i in (0, 1))
    assert logits_NAK.std() > 0.3
    torch.testing.assert_close(to_detectron2_order(outputs.logits_NAK), logits_NAK, rtol=0, atol=1e-4)
    torch.testing.assert_close(to_detectron2_order(outputs.deltas_NA4), deltas_NA4, rtol=0, atol=2e-5)
    assert (outputs.logits_NAK - logits_NAK).abs().max() > 0.1, "the order of anchors makes no difference"
    anchors_A4 = torch.cat([level[2] for level in expected])
    torch.testing.assert_close(to_detectron2_order(outputs.anchors_A4[None])[0], anchors_A4, rtol=0, atol=1e-3)
    assert (logits_NAK.sigmoid() > 0.05).sum() > 2000
    differs = False
    for n, detections in enumerate(postprocess(outputs, frames=frames, config=saved.postprocess_config)):
        boxes_D4, scores_D, labels_D = reference.detect(expected, n, frames[n])
        assert len(boxes_D4) > 50
        assert torch.equal(detections.labels_D, labels_D)
        torch.testing.assert_close(detections.scores_D, scores_D, rtol=0, atol=1e-5)
        torch.testing.assert_close(detections.boxes_D4, boxes_D4, rtol=0, atol=2e-3)
        clipped, _, _ = reference.detect(expected, n, frames[n], clip_first=True)
        differs |= len(clipped) != len(boxes_D4) or not torch.allclose(clipped, boxes_D4, atol=1.0)
    assert differs, "clipping before NMS makes no difference, so the test does not check it"


@pytest.mark.slow
def test_a_wrong_stride_and_wrong_channels_differ_from_the_reference(zoo):
    """The comparison with the reference detects a stride in the 3x3 convolution and BGR channels."""
    pixels, _ = make_images(128, 160, count=1)
    mean = torch.tensor([103.53, 116.28, 123.675])
    bgr = (torch.from_numpy(pixels[0][:, :, ::-1].copy()).float() - mean).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = torch.cat([level[0] for level in Reference(zoo)(bgr.contiguous())], 1)
        right = from_detectron2(zoo)
        right_logits = to_detectron2_order(right(bgr.flip(1)).logits_NAK)
        torch.testing.assert_close(right_logits, expected, rtol=0, atol=1e-4)
        for wrong in (
            from_detectron2(zoo, stride_in_1x1=False)(bgr.flip(1)).logits_NAK,
            right(bgr).logits_NAK,
        ):
            assert (to_detectron2_order(wrong) - expected).abs().max() > 0.1


def test_classes_and_training_options_are_imported(zoo):
    saved = import_model(zoo, "detectron2")
    assert (saved.model.config.backbone, saved.model.config.p6_from) == ("resnet50", "c5")
    assert saved.model.config.stride_in_1x1
    assert saved.model.backbone.batchnorm_frozen
    assert (len(saved.classes), saved.classes[0], saved.classes[11], saved.classes[79]) == (
        80, "person", "stop sign", "toothbrush",
    )  # fmt: skip
    assert (saved.category_ids[0], saved.category_ids[11], saved.category_ids[79]) == (1, 13, 90)
    config = saved.train_config
    assert (config["box_loss"], config["normaliser"], config["alpha"]) == ("l1", "batch", 0.25)
    assert (config["low_quality_matches"], config["max_detections"], config["clip_before_nms"]) == (True, 100, False)
    assert saved.image_config.image_mean == pytest.approx((123.675 / 255, 116.28 / 255, 103.53 / 255))
    assert saved.image_config.image_std == pytest.approx((1 / 255,) * 3)


@pytest.mark.slow
def test_early_files_with_pixel_means_and_anchors_are_imported(zoo):
    """A ResNet-101 with 3 classes. Early files store the pixel means and the anchors; wrong anchors are refused."""
    content = zoo_file(depth=101, K=3, width=32)
    for level, sizes in enumerate(SIZES):
        cells = [[-w / 2, -w * r / 2, w / 2, w * r / 2] for s in sizes for r in RATIOS for w in [s / math.sqrt(r)]]
        content["model"][f"anchor_generator.cell_anchors.{level}"] = np.array(cells, np.float32)
    content["model"]["pixel_mean"] = np.array([1.0, 2.0, 3.0], np.float32).reshape(3, 1, 1)
    content["model"]["pixel_std"] = np.array([4.0, 5.0, 6.0], np.float32).reshape(3, 1, 1)
    saved = import_model(content, "detectron2", classes=("a", "b", "c"))
    assert (saved.model.config.backbone, saved.model.config.fpn_width, saved.classes) == (
        "resnet101",
        32,
        ("a", "b", "c"),
    )
    assert saved.image_config.image_mean == pytest.approx((3 / 255, 2 / 255, 1 / 255))
    assert saved.image_config.image_std == pytest.approx((6 / 255, 5 / 255, 4 / 255))
    content["model"]["anchor_generator.cell_anchors.2"] *= 2
    with pytest.raises(WeightsError, match=r"anchor_sizes.*as trained:\n  anchor_generator.cell_anchors.2: differs"):
        from_detectron2(content)
    sizes = (32.0, 64.0, 256.0, 256.0, 512.0)
    assert from_detectron2(content, anchor_sizes=sizes).config.anchor_sizes == sizes


@pytest.mark.slow
def test_a_zoo_file_loads_and_a_file_with_code_is_refused(zoo, narrow, tmp_path):
    path = tmp_path / "model_final_5bd44e.pkl"
    path.write_bytes(pickle.dumps(narrow, protocol=2))
    detector = retinanet.load(path, "cpu")
    image = (np.random.default_rng(0).random((60, 80, 3)) * 255).astype(np.uint8)
    assert len(detector.classes) == 80
    assert len(detector.predict(image)) > 0

    class RunsCode:
        def __reduce__(self):
            return os.getcwd, ()

    for protocol in (2, 4):
        path.write_bytes(pickle.dumps({"model": {"backbone.bottom_up.x": RunsCode()}}, protocol=protocol))
        with pytest.raises(CheckpointError, match=r"only arrays and plain values"):
            load_checkpoint(path)
    path.write_bytes(pickle.dumps(collections.OrderedDict(zoo))[:-1000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps({"model": {"backbone.bottom_up.x": np.array([RunsCode], dtype=object)[:0]}}))
    with pytest.raises(WeightsError, match=r"not a tensor: backbone.bottom_up.x \(ndarray\)"):
        load_checkpoint(path)


@pytest.mark.slow
def test_a_file_written_with_numpy_1_loads(narrow, tmp_path):
    """The zoo's files were written with numpy 1, whose module numpy.core is numpy._core since numpy 2."""
    data = pickle.dumps(narrow, protocol=2)
    assert b"numpy._core.multiarray" in data
    path = tmp_path / "old.pkl"
    path.write_bytes(data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    assert load_checkpoint(path).model.num_classes == 80


def test_faults_are_listed_by_detectron2_names(zoo):
    arrays = dict(zoo["model"])
    del arrays["backbone.bottom_up.res4.2.conv2.norm.running_var"], arrays["backbone.top_block.p7.bias"]
    arrays["head.bbox_subnet.2.weight"] = np.zeros((256, 256, 1, 1), np.float32)
    arrays["roi_heads.box_head.fc1.weight"] = np.zeros((2, 2), np.float32)
    with pytest.raises(WeightsError) as refused:
        from_detectron2({"model": arrays})
    lines = str(refused.value).splitlines()
    assert len(lines) == 5
    assert "  missing: backbone.bottom_up.res4.2.conv2.norm.running_var" in lines
    assert "  missing: backbone.top_block.p7.bias" in lines
    assert "  head.bbox_subnet.2.weight: expected (256, 256, 3, 3), found (256, 256, 1, 1)" in lines
    assert "  unknown: roi_heads.box_head.fc1.weight" in lines
