"""Tests of parts from other packages: named by `package.module:Name`, used in training, saved and loaded."""

from __future__ import annotations

import importlib.metadata
import math
from pathlib import Path

import pytest
import torch

import retinanet
from retinanet import plugins
from retinanet.analysis.coverage import coverage
from retinanet.analysis.model_outputs import load_for_analysis
from retinanet.checkpoint.loaded_model import CheckpointError
from retinanet.checkpoint.loading import load_checkpoint
from retinanet.config import ASSIGNERS, BOX_LOSSES, LOSSES, ImageConfig, LossConfig, MatchConfig, ModelConfig
from retinanet.data import load
from retinanet.errors import ConfigError
from retinanet.losses import BoxLoss, ClassificationLoss, DetectionLoss, FocalLoss
from retinanet.matching import Assigner, make_assigner
from retinanet.model import RetinaNet, load_pretrained
from retinanet.types import Target
from tests import outside_parts
from tests.golden.record import run
from tests.loss_inputs import one_positive

OUTSIDE = "tests.outside_parts"
SMALL = {"fpn_width": 8, "head_width": 8, "head_depth": 1}


def test_detection_loss_from_parts_equals_the_loss_from_a_config():
    batch = one_positive([[0.3, -2.0], [1.0, -1.0], [0.2, 0.1]], [0.5, -1.0, 0.0, 2.0])
    config = LossConfig(gamma=1.5, box_loss=f"{OUTSIDE}:DeltaNorm", normaliser="image", label_smoothing=0.1)
    parts = DetectionLoss(
        classification=FocalLoss(gamma=1.5), box=outside_parts.DeltaNorm(), normaliser="image", label_smoothing=0.1
    )
    assert parts(*batch).total == DetectionLoss(config=config)(*batch).total
    with pytest.raises(TypeError, match="expected a config, or a classification loss and a box loss"):
        DetectionLoss(box=outside_parts.DeltaNorm())
    with pytest.raises(ConfigError, match="expected 0 for the loss 'varifocal'"):
        DetectionLoss(config=LossConfig(loss="varifocal", label_smoothing=0.1))


def test_a_subclass_of_a_fused_loss_does_not_use_the_parents_kernel():
    batch = one_positive([[0.3, -2.0], [1.0, -1.0]], [0.0] * 4)
    once, twice = (DetectionLoss(config=LossConfig(loss=name))(*batch) for name in ("focal", f"{OUTSIDE}:DoubledFocal"))
    assert twice.classification.item() == pytest.approx(2 * once.classification.item(), rel=1e-6)


def test_an_assigner_of_another_package_by_hand():
    """Anchor centres are (5, 5), (15, 5), (25, 5); the object covers the last two.

    With `skipped=1`, the first two anchors (the finest level) are ignored.
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


def test_coverage_uses_the_assigner(squares: tuple[Path, Path]):
    """Every object of 24 x 24 or 40 x 20 pixels contains an anchor's centre: all are covered."""
    data = load(squares[0])
    settings = {"model_config": ModelConfig(), "image_config": ImageConfig(image_size=64, max_size=96)}
    centres = coverage(data, match_config=MatchConfig(assigner=f"{OUTSIDE}:CentreAssigner"), **settings)
    ious = coverage(data, match_config=MatchConfig(), **settings)
    assert centres.unreached == 0
    assert centres.positives_O.sum() > 2 * ious.positives_O.sum()


def test_a_backbone_of_another_package():
    """`levels` comes from the options, `width` keeps its default: 4, 8 and 12 channels."""
    model = RetinaNet(num_classes=2, backbone=f"{OUTSIDE}:strided", **SMALL)
    assert model.backbone.channels == (4, 8, 12)
    assert model.backbone.body.levels == (3, 4, 5, 6, 7)
    assert model.backbone.body.training
    info = load_pretrained(model.backbone)
    assert (info.mean, info.source) == ((0.1, 0.2, 0.3), f"{OUTSIDE}:strided")
    out = model(torch.randn(1, 3, 65, 97))
    assert out.anchors_per_level[0] == 9 * 9 * 13


@pytest.mark.parametrize(
    ("table", "base"), [(LOSSES, ClassificationLoss), (BOX_LOSSES, BoxLoss), (ASSIGNERS, Assigner)]
)
def test_every_built_in_part_has_defaults_for_all_options(table, base):
    for name in table:
        part = plugins.find_class("part", name, table, base)
        assert callable(plugins.make_part("part", part, object()))


def test_an_invalid_assigner_is_refused():
    with pytest.raises(ConfigError, match=r"assigner must be one of iou, .*found 'io'. Did you mean 'iou'\?"):
        MatchConfig(assigner="io")
    with pytest.raises(ConfigError, match="the class lacks __call__"):
        make_assigner(MatchConfig(assigner=f"{OUTSIDE}:Unfinished"))


def test_a_module_that_fails_to_import_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "module_that_fails.py").write_text("raise RuntimeError('no licence')")
    (tmp_path / "module_with_needs.py").write_text("import package_that_is_absent")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="failed with RuntimeError: no licence"):
        plugins.import_name("loss", "module_that_fails:Loss")
    with pytest.raises(ConfigError, match="importing module_with_needs failed, no module 'package_that_is_absent'"):
        plugins.import_name("loss", "module_with_needs:Loss")


@pytest.mark.slow
def test_parts_of_another_package_are_trained_saved_and_loaded(
    squares: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Train two steps with four parts of another package, then load the checkpoint with and without permission."""
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


def test_a_file_may_name_only_allowed_modules(monkeypatch: pytest.MonkeyPatch):
    """Allowing the package `mine` allows `mine.parts`, but not `mine_too`."""
    assert plugins.is_allowed("mine.parts:Loss", ["mine"])
    assert not plugins.is_allowed("mine_too.parts:Loss", ["mine"])
    assert not plugins.is_allowed("os:system")
    assert not plugins.is_allowed("tests.outside_parts:strided")
    entry = importlib.metadata.EntryPoint("any", "mine.parts", plugins.ENTRY_POINTS)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [entry] if group == plugins.ENTRY_POINTS else [])
    assert plugins.is_allowed("mine.parts:Loss")
    assert not plugins.is_allowed("mine.other:Loss")
