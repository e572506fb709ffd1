"""How large images are cut into tiles."""

from dataclasses import dataclass

from retinanet.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TileConfig:
    """How large pictures are cut into tiles, to train and to predict: the same, or else objects change their size."""

    tile: int | None = None
    """Side of the tiles that pictures are cut into, original pixels; 0: not cut. A model knows the tiles that it was
    trained with and takes them unless others are given. Each tile is resized as a picture of its own, and the whole
    picture is looked at as well, for what is larger than a tile."""
    overlap: float = 0.2
    """How much of a tile its neighbour shows too, at least: more than the small objects need."""

    def __post_init__(self) -> None:
        if self.tile and self.tile < 32:
            raise ConfigError(f"tile must be 0 or at least 32 pixels, found {self.tile}")
        if not 0 <= self.overlap < 0.9:
            raise ConfigError(f"overlap must be 0 or more and below 0.9, found {self.overlap}")

    @property
    def whole_from(self) -> float:
        """Pixels; what is longer is looked for in the picture as a whole too."""
        return max(0.5, self.overlap) * (self.tile or 0)
