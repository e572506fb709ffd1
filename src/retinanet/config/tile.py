"""How large images are cut into tiles."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Interval

from retinanet.config.validation import check_options
from retinanet.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TileConfig:
    """How large images are cut into tiles. Use the same tiles in training and prediction, so that objects keep their
    size."""

    PANEL: ClassVar = "Data"

    tile: int | None = None
    """Side of the square tiles that images are cut into, pixels of the original image; 0: no tiles, otherwise at least
    32. Each tile is resized like an image of its own. The whole image is predicted too, for objects larger than a tile.
    Default: the tiles that the model was trained with."""
    overlap: Annotated[float, Interval(ge=0, lt=0.9)] = 0.2
    """Smallest overlap of neighbouring tiles, as a fraction of the tile's side. Choose it larger than the small
    objects."""

    def __post_init__(self) -> None:
        check_options(self)
        if self.tile and self.tile < 32:
            raise ConfigError(f"tile must be 0 or at least 32 pixels, found {self.tile}")

    @property
    def whole_from(self) -> float:
        """Length in pixels from which objects are also searched in the image as a whole."""
        return max(0.5, self.overlap) * (self.tile or 0)
