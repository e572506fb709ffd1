"""Named sets of options."""

from typing import Any, Final, Literal

PresetName = Literal["default", "paper", "small"]
PRESETS: Final[dict[str, dict[str, Any]]] = {
    "default": {},
    "paper": {"alpha": 0.25},
    "small": {
        "backbone": "tf_efficientnet_lite0",
        "fpn_width": 128,
        "head_width": 128,
        "head_depth": 2,
        "head_norm": "group",
        "image_size": 512,
        "max_size": 512,
        "box_loss": "giou",
        "box_loss_weight": 2.0,
        "batch_size": 4,
        "optimizer": "adamw",
        "lr": 1e-3,
        "lr_batch_size": 4,
        "weight_decay": 1e-2,
        "schedule": "cosine",
        "warmup_steps": 100,
        "ema": 0.998,
    },
}
"""What each preset sets differently from the defaults above."""
