"""Trap: mmcv's synchronised batch norm in a single process, and copied.

What breaks: mmcv 2.1.0's `SyncBatchNorm`, which is `MMSyncBN` in configs, asks torch.distributed for the number of
processes when it is built, and that raises ("Default process group has not been initialized") in a process of its own:
ten configs of mmdet 3.3.0 do not build without a launcher. In several processes it holds their group, of which there is
no copy: averaged weights (EMAHook), which are a copy of the model, cannot be made.

What we do: in its file the number of processes is 1 where there is no process group, as mmengine counts. Statistics are
then those of the one batch, and the layer is a `BatchNorm2d`. A copy has the same group.

Delete this file when the supported mmcv builds MMSyncBN without a process group, and copies it.
"""

from __future__ import annotations

import copy
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from eyetoy_mm.compat._import_hooks import after_import


def needed() -> bool:
    """Whether mmcv is installed."""
    return find_spec("mmcv") is not None


def apply() -> None:
    """Counts processes in mmcv's file as mmengine does, and lets its layer be copied, once it is imported."""
    if needed():
        after_import("mmcv.ops.sync_bn", _count_as_mmengine)


def _count_as_mmengine(module: ModuleType) -> None:
    module.dist = _Distributed()  # type: ignore[attr-defined]
    module.SyncBatchNorm.__deepcopy__ = _copy_with_same_group


def _copy_with_same_group(self: Any, memo: dict[int, Any]) -> Any:
    memo[id(self)] = copied = object.__new__(type(self))
    memo[id(self.group)] = self.group
    copied.__dict__ = copy.deepcopy(self.__dict__, memo)
    return copied


class _Distributed:
    """torch.distributed, but for the number of processes."""

    @staticmethod
    def get_world_size(group: Any = None) -> int:
        from mmengine.dist import get_world_size

        return get_world_size(group)

    def __getattr__(self, name: str) -> Any:
        import torch.distributed

        return getattr(torch.distributed, name)
