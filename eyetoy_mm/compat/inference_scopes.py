"""Trap: models of two toolboxes in one process.

What breaks: a toolbox's inference functions look for the transforms of a pipeline in the scope of the model that was
opened last. With a detector of mmdet and a segmentor of mmseg open, `inference_detector` ends in "'PackDetInputs is not
in the mmseg::transform registry'", and so do mmseg's `inference_model` and all inferencers of mmpretrain 1.2.

What we do: each of them runs in the scope of its toolbox, and leaves the process's own as it was.

Delete this file when the toolboxes build their pipelines in their own scopes.
"""

from __future__ import annotations

import functools
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from eyetoy_mm.compat._import_hooks import Function, after_import, replace_function, replace_method


def needed() -> bool:
    """Whether mmengine is installed."""
    return find_spec("mmengine") is not None


def apply() -> None:
    """Wraps the functions once their files are imported."""
    if needed():
        after_import("mmdet.apis.inference", functools.partial(_wrap, "inference_detector", "mmdet"))
        after_import("mmseg.apis.inference", functools.partial(_wrap, "inference_model", "mmseg"))
        after_import("mmpretrain.apis.base", _wrap_inferencers)


def _wrap(name: str, scope: str, module: ModuleType) -> None:
    replace_function(module, name, functools.partial(_in_scope, scope))


def _wrap_inferencers(base: ModuleType) -> None:
    replace_method(base.BaseInferencer, "__init__", functools.partial(_in_scope, "mmpretrain"))


def _in_scope(scope: str, function: Function) -> Function:
    def run(*args: Any, **kwargs: Any) -> Any:
        from mmengine.registry import DefaultScope

        with DefaultScope.overwrite_default_scope(scope):
            return function(*args, **kwargs)

    return run
