"""Stand-in for `mmcv._ext`: the operators of `mmcv_ext`, and an error for any other. See `mmcv_ops`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from eyetoy_mm.compat.mmcv_ext.common import FULL_MMCV


def get_compiler_version() -> str:
    return "n/a (mmcv-lite; ops by eyetoy_mm.compat)"


def get_compiling_cuda_version() -> str:
    return "n/a (mmcv-lite; ops by eyetoy_mm.compat)"


def __getattr__(name: str) -> Callable[..., NoReturn]:
    # mmcv looks up every op when it is imported, so that a missing one must exist until it is called. Not so for names
    # like __path__ and __wrapped__, with which Python asks what kind of object this is.
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def missing(*args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(
            f"mmcv op {name!r}: mmcv is installed without its compiled ops (mmcv-lite), and eyetoy_mm has no "
            f"replacement for this one. To get full mmcv: {FULL_MMCV}"
        )

    missing.__name__ = missing.__qualname__ = name
    return missing
