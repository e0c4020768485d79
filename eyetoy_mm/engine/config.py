"""Configs made ready to run: loaded, adapted to the machine, their data checked before anything starts."""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.utils import get_installed_path

from eyetoy_mm import zoo
from eyetoy_mm.datasets.findings import refuse_fatal
from eyetoy_mm.engine.channels import match_channels
from eyetoy_mm.engine.config_options import merge_options
from eyetoy_mm.engine.config_parts import datasets_of, evaluators_of, toolbox_of
from eyetoy_mm.engine.config_structure import structure_findings
from eyetoy_mm.engine.engines import shards_model
from eyetoy_mm.engine.photo_rules import apply_image_orientation
from eyetoy_mm.engine.preprocessing import unify_preprocessing
from eyetoy_mm.errors import UserError
from eyetoy_mm.paths import EMBEDDED, join, package_file
from eyetoy_mm.registry import type_name

_SYNC_NORMS = ("SyncBN", "SyncBatchNorm")
_INSTALL = "pip install 'eyetoy-mm[lite]' (docs/install.md says how with mmcv's compiled operators)"


def load_config(
    path: str | Path,
    *,
    options: dict | None = None,
    work_dir: str | None = None,
    data_root: str | None = None,
    launcher: str = "none",
    dist_timeout: float | None = None,
    amp: bool = False,
) -> Config:
    """Read a config file and apply what was given on the command line.

    Args:
        path: The config file, or ``eyetoy_mm::eyetoy/...`` (``mmdet::...``) for one of a package.
        options: Dotted keys and their values, as ``--cfg-options`` gives them; they win over everything else.
        work_dir: Where logs and checkpoints go; ``work_dirs/<config name>`` when neither given nor in the file.
        data_root: Folder that replaces every dataset's ``data_root``.
        launcher: How processes were started: none, pytorch, slurm or mpi.
        dist_timeout: How long processes wait for each other, in seconds; None for PyTorch's default.
        amp: Train in mixed precision.

    Returns:
        The config, adapted to this machine (see :func:`adapt_to_machine`), with the channels of its neck and heads,
        and its rule of EXIF orientation in every pipeline (see :func:`apply_image_orientation`).

    Raises:
        UserError: The file is missing or does not parse, it needs a package that is not installed, an option or a
            section is nothing that can be read, its neck and heads are for other channels than the backbone has (see
            :func:`match_channels`), a pipeline cannot follow its ``image_orientation``, or images are prepared in one
            way for training and in another for evaluation (see :func:`unify_preprocessing`).
            :func:`~eyetoy_mm.engine.config_checks.check_config` looks at all of it.
    """
    path = find_config(path)
    config = read_config(path)
    refuse_fatal(structure_findings(config))
    scope = toolbox_of(config)
    if scope is not None:
        config.default_scope = scope  # what is checked, added and painted depends on it
    if find_spec(scope or "mmengine") is None:
        raise UserError(f"{path} is for {scope}, which is not installed; {_INSTALL}")
    if work_dir is not None:
        config.work_dir = work_dir
    elif config.get("work_dir") is None:
        config.work_dir = str(Path("work_dirs") / Path(path).stem)
    config.launcher = launcher
    if dist_timeout is not None:
        config.merge_from_dict({"env_cfg.dist_cfg.timeout": dist_timeout})
    if amp and "optim_wrapper" in config:
        _mix_precision(config)
    if data_root is not None:
        for _, dataset in datasets_of(config, ("train", "val", "test")):
            _repoint(dataset, data_root)
        _repoint_annotations(config, data_root)
    else:
        _find_sample(config)
    if options:
        merge_options(config, options)
        refuse_fatal(structure_findings(config))
        if amp and "optim_wrapper" in config and type_name(config.optim_wrapper) != "AmpOptimWrapper":
            kind = config.optim_wrapper.get("type")
            raise UserError(f"--amp trains in mixed precision, --cfg-options optim_wrapper.type={kind!r} not: give one")
    apply_image_orientation(config)
    match_channels(config)
    unify_preprocessing(config)
    adapt_to_machine(config)
    return config


def read_config(path: Path) -> Config:
    """Read a config file, which runs it.

    Raises:
        UserError: It does not parse, or needs a package that is not installed.
    """
    try:
        return Config.fromfile(path)
    except (ModuleNotFoundError, ImportError) as error:
        raise UserError(f"{path} needs a package that is missing: {error}; {_INSTALL}") from error
    except Exception as error:  # whatever a Python file can raise
        raise UserError(f"cannot read the config {path}: {type(error).__name__}: {error}") from error


def find_config(name: str | Path) -> Path:
    """The file of a config.

    Args:
        name: Its path, the name of a model of the zoo, or ``eyetoy_mm::eyetoy/...`` for one that comes with a package,
            with or without ``.py``.

    Raises:
        UserError: There is none.
    """
    package, inside, below = str(name).partition("::")
    if inside and not (package.isidentifier() and below):
        raise UserError(f"{name} should have a package before :: and a config after it, as eyetoy_mm::eyetoy_imagenet")
    if inside and find_spec(package) is None:
        raise UserError(f"{name} is of the package {package}, which is not installed")
    if package == "eyetoy_mm" and inside:
        folder = package_file("configs")
    else:
        folder = Path(get_installed_path(package), ".mim", "configs") if inside else Path()
    path = folder / (below if inside else name)
    if inside and path.suffix != ".py":
        path = path.with_name(f"{path.name}.py")
    if path.is_file():
        return path
    if (found := zoo.config_of(str(name))) is not None:
        return found
    advice = zoo.advice(path.name)
    if path.is_dir() and str(name):
        raise UserError(f"{name} is a folder, and should be a config file{advice}")
    raise UserError(f"there is no config file {path}{f' ({name})' * bool(inside)}{advice}")


def _mix_precision(config: Config) -> None:
    """Let the optimizer wrapper be that for mixed precision.

    Raises:
        UserError: It is one of another kind, whose own work would be lost.
    """
    kind = type_name(config.optim_wrapper)
    if kind not in ("", "OptimWrapper", "AmpOptimWrapper"):
        raise UserError(
            f"--amp puts an AmpOptimWrapper in place of an OptimWrapper, and optim_wrapper.type is {kind!r}: set mixed "
            "precision in the config"
        )
    config.optim_wrapper.type = "AmpOptimWrapper"
    config.optim_wrapper.setdefault("loss_scale", "dynamic")


def adapt_to_machine(config: Config) -> None:
    """Replace what this run cannot use, and say so.

    That is SyncBN in one process, and without an accelerator PyTorch's SyncBN, devices for DistributedDataParallel and
    mixed precision.
    """
    if config.get("launcher", "none") == "none":
        if _replace_types(config.get("model"), _SYNC_NORMS, "BN"):
            print_log("One process: SyncBN is replaced by BN, which computes the same there.", "current", logging.INFO)
    elif not torch.accelerator.is_available():
        if _replace_types(config.get("model"), _SYNC_NORMS, "MMSyncBN"):
            print_log("CPUs: SyncBN is mmcv's, PyTorch's needs a GPU.", "current", logging.INFO)
        if config.get("sync_bn") == "torch":
            config.sync_bn = "mmcv"
        if not shards_model(config):
            # Runner gives it LOCAL_RANK for a device where the config says nothing.
            unused = config.get("find_unused_parameters", False)
            settings = dict(type="MMDistributedDataParallel", broadcast_buffers=False, find_unused_parameters=unused)
            config.model_wrapper_cfg = dict(device_ids=None) | dict(config.get("model_wrapper_cfg") or settings)
    wrapper = config.get("optim_wrapper")
    if wrapper is not None and type_name(wrapper) == "AmpOptimWrapper" and not torch.accelerator.is_available():
        wrapper.type = "OptimWrapper"
        for key in ("loss_scale", "dtype", "use_fsdp"):
            wrapper.pop(key, None)
        print_log("No accelerator: training in float32 instead of mixed precision.", "current", logging.WARNING)


def _repoint(dataset: dict, data_root: str) -> None:
    """Let a dataset's paths start at ``data_root``, also those that repeat the old root."""
    old = dataset.get("data_root")
    dataset["data_root"] = data_root
    if old and dataset.get("ann_file", "").startswith(old):
        dataset["ann_file"] = dataset["ann_file"].removeprefix(old).lstrip("/")


def _find_sample(config: Config) -> None:
    """Let datasets on the embedded images find them from every folder."""
    for split, dataset in list(datasets_of(config, ("train", "val", "test"))):
        sample = str(dataset.get("data_root") or "").rstrip("/")
        if sample in EMBEDDED and not Path(sample).exists():
            _repoint(dataset, str(package_file(sample)))
            for _, evaluator in evaluators_of(config, (split,)):
                if str(evaluator.get("ann_file") or "").startswith(f"{sample}/"):
                    evaluator["ann_file"] = str(package_file(evaluator["ann_file"]))


def _repoint_annotations(config: Config, data_root: str) -> None:
    """COCO's evaluators name the annotation file by its whole path."""
    for split, evaluator in evaluators_of(config, ("val", "test")):
        loader = config.get(f"{split}_dataloader")
        if loader and evaluator.get("ann_file") and loader.dataset.get("ann_file"):
            evaluator["ann_file"] = join(data_root, loader.dataset.ann_file)


def _replace_types(node: object, names: tuple[str, ...], new: str) -> int:
    """Put ``new`` for ``type`` values anywhere below ``node``, where they have one of the names; return how many."""
    count = 0
    if isinstance(node, dict):
        if type_name(node) in names:
            node["type"] = new
            count += 1
        count += sum(_replace_types(value, names, new) for value in node.values())
    elif isinstance(node, list | tuple):
        count += sum(_replace_types(value, names, new) for value in node)
    return count
