"""Parts of the user's own: named by `package.module:Name` from Python, the command line and YAML, saved and loaded."""

from __future__ import annotations

import importlib.metadata
import math
from pathlib import Path

import pytest
import timm
import torch

import retinanet
from retinanet import plugins
from retinanet.analysis.coverage import coverage
from retinanet.analysis.model_outputs import load_for_analysis
from retinanet.checkpoint.loaded_model import CheckpointError
from retinanet.checkpoint.loading import load_checkpoint
from retinanet.config import (
    ASSIGNERS,
    BOX_LOSSES,
    LOSSES,
    ImageConfig,
    LossConfig,
    MatchConfig,
    ModelConfig,
    StudyConfig,
    resolve,
)
from retinanet.data import load
from retinanet.errors import ConfigError
from retinanet.losses import BoxLoss, ClassificationLoss, DetectionLoss, FocalLoss
from retinanet.matching import Assigner, make_assigner
from retinanet.model import Backbone, BackboneError, RetinaNet, load_pretrained
from retinanet.study.variants import variants
from retinanet.types import AnchorTargets, HeadOutputs, Target
from tests import outside_parts
from tests.golden.record import run

OUTSIDE = "tests.outside_parts"
SMALL = {"fpn_width": 8, "head_width": 8, "head_depth": 1}


def one_positive(logits: list[list[float]], deltas: list[float]) -> tuple[HeadOutputs, AnchorTargets]:
    """One image, anchor 0 positive for class 0, the others negative."""
    A = len(logits)
    anchors_A4 = torch.tensor([[0.0, 0.0, 10.0, 10.0]] * A)
    outputs = HeadOutputs(
        logits_NAK=torch.tensor([logits]),
        deltas_NA4=torch.tensor([[deltas] * A]),
        anchors_A4=anchors_A4,
        anchors_per_level=(A,),
    )
    positive_NA = torch.tensor([[True] + [False] * (A - 1)])
    zeros_NA = torch.zeros(1, A, dtype=torch.int64)
    targets = AnchorTargets(
        positive_NA=positive_NA,
        ignored_NA=torch.zeros_like(positive_NA),
        labels_NA=zeros_NA,
        boxes_NA4=anchors_A4[None],
        matched_NA=zeros_NA,
    )
    return outputs, targets


def test_losses_of_the_users_own_by_hand():
    """Logits 0, so p = 0.5 everywhere; alpha 0.3 from the options and factor 2 from the class: 0.3 for each of the
    2 x 2 examples, 1.2 in all, divided by 1 positive. Box: |0.5| + |-1| + 0 + |2| = 3.5. Total 1.2 + 2 x 3.5 = 8.2.
    """
    config = LossConfig(loss=f"{OUTSIDE}:LinearLoss", box_loss=f"{OUTSIDE}:DeltaNorm", alpha=0.3, box_loss_weight=2.0)
    losses = DetectionLoss(config=config)(*one_positive([[0.0, 0.0], [0.0, 0.0]], [0.5, -1.0, 0.0, 2.0]))
    assert losses.classification.item() == pytest.approx(1.2)
    assert losses.box.item() == pytest.approx(3.5)
    assert losses.total.item() == pytest.approx(8.2)


def test_detection_loss_from_parts_equals_that_of_the_config():
    batch = one_positive([[0.3, -2.0], [1.0, -1.0], [0.2, 0.1]], [0.5, -1.0, 0.0, 2.0])
    config = LossConfig(gamma=1.5, box_loss=f"{OUTSIDE}:DeltaNorm", normaliser="image", label_smoothing=0.1)
    parts = DetectionLoss(
        classification=FocalLoss(gamma=1.5), box=outside_parts.DeltaNorm(), normaliser="image", label_smoothing=0.1
    )
    assert parts(*batch).total == DetectionLoss(config=config)(*batch).total
    with pytest.raises(TypeError, match="needs a config, or a classification and a box loss"):
        DetectionLoss(box=outside_parts.DeltaNorm())
    with pytest.raises(ConfigError, match="no effect on varifocal"):
        DetectionLoss(config=LossConfig(loss="varifocal", label_smoothing=0.1))


def test_a_subclass_of_a_fused_loss_is_not_replaced_by_the_parents_kernel():
    batch = one_positive([[0.3, -2.0], [1.0, -1.0]], [0.0] * 4)
    once, twice = (DetectionLoss(config=LossConfig(loss=name))(*batch) for name in ("focal", f"{OUTSIDE}:DoubledFocal"))
    assert twice.classification.item() == pytest.approx(2 * once.classification.item(), rel=1e-6)


def test_an_assigner_of_the_users_own_by_hand():
    """Centres at (5, 5), (15, 5), (25, 5); the object covers the second and third. In the second case the first two
    anchors, the finest level, are ignored.
    """
    anchors_A4 = torch.tensor([[0.0, 0.0, 10.0, 10.0], [10.0, 0.0, 20.0, 10.0], [20.0, 0.0, 30.0, 10.0]])
    target = Target(
        boxes_G4=torch.tensor([[12.0, 0.0, 30.0, 10.0]]), labels_G=torch.tensor([4]), crowd_G=torch.tensor([False])
    )
    assign = make_assigner(MatchConfig(assigner=f"{OUTSIDE}:CentreAssigner"))
    found = assign(anchors_A4, [target], anchors_per_level=(2, 1))
    assert found.positive_NA.tolist() == [[False, True, True]]
    assert found.labels_NA[0, 1:].tolist() == [4, 4]
    found = outside_parts.CentreAssigner(skipped=1)(anchors_A4, [target], anchors_per_level=(2, 1))
    assert found.positive_NA.tolist() == [[False, False, True]]
    assert found.ignored_NA.tolist() == [[True, True, False]]


def test_coverage_is_that_of_the_assigner(squares: tuple[Path, Path]):
    """Every object of 24 x 24 or 40 x 20 pixels contains an anchor's centre: all are covered."""
    data = load(squares[0])
    settings = {"model_config": ModelConfig(), "image_config": ImageConfig(image_size=64, max_size=96)}
    centres = coverage(data, match_config=MatchConfig(assigner=f"{OUTSIDE}:CentreAssigner"), **settings)
    ious = coverage(data, match_config=MatchConfig(), **settings)
    assert centres.unreached == 0
    assert centres.positives_O.sum() > 2 * ious.positives_O.sum()


def test_a_backbone_of_the_users_own():
    """`levels` comes from the options, `width` keeps its default: 4, 8 and 12 channels."""
    model = RetinaNet(num_classes=2, backbone=f"{OUTSIDE}:strided", **SMALL)
    assert model.backbone.channels == (4, 8, 12)
    assert model.backbone.body.levels == (3, 4, 5, 6, 7)
    assert model.backbone.body.training
    info = load_pretrained(model.backbone)
    assert (info.mean, info.source) == ((0.1, 0.2, 0.3), f"{OUTSIDE}:strided")
    out = model(torch.randn(1, 3, 65, 97))
    assert out.anchors_per_level[0] == 9 * 9 * 13


def test_a_network_from_parts_equals_the_one_from_options():
    torch.manual_seed(3)
    whole = RetinaNet(num_classes=2, backbone="test_resnet", **SMALL)
    config = ModelConfig(backbone="test_resnet", **SMALL)
    parts = {name: getattr(whole, name) for name in ("backbone", "class_head", "box_head", "anchors")}
    joined = RetinaNet(**parts, pyramid=whole.fpn, config=config)
    images_N3HW = torch.randn(1, 3, 64, 64)
    assert joined.num_classes == 2
    assert list(joined.state_dict()) == list(whole.state_dict())
    assert torch.equal(joined(images_N3HW).logits_NAK, whole(images_N3HW).logits_NAK)
    with pytest.raises(ValueError, match="missing: pyramid"):
        RetinaNet(**parts)
    with pytest.raises(ValueError, match="either parts or options, found both: head_depth"):
        RetinaNet(**parts, pyramid=whole.fpn, head_depth=2)
    with pytest.raises(ValueError, match="built from parts"):
        _ = RetinaNet(**parts, pyramid=whole.fpn).config


@pytest.mark.parametrize(
    ("table", "base"), [(LOSSES, ClassificationLoss), (BOX_LOSSES, BoxLoss), (ASSIGNERS, Assigner)]
)
def test_every_line_of_a_table_names_a_part_with_a_default_for_every_option(table, base):
    for name in table:
        part = plugins.find_class("part", name, table, base)
        assert callable(plugins.make_part("part", part, object()))


def test_a_study_names_every_loss_by_its_class():
    config = resolve(StudyConfig, {"output": "x", "losses": [*LOSSES, f"{OUTSIDE}:LinearLoss"]})
    found = {variant.name: (variant.label, variant.options) for variant in variants(config)}
    assert len(found) == len(LOSSES) + 1
    assert found["tests.outside_parts.LinearLoss-alpha0.75"] == (
        "linear, alpha 0.75",
        {"loss": f"{OUTSIDE}:LinearLoss", "alpha": 0.75},
    )
    assert found["focal-gamma2-alpha0.75"][0] == "focal, gamma 2, alpha 0.75"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "foca"}, r"loss must be one of focal, .*found 'foca'. Did you mean 'focal'\?"),
        ({"loss": "a:b:c"}, "loss must be one of"),
        ({"box_loss": "smooth-l1"}, r"box_loss must be .* Did you mean 'smooth_l1'\?"),
        ({"loss": f"{OUTSIDE}:LinearLos"}, r"has no 'LinearLos'. Did you mean 'LinearLoss'\?"),
        (
            {"loss": "tests.outside_part:LinearLoss"},
            r"'tests.outside_part'. Did you mean 'tests.outside_parts'",
        ),
        ({"loss": "no_such_package_at_all:Loss"}, "no module 'no_such_package_at_all'.*PYTHONPATH"),
        ({"loss": f"{OUTSIDE}:DeltaNorm"}, "expected a subclass of retinanet.losses.parts.ClassificationLoss, found"),
        ({"box_loss": f"{OUTSIDE}:strided"}, "expected a subclass of retinanet.losses.parts.BoxLoss"),
        (
            {"box_loss": f"{OUTSIDE}:NeedsMore"},
            "parameter 'betta' needs a default, because it is not an option",
        ),
    ],
)
def test_a_wrong_loss_is_explained(options, message):
    with pytest.raises(ConfigError, match=message):
        DetectionLoss(config=LossConfig(**options))


def test_a_wrong_assigner_is_explained():
    with pytest.raises(ConfigError, match=r"assigner must be one of iou, .*found 'io'. Did you mean 'iou'\?"):
        MatchConfig(assigner="io")
    with pytest.raises(ConfigError, match="the class lacks __call__"):
        make_assigner(MatchConfig(assigner=f"{OUTSIDE}:Unfinished"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_channels", "expected an attribute `channels` with 3 numbers.*8, 16, 32, found None"),
        ("too_coarse", r"expected feature maps of shapes \[\(1, 4, 16, 16\).*found \[\(1, 4, 8, 8\)"),
        ("broken", "an image of 128 x 128 pixels raised ZeroDivisionError: division by zero"),
        ("no_module", "expected it to return a torch.nn.Module, found str"),
    ],
)
def test_a_wrong_backbone_is_explained(name, message):
    with pytest.raises(BackboneError, match=message):
        RetinaNet(num_classes=1, backbone=f"{OUTSIDE}:{name}")


def test_a_module_that_fails_to_import_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "module_that_fails.py").write_text("raise RuntimeError('no licence')")
    (tmp_path / "module_with_needs.py").write_text("import package_that_is_absent")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="failed with RuntimeError: no licence"):
        plugins.import_name("loss", "module_that_fails:Loss")
    with pytest.raises(ConfigError, match="importing module_with_needs failed, no module 'package_that_is_absent'"):
        plugins.import_name("loss", "module_with_needs:Loss")


def test_trained_saved_and_loaded(squares: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """All four parts from outside, by flags and YAML, for two steps; then the checkpoint, with and without leave."""
    options = tmp_path / "options.yaml"
    options.write_text(
        f"backbone: {OUTSIDE}:strided\nassigner: {OUTSIDE}:CentreAssigner\nfpn_width: 16\nhead_width: 16\n"
        "head_depth: 1\nimage_size: 64\nmax_size: 96\nmax_steps: 2\nbatch_size: 4\nworkers: 0\ndevice: cpu\n"
    )
    words = ("--config", options, "--train", squares[0], "--val", squares[1], "-o", tmp_path / "run")
    run("train", *words, "--loss", f"{OUTSIDE}:LinearLoss", "--box-loss", f"{OUTSIDE}:DeltaNorm", "--no-overwrite")
    path = tmp_path / "run" / "last.ckpt"
    for load_file in (retinanet.load, load_for_analysis):
        with pytest.raises(CheckpointError, match=rf"last.ckpt: its backbone is {OUTSIDE}:.*RETINANET_ALLOW={OUTSIDE}"):
            load_file(path)
    detector = retinanet.load(path, allow=["tests"])
    found = detector.predict(squares[1].parent / "images" / "0.png", threshold=0.0)
    assert len(found)
    assert math.isfinite(found.confidence.sum())
    monkeypatch.setenv("RETINANET_ALLOW", f"other,{OUTSIDE}")
    trained = load_for_analysis(path)
    assert trained.loss_config.loss == f"{OUTSIDE}:LinearLoss"
    assert trained.match_config.assigner == f"{OUTSIDE}:CentreAssigner"
    assert trained.image_config.image_mean == (0.1, 0.2, 0.3)
    content = torch.load(path, weights_only=True)
    content["retinanet"]["config"]["backbone"] = "tests.gone:strided"
    torch.save(content, tmp_path / "gone.ckpt")
    with pytest.raises(CheckpointError, match=r"gone.ckpt.*no module 'tests.gone'.*Install its package"):
        load_checkpoint(tmp_path / "gone.ckpt", allow=["tests"])


def test_which_modules_a_file_may_name(monkeypatch: pytest.MonkeyPatch):
    """A package allows its own modules, not those of a package whose name begins alike."""
    assert plugins.allowed("mine.parts:Loss", ["mine"])
    assert not plugins.allowed("mine_too.parts:Loss", ["mine"])
    assert not plugins.allowed("os:system")
    assert not plugins.allowed("tests.outside_parts:strided")
    entry = importlib.metadata.EntryPoint("any", "mine.parts", plugins.ENTRY_POINTS)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry] if group == plugins.ENTRY_POINTS else [])
    assert plugins.allowed("mine.parts:Loss")
    assert not plugins.allowed("mine.other:Loss")


def test_a_checkpoint_builds_timms_network_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Once the strides of a backbone's maps are known; and the loaded network has memory of its own."""
    config = {"backbone": "test_resnet", **SMALL}
    model = RetinaNet(num_classes=1, **config)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    about = {"format": 1, "version": "0", "classes": ["a"], "category_ids": [1], "config": config}
    torch.save({"state_dict": state, "retinanet": about}, tmp_path / "m.ckpt")
    load_checkpoint(tmp_path / "m.ckpt")
    built, create = [], timm.create_model
    monkeypatch.setattr("timm.create_model", lambda *args, **options: built.append(args) or create(*args, **options))
    before = torch.get_rng_state()
    saved = load_checkpoint(tmp_path / "m.ckpt")
    assert len(built) == 1
    assert torch.equal(torch.get_rng_state(), before)
    images_N3HW = torch.randn(1, 3, 64, 64)
    assert torch.equal(saved.model(images_N3HW).logits_NAK, model.eval()(images_N3HW).logits_NAK)
    assert not any(value.is_meta for value in saved.model.state_dict().values())
    assert all(parameter.requires_grad for parameter in saved.model.parameters())


def test_one_seed_gives_the_weights_that_it_always_gave():
    """timm's network draws twice, then come pyramid and heads: `trained` in tests/golden depends on it."""
    torch.manual_seed(0)
    first = Backbone(name="test_resnet")
    torch.manual_seed(0)
    timm.create_model("test_resnet", features_only=True)
    second = timm.create_model("test_resnet", features_only=True, out_indices=(2, 3, 4))
    assert torch.equal(next(first.body.parameters()), next(second.parameters()))
