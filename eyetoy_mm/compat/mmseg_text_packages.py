"""Trap: two packages that mmseg needs and does not declare.

What breaks: mmseg 1.2.2 imports ftfy and regex (`mmseg.utils.tokenizer`, used by its CLIP models only) with
`import mmseg`, but its wheel does not depend on them, so that a fresh installation ends in "No module named 'ftfy'".

What we do: the error says what is missing and how to get it. The packages themselves are dependencies of eyetoy_mm's
mmseg extra.

Delete this file when the supported mmsegmentation declares them.
"""

from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType

from eyetoy_mm.compat._import_hooks import wrap_import

_PACKAGES = ("ftfy", "regex")


def needed() -> bool:
    """Whether mmseg is installed and a package that it needs is not."""
    return find_spec("mmseg") is not None and any(find_spec(name) is None for name in _PACKAGES)


def _explain(execute: Callable[[ModuleType], None], module: ModuleType) -> None:
    try:
        execute(module)
    except ModuleNotFoundError as error:
        if error.name not in _PACKAGES:
            raise
        raise ModuleNotFoundError(
            f"No module named {error.name!r}. mmsegmentation needs it without declaring it; "
            f"to get it: pip install {' '.join(_PACKAGES)}",
            name=error.name,
        ) from error


def apply() -> None:
    """Makes the import error of mmseg say what to do."""
    if needed():
        wrap_import("mmseg.utils.tokenizer", _explain)
