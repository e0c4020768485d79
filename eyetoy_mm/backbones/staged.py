"""What every backbone of ours has: stages that give maps, the first of which can be frozen."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import nn
from typing_extensions import Self


class StagedBackbone(BaseModule):
    """A backbone whose frozen parts stay in evaluation mode; a subclass calls ``_freeze`` when it is built."""

    def _frozen_parts(self) -> list[nn.Module]:
        raise NotImplementedError

    def _freeze(self) -> None:
        for part in self._frozen_parts():
            part.eval()
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Set training mode, except for the frozen parts."""
        super().train(mode)
        self._freeze()
        return self


def ascending_indices(out_indices: Sequence[int], num_stages: int) -> tuple[int, ...]:
    """Stages by number, where negative ones count from the last.

    Raises:
        ValueError: There are none, or one is out of range or out of order.
    """
    indices = tuple(index + num_stages if index < 0 else index for index in out_indices)
    if not indices or list(indices) != sorted(set(indices)) or not 0 <= indices[0] <= indices[-1] < num_stages:
        raise ValueError(f"out_indices must be ascending stages from 0 to {num_stages - 1}, got {tuple(out_indices)}")
    return indices
