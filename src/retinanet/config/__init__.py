"""Every option of the project and its default, one file per section: the only place a default lives.

A command's flags, its YAML keys and the Python arguments are the fields of these dataclasses, name for name.
`resolve` builds one from a preset, and refuses an unknown name with the nearest known one.
"""

from retinanet.config.augment import AugmentConfig
from retinanet.config.check import CheckConfig
from retinanet.config.convert import ConvertConfig, ImageFiles
from retinanet.config.convert_weights import ConvertWeightsConfig
from retinanet.config.data import ClassesConfig, DataConfig, separate_names
from retinanet.config.demo import DemoConfig
from retinanet.config.evaluate import EvaluateConfig
from retinanet.config.export import ExportConfig
from retinanet.config.extensions import ExtensionConfig, is_object_name, name_object
from retinanet.config.image import ImageConfig
from retinanet.config.loss import LossConfig
from retinanet.config.matching import MatchConfig
from retinanet.config.model import IMAGENET_MEAN, IMAGENET_STD, ModelConfig
from retinanet.config.parts import ASSIGNERS, BOX_LOSSES, LOSSES, PART_OPTIONS
from retinanet.config.postprocess import PostprocessConfig
from retinanet.config.predict import Precision, PredictConfig
from retinanet.config.presets import PRESETS, PresetName
from retinanet.config.resolve import CONFIG_VERSION, resolve, section, section_from_dict, to_dict
from retinanet.config.serve import ServeConfig
from retinanet.config.split import SplitConfig
from retinanet.config.study import StudyConfig
from retinanet.config.tile import TileConfig
from retinanet.config.train import FreezeName, TrainConfig

__all__ = [
    "ASSIGNERS",
    "BOX_LOSSES",
    "CONFIG_VERSION",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "LOSSES",
    "PART_OPTIONS",
    "PRESETS",
    "AugmentConfig",
    "CheckConfig",
    "ClassesConfig",
    "ConvertConfig",
    "ConvertWeightsConfig",
    "DataConfig",
    "DemoConfig",
    "EvaluateConfig",
    "ExportConfig",
    "ExtensionConfig",
    "FreezeName",
    "ImageConfig",
    "ImageFiles",
    "LossConfig",
    "MatchConfig",
    "ModelConfig",
    "PostprocessConfig",
    "Precision",
    "PredictConfig",
    "PresetName",
    "ServeConfig",
    "SplitConfig",
    "StudyConfig",
    "TileConfig",
    "TrainConfig",
    "is_object_name",
    "name_object",
    "resolve",
    "section",
    "section_from_dict",
    "separate_names",
    "to_dict",
]
