"""How a map is cut into tiles of queries and their halos of keys: pure arithmetic on the sizes.

Neighboring positions have nearly the same window. A *tile* of ``t`` queries along an axis attends to its *halo*, the
union of their windows, ``t + kernel_size - 1`` keys, of which a mask leaves to each query its own window.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from eyetoy_mm.ops.neighborhood import Axis


class AtOnce(NamedTuple):
    """How much the ``torch`` back end takes at once."""

    scores: int  # of one turn of the loop
    elements: int  # of strips of keys, which bounds the maps that are cut into strips together


# Measured (docs/performance.md): few enough scores for a cache, enough to share out among threads; strips that stay in
# a cache. Elsewhere a turn costs some launches whatever it does; chosen for few of them and a bounded memory, and not
# measured.
ON_CPU = AtOnce(2**18, 2**20)
ON_GPU = AtOnce(2**24, 2**26)


def at_once(device_type: str) -> AtOnce:
    """What suits a kind of device."""
    return ON_CPU if device_type in ("cpu", "meta") else ON_GPU


def tile_size(axes: tuple[Axis, ...]) -> tuple[int, ...]:
    """Queries per tile along each axis; ``docs/performance.md`` has the measurements behind this rule.

    16 in a sequence, 4 x 8 in a map, 2 x 4 x 4 in a volume. Larger where copies of the halos would take more than 4
    times the memory of the map (2.5 times per axis of a volume); a whole axis where a halo covers most of it; evenly
    divided.
    """
    num_long_axes = sum(axis.length > 1 for axis in axes)
    sizes = {3: [2, 4, 4], 2: [4, 8], 1: [16], 0: []}[num_long_axes]
    max_copies = 2.5 if num_long_axes == 3 else 4
    chosen: list[int] = []
    for axis in axes:
        size = sizes.pop(0) if axis.length > 1 else 1
        while chosen and size + axis.window(0) - 1 > max_copies * size:
            size *= 2
        if size + axis.window(0) - 1 >= 0.8 * axis.length and (chosen or axis.length <= 2 * size):
            size = axis.length
        chosen.append(math.ceil(axis.length / math.ceil(axis.length / size)))
    return tuple(chosen)


class Pattern(NamedTuple):
    """Which keys of its halo each query of a tile attends to, along one axis. Inner tiles have the same."""

    kernel_size: int
    window: int
    keys: int
    queries: tuple[tuple[int, int], ...]  # start of the window and own position, both counted from the first key


class Tile(NamedTuple):
    """Some consecutive queries of one undilated axis and the keys that their windows cover."""

    query: int  # the first one
    queries: int
    key: int
    keys: int
    pattern: Pattern

    @classmethod
    def of(cls, axis: Axis, query: int, queries: int, key: int, keys: int) -> Tile:
        """The tile of these queries, with the pattern that the axis gives them."""
        positions = (min(i, axis.length - 1) for i in range(query, query + queries))  # past the end it is padding
        windows = tuple((axis.start(i) - key, i - key) for i in positions)
        return cls(query, queries, key, keys, Pattern(axis.kernel_size, axis.window(0), keys, windows))


def row_tiles(axis: Axis, size: int) -> tuple[Tile, ...]:
    """Tiles of an axis that is looped over: each as small as it can be."""
    tiles = []
    for first in range(0, axis.length, size):
        last = min(first + size, axis.length) - 1
        key = axis.start(first)
        tiles.append(Tile.of(axis, first, last + 1 - first, key, axis.start(last) + axis.window(0) - key))
    return tuple(tiles)


def strip_tiles(axis: Axis, size: int) -> tuple[Tile, ...]:
    """Tiles of an axis that are batched: all of one size; the last may run over the end."""
    keys = min(size + axis.window(0) - 1, axis.length)
    firsts = range(0, axis.length, size)
    return tuple(Tile.of(axis, i, size, min(axis.start(i), axis.length - keys), keys) for i in firsts)


class Run(NamedTuple):
    """Windows ``first, first + every, ...`` begin at ``position, position + step, ...``, clear of each other."""

    first: int
    every: int
    number: int
    position: int
    width: int
    step: int


def query_runs(axis: Axis, size: int) -> tuple[Run, ...]:
    """The queries of the tiles of an axis; the ragged last tile apart."""
    full_tiles, ragged = divmod(axis.length, size)
    runs = (Run(0, 1, full_tiles, 0, size, size), Run(full_tiles, 1, 1, full_tiles * size, ragged, size))
    return runs if ragged else runs[:1]


def key_runs(tiles: tuple[Tile, ...]) -> tuple[Run, ...]:
    """The halos of the tiles of an axis. In an even row, every ``period``-th halo is clear of the others."""
    size, width = tiles[0].queries, tiles[0].keys
    period = math.ceil(width / size)
    runs, begin = [], 0
    for end in range(1, len(tiles) + 1):
        if end == len(tiles) or tiles[end].key - tiles[end - 1].key != size:  # tiles[begin:end] are evenly spaced
            for first in range(begin, min(begin + period, end)):
                count = len(range(first, end, period))
                runs.append(Run(first, period, count, tiles[first].key, width, period * size))
            begin = end
    return tuple(runs)


class Cut(NamedTuple):
    """How axes are cut into strips, which are their tiles or the halos of these."""

    counts: tuple[int, ...]  # strips per axis
    widths: tuple[int, ...]  # positions of a strip per axis
    runs: tuple[tuple[Run, ...], ...]  # per axis

    @property
    def ragged(self) -> bool:
        """Whether some strips run over the end of the map."""
        return any(run.width < width for runs, width in zip(self.runs, self.widths, strict=True) for run in runs)


class Turn(NamedTuple):
    """One turn of the loop: a row of tiles of some strips. Slices are into ``(strips * batch, positions, dim)``."""

    strips: int  # number of them
    matrices: slice
    queries: slice
    keys: slice
    case: int  # which of the plan's cases


Patterns = tuple[Pattern, ...]  # of one tile, a pattern per axis


class Case(NamedTuple):
    """The patterns of the tiles of a turn. Few turns differ in them, so masks are made once per case."""

    patterns: tuple[Patterns, ...]  # the different ones
    pattern_of_strip: tuple[int, ...]  # for each strip its number among them; a single number serves all strips


@dataclass(frozen=True, eq=False)
class Plan:
    """How a map of undilated axes is cut: rows of tiles along the first axis, strips along the others."""

    turns: tuple[Turn, ...]
    cases: tuple[Case, ...]
    queries: Cut
    keys: Cut

    @classmethod
    @functools.lru_cache(maxsize=256)
    def of(cls, axes: tuple[Axis, ...], batch: int, most: AtOnce = ON_CPU) -> Plan:
        """Plan the map of these axes, for ``batch`` maps and heads at once."""
        size, *sizes = tile_size(axes)
        rows = row_tiles(axes[0], size)
        tiles = [strip_tiles(axis, size) for axis, size in zip(axes[1:], sizes, strict=True)]
        counts, halos = tuple(len(t) for t in tiles), tuple(t[0].keys for t in tiles)
        columns, halo_columns = math.prod(sizes), math.prod(halos)
        strips = list(itertools.product(*([tile.pattern for tile in t] for t in tiles)))
        scores = max(row.queries * row.keys for row in rows) * columns * halo_columns * batch
        strips_at_once = max(1, most.scores // scores)
        strips_at_once = math.ceil(len(strips) / math.ceil(len(strips) / strips_at_once))
        turns: list[Turn] = []
        cases: dict[Case, int] = {}
        for first in range(0, len(strips), strips_at_once):
            for row in rows:
                per_strip = [(row.pattern, *strip) for strip in strips[first : first + strips_at_once]]
                patterns = tuple(dict.fromkeys(per_strip))
                pattern_of_strip = (0,) if len(patterns) == 1 else tuple(map(patterns.index, per_strip))
                case = cases.setdefault(Case(patterns, pattern_of_strip), len(cases))
                matrices = slice(first * batch, (first + len(per_strip)) * batch)
                tile = slice(row.query * columns, (row.query + row.queries) * columns)
                halo = slice(row.key * halo_columns, (row.key + row.keys) * halo_columns)
                turns.append(Turn(len(per_strip), matrices, tile, halo, case))
        return cls(
            turns=tuple(turns),
            cases=tuple(cases),
            queries=Cut(counts, tuple(sizes), tuple(query_runs(a, s) for a, s in zip(axes[1:], sizes, strict=True))),
            keys=Cut(counts, halos, tuple(key_runs(t) for t in tiles)),
        )


def maps_at_once(axes: tuple[Axis, ...], dim: int, most: AtOnce) -> int:
    """How many maps of one head to cut into strips together."""
    row, *columns = zip(axes, tile_size(axes), strict=True)
    scores, elements = row[1] * min(row[1] + row[0].window(0) - 1, row[0].length), axes[0].length * dim
    for axis, size in columns:
        halo = min(size + axis.window(0) - 1, axis.length)
        scores, elements = scores * size * halo, elements * math.ceil(axis.length / size) * halo
    return min(most.scores // scores, most.elements // elements)


def bias_index(patterns: Patterns) -> Tensor:
    """Index of every (query, key) of a tile into the flattened bias; past its end where the query does not attend."""
    index = torch.zeros(1, 1, dtype=torch.long, device="cpu")
    not_attended = torch.zeros(1, 1, dtype=torch.bool, device="cpu")
    for kernel_size, window, keys, queries in patterns:
        start, position = torch.tensor(queries, device="cpu").T[:, :, None]
        key = torch.arange(keys, device="cpu")
        offset = (key - position + kernel_size - 1).clamp(0, 2 * kernel_size - 2)  # clamped where not attended
        index = _outer(index * (2 * kernel_size - 1), offset, torch.add)
        not_attended = _outer(not_attended, (key < start) | (key >= start + window), torch.logical_or)
    return index.masked_fill(not_attended, math.prod(2 * pattern.kernel_size - 1 for pattern in patterns))


def _outer(left: Tensor, right: Tensor, combine: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(q1, k1) and (q2, k2) -> (q1 * q2, k1 * k2), combined pairwise."""
    return combine(left[:, None, :, None], right[None, :, None, :]).flatten(2, 3).flatten(0, 1)


def dilation_groups(axis: Axis) -> Iterator[tuple[int, int, Axis]]:
    """The dilation groups of an axis by size: first group, number of groups, and the axis that each is by itself."""
    longer = axis.length % axis.dilation
    for first, end in ((0, longer), (longer, axis.dilation)):
        length = axis.group_length(first) if first < end else 0
        if length:
            yield first, end - first, Axis(length, axis.kernel_size)
