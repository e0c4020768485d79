"""The config that `eyetoy init` writes: short, with what is of the data and the machine; the rest is in its bases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from eyetoy_mm.engine.recipes import Recipe

_BASE = "eyetoy_mm::_base_"


@dataclass(frozen=True)
class Source:
    """Where the data of a part are, as the toolboxes' datasets take it.

    Args:
        ann_file: A COCO file or a list, from the folder of the data; empty where folders are listed.
        folders: Of images, and of masks if there are any, from the folder of the data.
    """

    ann_file: str
    folders: tuple[str, ...]


@dataclass(frozen=True)
class Data:
    """What a config says of the data.

    Args:
        root: The folder.
        classes: Their names.
        sources: Where ``train``, ``val`` and, if there is one, ``test`` are.
        suffixes: Of images and masks, of segmentation.
        ignores_zero: Whether 0 in masks is ignored, and 1 the first class.
    """

    root: Path
    classes: Sequence[str]
    sources: dict[str, Source]
    suffixes: tuple[str, str] = ("", "")
    ignores_zero: bool = False


def write_config(task: str, data: Data, recipe: Recipe, command: str) -> str:
    """The text of a config.

    Args:
        task: ``classification``, ``segmentation``, ``instances`` or ``detection``.
        data: What it is of.
        recipe: How it is trained.
        command: What wrote it, for its first line.
    """
    body = {"classification": _classification, "segmentation": _segmentation}.get(task, _detection)
    written = " ".join(f"{task.capitalize()} of {data.root.name}, written by `{command}`".split())
    return f"# {written}. A config like any other: change what you like.\n{body(task, data, recipe)}{_schedule(recipe)}"


def _bases(*names: str) -> str:
    listed = "".join(f'    "{_BASE}/{name}.py",\n' for name in names)
    return f"_base_ = [\n{listed}]\n"


def _classes(data: Data) -> str:
    lines = [""]
    for name in data.classes:
        item = f"{_quoted(name)}, "
        if len(lines[-1]) + len(item) > 112:
            lines.append("")
        lines[-1] += item
    inside = [line.rstrip() for line in lines]
    return "classes = (" + (inside[0] if len(inside) == 1 else "\n    " + "\n    ".join(inside) + "\n") + ")\n"


def _quoted(text: object) -> str:
    """A string in double quotes."""
    return json.dumps(str(text), ensure_ascii=False)  # what JSON escapes, Python does alike


def _split_of(data: Data, split: str) -> Source:
    return data.sources.get(split, data.sources["val"])


def _loader(split: str, recipe: Recipe, dataset: str, batch: int) -> str:
    workers = f"num_workers={recipe.workers}, persistent_workers={recipe.workers > 0}"
    drop = ", drop_last=True" if split == "train" and batch > 1 else ""
    return f"{split}_dataloader = dict(\n    batch_size={batch}, {workers}{drop},\n    dataset={dataset},\n)\n"


def _loaders(data: Data, recipe: Recipe, dataset: dict[str, str], batch: int) -> str:
    text = _loader("train", recipe, dataset["train"], recipe.batch) + _loader("val", recipe, dataset["val"], batch)
    if "test" in data.sources:
        return text + _loader("test", recipe, dataset["test"], batch)
    return text + "test_dataloader = val_dataloader\n"


def _datasets(data: Data, places: str, pipelines: dict[str, str]) -> dict[str, str]:
    """The dataset of each part; ``places`` has fields for its ann_file and folders."""
    texts = {}
    for split in ("train", "val", "test"):
        source = _split_of(data, split)
        folders = [_quoted(folder) for folder in (*source.folders, "")]
        where = places.format(ann_file=_quoted(source.ann_file), first=folders[0], second=folders[1])
        texts[split] = f"dict(dataset, {where}, pipeline={pipelines['train' if split == 'train' else 'test']})"
    return texts


# --- A config of each toolbox -----------------------------------------------------------------------------------------

_PIPELINES = dict(train="train_pipeline", test="test_pipeline")


def _classification(task: str, data: Data, recipe: Recipe) -> str:
    kind = "classifier_eyetoy" if recipe.model == "tiny" else "classifier_eyetoy-shallow"
    stem = "" if recipe.model == "tiny" else f"backbone=dict(arch=dict(stem_stride={1 if recipe.crop <= 40 else 2})), "
    topk = "(1, 5)" if len(data.classes) > 5 else "(1,)"
    crop, edge = recipe.crop, round(recipe.crop * 8 / 7)
    dataset = f'dict(type="eyetoy_mm.ClassFolders", data_root={_quoted(data.root)}, classes=classes)'
    parts = _datasets(data, "data_prefix={first}, ann_file={ann_file}", _PIPELINES)
    return f"""\
{_bases(f"models/{kind}", "own_data/classification")}
{_classes(data)}
model = dict({stem}head=dict(num_classes=len(classes)))
data_preprocessor = dict(num_classes=len(classes))
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="RandomResizedCrop", scale={crop}, crop_ratio_range=(0.25, 1.0)),
    dict(type="RandomFlip", prob=0.5, direction="horizontal"),
    dict(type="PackInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="ResizeEdge", scale={edge}, edge="short"),
    dict(type="CenterCrop", crop_size={crop}),
    dict(type="PackInputs"),
]
dataset = {dataset}
{_loaders(data, recipe, parts, recipe.batch)}\
val_evaluator = dict(topk={topk})
test_evaluator = val_evaluator
"""


def _segmentation(task: str, data: Data, recipe: Recipe) -> str:
    crop, classes = recipe.crop, "num_classes=len(classes)"
    if recipe.model == "tiny":
        model, heads = "upernet_eyetoy", f"    decode_head=dict({classes}),\n    auxiliary_head=dict({classes}),\n"
    else:
        model, heads = (
            "segformer-head_eyetoy",
            f"    decode_head=dict({classes}),\n    backbone=dict(arch=dict(stem_stride=4)),\n",
        )
    places = "data_prefix=dict(img_path={first}, seg_map_path={second}), ann_file={ann_file}"
    return f"""\
{_bases(f"models/{model}", "own_data/segmentation")}
{_classes(data)}
model = dict(
    data_preprocessor=dict(size=({crop}, {crop})),
{heads})
train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale={recipe.scale}, ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type="RandomCrop", crop_size=({crop}, {crop}), cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale={recipe.scale}, keep_ratio=True),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
dataset = dict(
    type="BaseSegDataset",
    data_root={_quoted(data.root)},
    img_suffix={_quoted(data.suffixes[0])},
    seg_map_suffix={_quoted(data.suffixes[1])},
    reduce_zero_label={data.ignores_zero},  # True: 0 in the masks is ignored, 1 is the first class
    metainfo=dict(classes=classes),
)
{_loaders(data, recipe, _datasets(data, places, _PIPELINES), 1)}"""


def _detection(task: str, data: Data, recipe: Recipe) -> str:
    masks = task == "instances"
    model = "mask-rcnn_eyetoy" if recipe.model == "tiny" else "mask-rcnn_eyetoy-demo"
    heads = "bbox_head=dict(num_classes=len(classes))"
    if masks:
        text = f"model = dict(roi_head=dict({heads}, mask_head=dict(num_classes=len(classes))))\n"
    else:  # Mask R-CNN without its masks is Faster R-CNN
        text = f"""\
model = dict(
    type="FasterRCNN",
    data_preprocessor=dict(pad_mask=False),
    roi_head=dict({heads}, mask_roi_extractor=None, mask_head=None),
)
"""
    load = f'dict(type="LoadAnnotations", with_bbox=True{", with_mask=True" * masks})'
    metric = '["bbox", "segm"]' if masks else '"bbox"'
    places = "ann_file={ann_file}, data_prefix=dict(img={first})"
    parts = _datasets(data, places, _PIPELINES)
    evaluators = "".join(
        f"{split}_evaluator = dict(ann_file={_quoted(data.root / _split_of(data, split).ann_file)}, metric={metric})\n"
        for split in ("val", "test")
    )
    return f"""\
{_bases(f"models/{model}", "own_data/detection")}
{_classes(data)}
{text}\
train_pipeline = [
    dict(type="LoadImageFromFile"),
    {load},
    dict(type="RandomResize", scale={recipe.scale}, ratio_range=(0.8, 1.25), keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale={recipe.scale}, keep_ratio=True),
    {load},
    dict(type="PackDetInputs", meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")),
]
dataset = dict(type="CocoDataset", data_root={_quoted(data.root)}, metainfo=dict(classes=classes))
{_loaders(data, recipe, parts, 1)}{evaluators}"""


def _schedule(recipe: Recipe) -> str:
    kind = "AmpOptimWrapper" if recipe.amp else "OptimWrapper"
    return f"""\
train_cfg = dict(max_epochs={recipe.epochs}, val_interval={recipe.interval})
optim_wrapper = dict(type="{kind}", optimizer=dict(lr={recipe.lr:g}))
default_hooks = dict(checkpoint=dict(interval={recipe.interval}))
"""
