"""Trap: names that NumPy 2 no longer has.

What breaks: mmdet 3.3.0 counts true positives of videos with `np.float` (`mmdet.evaluation.functional.ytviseval`),
which is gone since NumPy 1.24, so that YouTubeVISMetric fails after the whole evaluation; mmpretrain 1.2.0 looks up
retrieved samples with `np.in1d` (`mmpretrain.evaluation.metrics.retrieval`), which is gone since NumPy 2.4, so that
RetrievalRecall and RetrievalAveragePrecision fail.

What we do: in these two files, `np` is numpy with that name added. numpy itself stays as it is.

Delete this file when the supported mmdet and mmpretrain no longer use these names.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from eyetoy_mm.compat._import_hooks import after_import


def needed() -> bool:
    """Whether numpy is installed beside a package that uses a name of its past."""
    return find_spec("numpy") is not None and any(find_spec(file.split(".")[0]) is not None for file in _NAMES)


def apply() -> None:
    """Adds the names where they are used, once these files are imported."""
    if needed():
        for file, names in _NAMES.items():
            after_import(file, functools.partial(_add, names))


def _add(names: dict[str, Any], module: ModuleType) -> None:
    module.np = _Numpy(names)  # type: ignore[attr-defined]


def _in1d(values: Any, among: Any) -> Any:
    import numpy

    return numpy.isin(values, among).ravel()


_NAMES: dict[str, dict[str, type | Callable[..., Any]]] = {
    "mmdet.evaluation.functional.ytviseval": {"float": float},
    "mmpretrain.evaluation.metrics.retrieval": {"in1d": _in1d},
}


class _Numpy:
    """The module numpy, and names that it had once."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        import numpy

        return getattr(numpy, name)
