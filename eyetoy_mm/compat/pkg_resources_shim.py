"""Trap: pkg_resources is gone.

What breaks: mmengine 0.10.7 imports pkg_resources in `mmengine.utils.package_utils` (`is_installed`,
`get_installed_path`, `package2module`), which stand behind every `_base_ = 'mmdet::...'`, `get_config` and `get_model`.
setuptools >= 82 no longer has it, and a virtual environment of Python >= 3.12 has no setuptools at all.

What we do: `pkg_resources` is imported from `_pkg_resources.py`, which has what mmengine and mmpretrain take from it,
from importlib.metadata. The real one, where installed, is found first; it is not imported to find out (that is slow and
warns). Its warning, which mmengine brings about anew for every `_base_` of another package, is not shown.

Delete this file, and `_pkg_resources.py`, when the supported mmengine uses importlib.metadata.
"""

import warnings
from importlib.util import find_spec
from pathlib import Path

from eyetoy_mm.compat._import_hooks import find_real_spec, stand_in_for


def needed() -> bool:
    """Whether mmengine is installed and pkg_resources is not."""
    return find_spec("mmengine") is not None and find_real_spec("pkg_resources") is None


def apply() -> None:
    """Lets `pkg_resources` be imported from our stand-in where there is no real one."""
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated as an API")
    if needed():
        stand_in_for("pkg_resources", Path(__file__).with_name("_pkg_resources.py"))
