"""Divide the data of a study into parts, and write each part as a COCO file that training runs read."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from retinanet.config import StudyConfig, TrainConfig, section_from_dict, to_dict
from retinanet.data import DetectionData, Record, load_train, load_train_and_val
from retinanet.errors import ConfigError
from retinanet.train.output_files import write_output

VAL_SHARE: Final = 0.2
"""Share of the images that validate if there is no `--val`."""


def split_data(config: StudyConfig) -> tuple[Path, Path, DetectionData, DetectionData]:
    """Return paths and contents of training and validation data.

    Without `val`, a random share `VAL_SHARE` of the images, which depends on the seed, becomes the validation data.

    Raises:
        ConfigError: the data has too few images for a split.
        DataError: the data has faults.
    """
    if config.validation.val is not None:
        train, val = load_train_and_val(section_from_dict(TrainConfig, to_dict(config)))
        return config.train, config.validation.val, train, val
    data = load_train(config)
    order = np.random.default_rng(config.random.seed).permutation(len(data.records))
    count = max(1, round(VAL_SHARE * len(order)))
    if count >= len(order):
        raise ConfigError(f"{config.train} has {len(order)} images, too few for a validation split: give --val")
    paths, sets = {}, {}
    for name, indices in (("val", order[:count]), ("train", order[count:])):
        paths[name] = config.folder.output / f"{name}.json"
        sets[name] = write_part(data, [data.records[i] for i in sorted(indices.tolist())], paths[name])
    return paths["train"], paths["val"], sets["train"], sets["val"]


def write_part(data: DetectionData, records: Sequence[Record], path: Path) -> DetectionData:
    """Write some images of a dataset as COCO annotations with absolute paths of the images. Return this part.

    The part has the classes and ids of the dataset. It is read without the options that select or rename classes.
    """
    part = dataclasses.replace(data, records=tuple(records), faults=())
    content = part.to_coco()
    for image, record in zip(content["images"], part.records, strict=True):
        image["file_name"] = str(record.path.absolute())
    write_output(path, json.dumps(content).encode())
    return part
