"""Trap: mmengine finds the configs of its own downstream packages alone.

What breaks: `_base_ = 'eyetoy_mm::...'` and `get_config('eyetoy_mm::...')`. `mmengine.config.utils` has a closed list
of packages, and `mmengine.utils.get_installed_path` joins the folder of a package's metadata and its name: the metadata
of an editable install (`pip install -e`, since PEP 660) is in site-packages, the package itself is not.

What we do: the list gets this package, and a path that does not exist is replaced by the one that Python imports from.

Delete this file when the supported mmengine takes any package and asks importlib where it is.
"""

from __future__ import annotations

import functools
import os
import sys
from importlib.util import find_spec
from types import ModuleType

from eyetoy_mm.compat._import_hooks import after_import


def needed() -> bool:
    """Whether mmengine is installed."""
    return find_spec("mmengine") is not None


def apply() -> None:
    """Mends both when they are imported."""
    if needed():
        after_import("mmengine.config.utils", _admit)
        after_import("mmengine.utils.package_utils", _mend)


def _admit(config_utils: ModuleType) -> None:
    config_utils.MODULE2PACKAGE["eyetoy_mm"] = "eyetoy_mm"


def _mend(package_utils: ModuleType) -> None:
    original = package_utils.get_installed_path
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def get_installed_path(package: str) -> str:
        path = original(package)
        if os.path.exists(path):
            return path
        spec = find_spec(package)
        return path if spec is None or spec.origin is None else os.path.dirname(spec.origin)

    vars(package_utils)["get_installed_path"] = get_installed_path
    # Where mmengine was imported before this package, it has the old one by name in several places.
    for name, module in list(sys.modules.items()):
        if name.startswith("mmengine") and vars(module).get("get_installed_path") is original:
            vars(module)["get_installed_path"] = get_installed_path
