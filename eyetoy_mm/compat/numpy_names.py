"""Trap: names and conversions that NumPy 2 no longer has.

What breaks: mmdet 3.3.0 counts true positives of videos with `np.float` (`mmdet.evaluation.functional.ytviseval`),
which is gone since NumPy 1.24, so that YouTubeVISMetric fails after the whole evaluation; mmpretrain 1.2.0 looks up
retrieved samples with `np.in1d` (`mmpretrain.evaluation.metrics.retrieval`), which is gone since NumPy 2.4, so that
RetrievalRecall and RetrievalAveragePrecision fail. mmcv 2.1.0 has `np.float` too, in a branch of `mmcv.ops.pixel_group`
that PyTorch does not reach. It shifts hues backwards by `np.uint8` of a negative number
(`mmcv.image.photometric`), which wrapped around until NumPy 2 and raises since, so that the ColorJitter of Barlow
Twins, BYOL, DenseCL and MoCo fails for about half of the images.

What we do: in these four files, `np` is numpy with that name added or replaced. numpy itself stays as it is.

Delete this file when the supported mmcv, mmdet and mmpretrain no longer need these.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from eyetoy_mm.compat._import_hooks import after_import


def needed() -> bool:
    """Whether numpy is installed beside a package that uses what is gone from it."""
    return find_spec("numpy") is not None and any(find_spec(file.split(".")[0]) is not None for file in _NAMES)


def apply() -> None:
    """Adds the names where they are used, once these files are imported."""
    if needed():
        for file, names in _NAMES.items():
            after_import(file, functools.partial(_add, names))


def _add(names: dict[str, Callable[[], Any]], module: ModuleType) -> None:
    module.np = _Numpy({name: make() for name, make in names.items()})  # type: ignore[attr-defined]


def _in1d(values: Any, among: Any) -> Any:
    import numpy

    return numpy.isin(values, among).ravel()


def _wrapping_uint8() -> type:
    import numpy

    class uint8(numpy.uint8):  # as a dtype it is its base
        """numpy.uint8, which takes any number modulo 256."""

        def __new__(cls, value: Any = 0) -> Any:
            return numpy.uint8(int(value) % 256)

    return uint8


# Names by file, made in the moment of the import: this one does without numpy.
_NAMES: dict[str, dict[str, Callable[[], Any]]] = {
    "mmcv.image.photometric": {"uint8": _wrapping_uint8},
    "mmcv.ops.pixel_group": {"float": lambda: float},
    "mmdet.evaluation.functional.ytviseval": {"float": lambda: float},
    "mmpretrain.evaluation.metrics.retrieval": {"in1d": lambda: _in1d},
}


class _Numpy:
    """The module numpy, and names that it had once."""

    def __init__(self, names: dict[str, Any]) -> None:
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        import numpy

        return getattr(numpy, name)
