"""Options of `retinanet check`."""

from dataclasses import dataclass
from pathlib import Path

from retinanet.config.data import DataConfig
from retinanet.config.image import ImageConfig
from retinanet.config.loss import LossConfig
from retinanet.config.matching import MatchConfig
from retinanet.config.model import ModelConfig
from retinanet.config.presets import PRESETS, PresetName
from retinanet.config.validation import check_between, check_choice, check_positive


@dataclass(frozen=True, kw_only=True)
class CheckConfig(ModelConfig, MatchConfig, LossConfig, ImageConfig, DataConfig):
    """What `retinanet check DATA` and `retinanet check MODEL DATA` can be told.

    With a model, its own network, anchors, loss and picture size are what is checked, and those options have no effect.
    """

    preset: PresetName = "default"
    """default, paper or small: the settings that training would use."""
    val: Path | None = None
    """Validation data: also look for pictures that are in both, and classes that are in one only."""
    val_images: Path | None = None
    """Folder of the validation pictures; `images` unless given."""
    report: Path | None = None
    """File for a report with figures (HTML)."""
    json: Path | None = None
    """File for faults, findings and statistics as JSON; - prints them instead of the text."""
    hard: bool = False
    """With a model: list and draw what it gets most wrong, background and objects; probably wrong labels."""
    hard_examples: int = 50
    """How many of either kind."""
    easy_from: float = 0.5
    """With a model: an example counts as easy where its own answer has at least this probability."""
    output: Path = Path("runs/check")
    """Folder for what --hard writes: hard.csv and report.html."""
    skip_bad: bool = False
    """Exit with status 0 although there are faults; they are listed all the same."""
    batch_size: int = 8
    """Pictures that go through the model at once."""
    workers: int = 2
    """Threads that decode pictures."""
    device: str = "auto"
    """auto, cpu, cuda, mps."""
    seed: int = 0
    """For what is picked at random."""

    def __post_init__(self) -> None:
        for base in (ModelConfig, MatchConfig, LossConfig, ImageConfig, DataConfig):
            base.__post_init__(self)
        check_choice(self, preset=tuple(PRESETS))
        check_positive(self, "batch_size", "workers", "hard_examples")
        check_between(self, 0.000001, 0.999999, "easy_from")
