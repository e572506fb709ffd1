"""Tests of `TrainBatchSampler`: each image once per epoch, similar shapes together, deterministic, equal on ranks."""

from __future__ import annotations

import hashlib
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.data import TrainBatchSampler
from retinanet.data.batch import sample_seed
from tests.shared import num_examples


def sampler(sides: list[tuple[int, int]], **options: object) -> TrainBatchSampler:
    defaults = {"batch_size": 4, "seed": 0, "image_size": 100}
    return TrainBatchSampler(widths=[w for w, _ in sides], heights=[h for _, h in sides], **(defaults | options))


SIDES = [(64, 48)] * 13 + [(48, 64)] * 10

sizes = st.lists(st.sampled_from([(64, 48), (48, 64), (50, 50)]), min_size=1, max_size=60)


@given(sizes, st.integers(1, 9), st.integers(1, 5), st.integers(-3, 2**64), st.integers(0, 50))
@settings(max_examples=num_examples(150), deadline=None)
def test_every_rank_has_equally_many_batches_and_no_image_is_lost(
    sides: list[tuple[int, int]], batch_size: int, world_size: int, seed: int, epoch: int
) -> None:
    ranks = [sampler(sides, batch_size=batch_size, seed=seed, rank=r, world_size=world_size) for r in range(world_size)]
    counts: Counter[int] = Counter()
    for rank in ranks:
        rank.set_epoch(epoch)
        batches = list(rank)
        assert len(batches) == len(rank) == math.ceil(math.ceil(len(sides) / batch_size) / world_size)
        assert all(1 <= len(batch) <= batch_size for batch in batches)
        counts.update(key.index for batch in batches for key in batch)
    assert set(counts) == set(range(len(sides)))
    if len(sides) >= len(ranks) * len(ranks[0]):  # enough images for all batches, so no image repeats
        assert set(counts.values()) == {1}


def test_images_of_similar_shape_share_a_batch() -> None:
    batches = list(sampler(SIDES))
    mixed = [batch for batch in batches if len({SIDES[key.index] for key in batch}) > 1]
    assert len(mixed) == 1  # 13 % 4 = 1 and 10 % 4 = 2 are left over
    assert sorted(map(len, batches)) == [3, 4, 4, 4, 4, 4]


def test_batches_depend_only_on_seed_and_epoch() -> None:
    a, b = sampler(SIDES), sampler(SIDES)
    first = list(a)
    assert first == list(a) == list(b)
    a.set_epoch(1)
    second = list(a)
    assert [[k.index for k in batch] for batch in second] != [[k.index for k in batch] for batch in first]
    seeds = {k.seed for batch in first + second for k in batch}
    assert len(seeds) == 2 * len(SIDES)  # every sample of every epoch has a seed of its own
    assert list(sampler(SIDES, seed=1)) != first
    b.set_epoch(1)
    assert list(b) == second


def test_batches_without_expected_draws_do_not_change() -> None:
    """The hash covers the indices, seeds and image sizes of batches that were recorded before `expected_draws`."""
    recorded = []
    for seed in (0, 7, 2**40):
        for world_size in (1, 3):
            for rank in range(world_size):
                a = sampler(SIDES, seed=seed, rank=rank, world_size=world_size, multi_scale=(64, 96))
                for epoch in range(4):
                    a.set_epoch(epoch)
                    recorded.append([[key[:3] for key in batch] for batch in a])
    digest = hashlib.sha256(repr(recorded).encode()).hexdigest()
    assert digest == "963ddf220b49d42da50ed82d5a3f9f8deae625de205a7be5e7e5dc18f4bd380b"


def test_skip_continues_an_interrupted_epoch() -> None:
    a = sampler(SIDES, multi_scale=(64, 96, 128))
    a.set_epoch(3)
    whole = list(a)
    a.set_epoch(3, skip=2)
    assert len(a) == len(whole) - 2
    assert list(a) == whole[2:]
    a.set_epoch(4)
    assert len(list(a)) == len(whole)
    with pytest.raises(ValueError, match="skip between 0 and 6, found 7"):
        a.set_epoch(0, skip=7)


def test_multi_scale_draws_one_size_per_batch_equal_on_all_ranks() -> None:
    ranks = [sampler(SIDES * 10, multi_scale=(64, 96), rank=r, world_size=2) for r in range(2)]
    batch_sizes = [[{key.image_size for key in batch} for batch in rank] for rank in ranks]
    assert batch_sizes[0] == batch_sizes[1]
    assert all(len(size) == 1 for size in batch_sizes[0])
    assert set().union(*batch_sizes[0]) == {64, 96}
    assert {key.image_size for batch in sampler(SIDES) for key in batch} == {100}


def test_further_images_are_off_from_an_epoch_on() -> None:
    batches = sampler([(64, 48)] * 8, combine_epochs=2)
    always = sampler([(64, 48)] * 8)
    for epoch, is_on in enumerate((True, True, False, False)):
        batches.set_epoch(epoch, skip=1)
        always.set_epoch(epoch, skip=1)
        assert {key.combine for batch in batches for key in batch} == {is_on}
        assert [[key._replace(combine=is_on) for key in batch] for batch in always] == list(batches)


def test_sample_seeds_are_distinct_and_within_range() -> None:
    seeds = [sample_seed(seed, epoch, index) for seed in (0, 1, -1) for epoch in range(10) for index in range(50)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= s < 2**63 for s in seeds)
    assert 0.4 < np.mean([s >> 62 for s in seeds]) < 0.6


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"rank": 2, "world_size": 2}, {"rank": -1}])
def test_invalid_arguments_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected batch_size >= 1"):
        sampler(SIDES, **options)
    with pytest.raises(ValueError, match="found 0 and 0"):
        sampler([])
