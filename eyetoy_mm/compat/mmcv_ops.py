"""Trap: mmcv without its compiled ops.

What breaks: mmcv-lite (2.0 to 2.1) has `mmcv.ops` but not the compiled module `mmcv._ext` that every file in it loads
(`mmcv.utils.ext_loader.load_ext`), so that `import mmdet.models` and `import mmseg.models` end in
"No module named 'mmcv._ext'". The fork onedl-mmcv has none either, where pip built it without torch (in its own build
environment). Full mmcv < 2.2, which mmdet 3.3.0 and mmseg 1.2.2 ask for, has no wheels for current PyTorch and takes a
compiler and a long build.

What we do: `mmcv._ext` is imported from `_mmcv_ext.py`, with the operators of `mmcv_ext/`: all that a model config of
mmdet, mmseg or mmpretrain can name, by PyTorch and torchvision. A layer of mmcv that needs another one, for point
clouds mostly, says so when it is built, and a function when it is called. A real `mmcv._ext` is always found first
and left alone, even a broken one.

Delete this file, `_mmcv_ext.py` and `mmcv_ext/` when the supported mmdet and mmseg accept an mmcv with wheels for the
supported PyTorch.
"""

from __future__ import annotations

import functools
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from eyetoy_mm.compat._import_hooks import after_import, find_real_spec, stand_in_for

# The build of mmcv imports torch and pkg_resources; pip's own build environment has neither.
_FULL_MMCV = (
    "pip uninstall mmcv-lite; pip install 'setuptools<82' wheel; pip install --no-build-isolation 'mmcv>=2.0.0,<2.2.0'"
)
# Not the wheel in pip's cache: that is the one without them.
_FULL_FORK = (
    "pip install 'setuptools>=80' wheel; "
    "pip install --no-build-isolation --no-cache-dir --no-deps --force-reinstall onedl-mmcv"
)

# The layers of mmcv.ops, by file, whose operators have no replacement: refused when they are built. Not so the sparse
# convolutions, which fail when they run: mmcv's own tests build whatever has "conv" in its name.
LAYERS_WITHOUT = {
    "bezier_align": ("BezierAlign",),
    "correlation": ("Correlation",),
    "group_points": ("QueryAndGroup",),
    "points_sampler": ("PointsSampler",),
    "roiaware_pool3d": ("RoIAwarePool3d",),
    "roipoint_pool3d": ("RoIPointPool3d",),
    "scatter_points": ("DynamicScatter",),
    "sparse_pool": ("SparseMaxPool",),
    "tin_shift": ("TINShift",),
    "voxelize": ("Voxelization",),
}
SUPPRESSION_WITHOUT = ("nms_rotated", "nms_quadri")
"""Of what `nms` of a config can name, the functions whose operators have no replacement: told before a run."""


def needed() -> bool:
    """Whether mmcv is installed without its compiled part."""
    mmcv = find_spec("mmcv")
    return mmcv is not None and find_real_spec("mmcv._ext", mmcv.submodule_search_locations) is None


def how_to_get_them() -> str:
    """The commands that install the compiled operators, for the mmcv that is installed."""
    try:
        distribution("onedl-mmcv")
    except PackageNotFoundError:
        return _FULL_MMCV
    return _FULL_FORK


def apply() -> None:
    """Lets `mmcv._ext` be imported from our stand-in where there is no real one."""
    if needed():
        stand_in_for("mmcv._ext", Path(__file__).with_name("_mmcv_ext.py"))
        for file, layers in LAYERS_WITHOUT.items():
            after_import(f"mmcv.ops.{file}", functools.partial(_refuse, layers))


def _refuse(layers: tuple[str, ...], module: ModuleType) -> None:
    for name in layers:
        getattr(module, name).__init__ = _refusal


def _refusal(self: object, *args: object, **kwargs: object) -> NoReturn:
    raise NotImplementedError(
        f"mmcv.ops.{type(self).__name__} needs mmcv's compiled ops: mmcv is installed without them, and eyetoy_mm has "
        f"no replacement for this one. To get full mmcv: {how_to_get_them()}"
    )
