"""Trap: mmengine cannot read some of the configs that it writes.

What breaks: of a pure Python config the Runner leaves a copy in the work dir in which classes have become texts, such
as `mmdet.models.losses.smooth_l1_loss.L1Loss`. `get_object_from_string` follows them from the left, and prefers
attributes of a package to its files: `mmdet.models.losses.smooth_l1_loss` is a function of that package, too, and has
no L1Loss. The config that a run left cannot be tested with.

What we do: what is not found is looked for in the file that all but the last part name.

Delete this file when the supported mmengine finds `mmdet.models.losses.smooth_l1_loss.L1Loss`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from eyetoy_mm.compat._import_hooks import after_import, replace_function


def needed() -> bool:
    """Whether mmengine is installed."""
    return find_spec("mmengine") is not None


def apply() -> None:
    """Wraps the function once its file is imported."""
    if needed():
        after_import(
            "mmengine.utils.misc", lambda misc: replace_function(misc, "get_object_from_string", _look_in_file)
        )


def _look_in_file(original: Callable[[str], Any]) -> Callable[[str], Any]:
    def get_object_from_string(obj_name: str) -> Any:
        found = original(obj_name)
        module, dot, name = obj_name.rpartition(".")
        if found is not None or not dot:
            return found
        try:
            return getattr(import_module(module), name, None)
        except ImportError:
            return None

    return get_object_from_string
