"""The confusion matrix: hand-worked numbers."""

from __future__ import annotations

import io

from rich.console import Console

from retinanet.commands.evaluate import confusion_table
from retinanet.evaluate import confusion_matrix
from tests.evaluate.cats_and_dogs import CAT, COW, DOG, detection, ground_truth

LEFT, RIGHT = [0.0, 0.0, 40.0, 40.0], [50.0, 0.0, 40.0, 40.0]


def test_confusion_by_hand() -> None:
    objects = ground_truth((CAT, LEFT, 0), (DOG, RIGHT, 0), (DOG, [0.0, 50.0, 40.0, 40.0], 0))
    results = [
        detection(CAT, LEFT, 0.9),
        detection(CAT, RIGHT, 0.8),  # a dog detected as a cat
        detection(COW, [50.0, 60.0, 20.0, 20.0], 0.7),  # no object
        detection(DOG, [0.0, 50.0, 40.0, 40.0], 0.4),  # correct, but below the threshold
    ]
    matrix = confusion_matrix(objects, results)
    assert matrix.classes == ("cat", "dog", "cow")
    assert matrix.counts.tolist() == [[1, 0, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]]
    assert confusion_matrix(objects, results, score=0.4).counts[1].tolist() == [1, 1, 0, 0]
    assert confusion_matrix(objects, []).counts[:, -1].tolist() == [1, 2, 0, 0]
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(confusion_table(matrix))
    assert "background" in console.export_text()


def test_crowd_regions_are_ignored() -> None:
    crowd = [50.0, 0.0, 50.0, 100.0]
    objects = ground_truth((CAT, LEFT, 0), (CAT, crowd, 1))
    inside = [60.0, 10.0, 20.0, 20.0]
    results = [detection(CAT, LEFT, 0.9), detection(CAT, inside, 0.8), detection(DOG, inside, 0.7)]
    matrix = confusion_matrix(objects, results)
    assert matrix.counts.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
