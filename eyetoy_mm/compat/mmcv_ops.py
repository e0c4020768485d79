"""Trap: mmcv without its compiled ops.

What breaks: mmcv-lite (2.0 to 2.1) has `mmcv.ops` but not the compiled module `mmcv._ext` that every file in it loads
(`mmcv.utils.ext_loader.load_ext`), so that `import mmdet.models` and `import mmseg.models` end in
"No module named 'mmcv._ext'". Full mmcv < 2.2, which mmdet 3.3.0 and mmseg 1.2.2 ask for, has no wheels for current
PyTorch and takes a compiler and a long build.

What we do: `mmcv._ext` is imported from `_mmcv_ext.py`, which computes the few ops that matter with torchvision and
PyTorch; any other op raises when it is called. A real `mmcv._ext` is always found first and left alone, even a broken
one.

Delete this file, and `_mmcv_ext.py`, when the supported mmdet and mmseg accept an mmcv with wheels for the supported
PyTorch.
"""

from importlib.util import find_spec
from pathlib import Path

from eyetoy_mm.compat._import_hooks import find_real_spec, stand_in_for


def needed() -> bool:
    """Whether mmcv is installed without its compiled part."""
    mmcv = find_spec("mmcv")
    return mmcv is not None and find_real_spec("mmcv._ext", mmcv.submodule_search_locations) is None


def apply() -> None:
    """Lets `mmcv._ext` be imported from our stand-in where there is no real one."""
    if needed():
        stand_in_for("mmcv._ext", Path(__file__).with_name("_mmcv_ext.py"))
