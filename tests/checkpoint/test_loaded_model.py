"""Tests of the description that a checkpoint stores beside the weights."""

import json

from retinanet.checkpoint.loaded_model import FORMAT, describe_run
from retinanet.config import TrainConfig, resolve, section_from_dict, to_dict
from retinanet.version import __version__


def test_the_description_of_a_run_holds_plain_values():
    config = resolve(TrainConfig, {"train": "t.json", "val": "v.json", "output": "out", "gamma": 1.5})
    description = describe_run(config, ("cat", "dog"), (3, 17))
    assert (description["format"], description["version"]) == (FORMAT, __version__)
    assert (description["classes"], description["category_ids"]) == (["cat", "dog"], [3, 17])
    from_json = json.loads(json.dumps(description))
    assert from_json["config"] == json.loads(json.dumps(to_dict(config)))
    assert section_from_dict(type(config.loss), from_json["config"]) == config.loss
