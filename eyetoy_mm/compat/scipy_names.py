"""Trap: a function that SciPy no longer has.

What breaks: Swin, SwinV2 and BEiT of mmpretrain 1.2.0 (`models.utils.embed`) and BEiT of mmseg 1.2.2 fit the tables of
relative positions in a file to another window by `scipy.interpolate.interp2d`, which raises since SciPy 1.14: weights
of another window or image size do not load.

What we do: while these two functions run, there is one of that name that gives what it gave for the grids that they
have, by a spline of the third degree. SciPy itself stays as it is.

Delete this file when the supported mmpretrain and mmseg no longer need it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from eyetoy_mm.compat._import_hooks import Function, after_import, replace_function, replace_method


def needed() -> bool:
    """Whether SciPy is installed beside a package that uses what is gone from it."""
    return find_spec("scipy") is not None and any(find_spec(name) is not None for name in ("mmpretrain", "mmseg"))


def apply() -> None:
    """Adds the function where it is used, once these files are imported."""
    if needed():
        after_import("mmpretrain.models.utils.embed", _in_mmpretrain)
        after_import("mmseg.models.backbones.beit", _in_mmseg)


def _in_mmpretrain(module: ModuleType) -> None:
    replace_function(module, "resize_relative_position_bias_table", _having_interp2d)


def _in_mmseg(module: ModuleType) -> None:
    replace_method(module.BEiT, "_geometric_sequence_interpolation", _having_interp2d)


def _having_interp2d(original: Function) -> Function:
    def run(*args: Any, **kwargs: Any) -> Any:
        from scipy import interpolate

        there = vars(interpolate).get("interp2d")
        interpolate.interp2d = _interp2d
        try:
            return original(*args, **kwargs)
        finally:
            del interpolate.interp2d
            if there is not None:
                interpolate.interp2d = there

    return run


def _interp2d(x: Any, y: Any, z: Any, kind: str) -> Callable[[Any, Any], Any]:
    """As SciPy's notes on its removal have it; ``kind`` is cubic in both."""
    from scipy.interpolate import RectBivariateSpline

    spline = RectBivariateSpline(x, y, z.T)
    return lambda xs, ys: spline(xs, ys).T
