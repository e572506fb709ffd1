"""Tests of the import of torchvision's RetinaNets: network, anchors, matching, losses, gradients and detections.

The weights are random, because real ones cannot be downloaded here. The images are real. Both networks get the same
normalised tensor.
"""

import pytest
import torch
from PIL import Image
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import box_iou

import retinanet
from retinanet.checkpoint.import_weights import WeightsError, convert_weights, from_torchvision, import_model
from retinanet.config import ConvertWeightsConfig, LossConfig, MatchConfig, section_from_dict
from retinanet.images import Frame
from retinanet.losses import DetectionLoss
from retinanet.matching import match
from retinanet.postprocess import postprocess
from retinanet.train import CheckpointError, load_checkpoint
from retinanet.types import Target
from tests.checkpoint.helpers import forward_torchvision
from tests.peers import coco128, randomise_weights, torchvision_v1, torchvision_v2

MAKERS = {"v1": torchvision_v1, "v2": torchvision_v2}


@pytest.fixture(scope="module")
def peers():
    """Return torchvision's v1 and v2 models with random weights that detect, and the imported models."""
    torch.manual_seed(0)
    noise = torch.rand(3, 20, 24)
    image = torch.nn.functional.interpolate(noise[None], size=(320, 400), mode="bicubic")[0].clamp(0, 1)
    models = {}
    for name, make in MAKERS.items():
        model = make()
        model.transform = resized_to(320, 400)
        randomise_weights(model, image)
        models[name] = (model, import_model(model.state_dict(), "torchvision"))
    return models


def resized_to(shorter, longer):
    return GeneralizedRCNNTransform(shorter, longer, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]).eval()


def predict_torchvision(model, images):
    """Return the outputs of torchvision's transform, head and anchor generator, and its detections."""
    outputs = {}
    parts = (model.transform, model.head, model.anchor_generator)
    hooks = [part.register_forward_hook(lambda part, _, out: outputs.__setitem__(part, out)) for part in parts]
    detections = model(list(images))
    for hook in hooks:
        hook.remove()
    return (*(outputs[part] for part in parts), detections)


@pytest.mark.slow
@pytest.mark.parametrize("version", [pytest.param("v1", marks=pytest.mark.slow), "v2"])
@pytest.mark.parametrize(
    ("shorter", "longer"),
    [
        (320, 500),
        pytest.param(200, 333, marks=pytest.mark.slow),
        pytest.param(512, 640, marks=pytest.mark.slow),
        pytest.param(800, 1333, marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_network_and_detections_equal_torchvisions(shared_data, peers, version, shorter, longer):
    """Three images, two in a batch (one at 800). Padded sizes other than 512 x 640 are not multiples of 128."""
    theirs, saved = peers[version]
    theirs.transform = resized_to(shorter, longer)
    pixels = [image_3HW for image_3HW, _ in coco128(shared_data, 3)]
    survivors = detections = 0
    batches = [pixels[:1]] if shorter == 800 else [pixels[:2], pixels[2:]]
    for batch in batches:
        (images, _), head, anchors, their_detections = predict_torchvision(theirs, batch)
        outputs = saved.model(images.tensors)
        torch.testing.assert_close(outputs.logits_NAK, head["cls_logits"], rtol=0, atol=4e-5)  # logits up to 20
        torch.testing.assert_close(outputs.deltas_NA4, head["bbox_regression"], rtol=0, atol=5e-6)
        assert torch.equal(outputs.anchors_A4, anchors[0])
        survivors += int((head["cls_logits"].sigmoid() > 0.05).sum())
        frames = [
            Frame(p.shape[2], p.shape[1], size[1], size[0]) for p, size in zip(batch, images.image_sizes, strict=True)
        ]
        our_detections = postprocess(outputs, frames=frames, config=saved.postprocess_config)
        for ours, their in zip(our_detections, their_detections, strict=True):
            detections += len(their["boxes"])
            assert_equal_detections(ours, their)
    assert survivors > 3000, "too few scores above the threshold to compare"
    assert detections == 300 * sum(map(len, batches))


def assert_equal_detections(ours, their):
    """Assert equal classes in equal order, scores within 1e-5 and boxes within 1e-3 pixels.

    Detections whose scores differ by less than 1e-5 may swap places. In float32, up to three pairs of 300 detections
    do. `test_the_order_of_detections_is_equal_in_float64` allows no swap.
    """
    torch.testing.assert_close(ours.scores_D, their["scores"], rtol=0, atol=1e-5)
    same_DD = ours.labels_D[:, None] == their["labels"]
    same_DD &= (ours.boxes_D4[:, None] - their["boxes"]).abs().amax(2) < 1e-3
    same_DD &= (ours.scores_D[:, None] - their["scores"]).abs() < 1e-5
    assert same_DD.any(1).all()
    assert same_DD.any(0).all()
    assert same_DD.diagonal().float().mean() > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v1", "v2"])
@torch.no_grad()
def test_the_order_of_detections_is_equal_in_float64(shared_data, peers, version):
    """With both networks in float64, no two of 900 detections swap places."""
    theirs = MAKERS[version]().double().eval()
    theirs.load_state_dict(peers[version][0].state_dict())
    theirs.transform = resized_to(200, 333)
    saved = import_model(theirs.state_dict(), "torchvision")
    model = saved.model.double()
    for image, _ in coco128(shared_data, 3):
        (images, _), _, _, (their,) = predict_torchvision(theirs, [image.double()])
        height, width = images.image_sizes[0]
        frame = Frame(image.shape[2], image.shape[1], width, height)
        (ours,) = postprocess(model(images.tensors), frames=[frame], config=saved.postprocess_config)
        assert len(ours.labels_D) == 300
        assert torch.equal(ours.labels_D, their["labels"])
        torch.testing.assert_close(ours.scores_D.double(), their["scores"], rtol=0, atol=1e-5)
        torch.testing.assert_close(ours.boxes_D4.double(), their["boxes"], rtol=0, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v1", pytest.param("v2", marks=pytest.mark.slow)])
def test_a_training_step_equals_torchvisions(shared_data, peers, version):
    """Compare matches, both losses (normalised per image) and the gradient of every parameter, in float64.

    In float32, gradients of 10 of v1's 89 parameters differ by more than 1e-5, at most by 1.5e-3. Those of v2 differ by
    at most 3.4e-6. BatchNorm is frozen in v1 and in train mode in v2.
    """
    theirs, saved = peers[version]
    theirs = MAKERS[version]().double()
    theirs.load_state_dict(peers[version][0].state_dict())
    theirs.transform = resized_to(224, 400)
    ours = from_torchvision(theirs.state_dict()).double().train()
    theirs.train()
    pixels, targets = zip(*coco128(shared_data, 2), strict=True)
    double = [Target(boxes_G4=t.boxes_G4.double(), labels_G=t.labels_G, crowd_G=t.crowd_G) for t in targets]
    images, head, anchors, resized = forward_torchvision(theirs, [p.double() for p in pixels], double)
    outputs = ours(images.tensors)
    matched = match(
        outputs.anchors_A4.double(),
        [
            Target(boxes_G4=t["boxes"], labels_G=t["labels"], crowd_G=d.crowd_G)
            for t, d in zip(resized, double, strict=True)
        ],
        section_from_dict(MatchConfig, saved.train_config),
    )
    their_matches = [theirs.proposal_matcher(box_iou(t["boxes"], a)) for t, a in zip(resized, anchors, strict=True)]
    for n, their in enumerate(their_matches):
        assert torch.equal(matched.positive_NA[n], their >= 0)
        assert torch.equal(matched.ignored_NA[n], their == -2)
        assert torch.equal(matched.matched_NA[n][their >= 0], their[their >= 0])
        assert (their >= 0).sum() > 20
    losses = DetectionLoss(config=section_from_dict(LossConfig, saved.train_config))(outputs, matched)
    expected = theirs.compute_loss(resized, head, anchors)
    assert losses.classification.item() == pytest.approx(expected["classification"].item(), rel=1e-6)
    assert losses.box.item() == pytest.approx(expected["bbox_regression"].item(), rel=1e-6)  # their GIoU adds 1e-7
    losses.total.backward()
    sum(expected.values()).backward()
    gradients = {name: p.grad for name, p in parameters_by_our_names(theirs, saved.model).items()}
    trained = {name: p.grad for name, p in ours.named_parameters() if p.requires_grad}
    assert set(trained) == set(gradients)
    assert len(trained) > 80
    for name, gradient in trained.items():
        largest = gradients[name].abs().max()
        assert largest > 0, name
        assert (gradient - gradients[name]).abs().max() < 1e-5 * largest, name


def parameters_by_our_names(model, ours):
    """Return the parameters of torchvision's model under the tensor names of `RetinaNet`."""
    from retinanet.checkpoint.peers import PEERS

    theirs = dict(model.named_parameters())
    step = 3 if ours.config.head_norm == "group" else 2
    names = {name: PEERS["torchvision"].names(name, step)[0] for name in ours.state_dict()}
    return {name: theirs[their] for name, their in names.items() if their in theirs}


@pytest.mark.slow
def test_imported_batchnorm_is_frozen_in_v1_only(peers):
    assert peers["v1"][1].model.backbone.batchnorm_frozen
    assert not peers["v2"][1].model.backbone.batchnorm_frozen
    assert not any(p.requires_grad for n, p in peers["v1"][1].model.named_parameters() if ".bn" in n)


@pytest.mark.slow
def test_p7_strides_at_800_x_1344_pixels(peers):
    """In the style "torchvision", the 7 x 11 positions of P7 have strides 114 and 122. By default, strides are 128."""
    like = torch.zeros(1)
    sizes = [(-(-800 // s), -(-1344 // s)) for s in (8, 16, 32, 64, 128)]
    generator = peers["v1"][1].model.anchors
    anchors, per_level = generator(sizes, like=like, input_size=(800, 1344))
    last = anchors[-per_level[-1] :].view(7, 11, 9, 4)
    centres = (last[..., :2] + last[..., 2:]) / 2
    assert centres[1, 1, 0].tolist() == [122, 114]
    assert (anchors == anchors.round()).all()
    with pytest.raises(ValueError, match="needs input_size"):
        generator(sizes, like=like)
    exact, _ = retinanet.RetinaNet(num_classes=1, backbone="resnet18").anchors(sizes, like=like)
    centres = (
        exact[-per_level[-1] :].view(7, 11, 9, 4)[..., :2] + exact[-per_level[-1] :].view(7, 11, 9, 4)[..., 2:]
    ) / 2
    assert centres[1, 1, 0].tolist() == pytest.approx([128, 128])


def test_classes_and_training_options_are_imported(peers):
    for version, box_loss in (("v1", "l1"), ("v2", "giou")):
        _, saved = peers[version]
        assert saved.model.num_classes == 91
        assert saved.model.config.p6_from == {"v1": "p5", "v2": "c5"}[version]
        assert (saved.classes[0], saved.classes[1], saved.classes[12], saved.classes[90]) == (
            "__background__", "person", "N/A 12", "toothbrush",
        )  # fmt: skip
        assert saved.category_ids == tuple(range(91)), "the index of an output is COCO's category id"
        assert len(set(saved.classes)) == 91
        config = saved.train_config
        assert config["low_quality_matches"] is True
        assert (config["loss"], config["alpha"], config["gamma"], config["box_loss"], config["normaliser"]) == (
            "focal", 0.25, 2.0, box_loss, "image",
        )  # fmt: skip
        assert (saved.image_config.image_size, saved.image_config.max_size) == (800, 1333)
        assert saved.postprocess_config.max_detections == 300


@pytest.mark.slow
def test_head_names_before_torchvision_0_13_are_read():
    """In old files, `conv.2` is the second convolution. Since torchvision 0.13, it is the third."""
    state = torchvision_v1(3, backbone="resnet18").state_dict()
    old = {}
    for name, value in state.items():
        parts = name.split(".conv.")
        if "_head.conv." in name:
            number, _, kind = parts[1].split(".")
            name = f"{parts[0]}.conv.{2 * int(number)}.{kind}"  # noqa: PLW2901
        old[name] = value
    from_new, from_old = from_torchvision(state), from_torchvision(old)
    for name, value in from_new.state_dict().items():
        assert torch.equal(value, from_old.state_dict()[name]), name


def test_weights_that_do_not_fit_are_listed(tmp_path):
    state = torchvision_v1(3, backbone="resnet18").state_dict()
    del state["backbone.fpn.inner_blocks.1.0.bias"]
    del state["head.regression_head.conv.3.0.weight"]
    state["roi_heads.extra"] = torch.zeros(1)
    state["backbone.body.conv1.weight"] = torch.zeros(64, 1, 7, 7)
    with pytest.raises(WeightsError) as refused:
        from_torchvision(state)
    lines = str(refused.value).splitlines()
    assert len(lines) == 5
    for expected in (
        "missing: backbone.fpn.inner_blocks.1.0.bias",
        "missing: head.regression_head.conv.3.0.weight",
        "unknown: roi_heads.extra",
        "backbone.body.conv1.weight: expected (64, 3, 7, 7), found (64, 1, 7, 7)",
    ):
        assert f"  {expected}" in lines
    with pytest.raises(WeightsError, match=r"do not fit 9 anchors per position"):
        from_torchvision({**state, "head.classification_head.cls_logits.weight": torch.zeros(28, 256, 3, 3)})
    with pytest.raises(WeightsError, match=r"expected one of the backbones resnet18.*stages of \[2, 2, 2, 5\] plain"):
        from_torchvision({**state, "backbone.body.layer4.4.conv1.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"not a tensor: head.extra \(str\)"):
        from_torchvision({**state, "head.extra": "text"})
    path = tmp_path / "bad.pth"
    torch.save(state, path)
    with pytest.raises(WeightsError, match=r"bad.pth: .*(\n.*)+unknown: roi_heads.extra"):
        load_checkpoint(path)
    torch.save({"weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="not a retinanet checkpoint"):
        load_checkpoint(path)
    with pytest.raises(WeightsError, match="not a RetinaNet of torchvision or Detectron2"):
        convert_weights(path, ConvertWeightsConfig(output=tmp_path / "out.ckpt"))
    assert not (tmp_path / "out.ckpt").exists()


def test_class_names_may_leave_out_the_background(tmp_path):
    state = torchvision_v1(3, backbone="resnet18").state_dict()
    assert import_model(state, "torchvision", classes=("cat", "dog")).classes == ("__background__", "cat", "dog")
    assert import_model(state, "torchvision", classes=("a", "b", "c")).classes == ("a", "b", "c")
    with pytest.raises(WeightsError, match="names for 3 classes, found 1: cat"):
        import_model(state, "torchvision", classes=("cat",))


def test_other_anchors_need_an_option():
    """The file does not contain the scales and ratios of its six anchors per position."""
    state = torchvision_v1(3, backbone="resnet18").state_dict()
    for name in ("cls_logits.weight", "cls_logits.bias"):
        state[f"head.classification_head.{name}"] = state[f"head.classification_head.{name}"][:18]
    for name in ("bbox_reg.weight", "bbox_reg.bias"):
        state[f"head.regression_head.{name}"] = state[f"head.regression_head.{name}"][:24]
    with pytest.raises(WeightsError, match="give anchor_scales"):
        from_torchvision(state)
    model = from_torchvision(state, anchor_scales=(1.0, 1.5))
    assert (model.num_classes, model.config.anchors_per_position) == (3, 6)


@pytest.mark.slow
def test_most_detections_agree_despite_different_resizing(shared_data, peers, tmp_path):
    """torchvision resizes without antialiasing and rounds sizes down. This project resizes with Pillow."""
    theirs, _ = peers["v2"]
    theirs.transform = resized_to(800, 1333)
    path = tmp_path / "v2.pth"
    torch.save(theirs.state_dict(), path)
    detector = retinanet.load(path, "cpu")
    image, _ = coco128(shared_data, 1)[0]
    with torch.no_grad():
        expected = theirs([image])[0]
    detections = detector.predict(Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy()))
    iou = box_iou(torch.from_numpy(detections.xyxy), expected["boxes"])
    is_same_class = torch.from_numpy(detections.class_id)[:, None] == expected["labels"]
    best, _ = (iou * is_same_class).max(dim=1)
    assert (best > 0.9).float().mean() > 0.5
