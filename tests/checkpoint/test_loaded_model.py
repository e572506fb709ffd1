"""What a checkpoint holds beside the weights."""

import json

from retinanet.checkpoint.loaded_model import FORMAT, describe_run
from retinanet.config import TrainConfig, resolve, section_from_dict, to_dict
from retinanet.version import __version__


def test_the_description_of_a_run_holds_plain_values():
    config = resolve(TrainConfig, {"train": "t.json", "val": "v.json", "output": "out", "gamma": 1.5})
    found = describe_run(config, ("cat", "dog"), (3, 17))
    assert (found["format"], found["version"]) == (FORMAT, __version__)
    assert (found["classes"], found["category_ids"]) == (["cat", "dog"], [3, 17])
    again = json.loads(json.dumps(found))
    assert again["config"] == json.loads(json.dumps(to_dict(config)))
    assert section_from_dict(type(config.loss), again["config"]) == config.loss
