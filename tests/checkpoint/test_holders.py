"""Tests of finding a network's tensors under any key and prefix, and of files with other objects beside them."""

import pathlib
import warnings

import pytest
import torch

from retinanet.checkpoint.holders import StoredObject, describe_content, find_states
from retinanet.checkpoint.peer_network import read_state
from retinanet.checkpoint.peers import PEERS
from retinanet.errors import UserError
from retinanet.train import load_checkpoint
from tests.checkpoint.helpers import small_file

NAMES = ("backbone.fpn.inner_blocks.0.0.weight", "head.classification_head.cls_logits.weight")
STATE = {name: torch.full((2,), float(i)) for i, name in enumerate(NAMES)}


def prefixed(prefix, state=STATE):
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    "content",
    [
        *({key: STATE, "epoch": 3, "optimizer": {"state": {}}} for key in ("model_state_dict", "net", "ema", "module")),
        *(prefixed(p) for p in ("module.", "_orig_mod.", "module._orig_mod.", "model.", "detector.net.")),
        {"state_dict": {**prefixed("model."), "criterion.weight": torch.ones(3)}},
        {"n_averaged": torch.tensor(3), **prefixed("module.")},
        {**STATE, "loss.alpha": torch.ones(1), "epoch": 3},
        {"a": {"b": {"c": prefixed("backbone_and_head.")}}},
        [3, STATE],
        {"model": STATE, "model_again": prefixed("module.")},
        {name.replace("fpn.", "_orig_mod.fpn."): value for name, value in STATE.items()},
    ],
)
def test_the_network_is_found_under_any_key_and_prefix(content):
    found = read_state(content, "torchvision")
    assert found.keys() == STATE.keys()
    assert all(torch.equal(found[name], value) for name, value in STATE.items())
    assert not find_states(content, PEERS["detectron2"].marker)


def test_of_several_networks_the_averaged_one_is_used_or_none():
    other = {name: value + 1 for name, value in STATE.items()}
    with pytest.warns(UserWarning, match=r"of 2 networks .*the averaged one is used: checkpoint\['model_ema'\]"):
        found = read_state({"model": other, "model_ema": prefixed("module.")}, "torchvision")
    assert torch.equal(found[NAMES[1]], STATE[NAMES[1]])
    with pytest.raises(UserError, match=r"found 2 with different weights .*\"student\.\".*\"tutor\.\""):
        read_state({**prefixed("student."), **prefixed("tutor.", other)}, "torchvision")


def test_what_was_found_otherwise_is_named():
    content = {"model": {"conv.weight": torch.zeros(1)}, "epoch": 3, "bias": torch.zeros(1)}
    text = "1 tensors (bias) and the keys model (1 tensors: conv.weight), epoch (int)"
    assert describe_content(content) == text
    with pytest.raises(UserError, match=r"contain backbone\.bottom_up\., found 1 tensors"):
        read_state(content, "detectron2")


def test_the_search_of_shared_and_circular_content_ends():
    marker = PEERS["torchvision"].marker
    shared = {"model": STATE}
    for _ in range(4):
        shared = {f"key {i}": shared for i in range(1000)}
    assert len(find_states(shared, marker)) == 1
    circular = StoredObject()
    circular.attributes = circular
    assert find_states(circular, marker) == []
    network = StoredObject()
    network.attributes = {"_parameters": {}, "_modules": {"a": network, "b": network}}
    assert find_states(network, marker) == []


class Logger:
    """An object that training scripts store beside the weights."""

    def __reduce__(self):
        return warnings.warn, ("code of the file ran",)


@pytest.mark.slow
def test_a_whole_network_and_other_objects_load_without_running_code(tmp_path):
    model, path = small_file(tmp_path)
    for content in (model, {"ema": model.state_dict(), "logger": Logger(), "folder": pathlib.Path("x")}):
        torch.save(content, path)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded = load_checkpoint(path).model
        expected = model.head.regression_head.bbox_reg.weight
        assert torch.equal(loaded.box_head.output.weight, expected)


def test_files_without_a_known_network_are_refused_in_words(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(UserError, match=r"found the object torch\.nn\.modules\.linear\.Linear, .* save"):
        load_checkpoint(path)
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    with pytest.raises(UserError, match="found a TorchScript archive: save"):
        load_checkpoint(path)
    torch.save({"class_head.output.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="without classes and options: give the checkpoint"):
        load_checkpoint(path)


def test_a_checkpoint_of_ours_loads_after_it_was_wrapped(run_folder, tmp_path):
    content = torch.load(run_folder / "best.ckpt", weights_only=True)
    expected = load_checkpoint(run_folder / "best.ckpt").model.state_dict()
    inner = {name.removeprefix("model."): value for name, value in content["state_dict"].items()}
    for wrapped in (
        {**content, "state_dict": prefixed("model._orig_mod.", inner)},
        {**content, "state_dict": inner},
        {"checkpoint": content, "epoch": 3},
    ):
        torch.save(wrapped, tmp_path / "w.ckpt")
        found = load_checkpoint(tmp_path / "w.ckpt").model.state_dict()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
