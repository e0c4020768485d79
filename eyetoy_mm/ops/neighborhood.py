"""What a neighborhood is: the one definition that every back end of :func:`neighborhood_attention` reads.

Along one axis of length ``L`` with kernel size ``k`` and dilation ``d``:

* position ``i`` belongs to dilation group ``g = i % d``, which holds ``L_g = L // d + (g < L % d)`` positions;
* the window of ``i`` holds ``k_g = min(k, L_g)`` positions of that group, starting at in-group index
  ``start = clamp(i // d - k // 2, 0, L_g - k_g)``; its keys are ``g + d * (start + 0 .. k_g - 1)``.

So a border shifts the window and never pads it, and an even ``k`` reaches ``k // 2`` to the left and ``k // 2 - 1`` to
the right. This is NATTEN's definition (checked against 0.21.7), except that NATTEN raises where ``k * d`` exceeds the
axis, while here the window is clamped to the whole group (``k_eff = min(k, L_g)``). In several dimensions a
neighborhood is the product over the axes. docs/architecture.md, section 3, has it as equations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

Index = TypeVar("Index", int, Tensor)


@dataclass(frozen=True)
class Axis:
    """One axis of a neighborhood: ``length`` positions, windows of ``kernel_size``, ``dilation`` apart."""

    length: int
    kernel_size: int
    dilation: int = 1

    def group_length(self, group: int) -> int:
        """Number of positions in dilation group ``group``."""
        return self.length // self.dilation + (group < self.length % self.dilation)

    def window(self, group: int) -> int:
        """Window size in dilation group ``group``: the kernel size, clamped to the group."""
        return min(self.kernel_size, self.group_length(group))

    def start(self, position: int) -> int:
        """In-group index of the first key of ``position``."""
        group = position % self.dilation
        latest = self.group_length(group) - self.window(group)
        return min(max(position // self.dilation - self.kernel_size // 2, 0), latest)

    def keys(self, position: int) -> range:
        """Positions that ``position`` attends to, in ascending order."""
        group, start = position % self.dilation, self.start(position)
        return range(group + self.dilation * start, self.length, self.dilation)[: self.window(group)]

    def attends(self, query: Tensor, key: Tensor) -> Tensor:
        """Whether positions ``query`` attend to positions ``key``: the same rule on index tensors that broadcast."""
        if self.dilation == 1:
            start = (query - self.kernel_size // 2).clamp(0, max(self.length - self.kernel_size, 0))
            return (key >= start) & (key < start + self.kernel_size)
        group = query % self.dilation
        latest = self.length // self.dilation + (group < self.length % self.dilation).to(query.dtype) - self.kernel_size
        start = torch.minimum(query // self.dilation - self.kernel_size // 2, latest).clamp(min=0)
        in_group = key // self.dilation
        return (key % self.dilation == group) & (in_group >= start) & (in_group < start + self.kernel_size)

    @property
    def pairs(self) -> int:
        """Number of (position, key) pairs: the sizes of all windows added up. Lengths may be symbolic here."""
        short_length, num_long_groups = self.length // self.dilation, self.length % self.dilation
        groups = ((num_long_groups, short_length + 1), (self.dilation - num_long_groups, short_length))
        return sum(count * length * torch.sym_min(length, self.kernel_size) for count, length in groups)

    @property
    def is_global(self) -> bool:
        """Whether every position attends to the whole axis."""
        return self.dilation == 1 and self.kernel_size >= self.length

    def bias_index(self, position: Index, key: Index) -> Index:
        """Index along this axis into a relative position bias of size ``2 * kernel_size - 1``."""
        return (key - position) // self.dilation + self.kernel_size - 1


@dataclass(frozen=True)
class Neighborhood:
    """The product of one to three :class:`Axis`."""

    axes: tuple[Axis, ...]

    @classmethod
    def of(cls, spatial: tuple[int, ...], kernel_size: tuple[int, ...], dilation: tuple[int, ...]) -> Neighborhood:
        """The neighborhood of a map of shape ``spatial``, one kernel size and dilation per axis."""
        return cls(tuple(Axis(*sizes) for sizes in zip(spatial, kernel_size, dilation, strict=True)))

    @property
    def spatial(self) -> tuple[int, ...]:
        """Shape of the map."""
        return tuple(axis.length for axis in self.axes)

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Kernel size per axis, as asked for (not clamped)."""
        return tuple(axis.kernel_size for axis in self.axes)

    @property
    def dilation(self) -> tuple[int, ...]:
        """Dilation per axis."""
        return tuple(axis.dilation for axis in self.axes)

    @property
    def pairs(self) -> int:
        """Number of (position, key) pairs of the whole map."""
        return math.prod(axis.pairs for axis in self.axes)

    @property
    def is_global(self) -> bool:
        """Whether every position attends to the whole map (plain dense attention)."""
        return all(axis.is_global for axis in self.axes)
