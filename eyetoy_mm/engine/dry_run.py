"""Configs run from end to end in a minute each, small, on the embedded photos."""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import math
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.config_checks import check_config
from eyetoy_mm.engine.data_checks import check_data
from eyetoy_mm.engine.inference import open_predictor
from eyetoy_mm.engine.photo_rules import guard_images
from eyetoy_mm.engine.runner import CheckedRunner
from eyetoy_mm.engine.sample_annotations import write_instances, write_panoptic
from eyetoy_mm.engine.segmentation_checks import labels_of_head
from eyetoy_mm.errors import UserError
from eyetoy_mm.paths import package_file
from eyetoy_mm.registry import type_name
from eyetoy_mm.tables import markdown_table

CONFIGS = package_file("configs")
SAMPLE = package_file("data/sample")
STAGES = ("parses", "builds", "steps", "trains", "evaluates", "infers")
# The factor that makes images small: 512 becomes 64 in mmseg, 1333 x 800 becomes 200 x 120 in mmdet, 224 becomes 64.
SHRINK = {"mmseg": 1 / 8, "mmdet": 3 / 20, "mmpretrain": 2 / 7}
_LARGEST_LABEL = 7  # in the sample's masks
SIZES = ("scale", "scales", "crop_size", "stride", "size")  # keys with numbers of pixels


def all_configs() -> list[Path]:
    """Every config of the package that is not a part of others."""
    return sorted(path for path in CONFIGS.rglob("*.py") if "_base_" not in path.parts)


def shrink(config: Config) -> None:
    """Change a config in place to two iterations with two small images; the model stays as it is."""
    factor = SHRINK[config.default_scope]
    first = config.train_dataloader.dataset.pipeline[0]
    if config.default_scope == "mmpretrain" and type_name(first) != "LoadImageFromFile":
        factor = 1.0  # small images already
    for key in ("data_preprocessor", "test_cfg"):
        _scale_sizes(config.model.get(key), factor)
    for augment in (config.model.get("data_preprocessor") or {}).get("batch_augments") or ():
        if "size" in augment:  # of batches that are padded to multiples of 32 already
            augment.size = tuple(math.ceil(side / 32) * 32 for side in augment.size)
    without_downloads(config)
    for split in ("train", "val", "test"):
        loader = config[f"{split}_dataloader"]
        loader.update(batch_size=2, num_workers=0, persistent_workers=False, dataset=_innermost(loader.dataset))
        if split == "train":
            loader.sampler = dict(type="InfiniteSampler", shuffle=True)
        loader.dataset.indices = 2
        _scale_sizes(loader.dataset.pipeline, factor)
    config.val_dataloader.batch_size = config.test_dataloader.batch_size = 1  # sizes differ
    few_proposals(config)
    config.train_cfg = dict(type="IterBasedTrainLoop", max_iters=2, val_interval=2)
    config.param_scheduler = None
    config.log_processor = dict(by_epoch=False)
    config.default_hooks.logger.interval = 1
    config.default_hooks.checkpoint = dict(type="CheckpointHook", by_epoch=False, interval=2, save_optimizer=False)
    config.randomness = dict(seed=0)


def without_downloads(config: Config) -> None:
    """Leave out weights that would have to be downloaded first, in place."""
    init = config.model.get("backbone", {}).get("init_cfg") or {}
    if "://" in init.get("checkpoint", ""):
        config.model.backbone.init_cfg = None


def _innermost(dataset: dict) -> dict:
    while "dataset" in dataset:  # out of RepeatDataset and the like
        dataset = dataset["dataset"]
    return dataset


def _scale_sizes(node: Any, factor: float, key: str | None = None) -> Any:
    """Multiply every size below ``node``, in place where it is a dict or a list; 32 pixels is the smallest."""
    if isinstance(node, dict):
        for name, value in node.items():
            scaled = _scale_sizes(value, factor, name)
            if scaled is not value:  # a class of a pure Python config, written back, could not be dumped
                node[name] = scaled
    elif isinstance(node, list | tuple):
        node = type(node)(_scale_sizes(value, factor, key) for value in node)
    elif key in SIZES and isinstance(node, int) and node > 32:
        node = max(32, round(node * factor))
    return node


def few_proposals(config: Config) -> None:
    """Let detectors work on few proposals, and find something untrained, in place: small images need no more."""
    for settings in (config.model, config.model.get("decode_head") or {}):
        pending = [settings.get("train_cfg"), settings.get("test_cfg")]
        while pending:
            settings = pending.pop()
            if isinstance(settings, list):  # one of each head of a cascade
                pending.extend(settings)
            elif isinstance(settings, dict):
                pending.extend(settings.values())
                few = dict(nms_pre=50, max_per_img=20, max_per_image=20, score_thr=0.0, num=32, num_points=1024)
                settings.update({name: value for name, value in few.items() if name in settings})


def few_queries(config: Config) -> bool:
    """Let detectors that take the best positions of their maps for queries do with those of small images, in place.

    Returns:
        Whether the config has changed: its model has fewer parameters then.
    """
    if not config.model.get("as_two_stage"):
        return False
    config.model.num_queries = min(config.model.num_queries, 50)
    return True


def use_sample(config: Config, scratch: Path) -> None:
    """Let a config's datasets read the sample, in place.

    Args:
        config: A config of mmseg, mmdet or mmpretrain, as :func:`shrink` leaves it.
        scratch: Folder for the lists of photos that classifiers read.
    """
    for split, short, folder in (("train", "train", "training"), *((s, "val", "validation") for s in ("val", "test"))):
        dataset = config[f"{split}_dataloader"].dataset
        if config.default_scope == "mmseg":
            masks = _masks(config, dataset, folder, scratch)
            prefix = dict(img_path=f"images/{folder}", seg_map_path=str(masks))
            names = scratch / f"{short}.txt"
            names.write_text("".join(f"{path.stem}\n" for path in sorted((SAMPLE / "images" / folder).glob("*.jpg"))))
            dataset.update(data_root=str(SAMPLE), data_prefix=prefix, ann_file=str(names))
            suffixes = dict(img_suffix=".jpg", seg_map_suffix=".png")  # some classes have these for good
            taken = inspect.signature(_dataset_class(config.default_scope, dataset)).parameters
            dataset.update({name: suffix for name, suffix in suffixes.items() if name in taken})
        elif config.default_scope == "mmdet":
            instances, panoptic = _annotations(config, dataset, short, scratch)
            prefix = dict(img=f"images/{folder}") | ({"seg": str(panoptic.with_suffix(""))} if panoptic else {})
            dataset.update(data_root=str(SAMPLE), ann_file=str(panoptic or instances))
            dataset.data_prefix = prefix  # not merged with the config's
            if split != "train":
                _evaluate_on(config, split, instances, panoptic)
        else:
            lines, num_classes = scratch / f"{short}.txt", config.model.head.num_classes
            labels = [(name, label % num_classes) for name, label in photos_by_largest_object(folder)]
            lines.write_text("".join(f"{name} {label}\n" for name, label in labels))
            pipeline = dataset.pipeline
            if type_name(pipeline[0]) != "LoadImageFromFile":
                pipeline = [dict(type="LoadImageFromFile"), dict(type="Resize", scale=(32, 32)), *pipeline]
            config[f"{split}_dataloader"].dataset = dict(
                type="CustomDataset",
                data_root=str(SAMPLE),
                data_prefix=f"images/{folder}",
                ann_file=str(lines),
                classes=[str(label) for label in range(num_classes)],
                indices=2,
                pipeline=pipeline,
            )


def _masks(config: Config, dataset: dict, folder: str, scratch: Path) -> Path:
    """The sample's masks, of no more labels than the model tells apart."""
    source, (classes, _) = SAMPLE / "annotations" / folder, labels_of_head(config)
    numbers = (classes or 256) + bool(dataset.get("reduce_zero_label"))  # those that a mask may hold
    if numbers > _LARGEST_LABEL:
        return source
    target = scratch / f"masks_{folder}"
    target.mkdir(exist_ok=True)
    for path in source.glob("*.png"):
        mmcv.imwrite(mmcv.imread(str(path), flag="unchanged") % numbers, str(target / path.name))
    return target


def _annotations(config: Config, dataset: dict, short: str, scratch: Path) -> tuple[Path, Path | None]:
    """The sample's instances under the classes of a dataset of mmdet, and panoptic annotations if it takes them."""
    meta = _dataset_class(config.default_scope, dataset).METAINFO | (dataset.get("metainfo") or {})
    things = meta.get("thing_classes", meta["classes"])
    instances = write_instances(SAMPLE / f"annotations/instances_{short}.json", things, scratch / f"{short}.json")
    if "stuff_classes" not in meta:
        return instances, None
    panoptic = scratch / f"panoptic_{short}.json"
    write_panoptic(instances, meta["stuff_classes"][0], meta["classes"], panoptic)
    return instances, panoptic


def _dataset_class(scope: str, dataset: dict) -> Any:
    kind = dataset["type"]
    return importlib.import_module(f"{scope}.registry").DATASETS.get(kind) if isinstance(kind, str) else kind


def _evaluate_on(config: Config, split: str, instances: Path, panoptic: Path | None) -> None:
    """Let the metrics of mmdet that read an annotation file read these, in place; others, of files of a dataset, go."""
    given = config[f"{split}_evaluator"]
    metrics = [metric for metric in (given if isinstance(given, list) else [given]) if "ann_file" in metric]
    for metric in metrics:
        metric.ann_file = str(instances)
        if "seg_prefix" in metric and panoptic:
            metric.update(ann_file=str(panoptic), seg_prefix=str(panoptic.with_suffix("")))
    config[f"{split}_evaluator"] = metrics


def photos_by_largest_object(folder: str) -> Iterator[tuple[str, int]]:
    """File name of each photo of the sample, and which of the six kinds of objects covers most of it."""
    for path in sorted((SAMPLE / "annotations" / folder).glob("*.png")):
        counts = np.bincount(mmcv.imread(str(path), flag="unchanged").ravel(), minlength=8)
        yield f"{path.stem}.jpg", int(counts[2:8].argmax())  # 0 is ignored, 1 is background


def build(config: Config) -> BaseModel:
    """The model of a config, initialised as before training."""
    init_default_scope(config.default_scope)
    config.model.setdefault("data_preprocessor", config.get("data_preprocessor"))  # as the Runner does
    model = MODELS.build(copy.deepcopy(config.model))  # DETRs write into it, and refuse it the next time
    model.init_weights()
    return model


def step(model: BaseModel, batch: dict) -> float:
    """One forward and backward pass in training mode.

    Args:
        model: A model of the toolboxes.
        batch: A batch as their data loaders give it.

    Returns:
        The loss.

    Raises:
        UserError: The loss is not finite, or a parameter has no finite gradient.
    """
    losses = model.train()(**model.data_preprocessor(batch, True), mode="loss")
    loss, _ = model.parse_losses(losses)
    model.zero_grad()
    loss.backward()
    bad = [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not torch.isfinite(parameter.grad).all())
    ]
    if bad or not torch.isfinite(loss):
        raise UserError(f"loss {loss.item()}; {len(bad)} parameters without a finite gradient ({', '.join(bad[:3])})")
    return loss.item()


def describe(sample: BaseDataElement) -> str:
    """What a prediction holds."""
    if "pred_panoptic_seg" in sample:
        return "{} x {} segments".format(*sample.pred_panoptic_seg.sem_seg.shape[-2:])
    if "pred_sem_seg" in sample:
        return "{} x {} labels".format(*sample.pred_sem_seg.shape)
    if "pred_instances" in sample:
        instances = sample.pred_instances
        return f"{len(instances)} {'masks' if 'masks' in instances else 'boxes'}"
    return f"class {sample.pred_label.item()}"


def stages(path: Path, own_data: bool, scratch: Path) -> Iterator[str]:
    """Run one config; yields a cell for each of :data:`STAGES` as it gets there."""
    config = load_config(path, work_dir=str(scratch / "work"))
    check_config(config, "train", "val")
    shrink(config)
    if not own_data:
        use_sample(config, scratch)
    check_data(config, "train", "val")
    yield "yes"
    model = build(config)
    yield f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f} M"
    if few_queries(config):
        model = build(config)
    yield f"{step(model, next(iter(Runner.build_dataloader(config.train_dataloader)))):.2f}"
    del model  # and its gradients: the runner has a model of its own
    guard_images(config)
    runner = CheckedRunner.from_cfg(config)
    runner.train()
    loss = runner.message_hub.get_scalar("train/loss").current()
    if not math.isfinite(loss):
        raise UserError(f"the loss is {loss} after two iterations")
    yield f"{loss:.2f}"
    name, value = next(iter(runner.val_loop.run().items()))
    yield f"{name.rsplit('/', 1)[-1]} {value:.3g}"
    predictor = open_predictor(config, str(Path(config.work_dir) / "iter_2.pth"), device="cpu")
    yield describe(predictor.predict(predictor.read(next((SAMPLE / "images" / "validation").glob("*.jpg")))))


def dry_run(path: Path, own_data: bool = False) -> tuple[list[str], str]:
    """Cells of a config, as far as it got, and the error that ended it, if any."""
    cells: list[str] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, open(Path(scratch) / "log", "w") as log:
        try:
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                cells.extend(stages(path, own_data, Path(scratch)))
        except Exception as error:  # whatever it is, it is the answer
            return cells, str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    print(f"{path.stem}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return cells, ""


def dry_run_apart(path: Path, own_data: bool = False) -> tuple[list[str], str]:
    """:func:`dry_run` in a process of its own: the toolboxes keep visualizers and message hubs for good.

    Where it can, it is forked from one that has imported the toolboxes and done nothing else.
    """
    if "forkserver" in multiprocessing.get_all_start_methods():
        context: BaseContext = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__, "mmdet.apis", "mmseg.apis", "mmpretrain.apis"])
    else:
        context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(dry_run, (path, own_data))


def dry_run_table(paths: Iterable[Path], own_data: bool = False) -> tuple[str, list[str]]:
    """Run one config after the other.

    Returns:
        A markdown table with a row for each, and a message for each that did not get through.
    """
    rows, failed = [], []
    for path in paths:
        path = path.resolve()
        cells, error = dry_run_apart(path, own_data)
        name = path.relative_to(CONFIGS) if path.is_relative_to(CONFIGS) else path
        rows.append([f"`{name}`", *cells, *["-"] * (len(STAGES) - len(cells))])
        if error:
            failed.append(f"{name} stops where it {STAGES[len(cells)]}: {error}")
    return markdown_table(["config", *STAGES], rows), failed
