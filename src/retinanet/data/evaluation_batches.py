"""Batches of images for evaluation."""

from __future__ import annotations

from retinanet.formats.records import DetectionData


def eval_batches(data: DetectionData, batch_size: int, rank: int = 0, world_size: int = 1) -> list[list[int]]:
    """Return the batches of one rank as lists of image indices. Every image belongs to exactly one rank.

    Images are sorted by aspect ratio, which saves padding. The number of batches per rank may differ by one.
    """
    records = data.records
    order = sorted(range(len(records)), key=lambda i: (records[i].height / records[i].width, i))
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return batches[rank::world_size]
