"""mmengine's samplers without their lists: the same indices in the same order, 4 bytes each in the place of 40.

Of tens of millions of images each process of a host keeps a permutation; only its own share of it stays in memory here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler

_AT_ONCE = 1 << 16  # indices that are Python numbers at the same time


def compact(sampler: Any) -> Any:
    """A sampler that gives what another one does; those of other classes than mmengine's two are left as they are.

    Args:
        sampler: Which has not begun.
    """
    if type(sampler) is DefaultSampler:
        return _Share(sampler)
    if type(sampler) is InfiniteSampler:
        sampler.indices = _endless(sampler)
    return sampler


class _Share:
    """The indices of one process in an epoch; in all else mmengine's ``DefaultSampler`` itself."""

    def __init__(self, sampler: DefaultSampler) -> None:
        self.sampler = sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch) if self.shuffle else None
        order = _order(len(self.dataset), generator)
        share = order[self.rank :: self.world_size]
        rounded = np.arange(self.rank + len(share) * self.world_size, self.total_size, self.world_size)
        return _numbers(np.concatenate([share, order[rounded % max(len(order), 1)]]))

    def __getattr__(self, name: str) -> Any:
        if name == "sampler":  # while it is copied
            raise AttributeError(name)
        return getattr(self.sampler, name)


def _endless(sampler: InfiniteSampler) -> Iterator[int]:
    """One permutation after the other, of which a process takes every so many."""
    generator, place = torch.Generator().manual_seed(sampler.seed), sampler.rank
    while True:
        share = _order(sampler.size, generator if sampler.shuffle else None)[place :: sampler.world_size].copy()
        place += len(share) * sampler.world_size - sampler.size
        yield from _numbers(share)


def _order(size: int, generator: torch.Generator | None) -> np.ndarray:
    dtype = torch.int32 if size < 2**31 else torch.int64
    if generator is None:
        return torch.arange(size, dtype=dtype).numpy()
    return torch.randperm(size, generator=generator, dtype=dtype).numpy()  # the same numbers in either type


def _numbers(indices: np.ndarray) -> Iterator[int]:
    for start in range(0, len(indices), _AT_ONCE):
        yield from indices[start : start + _AT_ONCE].tolist()
