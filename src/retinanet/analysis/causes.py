"""Name the causes of missed objects and of false detections, and what can mend each."""

from __future__ import annotations

from typing import Final, Literal, get_args

MissCause = Literal[
    "suppressed",
    "not a candidate",
    "beyond max_detections",
    "below the threshold",
    "wrong class",
    "badly localised",
    "no anchor",
    "anchors ignored",
    "anchors taken",
    "low scores",
]
"""Why an object was missed. Of several causes, the first one counts; `MISS_MEANINGS` describes them."""
FalseCause = Literal[
    "duplicate", "wrong class", "badly localised", "wrong class and place", "unlabelled?", "background"
]
"""Where a false detection comes from. Of several causes, the first one counts:

- duplicate: it fits an object of its class that another detection has found;
- wrong class: it fits an object of another class;
- badly localised: it overlaps an object of its class with an IoU from 0.1 to 0.5;
- wrong class and place: it overlaps an object of another class with an IoU from 0.1 to 0.5;
- unlabelled?: probably an object without a label: it overlaps no object and is no part of one of its class, and its
  score is 0.5 or more (`evaluate.per_image.probably_unlabelled`);
- background: it overlaps no object, and its score is lower or it is a part of an object of its class.
"""

MISS_MEANINGS: Final[dict[MissCause, str]] = {
    "suppressed": "NMS dropped a box that fits the object, because another box overlaps it and has a higher score",
    "not a candidate": "a box fits the object, but candidates_per_level predictions of its level have higher scores",
    "beyond max_detections": "a box fits the object, but max_detections detections have higher scores",
    "below the threshold": "a detection fits the object, but its score is below the threshold",
    "wrong class": "a false detection fits the object, but has another class",
    "badly localised": "a false detection of its class overlaps the object, but with an IoU below 0.5",
    "no anchor": "in training, the IoU of all anchors with the object is too low to be positive or ignored",
    "anchors ignored": "in training, the best anchors of the object are ignored",
    "anchors taken": "in training, the anchors that fit the object are not positive for it",
    "low scores": "all predictions that fit the object have scores below the threshold, and none is a detection",
}
"""What each cause of a missed object means."""
REINSTATED: Final = ("suppressed", "not a candidate", "beyond max_detections", "below the threshold")
"""Causes inside post-processing: a box that fits the object exists."""
ANCHOR_CAUSES: Final = ("no anchor", "anchors ignored", "anchors taken")
"""Causes of objects for which no anchor is positive."""
CAUSES: Final[tuple[str, ...]] = tuple(dict.fromkeys((*get_args(MissCause), *get_args(FalseCause))))
"""All causes, those of misses first."""
NO_DETECTION: Final = "no detection"
"""Cause of a missed object that no detection fits, if the network and its post-processing were not followed."""
ADVICE: Final[dict[str, str]] = {
    "suppressed": "keep both boxes with a higher --nms-threshold",
    "not a candidate": "give a higher candidates_per_level",
    "beyond max_detections": "give a higher max_detections",
    "below the threshold": "lower the threshold, or train with more images of such objects",
    "wrong class": "check the labels of the two classes, and add images of both",
    "badly localised": "check how tightly the boxes are drawn; train longer or with larger images",
    "no anchor": "fit the anchors (--anchors auto), or train with larger images",
    "anchors ignored": "fit the anchors (--anchors auto), or give --low-quality-matches",
    "anchors taken": "train with --assigner atss --low-quality-matches, or add the feature level P2",
    "low scores": "add images of such objects, or train longer",
    "duplicate": "give a lower --nms-threshold",
    "wrong class and place": "add images of both classes",
    "unlabelled?": "label the objects (--hard draws such places)",
    NO_DETECTION: "find the reason with `retinanet check`, the checkpoint and the data",
    "background": "add images without objects, in which such background occurs",
}
"""What can mend each cause."""
