"""Import weights of other projects. The functions are defined in `checkpoint.import_weights`."""

from retinanet.checkpoint.import_weights import WeightsError, convert_weights, from_detectron2, from_torchvision

__all__ = ["WeightsError", "convert_weights", "from_detectron2", "from_torchvision"]
