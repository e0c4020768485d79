"""The two import hooks that the traps are built on, and how a function is replaced.

Hooks rather than imports: `import eyetoy_mm.encoder` must neither need an OpenMMLab package nor pay for importing one.
"""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

Function = Callable[..., Any]
ImportWrapper = Callable[[Callable[[ModuleType], None], ModuleType], None]


class _StandInFinder:
    """Finds stand-in modules for names that no other finder knows; a real module of that name always wins."""

    def __init__(self) -> None:
        self.files: dict[str, Path] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in self.files or find_real_spec(fullname, path) is not None:
            return None
        return importlib.util.spec_from_file_location(fullname, self.files[fullname])


class _WrappingFinder:
    """Runs a wrapper around the execution of a module; the module itself is found by the other finders."""

    def __init__(self) -> None:
        # By module, and by who wraps its import: several traps may be in one module.
        self.wrappers: dict[str, dict[str, ImportWrapper]] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        wrappers = self.wrappers.get(fullname)
        spec = None if wrappers is None else find_real_spec(fullname, path, target)
        if spec is None or spec.loader is None or wrappers is None:
            return None
        execute = spec.loader.exec_module
        for wrapper in wrappers.values():
            execute = functools.partial(wrapper, execute)
        # Each spec has a loader of its own, so that this changes the import of this one module only.
        spec.loader.exec_module = execute  # type: ignore[method-assign]
        return spec


_STAND_INS = _StandInFinder()
_WRAPPERS = _WrappingFinder()


def find_real_spec(
    fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
) -> ModuleSpec | None:
    """Finds a module as the import system would without our hooks, and without importing its parent.

    Args:
        fullname: Dotted name of the module.
        path: `__path__` of the parent package, or None for a top-level module.
        target: The module that is being reloaded, if any.
    """
    for finder in list(sys.meta_path):
        # Compared by module and name: an earlier copy of this file (a reload) has other objects of the same kind.
        if type(finder).__module__ == __name__:
            continue
        find_spec = getattr(finder, "find_spec", None)
        spec = None if find_spec is None else find_spec(fullname, path, target)
        if spec is not None:
            return spec
    return None


def stand_in_for(fullname: str, file: Path) -> None:
    """Lets `fullname` be imported from `file` where nothing else provides a module of that name."""
    _STAND_INS.files[fullname] = file
    if _STAND_INS not in sys.meta_path:
        sys.meta_path.append(_STAND_INS)  # type: ignore[arg-type]


def wrap_import(fullname: str, wrapper: ImportWrapper, owner: Function | None = None) -> None:
    """Has `wrapper(execute, module)` called instead of `execute(module)` when `fullname` is imported.

    Args:
        fullname: Dotted name of the module.
        wrapper: What is called. `execute` is the module's own, or an earlier wrapper of another function.
        owner: The function whose wrapper this is, for which a second call replaces the first; `wrapper` when None.
    """
    _WRAPPERS.wrappers.setdefault(fullname, {})[_name(wrapper if owner is None else owner)] = wrapper
    if _WRAPPERS not in sys.meta_path:
        sys.meta_path.insert(0, _WRAPPERS)  # type: ignore[arg-type]


def after_import(fullname: str, callback: Callable[[ModuleType], None]) -> None:
    """Calls `callback(module)` once `fullname` is imported, after those of earlier calls; now, if it already is."""

    def wrapper(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
        execute(module)
        callback(module)

    wrap_import(fullname, wrapper, callback)
    if fullname in sys.modules:
        callback(sys.modules[fullname])


def replace_function(module: ModuleType, name: str, wrapper: Callable[[Function], Function]) -> None:
    """Puts `wrapper(function)` in a function's place; a second call with the same wrapper changes nothing.

    Where its module was imported before this package, others have the function by name: they get the new one, too.

    Args:
        module: Where the function is defined.
        name: Of the function.
        wrapper: Takes the function, and returns the one that replaces it.
    """
    original = vars(module)[name]
    if _name(wrapper) in getattr(original, "_replaced_by", ()):
        return
    replacement = _replacement(original, wrapper)
    for other in list(sys.modules.values()):
        if getattr(other, "__dict__", {}).get(name) is original:
            vars(other)[name] = replacement


def replace_method(cls: type, name: str, wrapper: Callable[[Function], Function]) -> None:
    """Puts `wrapper(function)` in the place of a method, be it static or of the class; a second call changes nothing.

    Several traps may replace one method: each is found by its wrapper. A class that inherits the method gets its own.

    Args:
        cls: The class.
        name: Of the method.
        wrapper: Takes the function, and returns the one that replaces it.
    """
    found = inspect.getattr_static(cls, name)
    kind = type(found) if isinstance(found, (staticmethod, classmethod)) else None
    original = found if kind is None else found.__func__
    if name in vars(cls) and _name(wrapper) in getattr(original, "_replaced_by", ()):
        return
    replacement = _replacement(original, wrapper)
    setattr(cls, name, replacement if kind is None else kind(replacement))


def _replacement(original: Function, wrapper: Callable[[Function], Function]) -> Function:
    replacement = functools.wraps(original)(wrapper(original))
    replacement._replaced_by = (*getattr(original, "_replaced_by", ()), _name(wrapper))  # type: ignore[attr-defined]
    return replacement


def _name(function: Function) -> str:
    if isinstance(function, functools.partial):  # of other arguments it is another one
        return f"{_name(function.func)}{function.args}{function.keywords}"
    return f"{function.__module__}.{function.__qualname__}"
