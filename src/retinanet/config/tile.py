"""How large images are cut into tiles."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from retinanet.config.validation import check_options
from retinanet.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TileConfig:
    """How large images are cut into tiles, to train and to predict: the same, or else objects change their size."""

    tile: int | None = None
    """Side of the tiles that images are cut into, original pixels; 0: not cut. A model knows the tiles that it was
    trained with and takes them unless others are given. Each tile is resized as an image of its own, and the whole
    image is looked at as well, for what is larger than a tile."""
    overlap: Annotated[float, Interval(ge=0, lt=0.9)] = 0.2
    """How much of a tile its neighbour shows too, at least: more than the small objects need."""

    def __post_init__(self) -> None:
        check_options(self)
        if self.tile and self.tile < 32:
            raise ConfigError(f"tile must be 0 or at least 32 pixels, found {self.tile}")

    @property
    def whole_from(self) -> float:
        """Pixels; what is longer is looked for in the image as a whole too."""
        return max(0.5, self.overlap) * (self.tile or 0)
