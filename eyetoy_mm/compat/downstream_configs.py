"""Trap: mmengine finds the configs of its own downstream packages alone.

What breaks, in `_base_ = 'eyetoy_mm::...'` and `get_config('eyetoy_mm::...')`:

* `mmengine.config.utils` has a closed list of packages, and wants a folder in the path, which three of ours do without;
* `mmengine.utils.get_installed_path` joins the folder of a package's metadata and its name: the metadata of an editable
  install (`pip install -e`, since PEP 660) is in site-packages, the package itself is not;
* the list names distributions: `mmseg::...` is looked for in mmsegmentation, and not found in onedl-mmsegmentation;
* each dict of a base from another package is built in that package's scope (`_scope_`). mmdet's scope has mmdet's
  models; ours has the backbones, and `ImageClassifier` or mmseg's `LoadAnnotations` are not found there;
* `Config.fromfile('eyetoy_mm::...')` is a file that does not exist, and with it what mmseg's `init_model`, mmdet's
  `init_detector` and mmpretrain's `get_model('eyetoy_mm::....py')` are given: they take paths alone;
* each base of a package, `mmdet::...`, is looked for in all its metafiles first, by a name that none has there: PyYAML
  reads more than a hundred of mmdet, in a second, before the file is taken as it is named.

What we do: the list gets this package, and a package whose distribution has another name goes by its module, which
mmengine finds as well; a path that does not exist is replaced by the one that Python imports from.
`eyetoy_mm::NAME` takes any file below `configs`, `.py` if no suffix is given, and the name of a model without its
folder; `Config.fromfile` takes both, and a bare name where there is no such file. What a config of ours names without a
scope belongs to the `default_scope`, as it does when the same file is a base by its path. A file that is there is
taken, and metafiles are left unread.

Delete this file when the supported mmengine takes any package, asks importlib where it is, and lets a package say that
its configs are for another's scope.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from eyetoy_mm.compat._import_hooks import Function, after_import, replace_function, replace_method
from eyetoy_mm.zoo import PREFIX, advice, config_of, root

_PACKAGE = "eyetoy_mm"
_SUFFIXES = (".py", ".json", ".yaml", ".yml")  # what mmengine reads


def needed() -> bool:
    """Whether mmengine is installed."""
    return find_spec("mmengine") is not None


def apply() -> None:
    """Mends each when it is imported."""
    if needed():
        after_import("mmengine.config.utils", _admit)
        after_import("mmengine.config.config", _leave_scope)
        after_import("mmengine.config.config", _take_names)
        after_import("mmengine.utils.package_utils", _ask_importlib)


def _admit(config_utils: ModuleType) -> None:
    packages = config_utils.MODULE2PACKAGE
    packages[_PACKAGE] = _PACKAGE
    packages.update({module: module for module, name in packages.items() if _goes_by_another_name(module, name)})
    replace_function(config_utils, "_get_package_and_cfg_path", _take_any_name)
    replace_function(config_utils, "_get_external_cfg_path", _take_what_is_there)


def _goes_by_another_name(module: str, distribution: str) -> bool:
    if module == distribution or find_spec(module) is None:
        return False
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return True
    return False


def _take_any_name(original: Callable[[str], tuple[str, str]]) -> Callable[[str], tuple[str, str]]:
    def _get_package_and_cfg_path(cfg_path: str) -> tuple[str, str]:
        package, separator, name = cfg_path.partition("::")
        if package != _PACKAGE or not separator:
            return original(cfg_path)
        return package, _below_configs(name)

    return _get_package_and_cfg_path


def _below_configs(name: str) -> str:
    """Where the config of a name is, seen from the folder `configs`."""
    path = name if name.endswith(_SUFFIXES) else f"{name}.py"
    if (_configs() / path).is_file():
        return path
    config = config_of(PREFIX + name)
    if config is None:
        raise FileNotFoundError(f"there is no config {PREFIX}{name}{advice(name)}; `eyetoy models` lists the models")
    return config.relative_to(_configs()).as_posix()


def _configs() -> Path:
    return (root() / "configs").resolve()


def _take_names(config: ModuleType) -> None:
    def wrapper(original: Function) -> Function:
        def fromfile(filename: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
            name = str(filename)
            if name.startswith(PREFIX):
                filename = _configs() / _below_configs(name.removeprefix(PREFIX))
            elif not os.path.exists(name):
                filename = config_of(name) or filename
            return original(filename, *args, **kwargs)

        return fromfile

    replace_method(config.Config, "fromfile", wrapper)


def _take_what_is_there(original: Callable[[str, str], str]) -> Callable[[str, str], str]:
    def _get_external_cfg_path(package_path: str, cfg_file: str) -> str:
        folders = [os.path.join(package_path, ".mim")]
        if os.path.basename(package_path) == _PACKAGE:  # of a bare checkout, which is not installed
            folders.append(os.path.dirname(package_path))
        paths = (os.path.join(folder, "configs", cfg_file) for folder in folders)
        return next(filter(os.path.isfile, paths), None) or original(package_path, cfg_file)

    return _get_external_cfg_path


def _leave_scope(config: ModuleType) -> None:
    def wrapper(original: Function) -> Function:
        def _get_cfg_path(*args: Any, **kwargs: Any) -> tuple[str, str | None]:
            path, scope = original(*args, **kwargs)
            return path, None if scope == _PACKAGE else scope

        return _get_cfg_path

    replace_method(config.Config, "_get_cfg_path", wrapper)


def _ask_importlib(package_utils: ModuleType) -> None:
    replace_function(package_utils, "get_installed_path", _existing_path)


def _existing_path(original: Callable[[str], str]) -> Callable[[str], str]:
    def get_installed_path(package: str) -> str:
        path = original(package)
        if os.path.exists(path):
            return path
        spec = find_spec(package)
        return path if spec is None or spec.origin is None else os.path.dirname(spec.origin)

    return get_installed_path
