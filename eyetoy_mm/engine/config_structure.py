"""What a config has to have before anything in it can be looked at: dicts where dicts are read, lists where lists."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from eyetoy_mm.datasets.findings import Finding
from eyetoy_mm.engine.config_options import KNOWN_SECTIONS
from eyetoy_mm.engine.config_places import at, dicts_in, nearest

_DICTS = ("default_hooks", "env_cfg", "randomness", "log_processor", "visualizer", "optim_wrapper", "data_preprocessor")
_LOOPS = ("train_cfg", "val_cfg", "test_cfg")
_LISTS = ("custom_hooks",)
_PARTS_OF_SPLITS = {"train": ("train_dataloader", "train_cfg", "optim_wrapper")} | {
    split: (f"{split}_dataloader", f"{split}_cfg", f"{split}_evaluator") for split in ("val", "test")
}


def structure_findings(config: Config) -> Iterator[Finding]:
    """What is no dict or list where one is read; what is missing is :func:`missing_findings`'."""
    if not isinstance(config.get("model", {}), dict):
        yield _should_be("model", config.get("model"), "a dict: the type of a model, and its arguments")
    for key in (*_DICTS, *_LOOPS):
        if config.get(key) is not None and not isinstance(config[key], dict):
            yield _should_be(key, config[key], "a dict")
    for key in _LISTS:
        if config.get(key) is not None and not isinstance(config[key], list | tuple):
            yield _should_be(key, config[key], "a list of dicts")
    if not isinstance(config.get("work_dir", ""), str | None):
        yield _should_be("work_dir", config["work_dir"], "the path of a folder")
    for key in ("env_cfg", "randomness"):  # mmengine takes no None here
        if key in config and config[key] is None:
            yield _should_be(key, None, "a dict; leave it out for what is usual")
    if not isinstance(config.get("resume", False), bool):
        yield _should_be("resume", config["resume"], "True or False; a checkpoint is given by load_from or --resume")
    if not isinstance(config.get("default_scope", ""), str | None):
        yield _should_be("default_scope", config["default_scope"], "the name of a toolbox")
    for key in ("val_evaluator", "test_evaluator", "custom_hooks", "param_scheduler"):
        yield from _dicts_or_none(key, config.get(key))
    backends = dict(_items(config.get("visualizer"))).get("vis_backends")
    if backends is not None and not isinstance(backends, list | tuple):
        yield _should_be("visualizer.vis_backends", backends, "a list of dicts")
    for key, hook in _items(config.get("default_hooks")):
        if hook is not None and not isinstance(hook, dict):
            yield _should_be(f"default_hooks.{key}", hook, "a dict, or None")
    for key, part in dicts_in("", config.to_dict()):
        if not isinstance(part.get("_scope_", ""), str | None):
            yield _should_be(f"{key}._scope_", part["_scope_"], "the name of a toolbox")
    for split in _PARTS_OF_SPLITS:
        yield from _loader_findings(f"{split}_dataloader", config.get(f"{split}_dataloader"))


def missing_findings(config: Config, splits: tuple[str, ...]) -> Iterator[Finding]:
    """What a run lacks: a model, and where there is a Runner, sections that it takes together, or that are misspelt."""
    if config.get("model") is None:
        yield Finding("model", "is missing: a dict, the type of a model, and its arguments")
    if splits:
        yield from _incomplete(config)
        yield from _misspelt(config)


def datasets_in(key: str, dataset: Any) -> Iterator[tuple[str, dict]]:
    """A data set, and those that it wraps, each with its key."""
    if not isinstance(dataset, dict):
        return
    yield key, dataset
    if isinstance(dataset.get("dataset"), dict):
        yield from datasets_in(f"{key}.dataset", dataset["dataset"])
    for index, inner in enumerate(dataset.get("datasets") or ()):
        yield from datasets_in(f"{key}.datasets.{index}", inner)


def _loader_findings(key: str, loader: Any) -> Iterator[Finding]:
    if loader is None:
        return
    if not isinstance(loader, dict):
        yield _should_be(key, loader, "a dict: dataset, batch_size, num_workers, sampler")
        return
    if "multi_loader" in str(loader.get("type")).lower():
        return
    if not isinstance(loader.get("dataset"), dict):
        yield _should_be(f"{key}.dataset", loader.get("dataset"), "a dict: the type of a data set, and its arguments")
        return
    for where, dataset in datasets_in(f"{key}.dataset", loader["dataset"]):
        pipeline = dataset.get("pipeline")
        if pipeline is not None and not isinstance(pipeline, list | tuple):
            yield _should_be(f"{where}.pipeline", pipeline, "a list of dicts")
        if "pipeline" in dataset and not pipeline and not {"dataset", "datasets"} & set(dataset):
            yield _should_be(f"{where}.pipeline", pipeline, "a list of the steps that load and pack an image")
        for index, step in enumerate(pipeline if isinstance(pipeline, list | tuple) else ()):
            if not isinstance(step, dict) and not callable(step):
                yield _should_be(
                    f"{where}.pipeline.{index}", step, "a dict: the type of a transform, and its arguments"
                )
        for name in ("data_root", "ann_file"):
            if not isinstance(dataset.get(name) or "", str):
                yield _should_be(f"{where}.{name}", dataset[name], "a path")
        for name in ("metainfo", "filter_cfg"):
            if dataset.get(name) is not None and not isinstance(dataset[name], dict):
                yield _should_be(f"{where}.{name}", dataset[name], "a dict, or None")
        prefix = dataset.get("data_prefix")
        values = prefix.values() if isinstance(prefix, dict) else [prefix]
        if not all(one is None or isinstance(one, str | dict) for one in values):
            yield _should_be(f"{where}.data_prefix", prefix, "a folder, or a dict of folders")
        least = dict(_items(dataset.get("filter_cfg"))).get("min_size", 0)
        if not isinstance(least, int | float):
            yield _should_be(f"{where}.filter_cfg.min_size", least, "a number of pixels")
        yield from _misspelt_settings(where, dataset)
        inner = dataset.get("datasets")
        if inner is not None and not (isinstance(inner, list | tuple) and all(isinstance(one, dict) for one in inner)):
            yield _should_be(f"{where}.datasets", inner, "a list of data sets")
        if "dataset" in dataset and not isinstance(dataset["dataset"], dict):
            yield _should_be(f"{where}.dataset", dataset["dataset"], "a dict: a data set")


# Of settings that data sets look up and do not ask for: what they are called, and what they are taken for.
_SETTINGS = {
    "filter_cfg": {"min_size": (), "filter_empty_gt": ("filter_empty",), "bbox_min_size": ()},
    "metainfo": {"classes": ("CLASSES", "class_names", "class_name", "names"), "palette": ("PALETTE", "colors")},
}


def _misspelt_settings(where: str, dataset: dict) -> Iterator[Finding]:
    for section, names in _SETTINGS.items():
        for setting in dict(_items(dataset.get(section))).keys() - names.keys():
            meant = next((name for name, others in names.items() if setting in others), nearest(setting, names, 0.85))
            if meant and meant not in dataset[section]:
                place = at(f"{where}.{section}.{setting}", dataset[section][setting])
                yield Finding(place, f"nothing reads it; did you mean {meant}?")


def _dicts_or_none(key: str, value: Any) -> Iterator[Finding]:
    if value is None or isinstance(value, dict):
        return
    if not isinstance(value, list | tuple):
        yield _should_be(key, value, "a dict, or a list of dicts")
        return
    for index, one in enumerate(value):
        if not isinstance(one, dict):
            yield _should_be(f"{key}.{index}", one, "a dict")


def _incomplete(config: Config) -> Iterator[Finding]:
    """Sections that mmengine takes together or not at all."""
    for split, keys in _PARTS_OF_SPLITS.items():
        missing = [key for key in keys if config.get(key) is None]
        if missing and len(missing) < len(keys):
            there = [key for key in keys if key not in missing]
            yield Finding(
                missing[0],
                f"is missing: {split} takes {', '.join(keys)} together, and {', '.join(there)} is given. Add "
                f"{', '.join(missing)}, or set {', '.join(there)} to None",
            )
    if config.get("param_scheduler") is not None and config.get("optim_wrapper") is None:
        yield Finding("param_scheduler", "is given without optim_wrapper, which it would change")


def _misspelt(config: Config) -> Iterator[Finding]:
    """Top-level names one or two letters from a section's.

    Config files have variables: where the section is there, too, one may be meant, and it is said but not refused.
    """
    for key in config:
        near = None if key in KNOWN_SECTIONS else nearest(key, KNOWN_SECTIONS, cutoff=0.9)
        if near is not None and isinstance(config[key], dict | list | tuple):
            yield Finding(key, f"nothing reads a section {key}; did you mean {near}?", fatal=config.get(near) is None)


def _should_be(key: str, value: Any, wanted: str) -> Finding:
    return Finding(at(key, value), f"should be {wanted}")


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else []
