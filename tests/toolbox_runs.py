"""A tiny model of each toolbox on the embedded photos: what the command line is tried with, a second or two a run."""

from __future__ import annotations

import ast
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine import registry as registries
from mmengine.config import config as config_module
from mmengine.registry import Registry, init_default_scope
from mmengine.utils import ManagerMixin

import eyetoy_mm  # noqa: F401 - before the toolboxes: supplies what mmcv-lite lacks
from eyetoy_mm.engine.config import load_config
from eyetoy_mm.engine.dry_run import build

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "data/sample"
PHOTOS = sorted((SAMPLE / "images/validation").glob("*.jpg"))
PACK = {"mmseg": "PackSegInputs", "mmdet": "PackDetInputs", "mmpretrain": "PackInputs"}
TOOLBOXES = tuple(PACK)
CLASSES = {"mmseg": 7, "mmdet": 80, "mmpretrain": 2}

_DATA = """
load = dict(type="LoadImageFromFile")
resize = dict(type="Resize", scale=(96, 64))
test_pipeline = [load, resize, annotations, pack]
loader = dict(batch_size=2, num_workers=0, persistent_workers=False)
train_dataloader = dict(
    **loader, sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(**train_data, indices=2, pipeline=[load, annotations, resize, pack]))
val_dataloader = dict(
    **loader, sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(**val_data, indices=2, pipeline=test_pipeline))
test_dataloader = val_dataloader
test_evaluator = val_evaluator
tta_pipeline = [load, dict(type="TestTimeAug", transforms=[
    [resize], [dict(type="RandomFlip", prob=0.0), dict(type="RandomFlip", prob=1.0)], [annotations], [flip_pack]])]
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=1e-3))
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=1, val_interval=1)
default_hooks = dict(logger=dict(type="LoggerHook", interval=1), checkpoint=dict(type="CheckpointHook", interval=1))
auto_scale_lr = dict(base_batch_size=16)
randomness = dict(seed=0)
"""
CONFIGS = {
    "mmseg": f"""
_base_ = "{ROOT}/configs/_base_/mmseg_runtime.py"
num_classes = 7
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(type="SegDataPreProcessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
                           bgr_to_rgb=True, pad_val=0, seg_pad_val=255, size=(64, 96)),
    backbone=dict(type="eyetoy_mm.EyeToy", arch="demo", out_indices=(3,)),
    decode_head=dict(type="FCNHead", in_channels=192, in_index=0, channels=16, num_convs=1, num_classes=num_classes,
                     norm_cfg=dict(type="SyncBN")),
    test_cfg=dict(mode="whole"),
)
tta_model = dict(type="SegTTAModel")
annotations = dict(type="LoadAnnotations", reduce_zero_label=True)
pack = flip_pack = dict(type="PackSegInputs")
data = dict(type="BaseSegDataset", data_root="{SAMPLE}", reduce_zero_label=True,
            metainfo=dict(classes=[str(i) for i in range(7)], palette=[[30 * i, 0, 90] for i in range(7)]))
train_data = dict(**data, data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"))
val_data = dict(**data, data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"))
val_evaluator = dict(type="IoUMetric")
""",
    "mmdet": f"""
_base_ = ["{ROOT}/configs/_base_/models/mask-rcnn_eyetoy-demo.py", "{ROOT}/configs/_base_/mmdet_runtime.py"]
model = dict(
    type="FasterRCNN",
    roi_head=dict(mask_head=None, mask_roi_extractor=None),
    train_cfg=dict(rpn_proposal=dict(nms_pre=50, max_per_img=20), rcnn=dict(sampler=dict(num=16))),
    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=20), rcnn=dict(score_thr=0.0, max_per_img=5)),
)
tta_model = dict(type="DetTTAModel", tta_cfg=dict(nms=dict(type="nms", iou_threshold=0.5), max_per_img=5))
annotations = dict(type="LoadAnnotations", with_bbox=True)
keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
pack = dict(type="PackDetInputs", meta_keys=keys)
flip_pack = dict(type="PackDetInputs", meta_keys=(*keys, "flip", "flip_direction"))
data = dict(type="CocoDataset", data_root="{SAMPLE}")
train_data = dict(**data, ann_file="annotations/instances_train.json", data_prefix=dict(img="images/training"),
                  filter_cfg=dict(filter_empty_gt=True))
val_data = dict(**data, ann_file="annotations/instances_val.json", data_prefix=dict(img="images/validation"))
val_evaluator = dict(type="CocoMetric", ann_file="{SAMPLE}/annotations/instances_val.json", metric="bbox")
""",
    "mmpretrain": f"""
_base_ = "{ROOT}/configs/_base_/mmpretrain_runtime.py"
model = dict(
    type="ImageClassifier",
    backbone=dict(type="eyetoy_mm.EyeToy", arch="demo", out_indices=(3,), out_type="context_token"),
    head=dict(type="LinearClsHead", num_classes=2, in_channels=192),
)
data_preprocessor = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True, num_classes=2)
tta_model = dict(type="AverageClsScoreTTA")
annotations = dict(type="Resize", scale=(64, 48))  # there are none to load
pack = flip_pack = dict(type="PackInputs")
train_data = val_data = dict(
    type="CustomDataset", data_root="{SAMPLE}", data_prefix="images", with_label=True,
    metainfo=dict(classes=("training", "validation")))
val_evaluator = dict(type="Accuracy", topk=(1,))
""",
}


def write_config(folder: Path, toolbox: str, extra: str = "", name: str = "config") -> Path:
    """Write the config of a toolbox, changed by what follows it."""
    path = folder / f"{name}.py"
    path.write_text(CONFIGS[toolbox] + _DATA + extra)
    return path


def write_checkpoint(config: Path) -> Path:
    """Write an untrained model beside its config, as the training of one that names its classes leaves it."""
    loaded = load_config(config, work_dir=str(config.parent))
    classes = tuple(f"class {label}" for label in range(CLASSES[loaded.default_scope]))
    palette = [[(37 * label) % 256, 90, 200] for label in range(len(classes))]
    torch.manual_seed(0)
    with own_mmengine():
        state = build(loaded).state_dict()
    checkpoint = config.with_suffix(".pth")
    torch.save({"state_dict": state, "meta": {"dataset_meta": dict(classes=classes, palette=palette)}}, checkpoint)
    return checkpoint


def write_pure_python(config: Path) -> Path:
    """Write a config again as mmengine's pure Python ones: classes for names, and a base that is imported."""
    loaded = load_config(config)
    with own_mmengine():
        init_default_scope(loaded.default_scope)
        classes: set[type] = set()
        skipped = ("custom_imports", "launcher", "work_dir")  # not allowed there, or given by the command line
        lines = [f"{key} = {_as_python(loaded[key], classes)}" for key in loaded if key not in skipped]
    imports = [f"from {cls.__module__} import {cls.__name__}" for cls in classes]
    (config.parent / "pure_base.py").write_text("\n".join([*sorted(imports), *lines]) + "\n")
    pure = config.with_name("pure.py")
    pure.write_text(
        "from mmengine.config import read_base\nwith read_base():\n    from .pure_base import *\n"
        "train_dataloader.update(batch_size=1)\n"
    )
    return pure


def _as_python(node: Any, classes: set[type]) -> str:
    if isinstance(node, dict):
        items = ", ".join(
            f"{key!r}: {_class_name(value, classes) if key == 'type' else _as_python(value, classes)}"
            for key, value in node.items()
            if key != "_scope_"
        )
        return f"{{{items}}}"
    if isinstance(node, list | tuple):
        items = "".join(f"{_as_python(value, classes)}, " for value in node)
        return f"[{items}]" if isinstance(node, list) else f"({items})"
    return repr(node)


def _class_name(name: str, classes: set[type]) -> str:
    """The name of a class that is then imported; a text where no registry has the class."""
    kinds = []
    for root in vars(registries).values():
        if isinstance(root, Registry):
            with root.switch_scope_and_registry(None) as registry:
                kinds.append(registry.get(name))
    cls = next((kind for kind in kinds if isinstance(kind, type)), None)
    if cls is None:
        return repr(name)
    classes.add(cls)
    return cls.__name__


def _unformatted(text: str, **style: object) -> tuple[str, bool]:
    ast.parse(text)
    return text, False


def _managed() -> list[Any]:
    """The classes of which mmengine keeps instances by name."""
    kinds, pending = [], [ManagerMixin]
    while pending:
        subclasses = pending.pop().__subclasses__()
        pending.extend(subclasses)
        kinds.extend(subclasses)
    return kinds


@contextlib.contextmanager
def own_mmengine() -> Iterator[None]:
    """What mmengine keeps for a process (scopes, loggers, hubs, visualizers) is empty, and as before afterwards.

    A visualizer of the same name would be taken for the run's own, and write into the folder of another.
    """
    before = {kind: dict(kind._instance_dict) for kind in _managed()}
    for kind in before:
        kind._instance_dict.clear()
    rank = os.environ.get("LOCAL_RANK")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(config_module, "FormatCode", _unformatted)  # yapf takes seconds to lay a config out
            yield
    finally:
        for kind in _managed():  # those too that the toolboxes brought in the meantime
            kind._instance_dict.clear()
            kind._instance_dict.update(before.get(kind, {}))
        if rank is None:
            os.environ.pop("LOCAL_RANK", None)
