"""The batches of an evaluation."""

from __future__ import annotations

from retinanet.formats.records import DetectionData


def eval_batches(data: DetectionData, batch_size: int, rank: int = 0, world_size: int = 1) -> list[list[int]]:
    """Return this rank's batches of image numbers; over all ranks every image comes exactly once.

    Images of like shape go together, which saves padding. Ranks may have one batch more or less than others.
    """
    records = data.records
    order = sorted(range(len(records)), key=lambda i: (records[i].height / records[i].width, i))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return batches[rank::world_size]
