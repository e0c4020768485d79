"""A config checked before data are read or a Runner is made: everything that is wrong with it, in one message.

What can be built without data is built: the model on the meta device, its optimizer, the schedulers, the steps of the
pipelines. What cannot, data sets, metrics and hooks, is compared with what its class takes. See
:mod:`~eyetoy_mm.engine.config_rules` for what does not fit together though each part is right.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS, TRANSFORMS, DefaultScope
from torch import Tensor, nn

from eyetoy_mm.datasets.findings import Finding, refuse_fatal
from eyetoy_mm.engine.config_optimizer import optimizer_findings
from eyetoy_mm.engine.config_places import (
    argument_findings,
    built_findings,
    class_of,
    dicts_in,
    explain,
    failing_module,
    typed_findings,
    unknown_type,
)
from eyetoy_mm.engine.config_rules import rule_findings
from eyetoy_mm.engine.config_structure import datasets_in, missing_findings, structure_findings
from eyetoy_mm.engine.engines import engine_findings
from eyetoy_mm.engine.skeletons import Observed, build_on_meta, run_parts
from eyetoy_mm.engine.terminal_log import quiet

_AT_MOST = 8  # mistakes of a model that are told at once
# What PyTorch says of shapes that do not fit; other errors of a run on meta say nothing about a config.
_SHAPES = re.compile(r"to have \d+( or \d+)? channels|cannot be multiplied|same reduction dim|normalized_shape=")
_ONE_VALUE = "Expected more than 1 value per channel"


def check_config(config: Config, *splits: str) -> None:
    """Refuse a config that cannot run, and log what is odd about one that can.

    Args:
        config: A config as :func:`~eyetoy_mm.engine.config.load_config` gives it; it stays as it is.
        splits: Which of ``train``, ``val`` and ``test`` will be used; the model always is.

    Raises:
        UserError: Everything that is wrong, a line each: the key, its value, and what would do.
    """
    findings = config_findings(config, *splits)
    for finding in findings:
        if not finding.fatal:
            print_log(str(finding), "current", logging.WARNING)
    refuse_fatal(findings)


def config_findings(config: Config, *splits: str) -> list[Finding]:
    """What is wrong with a config, or odd; see :func:`check_config`."""
    findings = [*structure_findings(config), *missing_findings(config, splits)]
    if any(finding.fatal for finding in findings):
        return findings  # nothing below holds
    with DefaultScope.overwrite_default_scope(config.get("default_scope")), _without_warnings():
        findings += _model_findings(config, "train" in splits)
        for split in splits:
            findings += _dataset_findings(config, split)
        if splits:
            findings += rule_findings(config, splits)
        if "train" in splits:
            findings += engine_findings(config)
    return list(dict.fromkeys(findings))


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """What is built to be looked at says nothing: it will be built again."""
    with warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        yield


# --- The model --------------------------------------------------------------------------------------------------------


def _model_findings(config: Config, trains: bool) -> Iterator[Finding]:
    wanted = copy.deepcopy(config.model)
    own_preprocessor = "data_preprocessor" in wanted
    if not own_preprocessor and config.get("data_preprocessor") is not None:
        wanted["data_preprocessor"] = copy.deepcopy(config.data_preprocessor)  # as the Runner does
    findings: list[Finding] = []
    model = _build_as_far_as_it_goes(wanted, findings)
    for finding in findings:
        yield finding if own_preprocessor else _moved(finding, "model.data_preprocessor", "data_preprocessor")
    if model is None:
        return
    yield from typed_findings("model", wanted, MODELS)
    yield from _too_large(model)
    if trains and config.get("optim_wrapper") is not None:
        yield from optimizer_findings(model, config.optim_wrapper)
    if not findings:
        yield from _misfits(wanted, config)


def _build_as_far_as_it_goes(wanted: dict, findings: list[Finding]) -> BaseModel | None:
    """Build a model; where a key is wrong, tell it, mend it, and go on for the next one.

    Returns:
        The model, with every mistake mended; None where one could not be.
    """
    guessed: list[str] = []
    for _ in range(_AT_MOST):
        try:
            return _build(wanted)
        except (OSError, ImportError):  # files and packages, of which others tell
            return None
        except Exception as error:  # whatever a model raises
            found = explain(error, "model", wanted, MODELS)
            if any(found.finding.kind.startswith(place) for place in guessed):
                return None  # of a class that was only guessed
            findings.append(found.finding)
            if found.key is None or not _mend(wanted, found.key, found.name):
                return None
            if found.name is not None:
                guessed.append(found.key.removesuffix(".type"))
    return None


def _build(model: dict) -> BaseModel:
    """On meta; with memory where that fails, for reasons of meta or of the config's."""
    try:
        return build_on_meta(model)
    except (RuntimeError, TypeError, ValueError, AssertionError, AttributeError):
        return MODELS.build(copy.deepcopy(model)).to("meta")


def _mend(model: dict, key: str, name: str | None) -> bool:
    """Take a key out of a model, or give it another value; whether it was there."""
    *above, last = key.removeprefix("model.").split(".")
    node: Any = model
    for part in above:
        if not isinstance(node, dict | list | tuple):
            return False  # the model moved it: mmpretrain's augments of batches go to the preprocessor
        node = node[int(part)] if isinstance(node, list | tuple) else node.get(part)
    if not isinstance(node, dict) or last not in node or (last == "type") != (name is not None):
        return False
    if name is None:
        del node[last]
    else:
        node[last] = name
    return True


def _too_large(model: BaseModel) -> Iterator[Finding]:
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        yield Finding(
            "model",
            f"its weights take {size / 2**30:,.0f} GiB, and this machine has {memory / 2**30:,.0f}: make it smaller",
        )


# --- Shapes -----------------------------------------------------------------------------------------------------------


def shape_findings(config: Config, size: tuple[int, int] | None = None) -> list[Finding]:
    """What a model that can be built says of shapes, and of the size of its batch, when it trains.

    Args:
        config: Of the model.
        size: Height and width of its images where they are known better than the config says.
    """
    wanted = copy.deepcopy(config.model)
    wanted.setdefault("data_preprocessor", copy.deepcopy(config.get("data_preprocessor")))
    with DefaultScope.overwrite_default_scope(config.get("default_scope")), _without_warnings():
        return list(_misfits(wanted, config, size))


def _misfits(wanted: dict, config: Config, size: tuple[int, int] | None = None) -> Iterator[Finding]:
    """Run the model on meta, in training mode, and tell what PyTorch says about shapes."""
    size = size or _image_size(wanted, config)
    if size is None:
        return
    wanted = copy.deepcopy(wanted)
    synced = [part for _, part in dicts_in("model", wanted) if part.get("type") in ("SyncBN", "MMSyncBN")]
    for part in synced:
        part["type"] = "BN"
    joined = config.get("launcher", "none") != "none" and (synced or config.get("sync_bn"))  # over all processes
    batch = None if joined else (config.get("train_dataloader") or {}).get("batch_size")
    model = None
    try:
        model = _build(wanted).train()
        mean = (wanted.get("data_preprocessor") or {}).get("mean")
        channels = len(mean) if mean else (wanted.get("backbone") or {}).get("in_channels", 3)
        maps: list[Any] = []
        last = model.neck if getattr(model, "with_neck", False) else getattr(model, "backbone", nn.Identity())
        last.register_forward_hook(lambda module, inputs, outputs: maps.append(outputs))
        with Observed():
            for _ in run_parts(model, torch.empty(1 if batch == 1 else 2, channels, *size, device="meta")):
                pass
        if config.get("default_scope") == "mmdet" and maps:
            yield from _stride_findings(model, maps[-1], size)
    except Exception as error:  # most are of meta alone, or of models that run in other ways
        text = " ".join(str(error).split())
        if model is not None and (_SHAPES.search(text) or _ONE_VALUE in text):
            yield _shape_finding(model, wanted, error, text)


def _stride_findings(model: BaseModel, maps: Sequence[Tensor], size: tuple[int, int]) -> Iterator[Finding]:
    """Strides by which heads place anchors, points and regions, beside those of the maps that they are given.

    Nothing fails where they differ: boxes are looked for in other places than the map shows.
    """
    for key, strides in _stated_strides(model):
        pairs = list(zip(strides, maps, strict=False))  # a second stage takes the first of the maps
        if any(_differ(size, each, level.shape[-2:]) for each, level in pairs):
            stated = [down for _, down in strides]
            real = [round(size[0] / level.shape[-2]) for _, level in pairs]
            yield Finding(f"model.{key}={stated}", f"its maps have the strides {real}. Give it these, or other maps")


def _stated_strides(model: BaseModel) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Keys, and for each map the strides to the right and down."""
    for name in ("rpn_head", "bbox_head"):
        head = getattr(model, name, None)
        for key in ("anchor_generator", "prior_generator"):
            strides = getattr(getattr(head, key, None), "strides", None)
            if strides:
                yield f"{name}.{key}.strides", [(each, each) if isinstance(each, int) else each for each in strides]
                break
    for name in ("bbox_roi_extractor", "mask_roi_extractor"):
        extractor = getattr(getattr(model, "roi_head", None), name, None)
        first = extractor[0] if isinstance(extractor, nn.ModuleList) and len(extractor) else extractor
        strides = getattr(first, "featmap_strides", None)
        if strides:
            yield f"roi_head.{name}.featmap_strides", [(each, each) for each in strides]


def _differ(size: tuple[int, int], strides: tuple[int, int], shape: Sequence[int]) -> bool:
    """By about a factor of two, along an axis; convolutions without padding make maps a little smaller."""
    axes = zip(size, reversed(strides), shape, strict=True)
    cells = [(length / stride, there) for length, stride, there in axes]
    return any(abs(wanted - there) > 1 and not 0.6 < wanted / there < 1.7 for wanted, there in cells)


def _shape_finding(model: BaseModel, wanted: dict, error: Exception, text: str) -> Finding:
    top, _, inside = failing_module(model, error).partition(".")
    part = wanted.get(top)
    kind = (part if isinstance(part, dict) else wanted).get("type")
    where = f"{kind}, at {inside}" if inside else kind
    if _ONE_VALUE in text:
        return Finding(
            "train_dataloader.batch_size=1",
            f"model.{top} ({where}) has batch norm over maps of one pixel, which cannot train on one image. Take 2 or "
            "more, or give that part norm_cfg=dict(type='GN', num_groups=32)",
        )
    return Finding(f"model.{top}" if top else "model", f"{where} does not fit what it is given: {text}")


def _image_size(model: dict, config: Config) -> tuple[int, int] | None:
    """Height and width that a model is trained with, as the config says; any for detectors; None where none is said."""
    scope = config.get("default_scope")
    size = (model.get("data_preprocessor") or {}).get("size")
    if scope == "mmdet" and "head" not in model:
        return 256, 352
    if scope in ("mmpretrain", "mmdet"):  # classifiers: also mmdet's, that tell people apart
        pipeline = [step for _, step in _pipelines(config, "train")]
        sizes = [step.get("crop_size") or step.get("scale") for step in pipeline if "Flip" not in str(step.get("type"))]
        size = next((one for one in reversed(sizes) if one), None)
    size = (size, size) if isinstance(size, int) else size
    fits = isinstance(size, list | tuple) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)
    return tuple(size) if fits else None  # type: ignore[arg-type]


# --- Data sets --------------------------------------------------------------------------------------------------------


def _dataset_findings(config: Config, split: str) -> Iterator[Finding]:
    loader = config.get(f"{split}_dataloader")
    if not loader:
        return
    for key, dataset in datasets_in(f"{split}_dataloader.dataset", loader["dataset"]):
        kind = class_of(dataset, DATASETS)
        if kind is None:
            yield unknown_type(key, dataset, DATASETS)
        else:
            yield from argument_findings(key, dataset, kind)
    for key, step in _pipelines(config, split):
        yield from built_findings(key, step, TRANSFORMS)


def _pipelines(config: Config, split: str) -> Iterator[tuple[str, dict]]:
    """Each step of each pipeline of a split, with its key."""
    loader = config.get(f"{split}_dataloader") or {}
    for key, dataset in datasets_in(f"{split}_dataloader.dataset", loader.get("dataset") or {}):
        for index, step in enumerate(dataset.get("pipeline") or ()):
            yield f"{key}.pipeline.{index}", step


def _moved(finding: Finding, old: str, new: str) -> Finding:
    return Finding(finding.kind.replace(old, new, 1), finding.message)
