"""RetinaNet with focal loss: train on your own images, analyse, export and serve the model.

Public names are imported on first use, so that `import retinanet` alone stays fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retinanet.lazy_names import lazy_names
from retinanet.version import __version__

if TYPE_CHECKING:
    from retinanet.config import TrainConfig
    from retinanet.model import RetinaNet
    from retinanet.predict.loading import load
    from retinanet.predict.torch_detector import Detector
    from retinanet.train import fit


_MODULES = {
    "RetinaNet": "retinanet.model",
    "Detector": "retinanet.predict.torch_detector",
    "load": "retinanet.predict.loading",
    "fit": "retinanet.train",
    "TrainConfig": "retinanet.config",
}

__all__ = ["Detector", "RetinaNet", "TrainConfig", "__version__", "fit", "load"]
_get = lazy_names(__name__, _MODULES)


def __getattr__(name: str) -> Any:
    try:
        return _get(name)
    except ModuleNotFoundError as error:
        from retinanet.errors import explain_missing

        raise explain_missing(error, f"retinanet.{name}") from error


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
