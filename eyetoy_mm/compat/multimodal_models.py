"""Trap: where a newer transformers is installed, mmpretrain does not import, nor do mmdet's models.

What breaks: mmpretrain 1.2.0 defines its multimodal models wherever transformers >= 4.28 is installed, from names that
transformers 5 no longer has (`apply_chunking_to_forward`, `GenerationMixin` and others of `modeling_utils`). It then
ends in "TypeError: NoneType takes no arguments" for every model; mmdet's models import mmpretrain, and end with it.

What we do: where a name is missing, mmpretrain takes the multimodal models for not installed, as it does without
transformers: building one of them says what it needs, all others work. A warning says so once.

Delete this file when the supported mmpretrain works with transformers 5.
"""

from __future__ import annotations

import importlib
import logging
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from eyetoy_mm.compat._import_hooks import after_import

_NAMES = (
    "PreTrainedModel",
    "apply_chunking_to_forward",
    "find_pruneable_heads_and_indices",
    "prune_linear_layer",
    "GenerationConfig",
    "GenerationMixin",
)
_log = logging.getLogger("eyetoy_mm")


def needed() -> bool:
    """Whether transformers is installed."""
    try:
        return bool(version("transformers"))
    except PackageNotFoundError:
        return False


def _missing() -> list[str]:
    """Names of ``transformers.modeling_utils`` that mmpretrain imports and that are not there."""
    try:
        utils = importlib.import_module("transformers.modeling_utils")
    except Exception:  # of whatever kind: a broken installation is no reason to have no models at all
        return list(_NAMES)
    return [name for name in _NAMES if not hasattr(utils, name)]


def _leave_out(dependency: ModuleType) -> None:
    if dependency.WITH_MULTIMODAL and (missing := _missing()):
        dependency.WITH_MULTIMODAL = False  # type: ignore[attr-defined]
        _log.warning(
            "mmpretrain's multimodal models are left out: they need transformers 4 (pip install 'transformers<5'), "
            "and transformers %s has no %s",
            version("transformers"),
            ", ".join(missing),
        )


def apply() -> None:
    """Checks transformers before mmpretrain defines models with it."""
    if needed():
        after_import("mmpretrain.utils.dependency", _leave_out)
