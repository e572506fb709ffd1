"""Tests of `eval_batches`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.data import DetectionData, Record, eval_batches
from tests.shared import num_examples

sizes = st.lists(st.sampled_from([(64, 48), (48, 64), (50, 50)]), min_size=1, max_size=60)


def make_data(sides: list[tuple[int, int]]) -> DetectionData:
    """Return a dataset of images with these (width, height) and no objects."""
    empty = {"boxes_G4": np.zeros((0, 4)), "labels_G": np.zeros(0, np.int64), "crowd_G": np.zeros(0, bool)}
    records = tuple(
        Record(path=Path("x"), width=w, height=h, **empty, areas_G=np.zeros(0), annotation_ids=(), image_id=i)
        for i, (w, h) in enumerate(sides)
    )
    return DetectionData(records=records, classes=("a",), category_ids=(1,), source=Path("x"))


@given(sizes, st.integers(1, 9), st.integers(1, 5))
@settings(max_examples=num_examples(60), deadline=None)
def test_every_image_is_evaluated_once(sides: list[tuple[int, int]], batch_size: int, world_size: int) -> None:
    data = make_data(sides)
    ranks = [eval_batches(data, batch_size, rank=r, world_size=world_size) for r in range(world_size)]
    assert sorted(i for rank in ranks for batch in rank for i in batch) == list(range(len(sides)))
    batches = eval_batches(data, batch_size)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    ratios = [sides[i][1] / sides[i][0] for batch in batches for i in batch]
    assert sorted(ratios) == ratios
