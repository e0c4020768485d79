"""Trap: batch norms with an eps of 0.

What breaks: two configs of mmdet 3.3.0 (`nas_fcos`) freeze the norms of their backbone with `eps=0`, which current
PyTorch refuses at the first batch ("batch_norm eps must be positive").

What we do: `mmcv.cnn.build_norm_layer` makes such an eps the smallest normal float32 instead, which changes no sum with
a variance above 1e-30.

Delete this file when the supported mmdet has no such config, or PyTorch takes an eps of 0.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from eyetoy_mm.compat._import_hooks import after_import, replace_function

_SMALLEST = 2.0**-126  # torch.finfo(torch.float32).tiny; torch is not imported for it


def needed() -> bool:
    """Whether mmcv is installed."""
    return find_spec("mmcv") is not None


def apply() -> None:
    """Wraps `build_norm_layer` once its file is imported."""
    if needed():
        after_import("mmcv.cnn.bricks.norm", _wrap)


def _wrap(norm: ModuleType) -> None:
    replace_function(norm, "build_norm_layer", _with_some_eps)


def _with_some_eps(build: Callable[..., Any]) -> Callable[..., Any]:
    def build_norm_layer(cfg: dict[str, Any], *args: Any, **kwargs: Any) -> tuple[str, Any]:
        if isinstance(cfg, dict) and cfg.get("eps") == 0:
            cfg = {**cfg, "eps": _SMALLEST}
        return build(cfg, *args, **kwargs)

    return build_norm_layer
