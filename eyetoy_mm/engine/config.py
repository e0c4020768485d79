"""Configs made ready to run: loaded, adapted to the machine, their data checked before anything starts."""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, DictAction
from mmengine.logging import print_log

from eyetoy_mm.engine.errors import UserError

_INSTALL = "pip install 'eyetoy-mm[lite]' (or [full] where mmcv's compiled operators are wanted)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every tool that runs a config takes; :func:`load_config_from` reads it."""
    parser.add_argument("--work-dir", help="folder for logs and checkpoints (default: work_dirs/<config name>)")
    parser.add_argument("--data-root", help="folder of the dataset, in place of the config's data_root")
    parser.add_argument("--amp", action="store_true", help="mixed precision in training; evaluation follows the config")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, help="override settings: key.of.it=value ...")
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)


def load_config_from(args: argparse.Namespace) -> Config:
    """Load the config that a command line asks for; ``args.config`` is its path."""
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return load_config(
        args.config,
        options=args.cfg_options,
        work_dir=args.work_dir,
        data_root=args.data_root,
        launcher=args.launcher,
        amp=args.amp,
    )


def load_config(
    path: str | Path,
    *,
    options: dict | None = None,
    work_dir: str | None = None,
    data_root: str | None = None,
    launcher: str = "none",
    amp: bool = False,
) -> Config:
    """Read a config file and apply what was given on the command line.

    Args:
        path: The config file.
        options: Dotted keys and their values, as ``--cfg-options`` gives them; they win over everything else.
        work_dir: Where logs and checkpoints go; ``work_dirs/<config name>`` when neither given nor in the file.
        data_root: Folder that replaces every dataset's ``data_root``.
        launcher: How processes were started: none, pytorch, slurm or mpi.
        amp: Train in mixed precision.

    Returns:
        The config, adapted to this machine (see :func:`adapt_to_machine`).

    Raises:
        UserError: The file is missing or does not parse, or it needs a package that is not installed.
    """
    if not Path(path).is_file():
        raise UserError(f"there is no config file {path}")
    try:
        config = Config.fromfile(path)
    except (ModuleNotFoundError, ImportError) as error:
        raise UserError(f"{path} needs a package that is missing: {error}; {_INSTALL}") from error
    except Exception as error:  # whatever a Python file can raise
        raise UserError(f"cannot read the config {path}: {type(error).__name__}: {error}") from error
    scope = config.get("default_scope", "mmengine")
    if find_spec(scope) is None:
        raise UserError(f"{path} is for {scope}, which is not installed; {_INSTALL}")
    if work_dir is not None:
        config.work_dir = work_dir
    elif config.get("work_dir") is None:
        config.work_dir = str(Path("work_dirs") / Path(path).stem)
    config.launcher = launcher
    if amp and "optim_wrapper" in config:
        config.optim_wrapper.type = "AmpOptimWrapper"
        config.optim_wrapper.setdefault("loss_scale", "dynamic")
    if data_root is not None:
        for _, dataset in _datasets(config, ("train", "val", "test")):
            _repoint(dataset, data_root)
        _repoint_annotations(config, data_root)
    if options:
        config.merge_from_dict(options)
    adapt_to_machine(config)
    return config


def adapt_to_machine(config: Config) -> None:
    """Replace what this run cannot use, and say so: SyncBN in one process, mixed precision without an accelerator."""
    if config.get("launcher", "none") == "none" and _replace_types(config.get("model"), {"SyncBN": "BN"}):
        print_log("One process: SyncBN is replaced by BN, which computes the same there.", "current", logging.INFO)
    wrapper = config.get("optim_wrapper")
    if wrapper is not None and wrapper.get("type") == "AmpOptimWrapper" and not torch.accelerator.is_available():
        wrapper.type = "OptimWrapper"
        for key in ("loss_scale", "dtype", "use_fsdp"):
            wrapper.pop(key, None)
        print_log("No accelerator: training in float32 instead of mixed precision.", "current", logging.WARNING)


def check_data(config: Config, *splits: str) -> None:
    """Check that the files and folders of the datasets exist, and that COCO files fit the classes of the config.

    mmdet drops annotations of classes that it does not know without a word, and fails without naming the file if nothing
    is left. Where they are to be dropped, the config says ``ignore_other_categories = True``.

    Args:
        config: The config.
        splits: Which of ``train``, ``val`` and ``test`` will be used.

    Raises:
        UserError: One message with everything that is missing, where it was looked for, and how to point elsewhere; or
            what is wrong with a COCO file, and what to do.
    """
    missing: dict[str, list[str]] = {}
    wanted = [(split, path) for split, dataset in _datasets(config, splits) for path in _dataset_paths(dataset)]
    wanted += [(split, Path(e["ann_file"])) for split, e in _evaluators(config, splits) if e.get("ann_file")]
    for split, path in wanted:
        if not path.exists():
            missing.setdefault(str(path), []).append(split)
    if missing:
        lines = "\n".join(f"  {path}  ({', '.join(dict.fromkeys(splits))})" for path, splits in missing.items())
        roots = ", ".join(
            dict.fromkeys(str(d["data_root"]) for _, d in _datasets(config, splits) if d.get("data_root"))
        )
        raise UserError(
            f"the dataset is not there. Missing, from the current folder {Path.cwd()}:\n{lines}\n"
            f"Put it at {roots or 'these paths'} (a symbolic link will do), or say where it is: --data-root DIR"
        )
    if config.get("default_scope") == "mmdet":
        _check_coco_datasets(config, splits)


def _datasets(config: Config, splits: tuple[str, ...]) -> Iterator[tuple[str, dict]]:
    """Each plain dataset of each split, taken out of wrappers (RepeatDataset, ConcatDataset, ...)."""
    for split in splits:
        loader = config.get(f"{split}_dataloader")
        pending = [loader["dataset"]] if loader else []
        while pending:
            dataset = pending.pop(0)
            inner = dataset.get("dataset", dataset.get("datasets"))
            if inner is None:
                yield split, dataset
            else:
                pending.extend(inner if isinstance(inner, list | tuple) else [inner])


def _dataset_paths(dataset: dict) -> Iterator[Path]:
    root = Path(dataset.get("data_root") or "")
    prefixes = dataset.get("data_prefix") or {}
    for value in prefixes.values() if isinstance(prefixes, dict) else [prefixes]:
        if value is not None and "://" not in str(value):
            yield root / str(value)
    if dataset.get("ann_file"):
        yield root / dataset["ann_file"]


def _repoint(dataset: dict, data_root: str) -> None:
    """Let a dataset's paths start at ``data_root``, also those that repeat the old root."""
    old = dataset.get("data_root")
    dataset["data_root"] = data_root
    if old and dataset.get("ann_file", "").startswith(old):
        dataset["ann_file"] = dataset["ann_file"].removeprefix(old).lstrip("/")


def _repoint_annotations(config: Config, data_root: str) -> None:
    """COCO's evaluators name the annotation file by its whole path."""
    for split, evaluator in _evaluators(config, ("val", "test")):
        loader = config.get(f"{split}_dataloader")
        if loader and evaluator.get("ann_file") and loader.dataset.get("ann_file"):
            evaluator["ann_file"] = str(Path(data_root) / loader.dataset.ann_file)


def _evaluators(config: Config, splits: tuple[str, ...]) -> Iterator[tuple[str, dict]]:
    for split in splits:
        evaluators = config.get(f"{split}_evaluator") or []
        for evaluator in evaluators if isinstance(evaluators, list | tuple) else [evaluators]:
            yield split, evaluator


def _check_coco_datasets(config: Config, splits: tuple[str, ...]) -> None:
    """Check every dataset that mmdet reads as COCO; subclasses that read their files differently are left alone."""
    from mmdet.datasets import CocoDataset
    from mmdet.registry import DATASETS

    for split, dataset in _datasets(config, splits):
        kind: Any = dataset.get("type")
        kind = DATASETS.get(kind) if isinstance(kind, str) else kind
        if not (isinstance(kind, type) and issubclass(kind, CocoDataset) and dataset.get("ann_file")):
            continue
        if kind.load_data_list is CocoDataset.load_data_list:
            classes = kind._load_metainfo(dataset.get("metainfo")).get("classes") or ()
            path = Path(dataset.get("data_root") or "") / dataset["ann_file"]
            try:
                content = _read_coco(path)
                _check_categories(content, classes, bool(config.get("ignore_other_categories")))
                _check_images(content, classes, dataset)
            except ValueError as error:
                raise UserError(f"{path} ({split}) {error}") from error


def _read_coco(path: Path) -> dict[str, list[dict]]:
    """Read a COCO file; ValueError if it is none."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:  # no JSON, or no text
        raise ValueError(f"is not JSON: {error}. Is the file complete? Download or write it again") from error
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    fields = dict(
        images=("id", "file_name", "width", "height"),
        annotations=("id", "image_id", "category_id", "bbox", "area"),
        categories=("id", "name"),
    )
    if isinstance(content, dict):
        content.setdefault("annotations", [])  # lists of test images have none
    for key, names in fields.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise ValueError(f"is not in COCO's format: it has no list {key!r}, next to {_some(fields, 3)}")
        for index, entry in enumerate(entries):
            lacking = [name for name in names if not isinstance(entry, dict) or name not in entry]
            if lacking:
                raise ValueError(f"is not in COCO's format: {key}[{index}] has no {_some(lacking)}; add it")
    return content


def _check_categories(content: dict[str, list[dict]], classes: list[str] | str, ignore_others: bool) -> None:
    """ValueError if labels would be dropped or mixed up: mmdet numbers them as the file lists its categories."""
    setting = "metainfo=dict(classes=(...)) of the dataset"
    if isinstance(classes, str):
        raise ValueError(f"has no classes: {setting} is the text {classes!r}; a single class is classes=({classes!r},)")
    names = {category["id"]: category["name"] for category in content["categories"]}
    counts = Counter(names.get(a["category_id"], f"category_id {a['category_id']}") for a in content["annotations"])
    others = [f"{name!r} ({count} annotations)" for name, count in counts.items() if name not in classes]
    absent = [repr(name) for name in classes if name not in names.values()]
    if absent or (others and not ignore_others):
        lines = ["does not have the classes of the config, which mmdet would pass over in silence:"]
        lines += [f"  in the file, not in classes: {_some(others)}"] if others else []
        lines += [f"  in classes, not in the file: {_some(absent)}"] if absent else []
        own = tuple(names.values()) if len(names) <= 10 else f"its {len(names)} categories in their order"
        lines.append(f"Set {setting}, in training, validation and test, to {own}, and num_classes={len(names)} in the")
        lines[-1] += " model's heads, or correct the file"
        if others and not absent:
            lines[-1] += "; to leave the other annotations out, set ignore_other_categories=True"
        raise ValueError("\n".join(lines))
    found = [name for name in names.values() if name in classes]
    if found != list(classes):
        raise ValueError(
            f"lists the categories as {_some(map(repr, found))}, but the config's classes are "
            f"{_some(map(repr, classes))}: mmdet would call them by each other's names. Use the file's order, and each "
            f"name once, in {setting}"
        )


def _check_images(content: dict[str, list[dict]], classes: list[str], dataset: dict) -> None:
    """ValueError if images are not on disk, if none is left to train on, or if masks are asked for and not there."""
    images, labelled = content["images"], set()
    known = {category["id"] for category in content["categories"] if category["name"] in classes}
    with_mask = any(step.get("with_mask") for step in dataset.get("pipeline") or ())
    for annotation in content["annotations"]:
        if annotation["category_id"] in known:
            labelled.add(annotation["image_id"])
            if with_mask and not annotation.get("segmentation"):
                raise ValueError(
                    f"has no segmentation in annotation {annotation['id']}, but the pipeline loads masks. Add it, or "
                    "train a detector of boxes alone, such as configs/eyetoy/retinanet_eyetoy-t_fpn_1x_coco.py"
                )
    rules = {} if dataset.get("test_mode") else dataset.get("filter_cfg") or {}
    used = [
        image
        for image in images
        if min(image["width"], image["height"]) >= rules.get("min_size", 0)
        and (image["id"] in labelled or not rules.get("filter_empty_gt"))
    ]
    if not used:
        raise ValueError(
            f"leaves no image: it has {len(images)}, {len(labelled)} with annotations of the classes; "
            f"filter_cfg={dict(rules)}. Check the annotations' image_id and the images' width and height"
        )
    folder = Path(dataset.get("data_root") or "") / ((dataset.get("data_prefix") or {}).get("img") or "")
    if "://" in str(folder):
        return
    paths = [folder / image["file_name"] for image in used]
    # Whole folders at a time: asking for each image takes minutes on network disks.
    present = {path for parent in {path.parent for path in paths} if parent.is_dir() for path in parent.iterdir()}
    missing = [str(path) for path in paths if path not in present]
    if missing:
        raise ValueError(
            f"names {len(missing)} images (of {len(paths)}) that are not on disk: {_some(missing)}. Put them there, or "
            "say where they are: data_prefix=dict(img=...) of the dataset, or --data-root DIR"
        )


def _some(values: Iterable[str], limit: int = 5) -> str:
    """The first of ``values`` and how many follow."""
    values = list(values)
    rest = f" and {len(values) - limit} more" if len(values) > limit else ""
    return ", ".join(values[:limit]) + rest


def _replace_types(node: object, names: dict[str, str]) -> int:
    """Rename ``type`` values anywhere below ``node``; return how many."""
    count = 0
    if isinstance(node, dict):
        if node.get("type") in names:
            node["type"] = names[node["type"]]
            count += 1
        count += sum(_replace_types(value, names) for value in node.values())
    elif isinstance(node, list | tuple):
        count += sum(_replace_types(value, names) for value in node)
    return count
