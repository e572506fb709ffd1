"""Options of `retinanet study`."""

from dataclasses import dataclass
from pathlib import Path

from retinanet.config.parts import LOSSES
from retinanet.config.train import TrainConfig
from retinanet.config.validation import check_positive
from retinanet.errors import ConfigError
from retinanet.plugins import check_part


@dataclass(frozen=True, kw_only=True)
class StudyConfig(TrainConfig):
    """What `retinanet study DATA` can be told: which set-ups to train, and all that `train` can be told about each."""

    train: Path = Path()
    """Given as DATA: the data to train on; without `val`, a fifth of its pictures is kept for validation."""
    val: Path | None = None  # type: ignore[assignment]
    """Validation data, on which all are measured."""
    losses: tuple[str, ...] = ("focal", "ce", "balanced_ce", "weighted", "hard_negative_mining", "ohem")
    """The losses to compare, each with the settings given for it."""
    without_prior: tuple[str, ...] = ()
    """Losses to train with the prior switched off (0.5) as well."""
    alphas: tuple[float, ...] = ()
    """Values of alpha to train focal loss with, besides `alpha`; with `gammas`, every pair of the two."""
    gammas: tuple[float, ...] = ()
    """Values of gamma, likewise."""
    seeds: int = 3
    """How often each is trained, with another seed each time; intervals need 2 or more."""
    keep_checkpoints: bool = False
    """Keep the weights of every run, not only of the first seed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "seeds")
        if not self.losses:
            raise ConfigError("losses must name one loss or more, found none")
        for name in ("losses", "without_prior"):
            for value in getattr(self, name):
                check_part(name, value, LOSSES)
        if any(not 0 <= alpha <= 1 for alpha in self.alphas) or any(gamma < 0 for gamma in self.gammas):
            raise ConfigError(f"alphas are between 0 and 1, gammas 0 or more; found {self.alphas} and {self.gammas}")
