"""Every option of the project and its default, one file per section: the only place a default lives.

A section (`LossConfig`, `LoadingConfig`, ...) declares the options of one concern, each with type, range, default and
help text. The config of a command (`TrainConfig`, ...) holds sections and the options of that command alone.

Flags, YAML keys and Python arguments are the names of the options, without nesting: `resolve` builds a config from
such names on top of a preset, and refuses an unknown name with the nearest known one.
"""

from retinanet.config.augment import AugmentConfig
from retinanet.config.check import CheckConfig
from retinanet.config.compare import CompareConfig
from retinanet.config.convert import ConvertConfig
from retinanet.config.convert_weights import ConvertWeightsConfig
from retinanet.config.data import ClassesConfig, DataConfig, separate_names
from retinanet.config.demo import DemoConfig
from retinanet.config.evaluate import EvaluateConfig
from retinanet.config.export import ExportConfig
from retinanet.config.extensions import ExtensionConfig, is_object_name, name_object
from retinanet.config.hardware import ComputeConfig, DeviceConfig, torch_device_name
from retinanet.config.image import ImageConfig, Std
from retinanet.config.inference import InferenceConfig, NmsConfig, Precision
from retinanet.config.loading import BatchConfig, CacheConfig, LoadingConfig, WaitingConfig
from retinanet.config.loss import LossConfig
from retinanet.config.matching import MatchConfig
from retinanet.config.model import IMAGENET_MEAN, IMAGENET_STD, ModelConfig, PositiveNumbers
from retinanet.config.optimiser import OptimiserConfig, ScheduleConfig
from retinanet.config.output import ExistingConfig, FolderConfig, ImageFiles, ImageFilesConfig, ReportConfig
from retinanet.config.part_tables import ASSIGNERS, BOX_LOSSES, LOSSES, PART_OPTIONS
from retinanet.config.postprocess import PostprocessConfig
from retinanet.config.predict import PredictConfig
from retinanet.config.prescribe import PrescribeConfig
from retinanet.config.presets import PRESETS, PresetName
from retinanet.config.resolve import (
    CONFIG_VERSION,
    Option,
    flatten,
    given_options,
    options_of,
    resolve,
    section_from_dict,
    to_dict,
    with_options,
)
from retinanet.config.run import ImbalanceConfig, NonfiniteConfig, RandomConfig, RunConfig
from retinanet.config.sampling import SamplerName, SamplingConfig
from retinanet.config.serve import ServeConfig
from retinanet.config.split import SplitConfig
from retinanet.config.start import FittedConfig, FreezeName, PresetConfig, StartConfig
from retinanet.config.study import StudyConfig
from retinanet.config.tile import TileConfig
from retinanet.config.train import TrainConfig
from retinanet.config.tune import TuneConfig
from retinanet.config.validation_data import ValidationConfig
from retinanet.config.value_range import ValueRangeConfig

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
    "BatchConfig",
    "CacheConfig",
    "CheckConfig",
    "ClassesConfig",
    "CompareConfig",
    "ComputeConfig",
    "ConvertConfig",
    "ConvertWeightsConfig",
    "DataConfig",
    "DemoConfig",
    "DeviceConfig",
    "EvaluateConfig",
    "ExistingConfig",
    "ExportConfig",
    "ExtensionConfig",
    "FittedConfig",
    "FolderConfig",
    "FreezeName",
    "ImageConfig",
    "ImageFiles",
    "ImageFilesConfig",
    "ImbalanceConfig",
    "InferenceConfig",
    "LoadingConfig",
    "LossConfig",
    "MatchConfig",
    "ModelConfig",
    "NmsConfig",
    "NonfiniteConfig",
    "OptimiserConfig",
    "Option",
    "PositiveNumbers",
    "PostprocessConfig",
    "Precision",
    "PredictConfig",
    "PrescribeConfig",
    "PresetConfig",
    "PresetName",
    "RandomConfig",
    "ReportConfig",
    "RunConfig",
    "SamplerName",
    "SamplingConfig",
    "ScheduleConfig",
    "ServeConfig",
    "SplitConfig",
    "StartConfig",
    "Std",
    "StudyConfig",
    "TileConfig",
    "TrainConfig",
    "TuneConfig",
    "ValidationConfig",
    "ValueRangeConfig",
    "WaitingConfig",
    "flatten",
    "given_options",
    "is_object_name",
    "name_object",
    "options_of",
    "resolve",
    "section_from_dict",
    "separate_names",
    "to_dict",
    "torch_device_name",
    "with_options",
]
