"""Trap: mmengine loads what fits of a checkpoint and goes on.

What breaks, in mmengine 0.10.7: `_load_checkpoint_to_model`, through which `load_from` of a Runner, the `init_model`,
`init_detector` and `get_model` of the toolboxes, their inferencers and `mmengine.hub` load, and `init_cfg` of type
`Pretrained` load with `strict=False` and log what does not fit in a list of all names. A file of which nothing fits, of
other names or another model, leaves the model as it was initialised: it trains, or predicts, and is wrong. Where a file
has no `meta`, some of these tools fail after that on a key, and others do not.

What we do: the loading is handed to who knows backbones (`use`), which names, refuses and counts. Without it, or where
a caller asks for `strict=True`, everything is as it was.

Delete this file when the supported mmengine refuses files of which the backbone does not load.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from eyetoy_mm.compat._import_hooks import Function, after_import, replace_function, replace_method
from eyetoy_mm.compat.checkpoint_loading import LAST_READ

__all__ = ["apply", "needed", "use"]

Loader = Callable[..., bool]
_LOADERS: list[Loader] = []


def needed() -> bool:
    """Whether mmengine is installed."""
    return find_spec("mmengine") is not None


def apply() -> None:
    """Mends each when it is imported."""
    if needed():
        after_import("mmengine.runner.checkpoint", _hand_over_loading)
        after_import("mmengine.model.weight_init", _hand_over_initialisation)


def use(loader: Loader) -> None:
    """Have checkpoints loaded by `loader(model, checkpoint, source, prefix=..., of_module=...)`.

    Args:
        loader: Loads a checkpoint, which it may change, into a model. `source` is its file or address, `prefix` what
            stands before the names that are wanted, None for all; `of_module` says that the model was named to be
            loaded whole. Returns False where it leaves the loading to mmengine.
    """
    _LOADERS[:] = [loader]


def _load(*args: Any, **kwargs: Any) -> bool:
    return any(loader(*args, **kwargs) for loader in _LOADERS)


def _hand_over_loading(module: ModuleType) -> None:
    def wrapper(original: Callable[..., Any]) -> Callable[..., Any]:
        def _load_checkpoint_to_model(
            model: Any,
            checkpoint: Any,
            strict: bool = False,
            logger: Any = None,
            revise_keys: Any = ((r"^module\.", ""),),
        ) -> Any:
            if not strict and _load(model, checkpoint, LAST_READ.get(), revise_keys=revise_keys):
                return checkpoint
            return original(model, checkpoint, strict, logger, revise_keys)

        return _load_checkpoint_to_model

    replace_function(module, "_load_checkpoint_to_model", wrapper)


def _hand_over_initialisation(module: ModuleType) -> None:
    def wrapper(original: Function) -> Function:
        def __call__(self: Any, model: Any) -> None:
            from mmengine.runner.checkpoint import CheckpointLoader

            checkpoint = CheckpointLoader.load_checkpoint(self.checkpoint, map_location=self.map_location)
            if not _load(model, checkpoint, str(self.checkpoint), prefix=self.prefix, of_module=True):
                original(self, model)
            elif hasattr(model, "_params_init_info"):
                module.update_init_info(model, init_info=self._get_init_info())

        return __call__

    replace_method(module.PretrainedInit, "__call__", wrapper)
