"""Samplers without lists give mmengine's indices, for any number of images and processes."""

import copy
import tracemalloc
from itertools import islice

import pytest

pytest.importorskip("mmengine", reason="mmengine is not installed")
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import DataLoader

from eyetoy_mm.engine.exact_resume import positioned
from eyetoy_mm.engine.samplers import compact


def pair(kind, size, rank, world_size, monkeypatch, **settings):
    """A sampler of mmengine's, and one that was made compact."""
    monkeypatch.setattr("mmengine.dataset.sampler.get_dist_info", lambda: (rank, world_size))
    return kind(range(size), seed=3, **settings), compact(kind(range(size), seed=3, **settings))


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("size", "world_size"), [(1, 1), (2, 5), (7, 3), (9, 3), (70_000, 1), (70_001, 4)])
def test_the_order_is_mmengines(size, world_size, shuffle, monkeypatch):
    for rank in range(world_size):
        for round_up in (True, False):
            settings = dict(shuffle=shuffle, round_up=round_up)
            theirs, ours = pair(DefaultSampler, size, rank, world_size, monkeypatch, **settings)
            for epoch in (0, 2):
                theirs.set_epoch(epoch)
                ours.set_epoch(epoch)
                assert list(ours) == list(theirs)
            assert len(ours) == len(theirs) and ours.epoch == 2
        theirs, ours = pair(InfiniteSampler, size, rank, world_size, monkeypatch, shuffle=shuffle)
        steps = 3 * size // world_size + 7
        assert list(islice(ours, steps)) == list(islice(theirs, steps))


def test_others_are_left_alone_and_copies_are_samplers():
    class Own(DefaultSampler):
        pass

    own = Own(range(3), seed=0)
    assert compact(own) is own
    ours = compact(DefaultSampler(range(5), seed=1))
    assert list(copy.deepcopy(ours)) == list(ours)


def test_a_run_keeps_no_list():
    first = list(islice(DefaultSampler(range(300_000), seed=0), 4))
    loader = DataLoader(range(300_000), 4, sampler=DefaultSampler(range(300_000), seed=0))
    tracemalloc.start()
    try:
        batches = iter(positioned(loader, seed=0).batch_sampler)
        assert [int(index) for index in next(batches)] == first
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 300_000 * 20  # a list of them is 300,000 * 36
