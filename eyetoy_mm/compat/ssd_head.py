"""Trap: SSD of mmdet 3.3.0 does not predict.

What breaks: predictions of dense heads ask the classification loss whether it has channels of its own, and `SSDHead`,
which computes its loss with functions, has none: "'SSDHead' object has no attribute 'loss_cls'".

What we do: its `loss_cls` is None, which has no channels of its own.

Delete this file when the supported mmdet gives `SSDHead` a `loss_cls`.
"""

from __future__ import annotations

from importlib.util import find_spec
from types import ModuleType

from eyetoy_mm.compat._import_hooks import after_import


def needed() -> bool:
    """Whether mmdet is installed."""
    return find_spec("mmdet") is not None


def apply() -> None:
    """Adds the attribute once the head is imported."""
    if needed():
        after_import("mmdet.models.dense_heads.ssd_head", _add)


def _add(ssd_head: ModuleType) -> None:
    if not hasattr(ssd_head.SSDHead, "loss_cls"):
        ssd_head.SSDHead.loss_cls = None
