"""Trap: the toolboxes' inference functions prepare images by other places of a config than the Runner does.

What breaks, without a word, where a config says it in one place alone:

* `mmseg.apis.inference_model` goes by `test_pipeline`, and the Runner, MMSegInferencer and mmdet by the pipeline of the
  test data loader: a config that changes one of them is measured in one way, and infers in another;
* `init_model` of mmseg, `init_detector` of mmdet and both inferencers build `model` alone: a `data_preprocessor` at the
  top of the config, which the Runner hands on, is not used. Images come unnormalised, their channels not swapped;
* the inferencers of mmpretrain read files in colour, whatever `LoadImageFromFile` of the pipeline says, and in the
  order blue, green, red for models that learned from CIFAR's images, which are red, green, blue;
* MMSegInferencer paints in the colours of the checkpoint, or of Cityscapes where there is none, and not in those of the
  `classes`, `palette` or `dataset_name` that it is given;
* given a config of another toolbox, each ends in a KeyError of a registry, or builds a model that it cannot use;
* all of them end in an AttributeError where the test data are in a wrapper, as ConcatDataset, or where mmseg finds no
  `test_pipeline`.

What we do: `test_pipeline` becomes that of the test data loader, with a warning if it was another; a model without a
data preprocessor of its own gets the config's; files are read as the pipeline does, or as the data set holds them. What
MMSegInferencer is given goes before what the checkpoint says. A config of another toolbox is a ValueError that says
what opens it.

Delete this file when the supported toolboxes prepare images in one way.
"""

from __future__ import annotations

import copy
import functools
import inspect
import logging
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from eyetoy_mm.compat._import_hooks import after_import, replace_function, replace_method

_INFERENCERS = {"mmdet.apis.det_inferencer": "DetInferencer", "mmseg.apis.mmseg_inferencer": "MMSegInferencer"}
_OPENED_BY = {
    "mmdet": "mmdet.apis.init_detector or DetInferencer",
    "mmseg": "mmseg.apis.init_model or MMSegInferencer",
    "mmpretrain": "mmpretrain.get_model or an inferencer of it",
}
_READERS = {
    "mmpretrain.apis.image_classification": "ImageClassificationInferencer",
    "mmpretrain.apis.feature_extractor": "FeatureExtractor",
}


def needed() -> bool:
    """Whether mmengine is installed."""
    return find_spec("mmengine") is not None


def apply() -> None:
    """Mends each when it is imported."""
    if not needed():
        return
    after_import("mmseg.apis.inference", lambda module: replace_function(module, "init_model", _as_the_runner))
    after_import("mmdet.apis.inference", lambda module: replace_function(module, "init_detector", _as_the_runner))
    opens = {"_init_model": _as_the_runner, "_init_pipeline": _of_the_inner_dataset}
    reads = {"preprocess": _reading_as_the_pipeline, "_init_pipeline": _of_the_inner_dataset}
    for classes, methods in ((_INFERENCERS, opens), (_READERS, reads)):
        for name, cls in classes.items():
            after_import(name, functools.partial(_replace_methods, cls, methods))
    for place, names in (
        ("mmdet.apis.inference", ("init_detector", "init_track_model")),
        ("mmseg.apis.inference", ("init_model",)),
        ("mmpretrain.apis.model", ("get_model",)),
    ):
        after_import(place, functools.partial(_check_configs, names))
    for name, cls in _INFERENCERS.items():
        checks = functools.partial(_with_own_configs, name.split(".")[0])
        after_import(name, functools.partial(_replace_methods, cls, {"_init_model": checks}))
    paints = functools.partial(_replace_methods, "MMSegInferencer", {"__init__": _painting_what_is_given})
    after_import("mmseg.apis.mmseg_inferencer", paints)


def _replace_methods(cls: str, methods: dict[str, Callable[..., Any]], module: ModuleType) -> None:
    for name, wrapper in methods.items():
        replace_method(vars(module)[cls], name, wrapper)


# --- Configs of other toolboxes -------------------------------------------------------------------------------------


def _check_configs(names: Sequence[str], module: ModuleType) -> None:
    for name in names:
        replace_function(module, name, functools.partial(_with_own_configs, module.__name__.split(".")[0]))


def _with_own_configs(toolbox: str, original: Callable[..., Any]) -> Callable[..., Any]:
    name = next(name for name in inspect.signature(original).parameters if name != "self")

    @functools.wraps(original)
    def run(*args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(original).bind_partial(*args, **kwargs)
        given.arguments[name] = config = _read(given.arguments.get(name))
        _refuse_other(config, toolbox)
        try:
            return original(*given.args, **given.kwargs)
        finally:
            _refuse_other(config, toolbox)  # which may have been empty, and is the checkpoint's now

    return run


def _read(config: Any) -> Any:
    from mmengine.config import Config

    is_file = isinstance(config, (str, Path)) and Path(config).suffix == ".py" and Path(config).is_file()
    return Config.fromfile(config) if is_file else config


def _refuse_other(config: Any, toolbox: str) -> None:
    from mmengine.config import Config, ConfigDict

    if not isinstance(config, (Config, ConfigDict)):  # a name, or a model
        return
    scope, kind = config.get("default_scope"), (config.get("model") or {}).get("type")
    if scope in _OPENED_BY and scope != toolbox and isinstance(kind, str) and "." not in kind:
        named = getattr(config, "filename", None) or "the config"
        raise ValueError(
            f"{named} is a config for {scope} (default_scope={scope!r}, model {kind}), and not for {toolbox}: "
            f"open it with {_OPENED_BY[scope]}"
        )


# --- Models of mmdet and mmseg --------------------------------------------------------------------------------------


def _as_the_runner(original: Callable[..., Any]) -> Callable[..., Any]:
    def init(*args: Any, **kwargs: Any) -> Any:
        model = original(*args, **kwargs)
        _give_data_preprocessor(model)
        _follow_test_loader(model.cfg)
        return model

    return init


def _give_data_preprocessor(model: Any) -> None:
    from mmengine.registry import MODELS

    config = model.cfg.get("data_preprocessor")
    if config and "data_preprocessor" not in model.cfg.model:
        model.data_preprocessor = MODELS.build(copy.deepcopy(config)).to(model.data_preprocessor.device)


def _follow_test_loader(config: Any) -> None:
    from mmengine.logging import print_log

    dataset = _test_dataset(config)
    if not dataset or config.get("test_pipeline") == dataset["pipeline"]:
        return
    differs = config.get("test_pipeline") is not None
    config["test_pipeline"] = copy.deepcopy(dataset["pipeline"])
    if differs:
        print_log(
            "test_pipeline of the config is not the pipeline of its test data loader, which is what is measured. "
            "Images are prepared by the loader's",
            "current",
            logging.WARNING,
        )


def _painting_what_is_given(original: Callable[..., Any]) -> Callable[..., Any]:
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        given = inspect.signature(original).bind(self, *args, **kwargs).arguments
        if any(given.get(name) for name in ("classes", "palette", "dataset_name")):
            self.model.dataset_meta = self.visualizer.dataset_meta  # of which `visualize` paints

    return __init__


def _of_the_inner_dataset(original: Callable[..., Any]) -> Callable[..., Any]:
    def _init_pipeline(self: Any, cfg: Any) -> Any:
        cfg = copy.deepcopy(cfg)  # into which they write
        dataset = _test_dataset(cfg)
        if dataset:
            cfg["test_dataloader"]["dataset"] = dataset
        return original(self, cfg)

    return _init_pipeline


def _test_dataset(config: Any) -> Any:
    dataset = (config.get("test_dataloader") or {}).get("dataset")
    while dataset and "pipeline" not in dataset:  # out of wrappers
        inner = dataset.get("dataset") or dataset.get("datasets")
        dataset = inner[0] if isinstance(inner, (list, tuple)) else inner
    return dataset


# --- Files that mmpretrain reads ------------------------------------------------------------------------------------


def _reading_as_the_pipeline(original: Callable[..., Any]) -> Callable[..., Any]:
    def preprocess(self: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        read = _reader(_test_dataset(self.config) or {})
        return original(self, (read(item) if isinstance(item, str) else item for item in inputs), *args, **kwargs)

    return preprocess


def _reader(dataset: Any) -> Callable[[str], Any]:
    """What reads a file as a data set gives its images."""
    import mmcv
    from mmpretrain.registry import DATASETS, TRANSFORMS

    for step in dataset.get("pipeline") or ():
        kind = step.get("type") if isinstance(step, dict) else None
        if (kind if isinstance(kind, str) else getattr(kind, "__name__", "")).endswith("LoadImageFromFile"):
            load = TRANSFORMS.build(step)
            return lambda path: load({"img_path": path})["img"]
    kind = dataset.get("type")
    kind = DATASETS.get(kind) if isinstance(kind, str) else kind
    names = {cls.__name__ for cls in getattr(kind, "__mro__", ())}
    flag, order = "grayscale" if "MNIST" in names else "color", "rgb" if "CIFAR10" in names else "bgr"
    return functools.partial(mmcv.imread, flag=flag, channel_order=order)
