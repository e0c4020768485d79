"""Trap: the toolboxes know the models of their own zoos alone.

What breaks, for a model of `configs/*/metafile.yml`:

* `mmpretrain.list_models`, `get_model(NAME)`, `inference_model` and the inferencers of mmpretrain: `ModelHub` reads the
  index of mmpretrain and no other;
* `DetInferencer(NAME)`, `MMSegInferencer(NAME)` and `list_models(scope)` of mmengine's inferencers: they read the index
  of their own package;
* none of them takes `eyetoy_mm::NAME`, with or without the folder of the config, nor models that no metafile has;
  `DetInferencer(weights=NAME)` looks for the config in the checkpoint, where published ones have none;
* a model without `Weights` in its metafile is a KeyError there, in the toolboxes' own zoos too;
* `mmengine.hub.get_model('eyetoy_mm::...')` builds in the scope of the package that has the config. Ours are for the
  scope of another (see `downstream_configs`). Where no weights are published, `pretrained=True` fails on a key.

What we do: each toolbox finds the models that are for it by their task, as its own, when it is asked for models, and in
every form of their names; asked for those of another toolbox, it says which one opens them. No config is read before
its model is wanted. A model without weights is built untrained, with mmengine's warning; asked
for with `pretrained=True`, it is an error that says so. `mmengine.hub` builds ours in their `default_scope`.

Delete this file when the supported toolboxes take the zoo of another package.
"""

from __future__ import annotations

import copy
import functools
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from eyetoy_mm.compat._import_hooks import Function, after_import, replace_function, replace_method
from eyetoy_mm.zoo import PREFIX, TOOLBOXES, advice, config_of, entries, root, weights_of, weights_of_config

_OPENED_BY = {
    "mmdet": "mmdet.apis.DetInferencer",
    "mmseg": "mmseg.apis.MMSegInferencer",
    "mmpretrain": "mmpretrain.get_model",
}


def needed() -> bool:
    """Whether mmengine is installed."""
    return find_spec("mmengine") is not None


def apply() -> None:
    """Mends each when it is imported."""
    if needed():
        after_import("mmengine.infer.infer", _extend_inferencers)
        after_import("mmengine.hub.hub", _extend_hub)
        after_import("mmpretrain.apis.model", _extend_mmpretrain)


def _toolbox(results: Iterable[Mapping[str, Any]] | None) -> str | None:
    return next((TOOLBOXES.get(result["Task"]) for result in results or ()), None)


def _our_config(name: str, toolbox: str) -> Any:
    """The config of a model of ours that is for a toolbox; None where the name is none of ours."""
    from mmengine.config import Config

    path = config_of(name)
    if path is None:
        if name.startswith(PREFIX):
            raise ValueError(f"there is no model {name}{advice(name)}; `eyetoy models` lists those that there are")
        return None
    config = Config.fromfile(path)
    if config.default_scope != toolbox:
        opens = _OPENED_BY[config.default_scope]
        raise ValueError(f"{name} is a model for {config.default_scope}, and not for {toolbox}: {opens}({name!r})")
    return config


# --- mmdet and mmseg: mmengine's inferencers ------------------------------------------------------------------------


def _extend_inferencers(infer: ModuleType) -> None:
    base = infer.BaseInferencer

    def wrapper(original: Function) -> Function:
        def _get_models_from_metafile(dir: str) -> Iterator[dict[str, Any]]:
            for entry in original(dir):
                yield {"Weights": None, **entry}
            here = [
                name for name in set(TOOLBOXES.values()) & set(sys.modules) if base._get_repo_or_mim_dir(name) == dir
            ]
            for entry in entries() if here else ():
                if _toolbox(entry["Results"]) in here:
                    weights = weights_of(entry["Name"])
                    yield {**copy.deepcopy(entry), "Weights": weights, "Config": str(root() / entry["Config"])}

        return _get_models_from_metafile

    replace_method(base, "_get_models_from_metafile", wrapper)
    replace_method(base, "_load_model_from_metafile", _loading_ours)
    replace_method(base, "__init__", _taking_the_config_of_weights)


def _taking_the_config_of_weights(original: Function) -> Function:
    """Weights alone are enough where a config is in the checkpoint; in published ones there is none."""

    def __init__(self: Any, model: Any = None, weights: str | None = None, *args: Any, **kwargs: Any) -> None:
        if model is None and isinstance(weights, str) and config_of(weights) is not None:
            model = weights
        original(self, model, weights, *args, **kwargs)

    return __init__


def _loading_ours(original: Function) -> Function:
    def _load_model_from_metafile(self: Any, model: str) -> tuple[Any, str | None]:
        config = _our_config(model, self.scope)
        return original(self, model) if config is None else (config, weights_of(Path(config.filename).stem))

    return _load_model_from_metafile


# --- mmpretrain -----------------------------------------------------------------------------------------------------


def _extend_mmpretrain(api: ModuleType) -> None:
    def wrapper(original: Function) -> Function:
        def _register_mmpretrain_models(cls: Any) -> None:
            original(cls)
            for name, model in _classifiers(api).items():
                model.weights = weights_of(model.name)
                cls._models_dict.setdefault(name, model)  # a model that is there already stays

        return _register_mmpretrain_models

    replace_method(api.ModelHub, "_register_mmpretrain_models", wrapper)
    replace_method(api.ModelHub, "get", functools.partial(_getting_ours, api))
    replace_function(api, "get_model", _without_suffix)


def _without_suffix(original: Function) -> Function:
    """What ends in ``.py`` is a file there, whose model has no weights, also where it is a name of ours."""

    def get_model(model: Any, *args: Any, **kwargs: Any) -> Any:
        path = config_of(model) if isinstance(model, str) and not Path(model).exists() else None
        return original(model if path is None else path.stem, *args, **kwargs)

    return get_model


def _getting_ours(api: ModuleType, original: Function) -> Function:
    def get(cls: Any, model_name: str) -> Any:
        path = config_of(model_name)
        cls._register_mmpretrain_models()
        if path is not None and path.stem.lower() in cls._models_dict:
            return original(cls, path.stem)
        config = _our_config(model_name, "mmpretrain")
        if config is None or path is None:
            return original(cls, model_name)
        result = dict(task="Image Classification", dataset="", metrics={})
        model = api.Model(name=path.stem, results=[result], weights=weights_of(path.stem))
        model.config = config
        return model

    return get


@functools.cache
def _classifiers(api: ModuleType) -> dict[str, Any]:
    """Our models that are for mmpretrain, as its `ModelHub` has its own: by their name in lower case."""
    index = api.load(str(root() / "model-index.yml"))
    index.build_models_with_collections()
    found = {}
    for model in index.models:
        if _toolbox(result.data for result in model.results or ()) == "mmpretrain":
            model.config = str(root() / model.config)
            found[model.name.lower()] = model
    return found


# --- mmengine.hub ---------------------------------------------------------------------------------------------------


def _extend_hub(hub: ModuleType) -> None:
    replace_function(hub, "get_config", _with_weights_or_an_error)
    replace_function(hub, "get_model", functools.partial(_in_its_scope, hub))


def _prefixed(name: str) -> str:
    """A name that is one of ours, with the package before it."""
    return name if "::" in name or config_of(name) is None else PREFIX + name


def _with_weights_or_an_error(original: Callable[..., Any]) -> Callable[..., Any]:
    def get_config(cfg_path: str, pretrained: bool = False) -> Any:
        cfg_path = _prefixed(cfg_path)
        if not cfg_path.startswith(PREFIX):
            return original(cfg_path, pretrained)
        config = original(cfg_path)
        if pretrained:
            config.model_path = weights_of_config(config.filename)
            if config.model_path is None:
                raise ValueError(
                    f"there are no published weights of {cfg_path}; pretrained=False builds it untrained. "
                    "`eyetoy models --weights` lists the models that have some"
                )
        return config

    return get_config


def _in_its_scope(hub: ModuleType, original: Callable[..., Any]) -> Callable[..., Any]:
    def get_model(cfg_path: str, pretrained: bool = False, **kwargs: Any) -> Any:
        cfg_path = _prefixed(cfg_path)
        if not cfg_path.startswith(PREFIX):
            return original(cfg_path, pretrained, **kwargs)
        config = hub.get_config(cfg_path, pretrained)
        if "default_scope" not in config or "model" not in config:
            raise ValueError(f"{cfg_path} is a part of configs, not the config of a model")
        if "data_preprocessor" in config:  # as the Runner: the model's own goes first
            config.model.setdefault("data_preprocessor", config.data_preprocessor)
        with hub.DefaultScope.overwrite_default_scope(config.default_scope):
            importlib.import_module(f"{config.default_scope}.utils").register_all_modules(init_default_scope=False)
            model = hub.MODELS.build(config.model, default_args=kwargs)
        if pretrained:
            hub.load_checkpoint(model, config.model_path)
            model._is_init = True  # so that a Runner does not initialize it again
        return model

    return get_model
